"""The profile of a wall, against closed forms and 50-digit numbers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from cliffs.landscape import cliff_profile, cliff_profiles, parameter_direction, state_after
from cliffs.recurrent import OneUnitParams, one_unit_step


def one_unit_loss(params, length):
    x = state_after(one_unit_step, params, jnp.asarray(0.5, jnp.result_type(params.b)), None, length, max_length=200)
    return (jax.nn.sigmoid(x) - 0.7) ** 2


def along_the_bias(lengths, dtype=None):
    """Profiles at w = 5 along b; offsets are values of b."""
    params = OneUnitParams(jnp.asarray(5.0, dtype), jnp.asarray(0.0, dtype))
    return cliff_profiles(one_unit_loss, lengths, params, parameter_direction(params, "b"), (-4.0, -1.5))


def exact_slope(b, length):
    """`|dE/db|` at w = 5 in 50 digits, by the tangent recursion."""
    with mpmath.workdps(50):
        x, dx, b = mpmath.mpf("0.5"), mpmath.mpf(0), mpmath.mpf(b)
        for _ in range(length):
            y = 1 / (1 + mpmath.exp(-x))
            x, dx = 5 * y + b, 5 * y * (1 - y) * dx + 1
        y = 1 / (1 + mpmath.exp(-x))
        return float(abs(2 * (y - mpmath.mpf("0.7")) * y * (1 - y) * dx))


def test_parity_fifty_digits_the_peak_is_the_peak(x64):
    lengths = np.array([10, 25, 50, 100])
    profiles = along_the_bias(lengths)
    assert np.all(profiles.resolved)
    assert not np.any(profiles.cut_off)
    np.testing.assert_allclose(profiles.peak, [4.80903, 90.5813, 5751.10, 1.837289e7], rtol=2e-6)
    columns = map(np.asarray, (profiles.position, profiles.width, profiles.left, profiles.peak))
    for length, position, width, left, peak in zip(lengths, *columns):
        assert peak == pytest.approx(exact_slope(position, length), rel=1e-6)
        for share in (-0.1, 0.1):
            assert exact_slope(position + share * width, length) < peak
        for half in (position - left, position + width - left):
            assert exact_slope(half, length) == pytest.approx(0.5 * peak, rel=1e-4)
    # The gradient norm counts w as well; the ground beside the wall falls on the left, rises on the right.
    assert np.all(profiles.grad_norm > profiles.peak)
    assert np.all(np.asarray(profiles.slope_left) < 0)
    assert np.all(np.asarray(profiles.slope_right) > 0)
    np.testing.assert_allclose(np.asarray(profiles.rise)[2:], -0.3322, atol=1e-4)


def test_documented_a_wall_below_the_resolution_warns():
    with pytest.warns(UserWarning, match="narrower than float32"):
        profile = along_the_bias(np.array([200]), jnp.float32)
    (resolved,), (position,), (peak,) = map(np.asarray, (profile.resolved, profile.position, profile.peak))
    assert not resolved
    assert position == pytest.approx(-2.6123, abs=1e-3)
    # What the loss does between two neighbouring numbers is a certain lower bound of the slope.
    assert 1e4 < peak < exact_slope(-2.612296656009272823194503, 200)


class Steps(NamedTuple):
    """A smooth step of height 2 `size` and width 1.76 `scale` at `place`, a second one, and a bowl."""

    s: Any = 0.0
    size: Any = 1.0
    place: Any = 0.3
    scale: Any = 0.1
    other: Any = 0.0
    bowl: Any = 0.0


TRACES = []


def steps(p):
    TRACES.append(1)
    return p.size * jnp.tanh((p.s - p.place) / p.scale) + p.other * jnp.tanh((p.s + 0.5) / 0.02) + p.bowl * p.s**2


ALONG_S = Steps(1.0, *[0.0] * 5)


@pytest.mark.parametrize("scale", [1e-1, 1e-4, 1e-11])
def test_analytic_tanh_step(x64, scale):
    profile = cliff_profile(steps, Steps(scale=scale), ALONG_S, (-1.0, 2.0))
    assert profile.position == pytest.approx(0.3, abs=1e-4 * scale)
    assert profile.peak == pytest.approx(1 / scale, rel=1e-6)
    assert profile.width == pytest.approx(2 * np.arccosh(2**0.5) * scale, rel=1e-4)
    assert profile.left == pytest.approx(0.5 * profile.width, rel=1e-3)
    assert profile.rise == pytest.approx(2, rel=1e-6)
    assert profile.resolved
    assert np.isfinite(profile.slope_left)


def test_analytic_the_steepest_wall_not_the_largest_step(x64):
    # Between two grid points (spacing 0.0078) a step of 0.02 that is 2e-8 wide; elsewhere one of 1 that is 0.04 wide.
    profile = cliff_profile(steps, Steps(size=0.01, place=0.1234, scale=1e-8, other=0.5, bowl=0.1), ALONG_S)
    assert profile.position == pytest.approx(0.1234, abs=1e-9)
    assert profile.peak == pytest.approx(1e6, rel=1e-4)
    assert profile.ratio == pytest.approx(1e6 / profile.floor)


@pytest.mark.parametrize("ground", [1.0, -1.0])
def test_analytic_a_wall_with_and_against_the_slope_of_the_ground(x64, ground):
    # A step of 0.008 between grid points 0.0078 apart on ground of slope 1: against it the loss hardly changes.
    profile = cliff_profile(lambda s: 0.004 * jnp.tanh((s - 0.3) / 1e-6) + ground * (s - 0.2 * s**2), 0.0, 1.0)
    assert profile.position == pytest.approx(0.3, abs=1e-9)
    assert profile.peak == pytest.approx(4000, rel=1e-3)


def test_documented_mixed_dtypes_resolve_what_the_moving_leaf_does(x64):
    params, direction = {"w": jnp.float32(0), "b": jnp.float64(0)}, {"w": 1.0, "b": 0.0}
    with pytest.warns(UserWarning, match="narrower"):
        profile = cliff_profile(lambda p: jnp.tanh((p["w"].astype(float) - 0.3) / 1e-9), params, direction)
    # Two neighbours of float32 at 0.3 lie 3e-8 apart: a slope above 2 / 3e-8 would be made up.
    assert not profile.resolved
    assert profile.peak < 1e8


def test_property_gradient_norms_whose_squares_overflow():
    profile = cliff_profile(lambda s: 1e20 * jnp.tanh(10 * s), jnp.float32(0), 1.0)
    assert profile.grad_norm == pytest.approx(1e21, rel=1e-3)


def test_documented_no_wall_is_cut_off(x64):
    profile = cliff_profile(steps, Steps(size=0.0, bowl=1.0), ALONG_S, (0.0, 1.0))
    assert profile.position == 1.0
    assert profile.cut_off
    assert profile.width == pytest.approx(0.5, rel=1e-5)
    assert profile.slope_right == 2.0


def test_invariance_one_compile_serves_all_parameters_bounds_and_directions(x64):
    cliff_profile(steps, Steps(), ALONG_S)
    traced = len(TRACES)
    # Along (1, .., -2, ..) the step comes towards us: s - place = 3 t - 0.3.
    oblique = cliff_profile(steps, Steps(scale=1e-3), ALONG_S._replace(place=-2.0), (-0.5, 2.0))
    assert oblique.position == pytest.approx(0.1, abs=1e-7)
    assert oblique.peak == pytest.approx(3e3, rel=1e-6)
    assert oblique.grad_norm == pytest.approx(2**0.5 * 1e3, rel=1e-6)  # s and place; nothing else moves the loss there
    assert oblique.width == pytest.approx(2 * np.arccosh(2**0.5) * 1e-3 / 3, rel=1e-4)
    assert len(TRACES) == traced


def test_documented_resolution_is_that_of_the_parameters_not_of_the_offset():
    # At 1000 float32 numbers lie 6e-5 apart: a wall at offset 0.01 that is 2e-5 wide is below that.
    with pytest.warns(UserWarning, match="narrower than float32"):
        cliff_profile(steps, Steps(s=1000.0, place=1000.01, scale=1e-5), ALONG_S)


@pytest.mark.wrong_arguments
def test_wrong_use_a_loss_that_is_nowhere_finite(x64):
    with pytest.raises(ValueError, match="finite slope"):
        cliff_profile(steps, Steps(size=np.nan), ALONG_S)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf"))])
def test_wrong_use_bounds(bounds):
    with pytest.raises(ValueError, match="bounds"):
        cliff_profile(jnp.sin, 0.0, 1.0, bounds)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_walls": 0}, "num_walls"),
        ({"num_points": 4}, "num_walls"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"direction": jnp.ones(2)}, "shapes"),
        ({"direction": 0.0}, "non-zero"),
        ({"lengths": np.zeros(0)}, "lengths"),
    ],
)
def test_wrong_use_names_the_argument(change, words):
    good = {"lengths": np.array([3]), "params": 0.0, "direction": 1.0}
    with pytest.raises(ValueError, match=words):
        cliff_profiles(lambda s, t: s * t, **(good | change))
