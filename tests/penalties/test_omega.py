"""Omega in its two forms against a transcription of the formulas in numpy, complex steps and Hessians."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cliffs import penalties, recurrent, tasks, training
from cliffs.penalties import AUTHORS, EQUATION_9, OmegaForm

N, BATCH, TIME = 4, 3, 6
ACT = {"tanh": np.tanh, "logistic": lambda z: 1 / (1 + np.exp(-z))}
SLOPE = {"tanh": lambda a: 1 - a * a, "logistic": lambda a: a * (1 - a)}
FORMS = {"authors": AUTHORS, "equation 9": EQUATION_9, "squared sum": OmegaForm(mean=False)}
STEPS = [(form, act) for form in ("post_activation", "pre_activation") for act in ("tanh", "logistic")]


@pytest.fixture(scope="module")
def problem():
    """Float64 weights `(w_rec, w_in, w_out)`, inputs and targets."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(N, N)), rng.normal(size=(2, N)), rng.normal(size=(N, 2))
    return weights, rng.normal(size=(TIME, BATCH, 2)), rng.normal(size=(TIME, BATCH, 2))


def transcribed(weights, inputs, targets, form, act, omega_form, w_jacobian=None):
    """Omega from the formulas, analytic in the weights, so that complex steps give its derivatives to rounding.

    The error is the mean over the batch of the squared errors of all steps. `w_jacobian` stands where `w_rec` stands in
    the Jacobian: the immediate derivative is with respect to it.
    """
    w_rec, w_in, w_out = weights
    w_jacobian = w_rec if w_jacobian is None else w_jacobian
    post = form == "post_activation"
    x, before, states = np.zeros((BATCH, N)), [], []
    for u in inputs:
        before.append(x)
        x = ACT[act](x @ w_rec + u @ w_in) if post else ACT[act](x) @ w_rec + u @ w_in
        states.append(x)
    d = np.zeros((BATCH, N))
    total, usable = 0, 0
    for t in reversed(range(TIME)):
        y = states[t] if post else ACT[act](states[t])
        g = 2 * (y @ w_out - targets[t]) @ w_out.T / BATCH
        d = d + (g if post else g * SLOPE[act](y))
        if post:
            slope = SLOPE[act](states[t])
            moved, back = (d * slope) @ w_jacobian.T, (d * slope) @ w_rec.T
        else:
            slope = SLOPE[act](ACT[act](before[t]))
            moved, back = (d @ w_jacobian.T) * slope, (d @ w_rec.T) * slope
        squares = (d**2).sum(1)
        ratio = (moved**2).sum(1) / squares
        ratio = ratio if omega_form.squared else np.sqrt(ratio)
        inside = squares.real >= omega_form.bound
        total = total + np.where(inside, (ratio - 1) ** 2, 0).mean()
        usable += inside.mean()
        d = back
    return total / usable if omega_form.mean else total


def complex_step(function, matrix):
    """`d function / d matrix` to rounding."""
    out = np.empty(matrix.shape)
    for place in np.ndindex(matrix.shape):
        moved = matrix.astype(complex)
        moved[place] += 1e-30j
        out[place] = function(moved).imag / 1e-30
    return out


def setup(problem, form, act):
    (w_rec, w_in, w_out), inputs, targets = jax.tree.map(jnp.asarray, problem)
    step = recurrent.rnn_step(act, form)
    params = recurrent.ModelParams(recurrent.RNNParams(w_rec, w_in), recurrent.ReadoutParams(w_out))

    def error(params, states):
        outputs = recurrent.readout(params.readout, step.features(states))
        return ((outputs - targets) ** 2).sum((0, 2)).mean()

    return step, params, jnp.zeros((BATCH, N)), inputs, error


