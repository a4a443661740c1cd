"""What a change of parameters or start crosses: the paper's two events."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import Settling, bisect_boundary, crossing_report, match_attractors, settle
from cliffs.recurrent import OneUnitParams, one_unit_cost, one_unit_step


def cost(params, start):
    return one_unit_cost(params, x0=start[0], num_steps=50)


def report(b, new_b, start, new_start=None, w=5.0, new_w=None, **options):
    first, second = (None if x is None else jnp.array([x]) for x in (start, new_start))
    return crossing_report(
        one_unit_step, OneUnitParams(w, b), OneUnitParams(new_w or w, new_b), first, second, **options
    )


def test_parity_reference_change_of_bias_crosses_the_boundary_of_basins(x64, reference):
    """The start 0.5 lies on the unstable fixed point at the reference's b; the cliff of Fig. 3 stands there."""
    low, high = -2.63, -2.6
    found = report(low, high, 0.5, loss=cost)
    assert (found.crosses_basin_boundary, found.crosses_bifurcation) == (True, False)
    (event,) = found.crossings
    truth = float(reference["cliff_w5"]["b_boundary"])
    assert abs(low + (high - low) * event.position - truth) < 1e-14
    assert abs(event.multiplier - float(reference["cliff_w5"]["multiplier"])) < 1e-12
    # The gradients on both sides and on top, against autodiff of the cost itself.
    for b, norm in ((low, found.grad_norm_before), (high, found.grad_norm_after), (truth, event.grad_norm)):
        slope = jax.grad(one_unit_cost)(OneUnitParams(jnp.asarray(5.0), jnp.asarray(b)))
        np.testing.assert_allclose(norm, np.hypot(*slope), rtol=1e-6)
    assert event.grad_norm_before > 1e3 * found.grad_norm_before
    # On its two sides the start leads to the two attractors x = 5 s(x) + b.
    for x in (event.before[0], event.after[0]):
        np.testing.assert_allclose(5 / (1 + np.exp(-x)) + truth, x, atol=1e-6)
    assert event.before[0] < -1.9 < 0.6 < event.after[0]


def test_analytic_change_of_start_crosses_the_same_boundary(x64):
    found = report(-2.5, -2.5, -1.0, 1.5, loss=cost)
    (event,) = found.crossings
    assert event.kind == "basin boundary"
    np.testing.assert_allclose(-1.0 + 2.5 * event.position, 0.0, atol=1e-14)
    np.testing.assert_allclose(event.multiplier, 1.25, rtol=1e-12)


@pytest.mark.parametrize(("b", "new_b", "start", "which"), [(-2.4, -2.3, -3.0, 1), (-2.4, -2.7, 3.0, 0)])
def test_parity_reference_folds_end_the_attractor(x64, reference, b, new_b, start, which):
    found = report(b, new_b, start)
    assert (found.crosses_basin_boundary, found.crosses_bifurcation) == (False, True)
    (event,) = found.crossings
    assert event.kind == "fold"
    truth = float(reference["folds_sigmoid"]["5"][which][0])
    assert abs(b + (new_b - b) * event.position - truth) < 1e-12
    assert np.isnan(event.grad_norm)  # no loss was given


@pytest.mark.parametrize(("b", "new_b", "which"), [(-1.0, 1.0, 0), (3.0, 6.0, 1)])
def test_parity_reference_flips_change_the_period(x64, reference, b, new_b, which):
    found = report(b, new_b, 0.3, w=-5.0)
    (event,) = found.crossings
    assert event.kind == "flip"
    assert abs(b + (new_b - b) * event.position - float(reference["flips_sigmoid"]["-5"][which][0])) < 1e-12
    np.testing.assert_allclose(event.multiplier, -1, atol=0.05)


def test_property_crossing_a_fold_elsewhere_is_not_reported(x64):
    """Doya's view is incomplete, says the paper: at b1 an attractor appears, but the start stays where it was."""
    found = report(-2.7, -2.62, 0.5)
    assert not found.crossings
    still = report(-2.5, -2.45, 3.0, loss=cost)
    assert not still.crossings
    assert np.abs(np.diff(still.ends[:, 0])).max() < 0.01


