import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from tests.untyped import untyped

from cliffs import curvature, recurrent, tasks, training
from cliffs.curvature._lanczos import tridiagonalise

DTYPES = ("float32", "float64")


def symmetric(values, seed=0):
    """A dense matrix of the given spectrum, and its eigenvectors as columns."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return (q * np.asarray(values)) @ q.T, q


def networks(hidden=10, batch=4, length=10, dtype=jnp.float64):
    """Two small tanh networks, `logits(params)`, the loss on the logits and the task's loss."""
    params = jax.vmap(lambda k: recurrent.paper_init("basic_tanh", k, 6, hidden, 4, dtype=dtype))(
        jax.random.split(jax.random.key(3), 2)
    )
    params = jax.tree.map(lambda p: 2.0 * p + 0.05, params)  # away from the flat region near 0
    batch = tasks.temporal_order(jax.random.key(1), batch, length)
    task_loss = training.classification_loss(recurrent.rnn_step("tanh"))

    def logits(p):
        start = jnp.zeros((*batch.inputs.shape[1:-1], hidden), dtype)
        return recurrent.readout(
            p.readout, recurrent.unroll(recurrent.rnn_step("tanh"), p.rnn, start, batch.inputs.astype(dtype))[-1]
        )

    def cross_entropy(y):
        return optax.softmax_cross_entropy_with_integer_labels(y, batch.targets).mean()

    return params, logits, cross_entropy, lambda p: task_loss(p, batch)[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_analytic_known_spectrum_both_ends(x64, dtype):
    wanted = np.array([9.0, 4.0, *np.linspace(-1, 1, 30), -3.0, -6.0])
    matrix, q = symmetric(wanted)
    # A pytree of two leaves, so that the way through pytrees is part of the truth.
    like = {"a": jnp.zeros((4, 5), dtype), "b": jnp.zeros(14, dtype)}
    _, unravel = ravel_pytree(like)
    dense = jnp.asarray(matrix, dtype)
    pairs = jax.jit(
        lambda key: curvature.eigenpairs(
            lambda v: unravel(dense @ ravel_pytree(v)[0]), like, key, num_leading=2, num_trailing=2, num_iterations=30
        )
    )(jax.random.key(0))
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(pairs.values, [9, 4, -3, -6], atol=100 * eps)
    assert pairs.converged.all()
    assert pairs.vectors["a"].shape == (4, 4, 5)
    assert pairs.vectors["a"].dtype == dtype
    vectors = np.asarray(jax.vmap(lambda v: ravel_pytree(v)[0])(pairs.vectors))
    order = [0, 1, 32, 33]
    np.testing.assert_allclose(np.abs(np.sum(vectors * q.T[order], 1)), 1, atol=eps**0.5)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=100 * eps)
    # The residual is what it says, recomputed in float64.
    residual = np.linalg.norm(vectors @ matrix - np.asarray(pairs.values)[:, None] * vectors, axis=1)
    np.testing.assert_allclose(pairs.residuals, residual, atol=200 * eps)


def test_analytic_float32_spectrum_beyond_its_squares():
    shape = jnp.concatenate([jnp.array([-5.0, 3.0]), jnp.linspace(-1, 1, 20)])

    @jax.jit
    def run(diagonal):
        like = jnp.zeros(22)
        return curvature.eigenpairs(lambda v: diagonal * v, like, jax.random.key(0), num_trailing=1, num_iterations=20)

    for scale in (1e-30, 1e30):
        pairs = run(jnp.float32(scale) * shape)
        np.testing.assert_allclose(np.asarray(pairs.values) / scale, [3, -5], rtol=1e-5)
        assert pairs.converged.all()
        assert (np.asarray(pairs.residuals) / scale < 1e-3).all()
    # An operator that overflows gives no number that anyone could take for an answer.
    pairs = run(jnp.full(22, jnp.inf))
    assert not pairs.converged.any()
    assert not np.isfinite(pairs.values).any()


