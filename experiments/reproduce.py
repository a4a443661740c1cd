"""Re-run the paper's main figures and results: one command, one table, figures under results/.

python experiments/reproduce.py                          # no data needed, a few minutes on two cores
python experiments/reproduce.py --data-dir DATA          # with Penn Treebank and Nottingham
python experiments/reproduce.py --scale paper            # the paper's sizes, for a GPU
"""

import dataclasses
import pathlib
import sys
from typing import Any, Literal

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from experiments import runner


@dataclasses.dataclass(frozen=True)
class Config:
    """Re-run the paper's main figures and results."""

    scale: Literal["default", "paper"] = "default"
    """"paper" takes the paper's sizes; beyond them only temporal order's rate (ICML: 0.01) and the budgets differ."""
    data_dir: str | None = None
    """Folder with ptb/ and polyphonic/; without it the natural tasks are left out."""
    budget: float = 1.0
    """Share of the updates to run: a small one tries a scale out before hours are spent on it."""
    seed: int = 0


def main(config: Config) -> pathlib.Path:
    """Run every experiment of the list, print one table; returns the folder that holds it.

    Each writes its own folder, as when it is run alone. Other scales and budgets stay apart, in results/local/.
    """
    from cliffs import sweeps
    from cliffs.records import git_revision, machine, save_record

    sweeps.use_all_cores()
    revision = git_revision(runner.ROOT, ("src", "experiments"))
    place = results_of(config)
    rows, seconds = [], {}
    for name in parts(config):
        print(f"{name} ...", flush=True)
        # Each part is on disk as soon as it is done: nothing is lost when a later one is stopped.
        result, folder = runner.execute(name, settings(name, config), folder=place / name, report=False)
        seconds[name] = runner.seconds_of(folder)
        rows += [*result.rows, (f"  ({name}: {seconds[name]:.1f} s)", "", "")]
    print(report(rows, machine()))
    total = sum(seconds.values())
    figures = sorted(str(path) for name in parts(config) for path in (place / name).glob("*.png"))
    print(f"\n{total:.0f} s in all. Figures:\n  " + "\n  ".join(figures))
    table = [dict(zip(("quantity", "here", "expected"), row)) for row in rows if row[1]]
    metrics, flags = {"table": table, "seconds": seconds}, dataclasses.asdict(config)
    return save_record(
        place / "reproduce", metrics=metrics, settings=flags, seconds=total, seed=config.seed, revision=revision
    )


def parts(config: Config) -> list[str]:
    """The experiments, in order."""
    synthetic = ["figures/error_surface", "figures/bifurcation_diagram", "training/temporal_order"]
    return synthetic if config.data_dir is None else [*synthetic, "training/music", "training/characters"]


def results_of(config: Config) -> pathlib.Path:
    """results/ for what is recorded there, results/local/ for other scales and for trials."""
    if config.scale == "default" and config.budget == 1:
        return runner.RESULTS
    return runner.RESULTS / "local" / (config.scale + ("" if config.budget == 1 else "_trial"))


def settings(name: str, config: Config) -> Any:
    """An experiment's settings at this scale and budget."""
    module = runner.load(name)
    own = module.PAPER if config.scale == "paper" and hasattr(module, "PAPER") else module.Config()
    if name in ("training/music", "training/characters"):
        own = dataclasses.replace(own, data_dir=config.data_dir)
    if name == "training/music":
        return dataclasses.replace(own, epochs=max(1, round(config.budget * own.epochs)))
    if name == "training/temporal_order":
        own = dataclasses.replace(own, seed=config.seed)
    if not hasattr(own, "evaluate_every"):
        return own
    updates, every = runner.budgeted(own.updates, own.evaluate_every, config.budget)
    return dataclasses.replace(own, updates=updates, evaluate_every=every)


def report(rows: list[tuple[str, ...]], machine: dict[str, Any]) -> str:
    """The table of all parts as text."""
    lines = runner.table([("quantity", "here", "expected / paper"), *rows])
    width = max(map(len, lines))
    where = f"{machine['device']}, {machine['cores']} cores, {machine['devices']} JAX devices, jax {machine['jax']}"
    return "\n".join(["", lines[0], "-" * width, *lines[1:], "", f"Measured on {where}."])


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
