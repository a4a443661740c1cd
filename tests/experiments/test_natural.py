"""Real data, very small networks: the training loops and their summaries."""

import dataclasses

import numpy as np
import pytest
from experiments import reproduce, runner
from experiments.training import character_table, characters, music, music_order, music_table, natural_report

from cliffs.sweeps import SweepResult, product_grid
from cliffs.training import StepMetrics


def test_integration_characters_learn_and_are_summarised(data_dir):
    config = characters.Config(
        str(data_dir), hidden=16, piece_length=20, batch=64, learning_rates=(0.2,), updates=200, evaluate_every=100
    )
    result, curves = characters.train(config)
    assert curves["valid"].shape == (2, 2)
    clipped = result.grid["max_norm"] == config.threshold
    assert curves["valid"][clipped][0, -1] < np.log2(49) - 0.5  # better than uniform by more than half a bit
    summary = natural_report.summarise(result, curves, config.threshold)
    assert summary["clipped"]["mean"]["valid"] == curves["valid"][clipped].min()
    assert len(summary["best_valid_of_each_run"]) == 2


def test_integration_the_table_of_characters_has_each_arm_at_its_own_rate(data_dir, tmp_path):
    config = character_table.Config(
        str(data_dir), tasks=("ptb, fifth",), updates=(2,), evaluate_every=1, hidden=3, checkpoint=str(tmp_path)
    )
    result = character_table.run(config, say=lambda text: None)
    task = result.metrics["ptb, fifth"]
    assert 4 < task["clipped"]["test"]["mean"] < 6  # nothing is learned in two updates: about log2 of 49
    assert result.arrays["ptb, fifth / valid"].shape == (2, 2)
    # Clipped at 45 and at rate 0.1, not clipped at 0.05: not the same run.
    assert task["clipped"]["test"]["mean"] != task["unclipped"]["test"]["mean"]
    axes = character_table.draw(result)["character_table"].axes
    assert [ax.get_title() for ax in axes] == ["Penn Treebank, fifth character"]
    assert [path.name for path in tmp_path.iterdir()] == ["Penn_Treebank_characters,_5_ahead"]


def test_integration_music_learns_song_by_song(data_dir):
    config = music.Config(str(data_dir), dataset="JSB_Chorales", hidden=10, epochs=2, seeds=1)
    result, curves = music.train(config)
    clipped = result.grid["max_norm"] == config.threshold
    # A constant guess of every key's frequency costs about 11 nats per step on the chorales.
    assert curves["valid"][clipped][0, -1] < 13
    assert curves["train"][clipped][0, 1] < curves["train"][clipped][0, 0]
    assert (result.diverged_at == -1).all()


def hand_made(valid, norms):
    """What a sweep of two rates, clipped (at 1) and not, two seeds would leave behind."""
    grid = product_grid(learning_rate=[0.1, 0.2], max_norm=[1.0, np.inf], seed=[0, 1])
    metrics = StepMetrics(norms, norms, ())
    none = np.full(8, -1)
    curves = {"valid": valid, "test": valid + 1, "train": valid - 1}
    return SweepResult(grid, None, metrics, {}, none, none, none), curves


def test_analytic_summary_takes_the_best_rate_and_each_seeds_best_evaluation():
    valid = np.full((8, 3), 9.0)
    valid[4] = [5, 3, 4]  # rate 0.2, clipped, seed 0
    valid[5] = [5, 4, 2]
    valid[2] = [7, 7, 6]  # rate 0.1, unclipped, seed 0
    result, curves = hand_made(valid, np.full((8, 6), 2.0))
    summary = natural_report.summarise(result, curves, 1.0)
    assert summary["clipped"]["learning_rate"] == 0.2
    assert summary["clipped"]["best_evaluation"].tolist() == [2, 3]
    assert summary["clipped"]["mean"] == {"valid": 2.5, "test": 3.5, "train": 1.5}
    assert summary["unclipped"]["learning_rate"] == 0.1
    assert summary["clipped"]["share_above_threshold"] == 1.0


@pytest.mark.filterwarnings("error")
def test_integration_runs_that_never_had_a_finite_score_are_summarised_as_infinitely_bad():
    valid, norms = np.full((8, 3), 4.0), np.full((8, 6), 2.0)
    unclipped = np.isin(np.arange(8), [2, 3, 6, 7])
    valid[unclipped], norms[unclipped] = np.nan, np.nan
    result, curves = hand_made(valid, norms)
    summary = natural_report.summarise(result, curves, 1.0)
    assert summary["clipped"]["mean"]["valid"] == 4
    assert np.isnan(summary["unclipped"]["mean"]["valid"])
    assert [run["valid"] for run in summary["best_valid_of_each_run"]].count(np.inf) == 4
    counts, edges = natural_report.norm_histograms(norms)
    arrays = {**curves, **result.grid, "norm_counts": counts, "norm_edges": edges}
    fig = natural_report.learning_curves(arrays, 1.0, "nats", "title", "epoch", 9.0)
    assert len(fig.axes) == 2


