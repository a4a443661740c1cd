"""Real data, very small networks: the training loops and their summaries."""

import numpy as np
from experiments import natural


def test_integration_characters_learn_and_are_summarised(data_dir):
    config = natural.Characters(
        hidden=16, piece_length=20, batch_size=64, learning_rates=(0.2,), updates=200, evaluate_every=100
    )
    result, curves = natural.run_characters(config, data_dir, progress=False)
    assert curves["valid"].shape == (2, 2)
    clipped = result.grid["max_norm"] == config.threshold
    assert curves["valid"][clipped][0, -1] < np.log2(49) - 0.5  # better than uniform by more than half a bit
    summary = natural.summarise(result, curves, config.threshold)
    assert summary["clipped"]["mean"]["valid"] == curves["valid"][clipped].min()
    assert len(summary["best_valid_of_each_run"]) == 2


def test_integration_music_learns_song_by_song(data_dir):
    config = natural.Music(dataset="JSB_Chorales", hidden=10, epochs=2, seeds=1)
    result, curves = natural.run_music(config, data_dir, progress=False)
    clipped = result.grid["max_norm"] == config.threshold
    # A constant guess of every key's frequency costs about 11 nats per step on the chorales.
    assert curves["valid"][clipped][0, -1] < 13
    assert curves["train"][clipped][0, 1] < curves["train"][clipped][0, 0]
    assert (result.diverged_at == -1).all()