@pytest.mark.parametrize(("form", "act"), STEPS)
@pytest.mark.parametrize("which", FORMS)
def test_parity_omega_and_its_immediate_gradient_with_a_transcription(x64, problem, form, act, which):
    step, params, start, inputs, error = setup(problem, form, act)

    @jax.jit
    def run(params):
        return penalties.omega(step, params.rnn, start, inputs, error=lambda x: error(params, x), form=FORMS[which])

    value, grad = jax.value_and_grad(run)(params)
    weights, given, targets = problem
    np.testing.assert_allclose(value, transcribed(weights, given, targets, form, act, FORMS[which]), rtol=1e-10)
    want = complex_step(
        lambda w: transcribed(weights, given, targets, form, act, FORMS[which], w_jacobian=w), weights[0]
    )
    np.testing.assert_allclose(grad.rnn.w_rec, want, rtol=1e-10, atol=1e-10)
    # The recurrent matrix alone, and there only where it stands in the Jacobian.
    assert not np.asarray(grad.rnn.w_in).any()
    assert not np.asarray(grad.readout.w_out).any()
    full = complex_step(lambda w: transcribed((w, *weights[1:]), given, targets, form, act, FORMS[which]), weights[0])
    assert np.abs(want - full).max() > 1e-3


@pytest.mark.parametrize(("form", "act"), STEPS)
@pytest.mark.parametrize("which", ["authors", "equation 9"])
def test_parity_the_exact_gradient_with_a_transcription(x64, problem, form, act, which):
    step, params, start, inputs, error = setup(problem, form, act)

    @jax.jit
    def run(params):
        return penalties.exact_omega(
            step, params.rnn, start, inputs, error=lambda x: error(params, x), form=FORMS[which]
        )

    value, grad = jax.value_and_grad(run)(params)
    weights, given, targets = problem
    np.testing.assert_allclose(value, transcribed(weights, given, targets, form, act, FORMS[which]), rtol=1e-10)
    for i, got in enumerate((grad.rnn.w_rec, grad.rnn.w_in, grad.readout.w_out)):

        def moved(w, i=i):
            return transcribed((*weights[:i], w, *weights[i + 1 :]), given, targets, form, act, FORMS[which])

        np.testing.assert_allclose(got, complex_step(moved, weights[i]), rtol=1e-10, atol=1e-10)


def test_parity_the_exact_gradient_with_a_hessian(x64):
    """One unit, three steps: dOmega from the blocks of `jax.hessian` of the error in weight and pushes."""

    def error_of(z):  # z = (w, e_1, e_2, e_3)
        x = jnp.asarray(0.3)
        for e in z[1:]:
            x = jnp.tanh(z[0] * x + 0.2) + e
        return (x - 0.9) ** 2

    z = jnp.array([1.7, 0.0, 0.0, 0.0])
    d, mixed = jax.grad(error_of)(z)[1:], jax.hessian(error_of)(z)[1:, 0]

    def from_d(d, w):
        x, total = jnp.asarray(0.3), 0.0
        for t in range(3):
            new = jnp.tanh(w * x + 0.2)
            total, x = total + (jnp.abs(d[t] * w * (1 - new**2)) / jnp.abs(d[t]) - 1) ** 2, new
        return total

    by_d, explicit = jax.grad(from_d, argnums=(0, 1))(d, z[0])
    step = recurrent.rnn_step("tanh")

    @jax.jit
    def run(w):
        params = recurrent.RNNParams(w[None, None], jnp.ones((1, 1)))
        inputs = jnp.full((3, 1), 0.2)
        return penalties.exact_omega(step, params, jnp.array([0.3]), inputs, error=lambda x: ((x[-1] - 0.9) ** 2).sum())

    np.testing.assert_allclose(run(z[0]), from_d(d, z[0]), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(run)(z[0]), explicit + by_d @ mixed, rtol=1e-10)


def test_parity_a_step_of_ones_own_has_the_closed_forms_gradient(x64, problem):
    """In the pre-activation form the Jacobian at a fixed state depends on `w_rec` alone: both routes must agree."""
    step, params, start, inputs, error = setup(problem, "pre_activation", "tanh")
    own = lambda params, x, u: jnp.tanh(x) @ params.w_rec + u @ params.w_in  # noqa: E731

    @jax.jit
    def both(params):
        run = lambda s: jax.value_and_grad(  # noqa: E731
            lambda p: penalties.omega(s, p.rnn, start, inputs, error=lambda x: error(params, x))
        )(params)
        return run(step), run(own)

    for a, b in zip(*map(jax.tree.leaves, both(params))):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def general(params, state, inputs):
    """A step with two leaves in its state that knows nothing of `rnn_step`."""
    fast, slow = state
    new = jnp.tanh(fast @ params["w"] + slow @ params["v"] + inputs @ params["u"])
    return new, 0.9 * slow + 0.1 * new


