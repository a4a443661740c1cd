"""What people's runs and logs look like when something is wrong with them: lost runs, zeros, clipped norms, shapes."""

import numpy as np
import pytest
from tests.untyped import number, present

from cliffs.diagnosis import as_history, diagnose, diagnose_runs, suggest_threshold


def noise(steps, seed=0, spread=0.2):
    return np.exp(np.random.default_rng(seed).normal(0, spread, steps))


def only(result):
    assert len(result.findings) == 1, result.names()
    return result.findings[0]


@pytest.mark.parametrize("end", [np.nan, np.inf])
@pytest.mark.parametrize("after", [1, 12, 292])
def test_analytic_sgd_that_explodes_in_eight_steps_is_said_to_have_diverged_at_step_eight(end, after):
    finding = only(diagnose(np.r_[0.7 * 10.0 ** np.arange(8), np.full(after, end)]))
    assert finding.name == "diverged"
    assert finding.evidence["step"] == 8
    np.testing.assert_allclose(number(finding.evidence["decades_grown"]), 7)
    for word in ("step 8", "7 decades", "lower learning rate", "clip by the global norm near 0.7"):
        assert word in finding.advice
    assert "nonfinite='skip'" not in finding.advice


@pytest.mark.parametrize("width", [3, 12, 60])
def test_analytic_a_late_divergence_is_one_finding_and_leaves_the_threshold_alone(width):
    quiet = noise(1000)
    result = diagnose(np.r_[quiet, 10.0 ** np.linspace(1.2, 9, width), np.full(100, np.nan)])
    finding = only(result)
    assert (finding.name, finding.evidence["step"]) == ("diverged", 1000 + width)
    np.testing.assert_allclose(number(finding.evidence["decades_grown"]), 9, atol=0.1)
    np.testing.assert_allclose(present(result.threshold).suggested, suggest_threshold(quiet).suggested, rtol=0.02)
    assert len(result.nonfinite_steps) == 100


def test_analytic_a_run_lost_without_growth_gets_the_other_advice():
    finding = only(diagnose(np.r_[noise(500), np.full(100, np.nan)]))
    assert (finding.name, finding.evidence["step"]) == ("diverged", 500)
    assert abs(number(finding.evidence["decades_grown"])) < 0.5
    assert "nonfinite='skip'" in finding.advice
    assert "without a warning" in finding.advice


def test_analytic_losses_that_are_lost_count_although_a_rule_made_the_norms_zero():
    norms, losses = np.r_[noise(200), np.zeros(100)], np.r_[noise(200), np.full(100, np.nan)]
    finding = only(diagnose(norms, losses=losses))
    assert (finding.name, finding.evidence["step"]) == ("diverged", 200)


def test_analytic_infs_at_the_start_in_the_middle_and_everywhere_are_told_apart():
    start = only(diagnose(np.r_[np.full(4, np.inf), noise(400)]))
    assert start.name == "non-finite"
    assert "loss scale of half precision is sought" in start.advice
    never = only(diagnose(np.full(40, np.nan)))
    assert (never.name, never.evidence["count"]) == ("non-finite", 40)
    assert "ever finite" in never.advice
    last = diagnose(np.r_[noise(400), np.inf])  # one overflow: the next step may be fine
    assert last.names() == ["non-finite"]
    both = noise(400)
    both[50], both[300:] = np.nan, np.nan
    assert diagnose(both).names() == ["diverged", "non-finite"]
    assert diagnose(both).findings[1].evidence["steps"] == [50]


def test_analytic_zero_gradients_are_said_to_be_zero():
    result = diagnose(np.zeros(300))
    finding = only(result)
    assert finding.name == "zero gradients"
    assert "Every gradient is exactly 0" in finding.advice
    assert "e-308" not in str(result)
    assert result.threshold is None
    died = only(diagnose(np.r_[noise(200), np.zeros(100)]))
    assert (died.name, died.evidence["from_step"]) == ("zero gradients", 200)
    between = diagnose(np.where(np.arange(400) % 4 == 3, noise(400), 0))
    assert only(between).evidence["count"] == 300
    assert "accumulated" in between.findings[0].advice
    np.testing.assert_allclose(present(between.threshold).suggested, 2, rtol=0.1)
    assert diagnose(np.r_[0.0, noise(400)]).names() == ["healthy"]
    assert diagnose(np.r_[noise(350), np.zeros(50)], losses=np.r_[noise(350), np.zeros(50)]).names() == ["healthy"]