def test_analytic_invariant_subspaces_zero_identity_and_low_rank(x64):
    def run(diagonal):
        return curvature.eigenpairs(lambda v: diagonal * v, diagonal, jax.random.key(0), num_leading=3, num_trailing=1)

    diagonals = jnp.array([[0.0] * 12, [2.0] * 12, [5.0, 5.0, -1.0] + [0.0] * 9])
    zero, same, low = (jax.tree.map(lambda x, i=i: x[i], jax.jit(jax.vmap(run))(diagonals)) for i in range(3))
    assert zero.values.tolist() == [0, 0, 0, 0]
    assert zero.residuals.tolist() == [0, 0, 0, 0]
    assert zero.converged.all()
    assert int(zero.restarts) == 11  # every step starts anew
    np.testing.assert_allclose(same.values, 2.0, rtol=1e-14)
    for pairs in (zero, same, low):
        np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(4), atol=1e-13)
    # A double eigenvalue: one Krylov space holds one copy, the restart finds the other.
    np.testing.assert_allclose(low.values, [5, 5, 0, -1], atol=1e-13)
    assert low.converged.all()


def test_documented_few_iterations_are_reported_as_not_converged(x64):
    matrix, _ = symmetric(np.linspace(0, 1, 60))
    pairs = curvature.eigenpairs(lambda v: jnp.asarray(matrix) @ v, jnp.zeros(60), jax.random.key(0), num_iterations=5)
    assert not pairs.converged.any()
    # The promise of a residual: an eigenvalue lies within it.
    assert np.min(np.abs(np.linspace(0, 1, 60) - float(pairs.values[0]))) <= float(pairs.residuals[0])


@pytest.fixture(scope="module")
def both():
    """Dense Hessian and Gauss-Newton matrix of two n = 10 networks in float64, and what the products give there.

    One program, vmapped over the networks: every parity below is one under `jit` and `vmap` over seeds.
    """
    with jax.enable_x64(True):
        params, logits, cross_entropy, loss = networks()
        _, unravel = ravel_pytree(jax.tree.map(lambda p: p[0], params))

        def on_flat(matvec):
            return lambda v: ravel_pytree(matvec(unravel(v)))[0]

        @jax.jit
        @jax.vmap
        def everything(flat):
            p = unravel(flat)
            hessian = jax.hessian(lambda x: loss(unravel(x)))(flat)
            # J by reverse mode, H_out dense: the definition, and no code in common with the product.
            jacobian = jax.jacrev(lambda x: logits(unravel(x)))(flat).reshape(-1, flat.size)
            y = logits(p)
            inner = jax.hessian(lambda z: cross_entropy(z.reshape(y.shape)))(y.ravel())
            matvec = curvature.hessian_operator(loss, p)
            gauss_newton = curvature.gauss_newton_operator(logits, cross_entropy, p)
            probe = jnp.cos(jnp.arange(flat.size, dtype=flat.dtype))
            pairs = curvature.eigenpairs(matvec, p, jax.random.key(5), num_leading=3, num_trailing=2, num_iterations=80)
            gradient = jax.grad(loss)(p)
            single_p, single_v = (jax.tree.map(jnp.float32, x) for x in (p, unravel(probe)))
            return {
                "single_probe": ravel_pytree(curvature.hessian_vector_product(loss, single_p, single_v))[0],
                "hessian": hessian,
                "gauss_newton": jacobian.T @ inner @ jacobian,
                "probe": probe,
                "hessian_probe": on_flat(matvec)(probe),
                "gauss_newton_probe": on_flat(gauss_newton)(probe),
                "product_probe": ravel_pytree(curvature.hessian_vector_product(loss, p, unravel(probe)))[0],
                "pairs": pairs,
                "vectors": jax.vmap(lambda v: ravel_pytree(v)[0])(pairs.vectors),
                "gradient": ravel_pytree(gradient)[0],
                "alignment": curvature.alignment(gradient, pairs),
                "along": curvature.curvature_along(matvec, gradient),
                "trace": curvature.trace(lambda v: hessian @ v, flat, jax.random.key(6), num_samples=400),
                "density": curvature.spectral_density(
                    lambda v: hessian @ v, flat, jax.random.key(7), num_probes=30, num_iterations=25
                ),
            }

        return jax.tree.map(np.asarray, everything(jax.vmap(lambda p: ravel_pytree(p)[0])(params)))


