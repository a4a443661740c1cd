"""The experiments about success on synthetic tasks, each from its settings to its figures in seconds."""

import dataclasses
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import runner
from experiments.training import _trials
from tests.untyped import untyped

from cliffs import recurrent
from cliffs.records import load_record

SMALL = {"hidden": 6, "batch": 4, "updates": 4, "evaluate_every": 2, "test_batch": 20, "seeds": 2}
TINY = {
    "training/success_by_length": {**SMALL, "lengths": (10,), "inits": ("sigmoid",)},
    "training/length_generalisation": {
        **SMALL,
        "length": 10,
        "max_length": 13,
        "test_lengths": (10, 30),
        "final_test": 60,
    },
    "training/pathological": {**SMALL, "tasks": ("addition", "memorisation_5bit"), "lengths": (10,)},
    "training/initialisation": {**SMALL, "length": 10, "inits": ("identity, ReLU",)},
    "training/gates": {**SMALL, "length": 10, "cells": ("LSTM, forget bias 1",)},
    "training/regularisation": {**SMALL, "length": 10, "methods": ("Jacobian penalty", "spectral normalisation")},
}


@pytest.mark.parametrize("name", TINY)
def test_integration_an_experiment_runs_is_recorded_and_drawn(name, tmp_path):
    module = runner.load(name)
    config = dataclasses.replace(module.Config(), **TINY[name])
    result, folder = runner.execute(name, config, folder=tmp_path, report=False)
    record = load_record(folder)
    table = record.metrics["table"]
    assert len(list(folder.glob("*.png"))) == 1
    for row in table:
        assert 0 <= row["low"] <= row["rate"] <= row["high"] <= 1
    # Every run is counted once.
    runs = sum(len(a) for key, a in result.arrays.items() if key.endswith("_solved_at"))
    assert sum(row["runs"] for row in table) == runs
    assert all(len(row) == 3 for row in result.rows)


def test_integration_clipping_and_omega_change_the_trajectory_and_a_solved_run_is_counted():
    """At a generous criterion all runs solve at the first look; at an impossible one none, and the methods part."""
    from experiments.training import success_by_length

    config = success_by_length.Config(
        **{**SMALL, "learning_rate": 1.0, "max_norm": 1e-3}, lengths=(10,), inits=("basic_tanh",)
    )
    easy = success_by_length.run(dataclasses.replace(config, success_error=1.1), say=lambda text: None)
    assert {(r["solved"], r["median_updates"]) for r in easy.metrics["table"]} == {(2, 2.0)}
    assert easy.metrics["longest"]["basic_tanh"] == {"SGD": 10, "clip": 10, "clip + Omega": 10}
    result = success_by_length.train(dataclasses.replace(config, success_error=0.0), "basic_tanh", 10)
    moved = [np.asarray(w) for w in result.state.params.rnn.w_rec[:: config.seeds]]
    assert np.abs(moved[0] - moved[1]).max() > 1e-4
    assert np.abs(moved[1] - moved[2]).max() > 1e-6


def test_integration_a_stopped_experiment_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    """Stopped after the first of two evaluations, then run again: the same numbers as without a stop."""
    from experiments.training import success_by_length

    from cliffs.sweeps import _progress

    config = success_by_length.Config(**untyped(SMALL), lengths=(10,), inits=("sigmoid",), success_error=0.0)
    whole = success_by_length.train(config, "sigmoid", 10)
    kept = dataclasses.replace(config, checkpoint=str(tmp_path))

    report = _progress.Reporter.report

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return report(*args, **kwargs)

    monkeypatch.setattr(_progress.Reporter, "report", interrupted)
    with pytest.raises(KeyboardInterrupt, match="interrupted after 2 of 4"):
        success_by_length.train(kept, "sigmoid", 10)
    monkeypatch.undo()
    resumed = success_by_length.train(kept, "sigmoid", 10)
    np.testing.assert_array_equal(resumed.steps_run, whole.steps_run)
    np.testing.assert_array_equal(resumed.evaluations["error"], whole.evaluations["error"])
    np.testing.assert_array_equal(resumed.state.params.rnn.w_rec, whole.state.params.rnn.w_rec)


def test_analytic_growth_of_a_linear_network():
    """`log(singular value of A^T) / T` of a normal matrix are the logarithms of its eigenvalues' moduli."""
    step = recurrent.rnn_step("identity")
    params = recurrent.RNNParams(jnp.diag(jnp.array([1.1, 0.5, 0.9])), jnp.ones((1, 3)))
    rates = jax.jit(lambda p: _trials.growth(step, p, jnp.zeros((2, 3)), jnp.ones((12, 2, 1))))(params)
    np.testing.assert_allclose(rates, np.log([1.1, 0.9, 0.5]), atol=1e-5)


def test_analytic_lengths_with_separate_intervals_are_named():
    from experiments.training.success_by_length import longest, separate

    def row(length, method, solved):
        low, high = _trials.wilson_interval(solved, 10)
        return {"init": "a", "length": length, "method": method, "rate": solved / 10, "low": low, "high": high}

    table = [row(10, "SGD", 10), row(10, "clip", 10), row(20, "SGD", 0), row(20, "clip", 9)]
    assert separate(table) == {"a": [20]}
    assert longest(table) == {"a": {"SGD": 10, "clip": 20}}
