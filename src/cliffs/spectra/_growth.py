"""Can gradients explode? What the recurrent matrix alone says, and the paper's lower bound along a trajectory."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Real

from cliffs.recurrent import spectral_radius
from cliffs.spectra import _scaled_products

MAX_SLOPE = {"tanh": 1.0, "logistic": 0.25, "relu": 1.0, "identity": 1.0}


class GrowthReport(NamedTuple):
    """What a recurrent matrix alone says about growth. `A = max |act'| W` throughout."""

    largest_singular_value: Float[Array, ""]
    """Of A. Below 1 gradients cannot explode: that it exceeds 1 is the correct necessary condition."""
    spectral_radius: Float[Array, ""]
    """Of A: the condition in the first version of the paper, which bounds only the asymptotic rate of a linear
    network."""
    peak_power_norm: Float[Array, ""]
    """`max_k ||A^k||_2` over the powers looked at: transient growth of a non-normal matrix; inf on overflow."""
    peak_power: Int[Array, ""]
    """The k where it is reached."""
    power_norms: Float[Array, " powers"]
    """`||A^k||_2` for k = 1 .. num_powers; inf on overflow."""
    log_power_norms: Float[Array, " powers"]
    """Their logarithms, finite for any k (-inf for a nilpotent matrix)."""
    numerical_abscissa: Float[Array, ""]
    """Largest eigenvalue of the symmetric part of A: the initial growth rate of `exp(t A)`."""
    numerical_radius: Float[Array, ""]
    """`max |v* A v|` over unit v, on 36 angles (at most 0.1 % too small): `||A^k|| <= 2 r^k` (Berger)."""
    can_explode: Bool[Array, ""]
    """The necessary condition: the largest singular value of A exceeds 1 (by more than rounding). True where the matrix
    has an entry that is not finite: nothing rules growth out."""
    radius_misleads: Bool[Array, ""]
    """The spectral radius is below 1, and yet some products grow: `peak_power_norm` says by how much."""


def growth_report(
    w_rec: Real[Array | np.ndarray, "n n"] | Sequence[Sequence[float]],
    activation: str = "identity",
    num_powers: int = 100,
) -> GrowthReport:
    """Can gradients explode? Singular value, spectral radius and transient growth of a recurrent matrix.

    **Arguments**

    - `w_rec`: `[n, n]`; either convention, a transpose changes nothing here. Nested lists will do.
    - `activation`: its name; its largest slope multiplies the matrix.
    - `num_powers`: how many powers to look at.

    **Returns** a `GrowthReport`; where an entry is NaN or inf its numbers are NaN and `can_explode` is True.

    **Raises** `ValueError` for another activation, a matrix that is not square, or `num_powers < 1`.

    Source: Pascanu, Mikolov & Bengio (ICML 2013), section 2.1 (singular value; arXiv v1 of 2012, section 2.2, says
    spectral radius); Trefethen & Embree (2005), Spectra and Pseudospectra, sections 14 to 17.

    >>> report = growth_report(jnp.array([[0.9, 5.0], [0.0, 0.9]]))
    >>> int(report.peak_power), round(float(report.peak_power_norm), 3), bool(report.spectral_radius < 1)
    (9, 19.379, True)
    >>> bool(report.can_explode), bool(report.radius_misleads)
    (True, True)
    """
    if activation not in MAX_SLOPE:
        raise ValueError(f"activation must be one of {sorted(MAX_SLOPE)}, got {activation!r}")
    if isinstance(w_rec, dict) or hasattr(w_rec, "_fields"):
        raise ValueError(f"w_rec must be one matrix, such as params.w_rec, got a {type(w_rec).__name__}")
    w_rec = jnp.asarray(w_rec)
    w_rec = w_rec.astype(jnp.result_type(w_rec, float))
    if w_rec.ndim != 2 or w_rec.shape[0] != w_rec.shape[1]:
        raise ValueError(f"w_rec must be square, got shape {w_rec.shape}")
    if num_powers < 1:
        raise ValueError(f"num_powers must be at least 1, got {num_powers}")
    return _report(MAX_SLOPE[activation] * w_rec, num_powers)


@functools.partial(jax.jit, static_argnames="num_powers")
def _report(matrix, num_powers):
    # What is not finite must not look safe: max and a comparison would drop a NaN.
    finite = jnp.isfinite(matrix).all()
    matrix = jnp.where(finite, matrix, 0)
    size = jnp.max(jnp.abs(matrix))
    size = jnp.where(size > 0, size, 1)
    unit = matrix / size

    def power(carry, _):
        current, log_scale = carry
        current = current @ unit
        largest = jnp.max(jnp.abs(current))
        safe = jnp.where(largest > 0, largest, 1)
        carry = current / safe, log_scale + jnp.log(safe) + jnp.log(size)
        return carry, carry[1] + _scaled_products.safe_log(jnp.linalg.norm(carry[0], 2))

    start = jnp.eye(matrix.shape[0], dtype=matrix.dtype), jnp.zeros((), matrix.dtype)
    logs = jax.lax.scan(power, start, length=num_powers)[1]
    norms = jnp.exp(logs)
    # The largest eigenvalue of the Hermitian part of every rotation of A: its maximum is the numerical radius.
    angles = jnp.linspace(0, jnp.pi, 37, dtype=matrix.dtype)[:-1]
    rotated = jnp.exp(1j * angles)[:, None, None] * unit
    hermitian = (rotated + rotated.conj().mT) / 2
    radius = jnp.max(jnp.abs(jnp.linalg.eigvalsh(hermitian)[:, jnp.array([0, -1])]))
    singular = jnp.linalg.norm(unit, 2) * size
    asymptotic = spectral_radius(unit) * size
    # An orthogonal matrix has norm 1 up to rounding, which is no growth.
    slack = 10 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps
    report = GrowthReport(
        singular,
        asymptotic,
        norms.max(),
        logs.argmax() + 1,
        norms,
        logs,
        jnp.linalg.eigvalsh((unit + unit.T) / 2)[-1] * size,
        radius * size,
        ~finite | (singular > 1 + slack),
        (asymptotic < 1) & (singular > 1 + slack),
    )
    return jax.tree.map(lambda v: jnp.where(finite, v, jnp.nan) if jnp.issubdtype(v.dtype, jnp.floating) else v, report)


class ExpansionBound(NamedTuple):
    """The terms of eq. 13. All logarithms in nats."""

    log_expansions: Float[Array, " steps"]
    """By how much each Jacobian stretches the direction; -inf where no alpha > 0 exists."""
    log_alpha: Float[Array, ""]
    """The least expansion outside P, `min {a_i : a_i > 1}`; 0 when every step is in P."""
    log_beta: Float[Array, ""]
    """The strongest contraction inside P, `min {a_i : a_i <= 1}`; 0 when P is empty."""
    num_contracting: Int[Array, ""]
    """|P|, the number of Jacobians that do not expand."""
    log_gamma: Float[Array, ""]
    """How strongly the parameter reaches the direction at step k, eq. 11."""
    log_loss_coefficient: Float[Array, ""]
    """|c_1|, the cost's gradient along the direction at step t, eq. 12."""
    log_bound: Float[Array, ""]
    """`log(gamma beta^|P| alpha^(l - |P|) |c_1|)` for l Jacobians."""
    log_measured: Float[Array, ""]
    """`log |g_k^T w|`, the temporal component itself along the parameter direction w, computed from the cost's side."""
    parameter_direction: Float[Array, " parameters"]
    """w of length 1: the shortest change of theta that moves `x_k` along the direction."""