@pytest.fixture(params=[0, 1])
def dense(both, request):
    """One of the two networks."""
    return jax.tree.map(lambda x: x[request.param], both)


def test_parity_hessian_products_with_the_dense_hessian(dense):
    scale = np.abs(dense["hessian"]).max()
    for name, dtype in (("hessian_probe", "float64"), ("product_probe", "float64"), ("single_probe", "float32")):
        assert dense[name].dtype == dtype
        atol = 500 * np.finfo(dtype).eps * scale
        np.testing.assert_allclose(dense[name], dense["hessian"] @ dense["probe"], atol=atol)


def test_parity_leading_and_trailing_eigenvalues_with_the_dense_hessian(dense):
    values = np.linalg.eigvalsh(dense["hessian"])
    np.testing.assert_allclose(dense["pairs"].values, [*values[:-4:-1], *values[1::-1]], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(dense["pairs"].values[0], values[-1], rtol=1e-12)
    assert dense["pairs"].converged.all()
    assert values[0] < 0  # the trailing end is truly another end


def test_parity_gauss_newton_with_the_dense_definition(dense):
    want = dense["gauss_newton"] @ dense["probe"]
    np.testing.assert_allclose(dense["gauss_newton_probe"], want, atol=1e-12 * np.abs(want).max())
    assert np.linalg.eigvalsh(dense["gauss_newton"])[0] > -1e-12  # positive semi-definite, unlike the Hessian,
    assert dense["gauss_newton_probe"] @ dense["probe"] > 0
    # and another matrix than it
    assert np.abs(dense["gauss_newton"] - dense["hessian"]).max() > 1e-3 * np.abs(dense["hessian"]).max()


def test_parity_alignment_and_curvature_along_with_the_dense_hessian(dense):
    values, vectors = np.linalg.eigh(dense["hessian"])
    g = dense["gradient"] / np.linalg.norm(dense["gradient"])
    chosen = [-1, -2, -3, 1, 0]
    cosines = np.abs(vectors.T @ g)[chosen]
    np.testing.assert_allclose(dense["alignment"].cosines, cosines, atol=1e-6)
    order = np.argsort(-np.abs(values[chosen]))
    np.testing.assert_allclose(dense["alignment"].share, np.cumsum(cosines[order] ** 2), atol=1e-6)
    assert dense["along"] == pytest.approx(g @ dense["hessian"] @ g, rel=1e-10)


def test_parity_trace_and_moments_of_the_density_with_the_dense_hessian(dense):
    hessian, estimate, density = dense["hessian"], dense["trace"], dense["density"]
    n = len(hessian)
    assert abs(estimate.trace - np.trace(hessian)) < 4 * estimate.standard_error
    # Hutchinson's variance is known: the standard error is neither too small nor too large.
    variance = 2 * (np.sum(hessian**2) - np.sum(np.diag(hessian) ** 2))
    assert estimate.standard_error == pytest.approx((variance / 400) ** 0.5, rel=0.25)
    np.testing.assert_allclose(density.weights.sum(1), 1, rtol=1e-12)
    for power in (1, 2):
        truth = np.trace(np.linalg.matrix_power(hessian, power)) / n
        samples = (density.weights * density.nodes**power).sum(1)
        assert abs(samples.mean() - truth) < 4 * samples.std(ddof=1) / len(samples) ** 0.5


def test_analytic_density_of_a_known_spectrum(x64):
    diagonal = jnp.repeat(jnp.array([-2.0, 1.0, 6.0]), jnp.array([10, 30, 60]), total_repeat_length=100)
    # Five steps more than the space has: they may add nodes, but only of weight 0.
    density = curvature.spectral_density(
        lambda v: diagonal * v, jnp.zeros(100), jax.random.key(0), num_probes=200, num_iterations=8, chunk_size=50
    )
    near = [np.abs(density.nodes - x) < 1e-9 for x in (-2, 1, 6)]
    shares = [np.sum(np.where(mask, density.weights, 0), 1) for mask in near]
    np.testing.assert_allclose(np.sum(shares, 0), 1, rtol=1e-12)
    np.testing.assert_allclose(np.mean(shares, 1), [0.1, 0.3, 0.6], atol=0.02)
    points = jnp.linspace(-6, 10, 2001)
    curve = curvature.smoothed(density, points, 0.3)
    assert float(jnp.sum(curve) * (points[1] - points[0])) == pytest.approx(1, abs=1e-6)


def test_analytic_gauss_newton_is_the_hessian_of_a_linear_model_and_of_squared_error_at_zero_residual(x64):
    inputs = jax.random.normal(jax.random.key(0), (7, 3))
    params = {"w": jax.random.normal(jax.random.key(1), (3, 2)), "b": jnp.array([0.3, -0.2])}
    vector = jax.tree.map(jnp.cos, params)
    labels = jnp.array([0, 1, 1, 0, 0, 1, 0])

    def linear(p):
        return inputs @ p["w"] + p["b"]

    def cross_entropy(y):
        return optax.softmax_cross_entropy_with_integer_labels(y, labels).mean()

    def bent(p):
        return jnp.tanh(linear(p))

    target = bent(params)
    cases = [
        (linear, cross_entropy, True),
        (linear, lambda y: jnp.sum((y - 1) ** 2), True),
        (bent, lambda y: jnp.sum((y - target) ** 2), True),  # residual 0: the second term vanishes
        (bent, lambda y: jnp.sum((y - 1) ** 2), False),
    ]

    @jax.jit  # one program for all cases
    def differences(params, vector):
        def one(outputs, output_loss):
            full = curvature.hessian_vector_product(lambda p: output_loss(outputs(p)), params, vector)
            part = curvature.gauss_newton_operator(outputs, output_loss, params)(vector)
            return jnp.max(jnp.abs(ravel_pytree(full)[0] - ravel_pytree(part)[0]))

        return [one(outputs, output_loss) for outputs, output_loss, _ in cases]

    for difference, (_, _, equal) in zip(differences(params, vector), cases):
        assert (float(difference) < 1e-13) == equal


def test_parity_matfree_tridiagonalisation(x64):
    decomp = pytest.importorskip("matfree.decomp")
    matrix = jnp.asarray(symmetric(np.linspace(-2, 5, 40), seed=2)[0])
    start = jnp.sin(jnp.arange(1.0, 41))
    theirs = decomp.tridiag_sym(12, reortho="full", materialize=False)(lambda v: matrix @ v, start)
    ours = tridiagonalise(lambda v: matrix @ v, start, jax.random.key(0), 12)
    diagonal, off_diagonal = theirs.J_small
    np.testing.assert_allclose(ours.diagonal, diagonal, rtol=1e-10)
    np.testing.assert_allclose(ours.off_diagonal[:-1], off_diagonal, rtol=1e-10)
    np.testing.assert_allclose(ours.basis, theirs.Q_tall, atol=1e-10)
    assert int(ours.restarts) == 0


def test_invariance_eager_jit_and_vmap_agree_whatever_the_start_vector(x64):
    matrices = jnp.stack([jnp.asarray(symmetric(np.linspace(-3, 4 + i, 15), seed=i)[0]) for i in range(3)])

    def one(matrix, key):
        pairs = curvature.eigenpairs(lambda v: matrix @ v, jnp.zeros(15), key, num_trailing=1)
        return pairs.values, curvature.alignment(jnp.cos(jnp.arange(15.0)), pairs).cosines

    values, cosines = jax.jit(jax.vmap(one))(matrices, jax.random.split(jax.random.key(0), 3))
    np.testing.assert_allclose(values, [[4, -3], [5, -3], [6, -3]], rtol=1e-12)
    alone = one(matrices[1], jax.random.key(77))
    np.testing.assert_allclose(values[1], alone[0], rtol=1e-12)
    np.testing.assert_allclose(cosines[1], alone[1], atol=1e-7)


def test_property_share_is_a_share_and_scaling_the_gradient_changes_nothing():
    matrix = jnp.asarray(symmetric(np.linspace(-3, 4, 15))[0], jnp.float32)
    pairs = curvature.eigenpairs(
        lambda v: matrix @ v, jnp.zeros(15), jax.random.key(0), num_leading=8, num_trailing=7, num_iterations=15
    )
    g = jnp.cos(jnp.arange(15.0))
    for scale in (1e-30, 1.0, 1e30):  # the square of none of the outer ones exists in float32
        a = curvature.alignment(scale * g, pairs)
        np.testing.assert_allclose(a.share[-1], 1, rtol=1e-5)  # all eigenvectors: all of it
        assert (np.diff(a.share) >= 0).all()
        np.testing.assert_allclose(a.cosines, curvature.alignment(g, pairs).cosines, atol=1e-6)
    zero = curvature.alignment(0 * g, pairs)
    assert zero.cosines.tolist() == [0] * 15


def test_parity_bfloat16_parameters_are_computed_with_in_float32():
    diagonal = jnp.array([4.0, 1.0, 0.5, 0.25], jnp.bfloat16)
    pairs = curvature.eigenpairs(lambda v: diagonal * v, jnp.zeros(4, jnp.bfloat16), jax.random.key(0))
    assert pairs.values.dtype == jnp.float32
    assert pairs.vectors.dtype == jnp.bfloat16
    assert float(pairs.values[0]) == pytest.approx(4, rel=0.02)
    # Correct to the resolution of the parameters: `converged` asks for no more, and still for that.
    params = jnp.ones(40, jnp.bfloat16)
    scale = jnp.linspace(0.2, 3.1, 40).at[-1].set(9.0).astype(jnp.bfloat16)
    matvec = curvature.hessian_operator(lambda p: jnp.sum(scale * p**2), params)
    for like, operator in ((params, matvec), ({"a": params, "b": jnp.ones(1)}, lambda v: v | {"a": matvec(v["a"])})):
        pairs = curvature.eigenpairs(operator, like, jax.random.key(0))
        assert float(pairs.values[0]) == pytest.approx(18, rel=0.02)
        assert pairs.converged.all()
        assert not curvature.eigenpairs(operator, like, jax.random.key(0), num_iterations=2).converged.any()
        assert not curvature.eigenpairs(operator, like, jax.random.key(0), tolerance=1e-7).converged.any()


def identity(v):
    return v


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda k: curvature.eigenpairs(identity, jnp.zeros(3), k, num_leading=4), ValueError, "num_leading"),
        (lambda k: curvature.eigenpairs(identity, jnp.zeros(3), k, num_leading=0), ValueError, "num_leading"),
        (lambda k: curvature.eigenpairs(identity, {}, k), ValueError, "like"),
        (lambda k: curvature.eigenpairs(identity, jnp.zeros(3, int), k), TypeError, "floating"),
        (lambda k: curvature.eigenpairs(lambda v: v[:2], jnp.zeros(3), k), ValueError, "matvec"),
        (lambda k: curvature.hessian_vector_product(jnp.sum, jnp.ones(3), jnp.ones(2)), ValueError, "vector"),
        (
            lambda k: curvature.alignment(jnp.ones(2), curvature.eigenpairs(identity, jnp.zeros(3), k)),
            ValueError,
            "gradient",
        ),
        (lambda k: curvature.smoothed(untyped(None), jnp.zeros(1), 0.0), ValueError, "width"),
        (lambda k: curvature.smoothed(untyped(None), jnp.zeros(1), jnp.array(-1.0)), ValueError, "width"),
        (lambda k: curvature.trace(identity, jnp.zeros(3), k, num_samples=1), ValueError, "num_samples"),
        (lambda k: curvature.spectral_density(identity, jnp.zeros(3), k, num_probes=0), ValueError, "num_probes"),
    ],
)
def test_wrong_use_names_the_argument(call, error, words):
    with pytest.raises(error, match=words):
        call(jax.random.key(0))
