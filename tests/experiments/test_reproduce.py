"""The main job's parts, small, and its table."""

import dataclasses

import numpy as np
from experiments import reproduce, runner
from experiments.training import temporal_order

from cliffs.records import load_record, machine


def test_integration_temporal_order_counts_its_runs():
    config = temporal_order.Config(
        length=10,
        max_length=13,
        hidden=20,
        updates=1000,
        seeds=3,
        thresholds=(float("inf"), 1.0),
        evaluate_every=250,
        test_batch=100,
    )
    result = temporal_order.run(config)
    for row in result.metrics["table"]:
        mine = result.arrays["max_norm"] == row["threshold"]
        assert row["solved"] == (result.arrays["solved_at"][mine] >= 0).sum()
        assert row["low"] <= row["rate"] <= row["high"]
    text = reproduce.report([*result.rows, ("  (order: 1.0 s)", "", "")], machine())
    assert "no clipping" in text
    assert "threshold 1" in text
    assert len(temporal_order.draw(result)["temporal_order"].axes) == 2


def test_integration_the_papers_temporal_order_runs_for_a_few_updates():
    config = reproduce.settings("training/temporal_order", reproduce.Config("paper", budget=4e-7))
    assert (config.updates, config.length, config.max_length, config.learning_rate) == (2, 50, 200, 0.01)
    result = temporal_order.run(dataclasses.replace(config, seeds=1, test_batch=100))
    assert len(result.rows) == len(config.thresholds)
    assert np.isfinite(result.arrays["error"]).all()


def test_integration_the_main_job_runs_every_part_and_records_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    called = []

    def execute(name, config, *, folder, report):
        from cliffs.records import save_record

        called.append((name, config))
        save_record(folder, metrics={}, settings={}, seconds=2.5)
        return type("Result", (), {"rows": [(f"quantity of {name}", "1", "2")]}), folder

    monkeypatch.setattr(runner, "execute", execute)
    folder = reproduce.main(reproduce.Config(data_dir="here", seed=3))
    assert [name for name, _ in called] == reproduce.parts(reproduce.Config(data_dir="here"))
    assert dict(called)["training/music"].data_dir == dict(called)["training/characters"].data_dir == "here"
    assert dict(called)["training/temporal_order"].seed == 3
    record = load_record(folder)
    assert folder == tmp_path / "reproduce"
    assert [row["quantity"] for row in record.metrics["table"]] == [f"quantity of {name}" for name, _ in called]
    assert record.seconds == 2.5 * len(called)
    printed = capsys.readouterr().out
    assert "quantity of training/music" in printed
    assert "Measured on" in printed


def test_property_trials_do_not_overwrite_what_is_recorded():
    places = [
        reproduce.results_of(config).relative_to(runner.RESULTS).as_posix()
        for config in (reproduce.Config(), reproduce.Config(budget=0.1), reproduce.Config("paper"))
    ]
    assert places == [".", "local/default_trial", "local/paper"]
