"""What a recurrent matrix says about growth, and the paper's lower bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import untyped

from cliffs import recurrent
from cliffs.recurrent import OneUnitParams, one_unit_step
from cliffs.spectra import expansion_bound, growth_report, step_jacobians


def normal(seed, shape, dtype=None):
    """Standard normal numbers made on the host: nothing to compile."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def test_parity_reference_non_normal_example(x64, reference):
    """A spectral radius of 0.9 with a power of norm 19: the radius alone misleads."""
    want = reference["non_normal"]
    report = growth_report(jnp.array(want["W"]))
    assert float(report.spectral_radius) == pytest.approx(want["spectral_radius"], rel=1e-9)
    assert int(report.peak_power) == want["peak_k"]
    assert float(report.peak_power_norm) == pytest.approx(float(want["peak_norm"]), rel=1e-12)
    assert float(report.power_norms[78]) == pytest.approx(float(want["norm_at_79"]), rel=1e-10)
    assert float(report.largest_singular_value) > 1 > float(report.spectral_radius)
    assert bool(report.can_explode)
    assert bool(report.radius_misleads)
    # [[a, b], [0, a]]: the numerical range is a disc of radius b/2 around a.
    assert float(report.numerical_abscissa) == pytest.approx(0.9 + 2.5, rel=1e-12)
    assert float(report.numerical_radius) == pytest.approx(0.9 + 2.5, rel=1e-12)
    assert float(report.peak_power_norm) <= 2 * float(report.numerical_radius) ** want["peak_k"]


@pytest.mark.parametrize("scale", [3e20, 1e-30, 0.0])
def test_analytic_powers_neither_overflow_nor_underflow(scale):
    """(3e20)^100 leaves float32 at the second power; the logarithms stay exact, nothing is NaN."""
    report = growth_report(jnp.diag(jnp.array([scale, scale / 2], jnp.float32)))
    with np.errstate(divide="ignore"):
        want = np.log(scale) * np.arange(1, 101)
    np.testing.assert_allclose(report.log_power_norms, want, rtol=1e-5)
    for leaf in jax.tree.leaves(report):
        assert not np.isnan(np.asarray(leaf)).any()
    assert bool(report.can_explode) == (scale > 1)
    assert not bool(report.radius_misleads)


def test_property_slope_singular_value_and_normal_matrices(x64):
    w = normal(0, (6, 6))
    tanh, logistic = jax.jit(growth_report, static_argnums=1)(w, "tanh"), growth_report(w, "logistic")
    assert float(tanh.largest_singular_value) == pytest.approx(np.linalg.svd(w, compute_uv=False)[0], rel=1e-12)
    assert float(logistic.largest_singular_value) == pytest.approx(float(tanh.largest_singular_value) / 4, rel=1e-12)
    np.testing.assert_allclose(logistic.log_power_norms[:5], tanh.log_power_norms[:5] - np.log(4) * np.arange(1, 6))
    orthogonal = growth_report(0.95 * jnp.linalg.qr(w)[0])
    for value in (orthogonal.spectral_radius, orthogonal.largest_singular_value, orthogonal.peak_power_norm):
        assert float(value) == pytest.approx(0.95, rel=1e-9)
    assert not bool(orthogonal.can_explode | orthogonal.radius_misleads)
    many = jax.vmap(lambda g: growth_report(g * w))(jnp.array([0.1, 1.0]))
    np.testing.assert_allclose(many.numerical_radius, float(tanh.numerical_radius) * np.array([0.1, 1.0]))


def trajectory(form, gain=1.6, n=6, time=25):
    params = recurrent.RNNParams(gain * normal((0, 7), (n, n)) / n**0.5, normal((1, 7), (2, n)), jnp.zeros(n))
    inputs, state = 0.3 * normal((2, 7), (time, 2)), normal((3, 7), (n,))
    step = recurrent.rnn_step("tanh", form)
    states = recurrent.unroll(step, params, state, inputs)
    return step, params, jnp.concatenate([state[None], states]), inputs


@pytest.mark.parametrize("form", ["post_activation", "pre_activation"])
def test_property_eq_13_bounds_the_measured_temporal_component(x64, form):
    """The component is measured by reverse mode through a copy of theta at step k: no matrix of the bound is used."""
    step, params, states, inputs = trajectory(form)
    k, t, target = 4, 24, jnp.linspace(-1, 1, 6)
    jacobians = step_jacobians(step, params, states[k + 1 : t + 1], inputs[k + 1 : t + 1])

    def first(bias):
        return step(params._replace(bias=bias), states[k], inputs[k])

    def cost(bias):
        return jnp.sum((recurrent.unroll(step, params, first(bias), inputs[k + 1 : t + 1])[-1] - target) ** 2) / 2

    reach, gradient = jax.jacfwd(first)(params.bias), jax.grad(cost)(params.bias)
    loss_gradient = states[t + 1] - target
    free = expansion_bound(jacobians, loss_gradient, reach)
    directions = normal(5, (30, 6))
    given = jax.vmap(lambda v: expansion_bound(jacobians, loss_gradient, reach, v))(directions)
    bounds = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), free, given)
    measured = jnp.log(jnp.abs(bounds.parameter_direction @ gradient))
    np.testing.assert_allclose(bounds.log_measured, measured, atol=1e-8)
    assert (np.asarray(bounds.log_bound) <= np.asarray(measured) + 1e-9).all()
    # Transported, the growth is the product of all expansions: the gap is what the minimum gives away.
    exact = bounds.log_gamma + bounds.log_expansions.sum(1) + bounds.log_loss_coefficient
    np.testing.assert_allclose(exact, measured, atol=1e-8)
    assert (np.asarray(bounds.num_contracting) > 0).any()
    # The default direction is the one that grows most.
    assert float(free.log_expansions.sum()) >= float(given.log_expansions.sum(1).max())


