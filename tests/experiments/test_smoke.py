"""Every experiment from its settings to its figures, at a size of seconds."""

import dataclasses

import numpy as np
import pytest
from experiments import runner

from cliffs.records import load_record

TINY = {
    "figures/error_surface": {"steps": 20, "points": 21, "fine_points": 21, "updates": 5, "wall_points": 6},
    "figures/input_driven": {"steps": 6, "wide_steps": 3, "batch": 50, "scan": 21, "grid": 21},
    "figures/validation": {"groups": ("cascade", "branches"), "flips": 2, "published": 2, "branches": 3},
    "hypotheses/cliff_law": {
        "w": (5.0,),
        "lengths": (20, 25, 30, 35),
        "kind_lengths": (10, 15, 20, 30),
        "seeds": 1,
        "network_lengths": (20, 24),
        "random_directions": 0,
        "hidden": 5,
        "updates": 2,
    },
    "hypotheses/claims": {
        "problems": (("temporal_order", 10, 20),),
        "thresholds": (float("inf"), 5.0, 1.0),
        "updates": 20,
        "evaluate_every": 10,
        "seeds": 2,
        "hidden": 20,
        "test_batch": 20,
        "omega_length": 12,
        "omega_seeds": 1,
        "glorot_draws": 10,
    },
    "hypotheses/clipping_bias": {
        "thresholds": (1.0, 2.0),
        "batches": (1, 4),
        "momenta": (1.0, 0.1),
        "updates": 40,
        "runs": 4,
    },
    "hypotheses/noise_and_clipping": {
        "dimension": 5,
        "updates": 6,
        "thresholds": (1.0, float("inf")),
        "rates": 2,
        "seeds": 4,
        "hidden": 3,
        "batch": 2,
        "network_updates": 4,
    },
    "hypotheses/cliff_scan": {"hidden": 4, "length": 5, "points": 5, "seeds": 2},
    "hypotheses/order_to_chaos": {
        "sizes": (8,),
        "seeds": 2,
        "steps": 20,
        "warmup": 5,
        "spectrum_size": 6,
        "spectrum_steps": 20,
    },
    "hypotheses/parallel_unroll": {"units": 4, "lengths": (10, 20), "gains": (0.5, 1.0), "seeds": 2, "max_sweeps": 20},
    "hypotheses/spectra": {
        "hidden": 6,
        "length": 8,
        "seeds": 2,
        "large": 60,
        "large_length": 3,
        "large_values": 2,
    },
    "hypotheses/training_dynamics": {
        "seeds": 1,
        "updates": 6,
        "length": 10,
        "hidden": 5,
        "settle_steps": 24,
        "median_window": 3,
        "snapshots": 2,
        "shifts": 20,
    },
    "training/critical_rate": {
        "delays": (2, 4),
        "rates": (0.1, 0.5),
        "seeds": 2,
        "hidden": 8,
        "updates": 60,
        "evaluate_every": 20,
    },
    "training/flossing": {
        "hidden": 6,
        "batch": 4,
        "length": 12,
        "delays": (2,),
        "exponents": 3,
        "floss_steps": 6,
        "floss_batch": 2,
        "floss_updates": 2,
        "floss_every": 2,
        "floss_again": 1,
        "interval": 2,
        "updates": 4,
        "seeds": 2,
        "test_batch": 4,
    },
    "training/generators": {
        "hidden": 4,
        "length": 6,
        "batch": 2,
        "updates": 4,
        "every": 2,
        "evaluate_every": 2,
        "data_steps": 300,
        "free_steps": 60,
        "seeds": 2,
    },
    "benchmarks/clipping_cost": {
        "leaves": (3,),
        "parameters": 64,
        "large_leaves": 2,
        "runs": 2,
        "units": 3,
        "repeats": 1,
        "telemetry_repeats": 1,
        "batch": 2,
        "only": ("clip_by_leaf_norm",),
    },
    "benchmarks/curvature": {"hidden": 4, "length": 10, "batch": 2, "iterations": 2, "turns": 1},
    "benchmarks/surface": {"points": 4, "hidden": 4, "length": 10, "batch": 2, "turns": 1, "patch": 32},
    "benchmarks/unroll": {"shapes": ((4, 2, 5, 4),), "seconds": 0.01, "turns": 1, "torch": False},
}
ELSEWHERE = {
    "figures/bifurcation_diagram",
    "figures/cusp",
    "training/character_table",
    "training/characters",
    "training/clipping_strategies",
    "training/gates",
    "training/initialisation",
    "training/length_generalisation",
    "training/music",
    "training/music_order",
    "training/music_table",
    "training/pathological",
    "training/regularisation",
    "training/success_by_length",
    "training/temporal_order",
    "training/threshold_transfer",
    "training/transformer",
    "hypotheses/curvature_alignment",
    "hypotheses/stability_map",
}
"""Run small by a test of their own that looks at their numbers, too."""


def test_invariance_no_experiment_is_left_out():
    runs = {name for name in runner.experiments() if hasattr(runner.load(name), "run")}
    figures = {name for name in runs if not name.startswith("benchmarks/")}
    assert figures <= set(TINY) | ELSEWHERE


@pytest.mark.parametrize("name", list(TINY))
def test_integration_an_experiment_runs_from_settings_to_figures(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    module = runner.load(name)
    if name == "hypotheses/spectra":  # eight initialisations are eight programs: two of them will do
        every = module.networks
        few = ("Glorot, tanh", "LSTM, forget bias 1")
        monkeypatch.setattr(module, "networks", lambda config: {k: every(config)[k] for k in few})
    if name == "hypotheses/noise_and_clipping":  # every noise is three programs
        monkeypatch.setattr(module, "NOISES", {"Gaussian": float("inf"), "t, 1.5 degrees": 1.5})
    result, folder = runner.execute(name, dataclasses.replace(module.Config(), **TINY[name]))
    record = load_record(folder)
    assert record.name == name
    assert record.metrics
    assert set(record.settings) == {field.name for field in dataclasses.fields(module.Config)}
    assert record.arrays.keys() == getattr(result, "arrays", {}).keys()
    printed = capsys.readouterr().out
    for row in getattr(result, "rows", ()):
        assert all(cell in printed for cell in row)
    drawn = {path.stem for path in folder.glob("*.png")}
    assert drawn == set(module.draw(result) if hasattr(module, "draw") else ())
    assert all(path.stat().st_size > 5_000 for path in folder.glob("*.png"))
    assert not [k for k, v in record.arrays.items() if v.dtype.kind == "f" and np.isnan(v).all()]