def planar(p, x, inputs=None):
    """Several maps of the plane in one, so that they are compiled once; `which` picks one."""
    y, c, s = x[0], jnp.cos(0.7), jnp.sin(0.7)
    maps = [
        p["a"] * y * (1 - y),  # logistic
        p["a"] * y * (1 - y**2) * (4 - y**2) / 8 - y,  # 0 and the cycle ±2 attract, the cycle ±1 between them repels
        y + p["a"] * (y - y**3),  # double well; for a = 0 a line of fixed points
        1 - p["a"] * y**2 + x[1],  # Henon
    ]
    flat = [jnp.stack([m, 0.5 * x[1] + p["shift"]]) for m in maps[:3]] + [jnp.stack([maps[3], 0.3 * y])]
    turn = (p["a"] - jnp.sum(x**2)) * jnp.array([[c, -s], [s, c]]) @ x
    return jax.lax.select_n(jnp.asarray(p["which"]).astype(jnp.int32), *flat, turn)


def planar_report(which, a, new_a, start, new_start, shift=0.0):
    old, new = ({"which": float(which), "a": v, "shift": s} for v, s in ((a, 0.0), (new_a, shift)))
    first, second = (jnp.array([x, 0.1]) for x in (start, new_start))
    # Scalar arrays are numbers.
    settling = Settling(tolerance=jnp.asarray(1e-10), max_period=2, max_steps=1024)
    options = {"num_samples": 9, "merge_distance": jnp.asarray(1e-5)}
    return crossing_report(planar, old, new, first, second, None, settling, **options)


def test_analytic_neimark_sacker(x64):
    (event,) = planar_report(4, 0.9, 1.2, 0.3, 0.3).crossings
    assert event.kind == "Neimark-Sacker"
    np.testing.assert_allclose(0.9 + 0.3 * event.position, 1.0, atol=1e-10)
    assert abs(event.multiplier.imag) > 0.5


@pytest.mark.parametrize(
    ("which", "a", "start", "new_start", "position", "multiplier"),
    [
        (0, 2.8, 0.5, 1.2, 5 / 7, 2.8),  # x = 1 is a preimage of the unstable 0; beyond it everything escapes
        (1, 0.3, 0.5, 1.5, 0.5, np.nan),  # the boundary of a fixed point's and a 2-cycle's basins is a cycle
        (2, 0.25, -1.0, 1.0, 0.5, 1.25),  # the middle sample, and the middle of every bracket, is the boundary itself
        (2, 0.25, -1.0, 0.0, 1.0, 1.25),  # the last sample is
        (3, 0.2, 0.5, 6.0, None, None),  # to escape
    ],
)
def test_analytic_a_change_of_start_crosses_basins_of_any_type_once(
    x64, which, a, start, new_start, position, multiplier
):
    found = planar_report(which, a, a, start, new_start)
    assert (found.crosses_basin_boundary, found.crosses_bifurcation) == (True, False)
    (event,) = found.crossings
    if position is not None:
        np.testing.assert_allclose(event.position, position, atol=1e-12)
        np.testing.assert_allclose(event.multiplier, multiplier, rtol=1e-9)
    else:  # the saddle's leading multiplier: mu^2 + 2 a x mu = b there
        x = (-0.7 - np.sqrt(0.49 + 4 * a)) / (2 * a)
        np.testing.assert_allclose(event.multiplier, -a * x + np.sqrt((a * x) ** 2 + 0.3), rtol=1e-9)


def test_analytic_ends_that_move_along_a_line_of_fixed_points_cross_nothing(x64):
    assert planar_report(2, 0.0, 0.0, 0.5, 0.9).crossings == []
    assert planar_report(2, 0.0, 0.0, 0.5, 0.9, shift=0.2).crossings == []
    # A sample on the boundary while the parameters change is no bifurcation.
    (event,) = planar_report(2, 0.2, 0.4, -1.0, 1.0).crossings
    assert (event.kind, round(event.position, 12), event.before[0].round(6), event.after[0].round(6)) == (
        "basin boundary",
        0.5,
        -1,
        1,
    )


