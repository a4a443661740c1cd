"""The diagnosis of gradient norms on synthetic series whose answer is known, and on real runs."""

import numpy as np
import pytest
from tests.untyped import number, present

from cliffs.diagnosis import diagnose, suggest_threshold

N = 1000


def noise(seed, spread=0.1, steps=N):
    return np.exp(np.random.default_rng(seed).normal(0, spread, steps))


def series(kind, seed):
    t = np.linspace(0, 1, N)
    base = noise(seed)
    if kind == "vanishing":
        return base * 10.0 ** (-6 * t)
    if kind == "slow explosion":
        return base * 10.0 ** (2.5 * t)
    if kind == "oscillation near critical":
        return noise(seed, 2.0)
    if kind == "cliff spikes":
        spikes = np.random.default_rng(seed + 100).choice(N, 5, replace=False)
        base[spikes] *= 10.0 ** np.random.default_rng(seed).uniform(1.5, 5, 5)
        return base
    return base


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(
    "kind", ["vanishing", "slow explosion", "oscillation near critical", "cliff spikes", "healthy"]
)
def test_analytic_truth_each_synthetic_kind_is_found_alone_at_every_scale(kind, scale, seed):
    assert diagnose(series(kind, seed) * scale).names() == [kind]


def test_analytic_truth_spikes_are_found_where_they_are_even_on_a_trend():
    norms = series("slow explosion", 1)
    norms[[50, 500, 950]] *= 1000
    result = diagnose(norms)
    assert set(result.names()) == {"slow explosion", "cliff spikes"}
    spikes = next(f for f in result.findings if f.name == "cliff spikes")
    assert spikes.evidence["steps"] == [50, 500, 950]
    assert 500 < number(spikes.evidence["largest_ratio"]) < 2000


@pytest.mark.parametrize("share", [0.01, 0.09, 0.11, 0.15, 0.4])
def test_analytic_truth_a_run_full_of_spikes_is_never_called_healthy(share):
    norms = noise(7)
    norms[np.random.default_rng(8).random(N) < share] *= 1000
    assert diagnose(norms).names() == ["cliff spikes" if share < 0.1 else "oscillation near critical"]


def test_analytic_truth_a_plateau_and_a_late_blow_up_are_seen():
    plateau, late = noise(9), noise(10)
    plateau[400:600] *= 300
    assert diagnose(plateau).names() == ["oscillation near critical"]
    late[-100:] *= 10.0 ** np.linspace(0, 6, 100)
    found = diagnose(late)
    assert found.names() == ["slow explosion"]
    assert number(found.findings[0].evidence["last_to_first"]) > 1e3


def test_analytic_truth_nonfinite_steps_are_counted_apart():
    norms = series("healthy", 2)
    norms[[3, 700]] = np.nan, np.inf
    result = diagnose(norms)
    assert result.names() == ["non-finite"]
    np.testing.assert_array_equal(result.nonfinite_steps, [3, 700])
    assert result.threshold is not None
    assert 1.5 < result.threshold.suggested < 2.5
    everything = diagnose(np.full(30, np.nan))
    assert everything.names() == ["non-finite"]
    assert everything.threshold is None


def test_analytic_truth_converged_run_is_not_called_vanishing():
    norms = series("vanishing", 3)
    assert diagnose(norms, losses=norms).names() == ["healthy"]
    assert diagnose(norms, losses=np.full(N, 1.386)).names() == ["vanishing"]


def test_analytic_truth_threshold_findings():
    norms = series("healthy", 4)
    assert diagnose(norms, max_norm=0.5).names() == ["threshold too low"]
    assert diagnose(norms, max_norm=1e3).names() == ["threshold never binds"]
    assert diagnose(norms, max_norm=2.0).names() == ["healthy"]


def test_analytic_truth_losses_tell_which_spikes_hurt():
    norms, losses = series("healthy", 5), noise(5, 0.01)
    norms[[200, 600]] *= 1e3
    losses[201:] += 3
    spikes = diagnose(norms, losses=losses).findings[0]
    assert spikes.evidence["followed_by_loss_jump"] == 0.5
    before = noise(5, 0.01)
    before[[200, 600]] += 3  # the bad batch itself, mended by the update
    assert diagnose(norms, losses=before).findings[0].evidence["followed_by_loss_jump"] == 0.0


def test_property_threshold_ignores_single_cliffs_and_scales_with_the_norms():
    norms = series("healthy", 6)
    plain = suggest_threshold(norms)
    cliff = suggest_threshold(np.append(norms, [1e12, 1e9]))
    np.testing.assert_allclose(cliff.suggested, plain.suggested, rtol=0.01)
    np.testing.assert_allclose(suggest_threshold(norms * 7).suggested, plain.suggested * 7)
    assert plain.low < plain.median < plain.suggested < plain.high


@pytest.mark.wrong_arguments
def test_wrong_negative_norms_get_no_threshold():
    norms = noise(0)
    norms[500] = -2
    with pytest.raises(ValueError, match=r"norms must not be negative, got -2\.0"):
        suggest_threshold(norms)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("args", "match"),
    [
        ((np.ones(5),), "at least 20"),
        ((np.ones((30, 2)),), "norms must be"),
        ((-np.ones(30),), "negative"),
        ((np.ones(30), 0.0), "max_norm"),
        ((np.ones(30), 1.0, np.ones(29)), "losses"),
        (("run/log.csv",), r"got 'run/log.csv': read_history\(path\) reads a file"),
        ((diagnose(np.ones(30)),), "got a Diagnosis, which does not hold its norms"),
        (({"g": np.ones(30)},), "none of the columns .'g'.*giving its numbers alone"),
    ],
)
def test_property_bad_histories_are_refused(args, match):
    with pytest.raises(ValueError, match=match):
        diagnose(*args)


def test_integration_real_runs_with_a_large_and_a_sensible_recurrent_matrix():
    """A small recurrent matrix keeps gradients calm, one far beyond radius 1 does not: diagnosis must see both."""
    import jax
    import jax.numpy as jnp

    from cliffs import recurrent, tasks, training

    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    params = recurrent.paper_init("sigmoid", jax.random.key(0), 6, 20, 4)

    def norms(radius):
        import optax

        matrix = radius * jnp.linalg.qr(jax.random.normal(jax.random.key(1), (20, 20)))[0]
        start = params._replace(rnn=params.rnn._replace(w_rec=matrix))
        sample = lambda key: tasks.temporal_order(key, 10, 20)  # noqa: E731
        return training.fit(loss, optax.sgd(0.3), start, sample, jax.random.key(2), 200)[1]

    runs = jax.jit(jax.vmap(norms))(jnp.array([0.3, 3.0]))
    calm, wild = (diagnose(np.asarray(runs.grad_norm[i]), losses=np.asarray(runs.loss[i])) for i in range(2))
    assert present(calm.threshold).median < present(wild.threshold).median
    assert "oscillation near critical" not in calm.names()
    assert {"oscillation near critical", "cliff spikes", "slow explosion"} & set(wild.names())