def expansion_bound(
    jacobians: Float[Array, "steps n n"],
    loss_gradient: Float[Array, " n"],
    parameter_jacobian: Float[Array, "n parameters"] | None = None,
    direction: Float[Array, " n"] | None = None,
    *,
    transported: bool = True,
) -> ExpansionBound:
    """The paper's lower bound `|g_k^T w| >= gamma_k beta^|P| alpha^(l-|P|) |c_1|` on a temporal component (eq. 13).

    Eqs. 9 and 10 ask `|u^T J v| > alpha |u^T v|` for *all* u. Taking u orthogonal to `J v` shows that this holds only
    when `J v` is parallel to v: v must be an eigenvector of every Jacobian. `transported=False` is that literal reading
    (the expansion is -inf, the bound 0, at a step that turns v by more than rounding). By default v follows the
    trajectory, `v_{i+1} = J_i v_i / |J_i v_i|` with `a_i = |J_i v_i|`: eq. 13 then holds for any Jacobians, and the
    product of all a_i is the growth itself, so that the gap between bound and measurement is what is lost by taking the
    minimum over the steps.

    **Arguments**

    - `jacobians`: `[l, n, n]`, those of steps k+1 .. t.
    - `loss_gradient`: `dE_t/dx_t`, `[n]`.
    - `parameter_jacobian`: the direct derivative `d+x_k/dtheta`, `[n, parameters]`; the identity (a bias of the
      pre-activation form) when None.
    - `direction`: v at step k, normalised here; by default the one that the product stretches most. A direction of
      length 0 has no bound: under tracing it gives a `log_bound` and a `log_measured` of -inf.
    - `transported`: see above.

    **Returns** an `ExpansionBound`, in logarithms, so neither side overflows. The exponent is l - |P| with
    l = t - k; the paper writes t - |P|, which is its case k = 0.

    **Raises** `ValueError` for shapes that do not fit, and for a concrete `direction` of zeros.

    Source: Pascanu, Mikolov & Bengio (arXiv v1, 2012), eqs. 9 to 13.

    >>> bound = expansion_bound(jnp.broadcast_to(jnp.diag(jnp.array([1.5, 0.5])), (20, 2, 2)), jnp.array([2.0, 1.0]))
    >>> bool(bound.log_bound <= bound.log_measured + 1e-4), int(bound.num_contracting)
    (True, 0)
    """
    n = jacobians.shape[-1]
    if jacobians.ndim != 3 or jacobians.shape[1] != n or jacobians.shape[0] < 1:
        raise ValueError(f"jacobians must have shape [steps, n, n] with at least one step, got {jacobians.shape}")
    for name, value in (("loss_gradient", loss_gradient), ("direction", direction)):
        if value is not None and value.shape != (n,):
            raise ValueError(f"{name} must have shape ({n},), got {value.shape}")
    if direction is not None and not isinstance(direction, Tracer) and not bool(jnp.any(direction != 0)):
        raise ValueError("direction must not be all zeros")
    dtype = jacobians.dtype
    reach = jnp.eye(n, dtype=dtype) if parameter_jacobian is None else parameter_jacobian
    if reach.ndim != 2 or reach.shape[0] != n:
        raise ValueError(f"parameter_jacobian must have shape ({n}, parameters), got {reach.shape}")
    return _bound(jacobians, loss_gradient, reach, direction, transported)