def test_analytic_eq_13_is_tight_for_a_linear_network_and_grows_exponentially(x64):
    """W with eigenvector v, multiplier 1.3: bound = measured = 1.3^l |c_1|, for the literal reading too."""
    w = jnp.diag(jnp.array([1.3, 0.4, -0.2]))
    v, loss = jnp.eye(3)[0], jnp.array([0.5, 2.0, 1.0])
    for length in (10, 5000):
        for transported in (True, False):
            b = expansion_bound(jnp.broadcast_to(w, (length, 3, 3)), loss, direction=v, transported=transported)
            assert float(b.log_bound) == pytest.approx(length * np.log(1.3) + np.log(0.5), rel=1e-12)
            assert float(b.log_measured) == pytest.approx(float(b.log_bound), rel=1e-12)
            assert int(b.num_contracting) == 0


def test_analytic_the_literal_condition_needs_an_eigenvector(x64):
    """For all u, |u'Jv| > a |u'v| has no a > 0 once Jv turns away from v: u orthogonal to Jv is the witness."""
    jacobian = jnp.array([[2.0, 0.0], [0.1, 2.0]])
    v = jnp.array([1.0, 0.0])
    turned = jacobian @ v
    witness = jnp.array([-turned[1], turned[0]])
    assert float(jnp.abs(witness @ jacobian @ v)) < 1e-15 < float(jnp.abs(witness @ v))
    literal = expansion_bound(jacobian[None], jnp.ones(2), direction=v, transported=False)
    assert float(literal.log_bound) == -np.inf
    followed = expansion_bound(jacobian[None], jnp.ones(2), direction=v)
    assert float(followed.log_alpha) == pytest.approx(0.5 * np.log(4.01), rel=1e-12)


def test_analytic_eq_13_for_the_one_unit_map_with_contracting_steps(x64):
    params, x, states = OneUnitParams(jnp.array(5.0), jnp.array(-2.5)), jnp.array([1e-3]), []
    for _ in range(60):
        states.append(x)
        x = one_unit_step(params, x)
    jacobians = step_jacobians(one_unit_step, params, jnp.stack(states))
    b = jax.jit(expansion_bound)(jacobians, jnp.ones(1))
    slopes = np.asarray(jacobians)[:, 0, 0]
    assert int(b.num_contracting) == (slopes <= 1).sum() > 0
    assert float(b.log_alpha) == pytest.approx(np.log(slopes[slopes > 1].min()), rel=1e-12)
    assert float(b.log_beta) == pytest.approx(np.log(slopes[slopes <= 1].min()), rel=1e-12)
    assert float(b.log_measured) == pytest.approx(np.log(slopes).sum(), rel=1e-12)
    assert float(b.log_bound) < float(b.log_measured)


def test_property_a_direction_that_theta_cannot_reach_has_no_bound(x64):
    reach = jnp.array([[1.0], [0.0]])
    b = expansion_bound(2 * jnp.eye(2)[None], jnp.ones(2), reach, direction=jnp.array([0.0, 1.0]))
    assert float(b.log_gamma) == float(b.log_bound) == -np.inf


@pytest.mark.wrong_arguments
def test_wrong_use_names_the_argument():
    with pytest.raises(ValueError, match="activation"):
        growth_report(jnp.eye(2), "swish")
    with pytest.raises(ValueError, match="w_rec"):
        growth_report(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"w_rec must be one matrix, .* got a RNNParams"):
        growth_report(untyped(recurrent.RNNParams(jnp.eye(2), jnp.eye(2))))
    with pytest.raises(ValueError, match="num_powers"):
        growth_report(jnp.eye(2), num_powers=0)
    with pytest.raises(ValueError, match="jacobians"):
        expansion_bound(jnp.eye(2), jnp.ones(2))
    with pytest.raises(ValueError, match="loss_gradient"):
        expansion_bound(jnp.eye(2)[None], jnp.ones(3))
    with pytest.raises(ValueError, match="parameter_jacobian"):
        expansion_bound(jnp.eye(2)[None], jnp.ones(2), jnp.ones((3, 1)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_property_a_matrix_that_is_not_finite_does_not_look_safe(bad):
    report = growth_report([[bad, 0.0], [0.0, 2.0]])
    assert bool(report.can_explode)
    assert np.isnan(report.largest_singular_value)
    assert np.isnan(report.spectral_radius)
    assert np.isnan(report.log_power_norms).all()
    assert bool(growth_report([[0, 2], [0, 0]]).can_explode)  # lists, integers


@pytest.mark.wrong_arguments
def test_property_a_direction_of_zeros_is_refused_and_has_no_bound_under_tracing():
    jacobians, gradient = 2 * jnp.eye(2)[None], jnp.ones(2)
    with pytest.raises(ValueError, match="direction must not be all zeros"):
        expansion_bound(jacobians, gradient, direction=jnp.zeros(2))
    traced = jax.jit(lambda v: expansion_bound(jacobians, gradient, direction=v))
    got = traced(jnp.zeros(2))
    assert float(got.log_bound) == float(got.log_measured) == -np.inf
    for leaf in jax.tree.leaves(got):
        assert not np.isnan(np.asarray(leaf)).any()
    assert float(traced(jnp.array([1.0, 0.0])).log_bound) == pytest.approx(np.log(2), abs=1e-5)
