"""How the wall scales with the length, and the fixed point behind it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs import recurrent
from cliffs.landscape import (
    CliffProfile,
    boundary_multiplier,
    cliff_law,
    cliff_profiles,
    compare_laws,
    locate_boundary,
    parameter_direction,
    state_after,
)
from cliffs.recurrent import OneUnitParams, linear_step, one_unit_step


def one_unit_loss(params, length):
    x = state_after(one_unit_step, params, jnp.asarray(0.5), None, length, max_length=100)
    return (jax.nn.sigmoid(x) - 0.7) ** 2


def test_parity_reference_boundary_multiplier_and_law(x64):
    """The boundary by bisection on the attractor, its multiplier by Newton, the law by fitting: three ways.

    Boundary and multiplier are from 25-digit arithmetic, the peaks from 50 digits (test_cliff.py).
    """

    def final(b):
        return state_after(one_unit_step, OneUnitParams(5.0, b), jnp.asarray(0.5), None, 400, max_length=400)

    boundary = jax.jit(lambda: locate_boundary(final, -3.5, -1.5))()
    assert float(boundary) == pytest.approx(-2.612296656009272823194503, abs=2e-15)
    params = OneUnitParams(jnp.asarray(5.0), boundary)
    m = boundary_multiplier(one_unit_step, params, jnp.linspace(-4.0, 4.0, 9)[:, None])
    assert m == pytest.approx(1.175018561007972445346513, rel=1e-9)

    every = np.array([10, 25, 40, 50, 70, 85, 100])
    base = OneUnitParams(5.0, 0.0)
    profiles = cliff_profiles(one_unit_loss, every, base, parameter_direction(base, "b"), (-4.0, -1.5))
    np.testing.assert_allclose(
        np.asarray(profiles.peak)[[0, 1, 3, 6]], [4.80903, 90.5813, 5751.10, 1.837289e7], rtol=1e-5
    )
    lengths, profiles = every[1:], jax.tree.map(lambda x: x[1:], profiles)
    law = cliff_law(lengths, profiles, multiplier=m, corrections=2)
    assert law.peak_rms < 1e-3
    assert np.abs(law.deviation).max() < 1e-5
    assert law.peak_constant == pytest.approx(1.81847, rel=5e-4)
    assert law.width_constant == pytest.approx(0.16121, rel=5e-4)
    # Three lengths and no corrections still give the multiplier, though not the constant.
    plain = cliff_law(lengths[[0, 2, 5]], jax.tree.map(lambda x: x[[0, 2, 5]], profiles), multiplier=m)
    assert np.abs(plain.deviation).max() < 5e-3
    # The peak lies next to the boundary at a distance that shrinks like the width.
    offset = (profiles.position - float(boundary)) / profiles.width
    np.testing.assert_allclose(offset[2:], offset[-1], rtol=0.01)
    # "width ~ 1/T" would predict a ratio of 2 between T = 50 and T = 100; it is m^50, about 3,200.
    assert profiles.width[2] / profiles.width[-1] == pytest.approx(m**50, rel=0.01)
    assert compare_laws(lengths, profiles.width).delta_aic > 10
    assert compare_laws(lengths, profiles.peak).delta_aic > 10


@pytest.mark.parametrize("corrections", [0, 1, 2])
def test_analytic_law_with_its_corrections(corrections):
    m, t = 1.3, np.array([5.0, 8.0, 12.0, 20.0, 30.0, 45.0])
    terms = np.stack([t * m**-t, m**-t])[:corrections]
    bend = np.exp(np.array([0.7, -1.5])[:corrections] @ terms)
    profiles = CliffProfile(0 * t, 2.0 * m**t * bend, 0.3 * m**-t * bend, 1.0, True)
    law = cliff_law(t, profiles, corrections=corrections, multiplier=m)
    np.testing.assert_allclose(
        [law.peak_multiplier, law.peak_constant, law.width_multiplier, law.width_constant], [m, 2, m, 0.3], rtol=1e-6
    )
    np.testing.assert_allclose(law.deviation, 0, atol=1e-6)


def test_property_noise_is_not_taken_for_corrections_and_the_errors_cover_it():
    m, t = 1.05, np.array([25.0, 40, 50, 70, 85, 100])
    scores = []
    for seed in range(60):
        noise = np.exp(0.05 * np.random.default_rng(seed).normal(size=6))
        law = cliff_law(t, CliffProfile(0 * t, 1.8 * m**t * noise, 0.16 * m**-t * noise, 1.0, True))
        assert 1.4 < law.peak_constant < 2.3
        scores.append((law.peak_multiplier - m) / law.peak_multiplier_error)
        scores.append((law.width_constant - 0.16) / law.width_constant_error)
        assert 0 < law.peak_rms < 0.1
    # Student's t with 4 degrees of freedom: half of them within 0.74, 95 % within 2.78.
    assert 0.3 < (np.abs(scores) < 0.74).mean() < 0.7
    assert (np.abs(scores) < 2.78).mean() > 0.85


def test_analytic_exponential_and_power_are_told_apart():
    t, rng = np.array([20.0, 40, 60, 80, 100]), np.random.default_rng(0)
    noise = np.exp(0.05 * rng.normal(size=5))
    power, exponential = compare_laws(t, 3 / t * noise), compare_laws(t, np.exp(-0.05 * t) * noise)
    assert power.delta_aic < -4 < 4 < exponential.delta_aic
    assert power.exponent == pytest.approx(-1, abs=0.1)
    assert exponential.rate == pytest.approx(-0.05, abs=0.005)


def test_parity_masked_unroll_is_the_unroll(x64):
    rng = np.random.default_rng(0)
    params = recurrent.RNNParams(jnp.asarray(0.5 * rng.normal(size=(4, 4))), jnp.asarray(rng.normal(size=(3, 4))))
    inputs, start = jnp.asarray(rng.normal(size=(9, 2, 3))), jnp.zeros((2, 4))
    states = recurrent.unroll(recurrent.rnn_step(), params, start, inputs)

    def at(length):
        return state_after(recurrent.rnn_step(), params, start, inputs, length, max_length=9)

    got = jax.jit(jax.vmap(at))(jnp.array([0, 1, 5, 9, 20]))
    np.testing.assert_allclose(got, jnp.stack([start, states[0], states[4], states[8], states[8]]), atol=1e-14)
    short = jax.grad(lambda u: state_after(linear_step, jnp.eye(2), u, None, 3, max_length=9).sum())(jnp.ones(2))
    assert short.tolist() == [1.0, 1.0]


def test_property_locate_boundary_over_a_curve_of_linear_thresholds():
    # x -> 2 (x - 1/2) clipped to [-1, 1] flows to -1 or 1; it starts at 3 s - c, so the boundary is s = (c + 0.5) / 3.
    def final(s, c):
        return jax.lax.fori_loop(0, 60, lambda _, x: jnp.clip(2 * x - 0.5, -1, 1), 3 * s - c)

    c = jnp.linspace(-0.5, 1.0, 7)
    found = jax.vmap(lambda c: locate_boundary(lambda s: final(s, c), -2.0, 2.0))(c)
    np.testing.assert_allclose(found, (c + 0.5) / 3, atol=1e-6)
    same = locate_boundary(lambda s: final(s, 0.0), 1.0, 2.0)
    assert np.isnan(same)  # both ends flow to 1


def test_documented_several_unstable_points_need_a_hint(x64):
    # x -> 3.3 x (1 - x): unstable at 0 (multiplier 3.3) and at 1 - 1/3.3 (2 - 3.3).
    def logistic(r, x, inputs=None):
        return r * x * (1 - x)

    starts = jnp.linspace(-0.2, 1.1, 14)[:, None]
    with pytest.raises(ValueError, match="one unstable fixed point"):
        boundary_multiplier(logistic, 3.3, starts)
    assert boundary_multiplier(logistic, 3.3, starts, near=[0.1]) == pytest.approx(3.3)
    assert boundary_multiplier(logistic, 3.3, starts, near=[0.6]) == pytest.approx(1.3)


ROWS = CliffProfile(np.zeros(3), np.array([1.0, 2.0, 4.0]), np.array([4.0, 2.0, 1.0]), np.ones(3), np.ones(3, bool))


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cliff_law([1, 2], ROWS), "as many"),
        (lambda: cliff_law([2, 2, 2], ROWS), "at least 2"),
        (lambda: cliff_law([1, 2, 3], ROWS._replace(peak=np.array([0.0, 1, 2]))), "positive"),
        (lambda: cliff_law([1, 2, 3], ROWS, corrections=2), "corrections"),
        (lambda: cliff_law([1, 2, np.nan], ROWS), "lengths must be finite"),
        (lambda: cliff_law([1, 2, 3], ROWS._replace(resolved=np.array([True, False, True]))), "resolved.*2.0"),
        (lambda: cliff_law([1, 2, 3], ROWS._replace(cut_off=True)), "cut off"),
        (lambda: compare_laws([2, 2, 2], [1, 2, 3]), "different"),
        (lambda: compare_laws([1, 2, np.nan], [1, 2, 3]), "finite"),
        (lambda: compare_laws([1, 2], [1, 2]), "at least 3"),
        (lambda: compare_laws([1, 2, 3], [1, -2, 3]), "positive"),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