@pytest.mark.parametrize("kind", ["post_activation", "pre_activation", "general", "indices"])
@pytest.mark.parametrize("which", ["authors", "equation 9"])
def test_parity_the_unroll_adds_the_gradient_of_omega(x64, problem, kind, which):
    form = FORMS[which]
    (w_rec, w_in, _), inputs, targets = jax.tree.map(jnp.asarray, problem)
    weight = jnp.asarray(0.7)
    start = jnp.zeros((BATCH, N))
    if kind == "general":
        step, params = general, {"w": w_rec, "v": 0.3 * w_rec.T, "u": w_in}
        start = (start, start)
        error = lambda x: ((x[0][..., :2] - targets) ** 2).mean() + (x[1] ** 2).mean()  # noqa: E731
    else:
        step = recurrent.rnn_step("tanh", "post_activation" if kind == "indices" else kind)
        params = recurrent.RNNParams(w_rec, w_in, jnp.full(N, 0.1))
        error = lambda x: ((x[..., :2] - targets) ** 2).mean()  # noqa: E731
        inputs = jnp.arange(TIME * BATCH).reshape(TIME, BATCH) % 2 if kind == "indices" else inputs

    def added(params, start):
        plain = error(recurrent.unroll(step, params, start, inputs))
        return plain + weight * penalties.omega(step, params, start, inputs, error=error, form=form)

    def inside(params, start, weight):
        unroll = partial(penalties.unroll_with_omega, weight=weight, form=form)
        return error(unroll(step, params, start, inputs))

    got = jax.jit(jax.grad(inside, argnums=(0, 1)))(params, start, weight)
    want = jax.jit(jax.grad(added, argnums=(0, 1)))(params, start)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
    without = jax.jit(jax.grad(inside))(params, start, jnp.zeros(()))
    assert max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(got[0]), jax.tree.leaves(without))) > 1e-3


def test_integration_the_unroll_gives_the_inputs_their_gradient(x64, problem):
    step, params, start, inputs, error = setup(problem, "post_activation", "tanh")

    def run(unroll, inputs, start):
        return error(params, unroll(step, params.rnn, start, inputs))

    ours = jax.jit(jax.grad(partial(run, partial(penalties.unroll_with_omega, weight=2.0)), argnums=(0, 1)))
    plain = jax.jit(jax.grad(partial(run, recurrent.unroll), argnums=(0, 1)))
    for a, b in zip(ours(inputs, start[:1]), plain(inputs, start)):
        np.testing.assert_allclose(a, b if a.shape == b.shape else b.sum(0, keepdims=True), rtol=1e-12)