def test_invariance_attractors_are_matched_under_jit_and_vmap_as_one_by_one():
    params = OneUnitParams(jnp.full(4, 5.0), jnp.array([-2.65, -2.62, -2.60, -2.36]))
    new = OneUnitParams(params.w, params.b + jnp.array([0.0, 0.015, 0.01, 0.05]))
    starts = jnp.array([[0.5], [-3.0]])

    def compare(p, q):
        return match_attractors(one_unit_step, p, q, settle(one_unit_step, p, starts), settle(one_unit_step, q, starts))

    change = jax.jit(jax.vmap(compare))(params, new)
    basin, bifurcation = np.asarray(change.basin), np.asarray(change.bifurcation)
    # Start 0.5 crosses at b = -2.6123, start -3 loses its attractor at b = -2.3444.
    np.testing.assert_array_equal(basin, [[False, False], [True, False], [False, False], [False, False]])
    np.testing.assert_array_equal(bifurcation, [[False, False], [False, False], [False, False], [False, True]])
    alone = compare(*(jax.tree.map(lambda v: v[3], p) for p in (params, new)))
    np.testing.assert_array_equal(alone.bifurcation, bifurcation[3])


def test_invariance_float32_finds_the_same_events():
    found = report(-2.63, -2.6, 0.5, loss=lambda p, x: 1e25 * p.b * x[0])
    np.testing.assert_allclose(found.grad_norms, 5e24, rtol=1e-6)  # whose square overflows
    (event,) = found.crossings
    assert event.kind == "basin boundary"
    np.testing.assert_allclose(-2.63 + 0.03 * event.position, -2.6122966, atol=1e-6)
    np.testing.assert_allclose(event.multiplier, 1.1750186, rtol=1e-4)
    (event,) = report(-2.4, -2.3, -3.0).crossings
    assert event.kind == "fold"
    np.testing.assert_allclose(-2.4 + 0.1 * event.position, -2.3443897, atol=1e-5)


@pytest.mark.wrong_arguments
def test_wrong_use_names_the_argument():
    with pytest.raises(ValueError, match="num_samples"):
        report(-2.5, -2.4, 0.5, num_samples=1)
    with pytest.raises(ValueError, match="float32, which can reach"):
        report(-2.5, -2.4, 0.5, settling=Settling(tolerance=1e-12))


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8])
def test_invariance_an_offset_of_the_state_changes_no_answer(x64, reference, offset):
    def step(p, x, u):
        return offset + one_unit_step(p, x - offset, u)

    params, blur = OneUnitParams(5.0, -2.5), 8 * np.spacing(offset)
    starts = jnp.array([[-0.1], [1.0]])
    before, after = (settle(step, params, offset + s) for s in (starts, -starts))
    assert match_attractors(step, params, params, before, after).basin.all()
    point = bisect_boundary(step, params, offset - 1.0 - jnp.zeros((1, 1)), offset + 2.0 + jnp.zeros((1, 1)))
    assert point.found.all()
    np.testing.assert_allclose(point.states - offset, 0, atol=blur)
    end = settle(step, OneUnitParams(-6.0, 3.0), offset + jnp.array([[0.5], [2.0]]))
    assert end.period.tolist() == [2, 2]
    # A single start does not tell how far it is from zero, but where it leads does.
    found = crossing_report(step, params._replace(b=-2.63), params._replace(b=-2.6), offset + jnp.array([0.5]))
    (event,) = found.crossings
    assert event.kind == "basin boundary"
    assert abs(-2.63 + 0.03 * event.position - float(reference["cliff_w5"]["b_boundary"])) < blur + 1e-14
    flip = crossing_report(step, OneUnitParams(-3.5, 1.5), OneUnitParams(-6.0, 3.0), offset + jnp.array([0.5]))
    there = report(1.5, 3.0, 0.5, w=-3.5, new_w=-6.0)
    assert [c.kind for c in flip.crossings] == [c.kind for c in there.crossings] == ["flip"]
    assert abs(flip.crossings[0].position - there.crossings[0].position) < 10 * blur
    scaled = settle(step, OneUnitParams(-6.0, 3.0), offset + jnp.array([[0.5]]), scale=1.0)
    assert scaled.period.tolist() == [2]