def test_integration_a_slip_in_the_summary_does_not_cost_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)

    def broken(*_):
        raise RuntimeError("a slip")

    monkeypatch.setattr(natural_report, "summarise", broken)
    trained = hand_made(np.full((8, 3), 4.0), np.full((8, 6), 2.0))
    monkeypatch.setattr(music, "train", lambda config: trained)
    with pytest.raises(RuntimeError, match="a slip"):
        runner.execute("training/music", music.Config())
    assert np.load(tmp_path / "training" / "music" / "arrays.npz")["valid"].shape == (8, 3)


@pytest.mark.parametrize("module", [music, characters, music_order])
def test_integration_scores_and_curves_of_both_arms_are_recorded_and_drawn(module, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    threshold = module.Config().threshold if module is not music_order else music.Config().threshold
    trained, curves = hand_made(np.full((8, 3), 4.0), np.full((8, 6), 2.0))
    trained.grid["max_norm"] = np.where(np.isinf(trained.grid["max_norm"]), np.inf, threshold)
    for inner in (music, characters):
        monkeypatch.setattr(inner, "train", lambda config: (trained, curves))
    name = module.__name__.rsplit(".", 1)[1]
    result, folder = runner.execute(f"training/{name}", module.Config())
    assert (folder / f"{name}.png").stat().st_size > 10_000
    summaries = result.metrics.values() if module is music_order else [result.metrics]
    assert all(summary["clipped"]["mean"] == {"valid": 4, "test": 5, "train": 3} for summary in summaries)
    assert any("5.000 / 5.000" in row[1] for row in result.rows)


def test_integration_the_table_of_sets_has_ours_beside_the_papers(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    valid = np.full((8, 3), 4.0) + 0.01 * np.arange(8)[:, None]
    trained, curves = hand_made(valid, np.full((8, 6), 2.0))
    trained.grid["max_norm"] = np.where(np.isinf(trained.grid["max_norm"]), np.inf, music.Config().threshold)
    monkeypatch.setattr(music, "train", lambda config: (trained, curves))
    result, folder = runner.execute("training/music_table", music_table.Config())
    assert (folder / "music_table.png").stat().st_size > 10_000
    test = result.metrics["MuseData"]["clipped"]["test"]
    assert test["mean"] == pytest.approx(5.005)  # seeds 0 and 1 at the first rate
    assert test["std"] == pytest.approx(0.01 / 2**0.5)
    assert test["low"] <= test["mean"] <= test["high"]
    rows = {row[0]: row[1:] for row in result.rows}
    assert rows["MuseData, unclipped: test, nats/step"] == ("5.025 ± 0.007 of 2 runs", "v1 8.0, ICML 7.11")
    assert rows["JSB_Chorales, clipped: test, nats/step"][1] == "-"


def test_invariance_a_checkpoint_changes_nothing_and_a_second_run_takes_it_up(data_dir, tmp_path):
    small = {"hidden": 4, "epochs": 1, "seeds": 1, "dataset": "JSB_Chorales", "piece_length": 150}
    plain = music.train(music.Config(str(data_dir), **small))[1]
    for _ in range(2):
        kept = music.train(music.Config(str(data_dir), **small, checkpoint=str(tmp_path)))[1]
        np.testing.assert_array_equal(kept["valid"], plain["valid"])
    assert (tmp_path / "JSB_Chorales").is_dir()


def test_property_the_order_of_songs_is_a_function_of_seed_and_epoch_and_keeps_songs_whole():
    song = np.array([0, 0, 1, 2, 2, 2])
    few = music.piece_orders(music.Config(epochs=2, seeds=2), song).reshape(2, 2, 6)
    many = music.piece_orders(music.Config(epochs=4, seeds=3), song).reshape(3, 4, 6)
    np.testing.assert_array_equal(few, many[:2, :2])
    assert len({tuple(order) for order in many.reshape(-1, 6)}) > 3
    for order in many.reshape(-1, 6):
        assert sorted(order) == list(range(6))
        for k in range(3):
            mine = order[np.isin(order, np.flatnonzero(song == k))]
            assert (np.diff(mine) == 1).all()
            assert np.ptp(np.flatnonzero(song[order] == k)) == len(mine) - 1
    plain = music.piece_orders(music.Config(epochs=2, seeds=1, shuffle_songs=False), song)
    assert plain.tolist() == [[*range(6), *range(6)]]


@pytest.mark.parametrize("module", [music, characters])
def test_documented_the_papers_scale_differs_in_budget_and_seeds_alone(module):
    name = "training/" + module.__name__.rsplit(".", 1)[1]
    default, paper = (
        dataclasses.asdict(reproduce.settings(name, reproduce.Config(scale, "here"))) for scale in ("default", "paper")
    )
    assert default == dataclasses.asdict(module.Config(data_dir="here"))
    differs = {key for key, value in default.items() if paper[key] != value}
    assert differs <= {"epochs", "updates", "evaluate_every", "seeds"}
    small = reproduce.settings(name, reproduce.Config("paper", budget=3e-5))
    assert getattr(small, "updates", 3) == 3
    assert getattr(small, "epochs", 1) == 1


@pytest.mark.parametrize(("updates", "every", "budget"), [(100, 10, 1), (100, 10, 0.15), (100, 30, 1e-9), (7, 100, 1)])
def test_property_budgeted_updates_are_a_multiple_of_the_interval(updates, every, budget):
    total, interval = runner.budgeted(updates, every, budget)
    assert total >= 1
    assert total % interval == 0
    assert total <= max(1, updates * budget)