def test_analytic_steps_without_gradient_are_left_out(x64):
    """A linear chain whose error ends at step 3 of 5: mean over the three usable steps of (w^2 - 1)^2, sum as well."""
    step = recurrent.rnn_step("identity")
    params = recurrent.RNNParams(jnp.array([[1.5]]), jnp.ones((1, 1)))

    @partial(jax.jit, static_argnames="form")
    def run(scale, form=AUTHORS):
        error = lambda x: scale * x[2].sum()  # noqa: E731
        return penalties.omega(step, params, jnp.zeros(1), jnp.ones((5, 1)), error=error, form=form)

    one = (1.5**2 - 1) ** 2
    np.testing.assert_allclose(run(1.0), one, rtol=1e-12)
    np.testing.assert_allclose(run(1.0, OmegaForm(mean=False)), 3 * one, rtol=1e-12)
    np.testing.assert_allclose(run(1.0, EQUATION_9), 3 * 0.5**2, rtol=1e-12)
    # ||d_3||^2 = scale^2 is below the bound, the two earlier ones, 1.5 and 2.25 times as long, are not.
    np.testing.assert_allclose(run(0.9e-10, OmegaForm(mean=False)), 2 * one, rtol=1e-12)
    assert float(run(1e-12)) == 0
    assert float(run(0.0)) == 0
    assert float(run(0.0, EQUATION_9)) == 0


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e25, 3e38])
def test_property_long_and_short_gradients_fit_float32(scale):
    """Squares of these leave float32; the ratio does not. What is not finite becomes NaN, not a good number."""
    step = recurrent.rnn_step("identity")
    params = recurrent.RNNParams(0.9 * jnp.eye(2), jnp.ones((1, 2)))

    @jax.jit
    @jax.value_and_grad
    def value(params, scale):
        return penalties.omega(step, params, jnp.zeros(2), jnp.ones((4, 1)), error=lambda x: scale * x[-1, 0])

    out, grad = value(params, scale)
    np.testing.assert_allclose(out, (0.81 - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(grad.w_rec[0, 0], 2 * (0.81 - 1) * 2 * 0.9, rtol=1e-5)
    bad = value(params, jnp.inf)
    assert np.isnan(bad[0])


def test_parity_finite_differences_of_gradients_are_the_second_order_gradient(x64, problem):
    step, params, start, inputs, error = setup(problem, "post_activation", "tanh")

    @partial(jax.jit, static_argnums=1)
    def run(params, exact):
        return jax.value_and_grad(
            lambda p: penalties.finite_difference_omega(
                step, p.rnn, start, inputs, error=lambda x: error(p, x), exact=exact
            )
        )(params)

    (value, grad), (same, exact) = run(params, False), run(params, True)
    assert float(value) == float(same)
    _, d = penalties.state_gradients(step, params.rnn, start, inputs, error=lambda x: error(params, x))
    norms = np.linalg.norm(np.asarray(d).reshape(TIME, -1), axis=1)
    np.testing.assert_allclose(value, ((norms[:-1] / (norms[1:] + 1e-5) - 1) ** 2).sum(), rtol=1e-12)
    for a, b in zip(jax.tree.leaves(grad), jax.tree.leaves(exact)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
        assert np.abs(b).max() > 1e-3


def test_integration_a_sweep_with_traced_weights_and_a_schedule():
    """One compiled update for all weights; weight 0 is the unregularised run to the bit, 1 / (1 + t) is a schedule."""
    step = recurrent.rnn_step("tanh")
    schedule = lambda t: 1 / (1 + t)  # noqa: E731
    traces = []

    def one(weight, decays):
        def update(state, i):
            traces.append(i)
            now = weight * jnp.where(decays, schedule(state.step), 1.0)
            unroll = partial(penalties.unroll_with_omega, weight=now)
            loss = training.readout_loss(step, training.last_step_nats(step), unroll=unroll)
            batch = tasks.temporal_order(jax.random.fold_in(jax.random.key(1), i), 4, 10)
            return training.train_step(state, batch, loss, optax.sgd(0.1))

        params = recurrent.paper_init("basic_tanh", jax.random.key(0), 6, 8, 4)
        state, _ = jax.lax.scan(update, training.init_train_state(params, optax.sgd(0.1)), jnp.arange(3))
        return state.params.rnn.w_rec

    run = jax.jit(jax.vmap(one))
    weights = run(jnp.array([0.0, 2.0, 2.0]), jnp.array([False, False, True]))
    count = len(traces)
    again = run(jnp.array([0.0, 1.0, 3.0]), jnp.array([True, False, True]))
    assert len(traces) == count
    np.testing.assert_array_equal(weights[0], again[0])
    assert len({float(jnp.abs(w).sum()) for w in (*weights, *again[1:])}) == 5


@pytest.mark.wrong_arguments
def test_wrong_use_names_the_argument():
    step = recurrent.rnn_step("tanh")
    params = recurrent.RNNParams(jnp.eye(2), jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="inputs must be given"):
        penalties.unroll_with_omega(step, params, jnp.zeros(2), None, weight=1.0)
    with pytest.raises(ValueError, match="at least two steps"):
        penalties.finite_difference_omega(step, params, jnp.zeros(2), jnp.ones((1, 1)), error=lambda x: x.sum())