def torch_clip(norms, limit=1.0):
    return norms * np.minimum(1.0, limit / (norms + 1e-6))


CLIPPED = {
    "all": np.minimum(5 * noise(500), 1.0),
    "by torch": torch_clip(1.5 * noise(500)),
    "some": np.minimum(noise(1000, spread=0.5), 1.5),
    "few": np.minimum(noise(1000, spread=0.5), 3.0),
    "float32": np.minimum(1.2 * noise(500), 1.0).astype(np.float32),
    "bfloat16": np.minimum(1.2 * noise(500), 1.0) * (1 - np.random.default_rng(1).uniform(0, 1e-3, 500)),
    "leaf by leaf": np.full(300, np.sqrt(7) * 0.3),
    "short": np.minimum(2 * noise(25), 1.0),
    "printed": np.minimum(1.1 * noise(300), 0.5).round(3),
    "with large first norms, then lost": np.r_[np.minimum(3 * noise(500), 1.0), np.full(50, np.nan)],
}


@pytest.mark.parametrize("kind", CLIPPED)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 250.0])
def test_analytic_norms_that_were_logged_after_clipping_look_clipped(kind, scale):
    result = diagnose(CLIPPED[kind] * scale)
    assert "clipped norms" in result.names()
    assert "healthy" not in result.names()
    finding = next(f for f in result.findings if f.name == "clipped norms")
    np.testing.assert_allclose(number(finding.evidence["ceiling"]), np.nanmax(CLIPPED[kind]) * scale)
    assert "before clipping" in finding.advice
    assert result.threshold is None


