"""Finds the experiments and runs one: flags, progress, timing, the record on disk and the printed report.

An experiment is one file in a folder of its kind (figures/, training/, hypotheses/, benchmarks/) with

- a docstring, whose first line stands in the list;
- `Config`, a frozen dataclass: its fields are the flags, with the words `batch` (sequences), `length` (of a sequence),
  `steps` (of a map), `updates` (of the parameters), `seeds` and `seed`;
- `run(config) -> Result` computes and touches no disk; with a parameter `say` it can report its progress, with a
  parameter `keep` it can hand over arrays that must not be lost if the rest fails;
- `draw(result) -> {file stem: figure}`, where there is something to draw; a stem that ends in .svg is also stored as
  SVG.

`Result` is a NamedTuple of its own with `metrics` (they go to metrics.json) and, where it has them, `arrays` (to
arrays.npz), `files` (name to text), `rows` (cells of the printed table: quantity, value, and what was expected) and
`notes` (printed lines). All else in it is for `draw`. `ALL_CORES = True` in the file makes every core a device.

The result of `experiments/KIND/NAME.py` is the folder `results/KIND/NAME`. A benchmark's last printed line is one JSON
object. This file imports jax only when an experiment runs.
"""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = pathlib.Path(os.environ.get("CLIFFS_RESULTS_DIR", ROOT / "results"))
KINDS = ("figures", "training", "hypotheses", "benchmarks")
PLACES = ("data_dir", "checkpoint", "file", "text8")
"""Settings that say where things lie on one machine: only their names are recorded."""


def command_line(arguments: Sequence[str]) -> None:
    """No argument: the list. A name, or kind/name, and flags: run it."""
    if not arguments or arguments[0] in ("-h", "--help", "list"):
        print(listing())
        return
    try:
        name = resolve(arguments[0])
    except ValueError as error:
        sys.exit(f"{error}\n\n{listing()}")
    from_flags(name, list(arguments[1:]))


def main(file: str) -> None:
    """For a script that is run by its path: `runner.main(__file__)`."""
    from_flags(pathlib.Path(file).resolve().relative_to(HERE).with_suffix("").as_posix(), sys.argv[1:])


def experiments() -> dict[str, pathlib.Path]:
    """`kind/name` of every experiment with its file: every file in a folder of KINDS that defines `Config`."""
    files = [path for kind in KINDS for path in sorted((HERE / kind).glob("*.py"))]
    return {path.relative_to(HERE).with_suffix("").as_posix(): path for path in files if _has_config(path)}


def _parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text())


def _has_config(path: pathlib.Path) -> bool:
    return any(isinstance(node, ast.ClassDef) and node.name == "Config" for node in _parse(path).body)


def listing() -> str:
    """All experiments, a line each, read from their docstrings without importing them."""
    found = experiments()
    width = max(map(len, found))
    lines = ["uv run python -m experiments NAME --help    shows the flags of one; without --help it runs.", ""]
    for kind in KINDS:
        for name, path in found.items():
            if name.startswith(f"{kind}/"):
                lines.append(f"{name:{width}}  {(ast.get_docstring(_parse(path)) or '').splitlines()[0]}")
        lines.append("")
    lines.append("experiments/reproduce.py runs the paper's main figures and results and prints one table.")
    return "\n".join(lines)


def resolve(name: str) -> str:
    """`kind/name` for a name alone, or for kind/name, or for a path of a script.

    **Raises** `ValueError` for a name that is not there or is there more than once.
    """
    name = name.removeprefix("experiments/").removesuffix(".py")
    found = [key for key in experiments() if name in (key, key.split("/")[1])]
    if len(found) != 1:
        wrong = "names more than one experiment: " + ", ".join(found) if found else "is no experiment"
        raise ValueError(f"{name!r} {wrong}")
    return found[0]


def load(name: str) -> Any:
    """The module of `kind/name`."""
    return importlib.import_module("experiments." + name.replace("/", "."))


def from_flags(name: str, flags: Sequence[str]) -> Any:
    """Run an experiment with the flags of a command line."""
    import tyro

    module = load(name)
    words = inspect.getdoc(module) or ""
    config = tyro.cli(module.Config, args=list(flags), description=words, prog=f"experiments {name}")
    return execute(name, config)