@functools.partial(jax.jit, static_argnames="transported")
def _bound(jacobians, loss_gradient, reach, direction, transported):
    n, dtype = jacobians.shape[-1], jacobians.dtype

    def unit(v):
        log_norm, v = _scaled_products.unit_rows(v[None])
        return log_norm[0], v[0]

    v = unit(_leading_direction(jacobians) if direction is None else direction)[1]
    tolerance = n * jnp.sqrt(jnp.finfo(dtype).eps)

    def forward(v, jacobian):
        log_a, new = unit(jacobian @ v)
        if transported:
            return new, log_a
        parallel = jnp.linalg.norm(new - jnp.sign(new @ v) * v) <= tolerance
        return v, jnp.where(parallel, log_a, -jnp.inf)

    end, logs = jax.lax.scan(forward, v, jacobians)

    def backward(carry, jacobian):
        row, log_norm = carry
        term, row = unit(row @ jacobian)
        return (row, log_norm + term), None

    first_log, first = unit(loss_gradient)
    (row, log_norm), _ = jax.lax.scan(backward, (first, first_log), jacobians, reverse=True)
    # The shortest w with reach @ w = gamma v; a direction outside the range of reach has no gamma > 0.
    w = jnp.linalg.pinv(reach) @ v
    # A direction of length 0 has no gamma either.
    missed = (jnp.linalg.norm(reach @ w - v) > tolerance) | jnp.all(v == 0)
    log_w, w = unit(w)
    log_gamma = jnp.where(missed, -jnp.inf, -log_w)

    expands = logs > 0
    log_alpha = jnp.min(jnp.where(expands, logs, jnp.inf))
    log_alpha = jnp.where(jnp.any(expands), log_alpha, 0)
    log_beta = jnp.minimum(jnp.min(jnp.where(expands, 0, logs)), 0)
    count = jnp.sum(~expands)
    log_c = _scaled_products.safe_log(jnp.abs(first @ end)) + first_log
    exponent = jnp.where(count > 0, count * jnp.where(count > 0, log_beta, 0), 0)
    bound = log_gamma + exponent + (len(logs) - count) * log_alpha + log_c
    measured = log_norm + _scaled_products.safe_log(jnp.abs(row @ (reach @ w)))
    return ExpansionBound(logs, log_alpha, log_beta, count, log_gamma, log_c, bound, measured, w)


def _leading_direction(jacobians: Float[Array, "steps n n"]) -> Float[Array, " n"]:
    """The right singular vector of the product's largest singular value."""
    n = jacobians.shape[-1]
    frame = _scaled_products.generic_frame(n, n, jacobians.dtype)

    def step(carry, jacobian):
        q, graded = carry
        q, factor = jnp.linalg.qr(jacobian @ q)
        return (q, _scaled_products.multiply(jnp.triu(factor), graded)), None

    (_, graded), _ = jax.lax.scan(step, (frame, _scaled_products.start(frame.T)), jacobians)
    return _scaled_products.graded_svd(graded.log_scale, graded.rows)[1][0]