@pytest.mark.parametrize("digits", [0, 1, 2, 3])
@pytest.mark.parametrize("spread", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_property_norms_that_were_not_clipped_do_not_look_so_however_few_digits_are_printed(digits, spread, seed):
    norms = (noise(500, seed, spread) * 10).round(digits)
    assert "clipped norms" not in diagnose(norms).names()
    assert "clipped norms" not in diagnose(1 - np.exp(-np.linspace(0.1, 8, 500))).names()


def test_analytic_a_threshold_that_the_norms_were_clipped_with_is_judged_all_the_same():
    assert diagnose(np.minimum(3 * noise(300), 1.0), max_norm=1.0).names() == ["clipped norms", "threshold too low"]
    assert diagnose(np.minimum(noise(300, spread=0.5), 2.0), max_norm=2.0).names() == ["clipped norms"]
    assert diagnose(noise(300), max_norm=np.inf).names() == ["healthy"]  # inf is no clipping


def test_analytic_short_histories_say_how_much_a_verdict_takes():
    norms = noise(400)
    norms[333] *= 40
    short = diagnose(norms[:20])
    assert short.names() == ["too short to tell"]
    assert short.findings[0].evidence == {"steps": 20, "needed": 100}
    assert "300" in short.findings[0].advice
    some = diagnose(norms[:150])
    assert some.names() == ["healthy"]
    assert "once in 50 steps" in some.notes[0]
    assert some.findings[0].evidence["spikes_rarer_than"] == 3 / 150
    assert diagnose(norms).findings[0].evidence["steps"] == [333]
    assert not diagnose(norms).notes
    window = diagnose(norms[320:340])
    assert window.names() == ["cliff spikes"]  # a spike that is there is seen in 20 steps, too


@pytest.mark.parametrize("spikes", [0.02])
def test_property_the_rule_of_three_is_what_is_promised(spikes):
    """At a rate of spikes p, 3 / p steps show one with a probability of 95 %."""
    rng = np.random.default_rng(0)
    steps = int(3 / spikes)
    seen = []
    for seed in range(80):
        norms = noise(steps, seed) * np.where(rng.random(steps) < spikes, 50, 1)
        seen.append("cliff spikes" in diagnose(norms).names())
    assert 0.9 < np.mean(seen) < 0.99


@pytest.mark.parametrize("window", [1000, 500, 250, 100, 60, 40])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_property_the_first_steps_do_not_raise_the_threshold(window, share):
    rest = 0.65 * noise(window, 3)
    start = rest.copy()
    first = max(int(share * window), 1)
    start[:first] *= 10
    np.testing.assert_allclose(suggest_threshold(start).suggested, 1.3, rtol=0.1)
    decay = rest * (1 + 9 * np.exp(-np.arange(window) / (first / 2 + 1e-9)))
    assert 1.15 < suggest_threshold(decay).suggested < 1.75  # the last of the decay, from twice the level, stays
    late = suggest_threshold(np.r_[rest, 10 * rest])  # growth is no start
    assert late.suggested > 3


def test_analytic_the_start_of_training_is_neither_spikes_nor_oscillation():
    for first, times in ((30, 10), (10, 30), (60, 100)):
        result = diagnose(np.r_[noise(first) * times, noise(600 - first, 1)])
        assert result.names() == ["healthy"]
        assert f"the first {first} norms are up to" in result.notes[0]
    norms = noise(600)
    norms[:30] *= 12
    norms[[12, 400]] *= 50
    assert only(diagnose(norms)).evidence["steps"] == [12, 400]


def test_parity_lists_of_dicts_columns_and_arrays_give_one_answer():
    norms, losses = noise(300), noise(300, 1)
    norms[[100, 200]] *= 50
    want = str(diagnose(norms, losses=losses))
    rows = [{"loss": float(b), "grad_norm": float(a), "epoch": 0.1} for a, b in zip(norms, losses)]
    assert str(diagnose(rows)) == want
    assert str(diagnose(iter(rows))) == want
    assert str(diagnose({"train/grad_norm": norms, "train/loss": losses})) == want
    assert str(diagnose([np.float32(x) for x in norms], losses=list(losses))).split("[")[0] == want.split("[")[0]
    eval_rows = [row for r in rows for row in (r, {"eval_loss": 1.0, "eval_runtime": 2.0})]
    assert str(diagnose(eval_rows)) == want
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    assert str(diagnose(pandas.DataFrame(rows))) == want
    assert str(diagnose(pandas.Series(norms), losses=pandas.Series(losses))) == want
    assert suggest_threshold(rows) == suggest_threshold(norms)


def trainer_log():
    """As a trainer keeps it: evaluations in rows of their own, some at a step of training, a summary at the end."""
    rows = [
        {"step": 10 * (i + 1), "loss": float(b), "grad_norm": float(a), "learning_rate": 0.1, "epoch": 0.01 * i}
        for i, (a, b) in enumerate(zip(noise(300), noise(300, 1)))
    ]
    for at in (290, 200, 100):
        rows.insert(at, {"step": 10 * at, "eval_loss": 1.4, "eval_runtime": 2.0, "epoch": 0.01 * at})
    evaluations = [{"step": 3000 + i, "eval_loss": 1.4, "epoch": 3.0} for i in range(4)]
    return [*rows, *evaluations, {"step": 3004, "train_loss": 1.1, "train_runtime": 60.0, "epoch": 3.0}]


def as_tables(rows):
    """A log as rows, and as the tables that pandas makes of it, with NaN in the empty cells."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(rows)
    return rows, frame, dict(frame), frame.to_dict("records"), frame.to_dict("list"), frame.convert_dtypes()


def test_parity_a_data_frame_of_a_log_is_read_as_its_rows():
    rows = trainer_log()
    lost = [
        row | {"loss": np.nan, "grad_norm": np.nan} if row["step"] > 2500 and "loss" in row else row for row in rows
    ]
    single = [dict(row) for row in rows]
    single[30]["grad_norm"] = np.nan
    once = [dict(row) for row in rows]
    once[30]["grad_norm"] = once[30]["loss"] = np.nan
    bare = [{name: x for name, x in row.items() if name in ("step", "loss", "grad_norm", "eval_loss")} for row in lost]
    bare = [row for row in bare if len(row) > 1]
    cases = {"healthy": [rows], "diverged": [lost, bare], "non-finite": [single, once]}
    for name, logs in cases.items():
        for log in logs:
            want = as_history(log)
            for table in as_tables(log)[:-1]:
                got = as_history(table)
                np.testing.assert_array_equal(got.steps, want.steps)
                np.testing.assert_array_equal(got.norms, want.norms)
                assert diagnose(table).names() == [name]
    np.testing.assert_array_equal(as_history(as_tables(rows)[1]).losses, as_history(rows).losses)
    assert diagnose(as_tables(rows)[-1]).names() == ["healthy"]  # with pandas' NA
    assert diagnose(as_tables([{"step": i, "grad_norm": np.nan, "lr": 0.1} for i in range(40)])[1]).names() == [
        "non-finite"
    ]


def test_parity_a_data_frame_with_loss_and_norm_in_rows_of_their_own_is_read_as_its_rows():
    rows = []
    for i, (a, b) in enumerate(zip(noise(300), noise(300, 1))):
        rows += [{"step": i, "loss": float(b)}, {"step": i, "grad_norm": float(a)}]
    want = as_history(rows)
    for table in as_tables(rows):
        for got, expected in zip(as_history(table), want):
            np.testing.assert_array_equal(got, expected)
    stuck = [{"step": 7, "loss": 1.0, "grad_norm": 1.0}, {"step": 7, "loss": np.nan, "grad_norm": np.nan}] * 2
    np.testing.assert_array_equal(as_history(stuck).norms, [1, np.nan, 1, np.nan])  # of one step, but lost


def test_parity_losses_that_are_logged_seldom_are_read_from_a_data_frame_as_from_rows():
    rows = [{"step": i, "grad_norm": float(x)} | ({} if i % 10 else {"loss": 1 + i}) for i, x in enumerate(noise(300))]
    for table in as_tables(rows):
        np.testing.assert_array_equal(as_history(table).losses, 1 + np.arange(300) // 10 * 10)
        assert diagnose(table).names() == ["loss grew"]
    for row in rows[200:]:
        row["loss"] = np.nan
    assert [diagnose(table).names() for table in as_tables(rows)[:-1]] == [["diverged"]] * 5


def test_analytic_arrays_in_cells_are_no_obstacle_where_they_are_not_asked_for():
    bins = [{"step": i // 2, "bins": np.ones(3) * (i // 2), ("loss", "grad_norm")[i % 2]: 1.0 + i} for i in range(60)]
    history = as_history(bins)
    np.testing.assert_array_equal(history.norms, 2.0 + 2 * np.arange(30))
    np.testing.assert_array_equal(history.losses, 1.0 + 2 * np.arange(30))


def test_analytic_steps_that_are_fractions_are_kept_apart():
    rows = [{"step": 0.25 * i, "grad_norm": x} for i, x in enumerate(noise(300))]
    history = as_history(rows)
    np.testing.assert_array_equal(history.steps, np.arange(300))
    assert "'step' holds fractions" in history.notes[0]
    whole = as_history([{"step": float(4 * i), "grad_norm": x} for i, x in enumerate(noise(300))])
    assert (whole.steps.dtype.kind, whole.steps[-1], whole.notes) == ("i", 1196, ())


def test_integration_read_telemetry_dicts_are_read_as_they_are():
    import jax
    import jax.numpy as jnp
    import optax

    from cliffs import read_telemetry, with_telemetry

    optimizer = optax.chain(with_telemetry(optax.clip_by_global_norm(1.0), per_leaf=True), optax.sgd(0.1))
    state, rows, norms = optimizer.init({"w": jnp.zeros(2)}), [], 3 * noise(30)
    update = jax.jit(lambda norm, state: optimizer.update({"w": norm * jnp.eye(2)[0]}, state, {"w": jnp.zeros(2)}))
    for norm in norms:
        _, state = update(norm, state)
        rows.append(read_telemetry(state))
    result = diagnose(rows, max_norm=1.0)
    assert "clipped norms" not in result.names()  # the norm before, not the one after, which is 1 throughout
    assert result.findings[0].name == "threshold too low"
    np.testing.assert_allclose(number(result.findings[0].evidence["median_to_threshold"]), np.median(norms), rtol=1e-6)


def test_analytic_steps_are_those_of_the_log():
    norms = noise(300)
    norms[[100, 200]] *= 50
    rows = [{"step": 10 * (i + 1), "grad_norm": x} for i, x in enumerate(norms)]
    result = diagnose(rows)
    assert result.findings[0].evidence["steps"] == [1010, 2010]
    assert "every 10th step" in result.notes[-1]
    gaps = [None if i % 2 else x for i, x in enumerate(norms.tolist())]
    assert diagnose(gaps).findings[0].evidence["steps"] == [100, 200]
    assert "150 steps without a norm" in diagnose(gaps).notes[0]


def test_parity_many_runs_are_diagnosed_one_by_one():
    norms = np.stack([noise(400, i) for i in range(4)])
    norms[1, 200] *= 100
    norms[2, 8:] = np.nan
    norms[3, 300:] = np.nan
    both = diagnose_runs(norms, max_norm=[2.0, 2.0, 2.0, 1e6])
    want = {"diverged": [2, 3], "healthy": [0], "cliff spikes": [1], "threshold never binds": [3]}
    assert both.names() == want
    for i, run in enumerate(both.runs):
        assert str(run) == str(diagnose(norms[i], max_norm=[2.0, 2.0, 2.0, 1e6][i]))
    assert "diverged: 2 of 4 runs (2, 3)" in str(both)
    ended = diagnose_runs(norms, steps_run=[400, 400, 400, 300], losses=norms)
    assert ended.names()["diverged"] == [2]
    assert ended.names()["healthy"] == [0, 3]
    ragged = diagnose_runs([norms[0], norms[1, :300].tolist(), [{"grad_norm": x} for x in norms[3, :300]]])
    assert ragged.names() == {"healthy": [0, 2], "cliff spikes": [1]}


def test_property_runs_of_a_sweep_that_records_seldom_end_where_they_ended():
    norms = np.stack([noise(200, i) for i in range(3)])
    norms[1, 100:], norms[2, 60:] = np.nan, np.nan
    norms[0, 150] = norms[1, 50] = 60
    for every in (1, 5, 100):
        ended = np.array([200, 100, 200]) * every
        found = diagnose_runs(norms, steps_run=ended, record_every=every, losses=norms)
        assert found.names() == {"cliff spikes": [0, 1], "diverged": [2]}
        # The last update of a column, counted from 0 as `SweepResult.diverged_at` is.
        assert found.runs[0].findings[0].evidence["steps"] == [151 * every - 1]
        assert found.runs[1].findings[0].evidence["steps"] == [51 * every - 1]
        assert found.runs[2].findings[0].evidence["step"] == 61 * every - 1
        begun = diagnose_runs(norms[:2], steps_run=ended[:2] + every - 1, record_every=every)  # no column yet
        assert begun.names() == {"cliff spikes": [0, 1]}


def test_integration_a_sweep_that_records_seldom_is_diagnosed_with_its_own_numbers():
    from typing import NamedTuple

    import jax
    import jax.numpy as jnp

    from cliffs import sweeps

    class State(NamedTuple):
        step: jax.Array
        diverged_at: jax.Array

    def update(state, run):
        norm = jnp.where(state.step == run["spike"], 50.0, 1.0 + 0.1 * jnp.sin(7.0 * state.step))
        return state._replace(step=state.step + 1), {"grad_norm": norm}

    result = sweeps.sweep(
        lambda run: State(jnp.array(0), jnp.array(-1)),
        update,
        {"spike": np.array([199, 299, -1]), "end": np.array([600, 400, 200])},
        600,
        evaluate=lambda state, run: {"solved": state.step >= run["end"]},
        evaluate_every=100,
        stop_when_solved=True,
        record_every=2,
        progress=False,
    )
    assert result.steps_run.tolist() == [600, 400, 200]
    found = diagnose_runs(result.metrics["grad_norm"], steps_run=result.steps_run, record_every=result.record_every)
    assert found.names() == {"cliff spikes": [0, 1], "healthy": [2]}
    assert [found.runs[i].findings[0].evidence["steps"] for i in (0, 1)] == [[199], [299]]


def test_property_steps_run_cuts_logs_at_their_own_steps():
    rows = [{"step": 10 * (i + 1), "grad_norm": x} for i, x in enumerate(np.r_[noise(200), np.full(100, np.nan)])]
    losses = noise(300, 1)
    for run in (rows, as_history(rows)):
        found = diagnose_runs([run], steps_run=[2001], losses=[losses], record_every=10)
        assert found.names() == {"healthy": [0]}
        assert diagnose_runs([run], steps_run=[4000]).names() == {"diverged": [0]}


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("norms", "match"),
    [
        (np.ones((4, 300)), r"\(4, 300\).*diagnose_runs"),
        ([[1.0] * 30, [1.0] * 40], "different lengths.*diagnose_runs"),
        (1.0, r"\[steps\]"),
        ([1.0] * 19, "at least 20 steps, got 19"),
        ([], "at least 20"),
        (["1.0"] * 30, "real numbers"),
        ([1j] * 30, "real numbers"),
        ([1.0] * 30 + ["a"], "real numbers"),
        ([1.0] * 30 + [None, "a"], "must hold numbers, got 'a' in row 31"),
        ([{"loss": 1.0}] * 30, r"none of the columns \['loss'\].*norm="),
        ([{"0/norm_before": 1.0, "1/norm_before": 2.0}] * 30, "several columns.*1/norm_before"),
        ([{"grad_norm": "high"}] * 30, "grad_norm must hold numbers, got 'high' in row 0"),
        ({"step": 1.0, "norm_before": 2.0}, "one row of a log"),
        ({"grad_norm": [1.0] * 30, "loss": [1.0]}, "one length"),
        ([{"grad_norm": -1.0}] * 30, "negative"),
        ([{"step": 1, "grad_norm": np.ones(2)}] * 30, r"grad_norm must hold numbers, got array.* in row 0"),
        ([{"step": np.ones(2), "grad_norm": 1.0}] * 30, r"step must hold numbers, got array.* in row 0"),
    ],
)
def test_wrong_histories_say_what_to_do(norms, match):
    with pytest.raises(ValueError, match=match):
        diagnose(norms)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("losses", "match"),
    [
        ([*[1.0] * 29, "high"], "losses must hold numbers, got 'high' in row 29"),
        ([*[1.0] * 29, 1j], r"losses must hold numbers, got \(1\+0j\) in row 0"),
        ([None, *[1.0] * 28], r"losses must have the shape of norms \(30,\), got \(29,\)"),
        ([[1.0], [1.0, 2.0]], "losses must have the shape of norms .*different lengths"),
    ],
)
def test_wrong_losses_are_named(losses, match):
    with pytest.raises(ValueError, match=match):
        diagnose(np.ones(30), losses=losses)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("args", "match"),
    [
        ((np.ones(300),), "a single run goes to diagnose"),
        (([{"grad_norm": 1.0}] * 30,), "a single run goes to diagnose"),
        ((np.ones((300, 4)),), "run 0 of 300.*run axis first.*got 4"),
        ((np.ones((2, 30)), [1.0, 2.0, 3.0]), "max_norm must have one entry for each of the 2 runs, got 3"),
        ((np.ones((2, 30)), None, np.ones((3, 30))), "losses must have one entry"),
        ((np.ones((2, 30)), None, None, [30, 31]), r"run 1 of 2.*steps_run.*30 columns, record_every=1\), got 31"),
        ((np.ones((2, 30)), None, None, [150, 155], 5), r"run 1 of 2.*150 updates.*record_every=5\), got 155"),
        ((np.ones((2, 30)), None, None, [30, -1]), "steps_run must hold numbers of updates, got -1"),
        ((np.ones((2, 30)), None, None, ["all", 30]), "run 0 of 2.*steps_run must hold numbers of updates, got 'all'"),
        ((np.ones((2, 30)), None, None, 30, 0), "record_every must be a positive integer, got 0"),
        ((np.ones((2, 30)), None, None, 30, 2.5), r"record_every must be a positive integer, got 2\.5"),
        ((np.ones((2, 30)), "1.0"), "max_norm must be a positive number"),
    ],
)
def test_wrong_shapes_of_many_runs_say_what_to_do(args, match):
    with pytest.raises(ValueError, match=match):
        diagnose_runs(*args)


def test_analytic_a_loss_that_ends_far_above_its_start_is_a_finding_whatever_the_norm():
    norms, losses = noise(300), 2.5 * noise(300, 1, 0.1)
    grew = losses * np.r_[1.0, np.full(299, 40.0)]
    result = diagnose(norms, max_norm=0.1, losses=grew)
    assert result.names() == ["loss grew"]  # and not: raise the threshold
    np.testing.assert_allclose(number(result.findings[0].evidence["end_to_first"]), 40, rtol=0.2)
    assert result.threshold is None
    for calm in (losses, losses * np.linspace(1, 0.2, 300), losses - 5, np.r_[grew[:200], losses[:100]]):
        assert diagnose(norms, losses=calm).names() == ["healthy"]


def test_parity_losses_with_gaps_are_read_as_those_of_rows_with_gaps():
    norms, losses = noise(300), 2.5 * noise(300, 1, 0.1) * np.linspace(1, 40, 300)
    gaps = [None if i % 10 else float(x) for i, x in enumerate(losses)]
    want = str(diagnose([{"grad_norm": a, "loss": b} for a, b in zip(norms, gaps)]))
    assert diagnose(norms, losses=gaps).names() == ["loss grew"]
    assert str(diagnose(norms, losses=gaps)) == want
    assert str(diagnose(norms, losses=np.ma.array(losses, mask=[x is None for x in gaps]))) == want
    assert str(diagnose_runs([norms], losses=[gaps]).runs[0]) == want
    assert diagnose([None, *norms], losses=[7.0, *gaps]).names() == ["loss grew"]
    assert diagnose(norms, losses=[None] * 300).names() == ["healthy"]


def test_property_masked_norms_are_left_out_as_none_is():
    norms = np.ma.array(noise(300), mask=np.arange(300) % 3 == 1)
    norms.data[norms.mask] = 1e6
    assert str(diagnose(norms)) == str(diagnose(norms.tolist()))
    assert str(diagnose({"grad_norm": norms})) == str(diagnose({"grad_norm": norms.tolist()}))
    assert diagnose(norms).names() == ["healthy"]


@pytest.mark.parametrize("lost", [0, 50, 195, 199])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_property_a_single_loss_that_is_not_finite_neither_hides_nor_moves_a_loss_that_grew(lost, value):
    losses = np.linspace(1, 10, 200)
    losses[lost] = value
    finding = only(diagnose(noise(200), losses=losses))
    assert finding.name == "loss grew"
    assert finding.evidence["step_of_largest_loss"] == (198 if lost == 199 else 199)
    np.testing.assert_allclose(number(finding.evidence["end_to_first"]), 9.5, rtol=0.06)


@pytest.mark.parametrize("norms", [np.zeros(50), np.full(50, np.nan), np.r_[10.0 ** np.arange(8), np.full(9, np.inf)]])
def test_integration_the_picture_of_a_run_that_has_nothing_to_draw_is_drawn(norms):
    plotting = pytest.importorskip("cliffs.plotting", reason="matplotlib is not installed")
    ax = plotting.plot_diagnosis(norms)
    assert ax.get_title() == ", ".join(diagnose(norms).names())
    ax.figure.draw_without_rendering()


def test_analytic_an_explosion_at_the_start_that_stays_finite_is_not_healthy():
    thrown = np.r_[10.0 ** np.arange(8), 3e7 * noise(300)]
    result = diagnose(thrown)
    finding = only(result)
    assert finding.name == "sudden explosion"
    np.testing.assert_allclose(number(finding.evidence["decades_gained"]), 7.5, atol=0.1)
    assert "clip near 1." in finding.advice
    assert result.threshold is None
    low = diagnose(np.r_[0.05, noise(300)])
    assert low.names() == ["healthy"]
    assert "the first norm is 19.7 times below" in low.notes[0]


def test_property_the_threshold_of_a_run_that_explodes_is_that_of_its_norms_before():
    quiet = noise(1000)
    for end in (10.0 ** np.linspace(1.2, 5, 100), 1e3 * noise(30, 1)):
        result = diagnose(np.r_[quiet, end])
        assert result.names() == ["slow explosion"]
        np.testing.assert_allclose(present(result.threshold).suggested, suggest_threshold(quiet).suggested, rtol=0.05)
        np.testing.assert_allclose(present(result.threshold).clip_fraction, len(end) / (1000 + len(end)), atol=0.01)
    growing = diagnose(quiet * 10.0 ** np.linspace(0, 8, 1000))
    assert growing.names() == ["slow explosion"]
    assert present(growing.threshold).suggested < 1e2


def test_property_norms_logged_less_often_than_losses_are_read_from_a_data_frame():
    pandas = pytest.importorskip("pandas")
    rows = np.arange(400)
    norms = np.abs(np.random.default_rng(0).normal(1, 0.1, 400))
    losses = 2 - rows / 400
    sparse = pandas.DataFrame({"step": rows, "loss": losses, "grad_norm": np.where(rows % 4 == 0, norms, np.nan)})
    history = as_history(sparse)
    np.testing.assert_array_equal(history.steps, rows[::4])
    assert np.isfinite(history.norms).all()
    overflowed = sparse.assign(grad_norm=np.where(rows % 4 == 0, np.nan, norms))
    assert diagnose(overflowed).names() == ["non-finite"]
    lost = pandas.DataFrame(
        {"loss": np.where(rows < 90, losses, np.nan), "grad_norm": np.where(rows < 90, norms, np.nan)}
    )
    assert diagnose(lost).names() == ["diverged"]