def execute(
    name: str, config: Any, *, folder: pathlib.Path | None = None, report: bool = True
) -> tuple[Any, pathlib.Path]:
    """Run one experiment, write its record and figures, print its report; returns its `Result` and the folder.

    The arrays are on disk before anything is drawn: a slip in a figure must not cost the computation.
    """
    module = load(name)
    if getattr(module, "ALL_CORES", False):
        from cliffs import sweeps

        # A program that has started JAX already runs the experiment on the devices that it has.
        with contextlib.suppress(RuntimeError):
            sweeps.use_all_cores()
    from cliffs.records import git_revision, save_arrays, write_atomic

    # The code that runs is the code that stood there at the start.
    revision = git_revision(ROOT, ("src", "experiments"))
    folder = RESULTS / name if folder is None else folder
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - started:6.1f} s] {text}", flush=True)

    def keep(arrays: Mapping[str, Any]) -> None:
        save_arrays(folder, arrays)

    hooks = {"say": say, "keep": keep}
    wanted = inspect.signature(module.run).parameters
    result = module.run(config, **{name: hook for name, hook in hooks.items() if name in wanted})
    seconds = time.perf_counter() - started
    record(name, config, result, seconds, folder=folder, revision=revision)
    for file, text in getattr(result, "files", {}).items():
        write_atomic(folder / file, lambda path, text=text: path.write_text(text))
    if hasattr(module, "draw"):
        save_figures(folder, module.draw(result))
    if report:
        print(summary(result))
        print(f"{seconds:.1f} s; written to {folder}")
        if name.startswith("benchmarks/"):
            print(last_line(config, result))
    return result, folder


def record(
    name: str, config: Any, result: Any, seconds: float, *, folder: pathlib.Path, revision: str | None = None
) -> None:
    """Write metrics.json and arrays.npz."""
    from cliffs.records import save_record

    settings = dataclasses.asdict(config)
    for place in PLACES:
        if settings.get(place) is not None:
            settings[place] = pathlib.Path(settings[place]).name
    save_record(
        folder,
        metrics=result.metrics,
        settings=settings,
        seconds=seconds,
        seed=getattr(config, "seed", None),
        arrays=getattr(result, "arrays", None),
        name=name,
        revision=revision,
    )


def seconds_of(folder: pathlib.Path) -> float:
    """What the computation of a recorded result took."""
    from cliffs.records import load_record

    return load_record(folder).seconds


def save_figures(folder: pathlib.Path, figures: Mapping[str, Any]) -> None:
    """Every figure once, as PNG, or as SVG where its name says so."""
    import matplotlib as mpl

    from cliffs.records import write_atomic

    for stem, figure in figures.items():
        file = stem if stem.endswith(".svg") else f"{stem}.png"
        # Text of an SVG stays text, and neither its identifiers nor its date change from run to run.
        metadata = {"Date": None} if file.endswith(".svg") else None

        def write(path: pathlib.Path, figure: Any = figure, metadata: Any = metadata) -> None:
            with mpl.rc_context({"svg.hashsalt": "cliffs", "svg.fonttype": "none"}):
                figure.savefig(path, dpi=150, bbox_inches="tight", metadata=metadata)

        write_atomic(folder / file, write)


def summary(result: Any) -> str:
    """The rows as a table, and the notes below it."""
    return "\n".join([*table(getattr(result, "rows", ())), *getattr(result, "notes", ())])


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with cells of equal width; rows may have two or three cells."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def last_line(config: Any, result: Any) -> str:
    """A benchmark's JSON object: settings, device and versions, and its metrics."""
    from cliffs.records import machine, to_json

    return json.dumps(to_json({"settings": dataclasses.asdict(config), "device": machine(), **result.metrics}))


def budgeted(updates: int, evaluate_every: int, budget: float) -> tuple[int, int]:
    """`budget` times the updates, at least one, and an interval of evaluation that divides them."""
    wanted = max(1, round(budget * updates))
    every = min(evaluate_every, wanted)
    return max(every, wanted // every * every), every
