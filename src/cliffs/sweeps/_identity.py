"""What a checkpoint belongs to: the functions, the grid, the data, the settings, the versions, and what differs."""

import dataclasses
import hashlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr
from jaxtyping import PyTree

from cliffs.sweeps._digests import array_digest, program_digest
from cliffs.sweeps._programs import Functions

Identity = dict[str, Any]


def identify(functions: Functions, grid: PyTree, data: PyTree, prune: Any, settings: Mapping[str, Any]) -> Identity:
    """Everything that the numbers of a sweep depend on, as JSON can hold it; `grid` has its keys as words."""
    leaves = jax.tree_util.tree_flatten_with_path(grid)[0]
    return {
        "versions": {
            "cliffs": getattr(sys.modules.get("cliffs"), "__version__", "unknown"),
            "jax": jax.__version__,
            "jaxlib": importlib.metadata.version("jaxlib"),
        },
        "functions": {
            name: None if program is None else _function(getattr(functions, name), program)
            for name, program in functions.traced._asdict().items()
        },
        "grid": {
            "columns": {jax.tree_util.keystr(p): [str(x.dtype), *map(str, np.shape(x)[1:])] for p, x in leaves},
            "rows": _row_digests([np.asarray(x) for _, x in leaves]),
        },
        "data": {jax.tree_util.keystr(p): array_digest(x) for p, x in jax.tree_util.tree_flatten_with_path(data)[0]},
        "settings": {
            **settings,
            "prune": repr(prune) if prune is None or dataclasses.is_dataclass(prune) else _source(prune),
            "record": functions.recording.names,
            "record_every": functions.recording.every,
            "evaluate_every": functions.steps,
            "x64": getattr(jax.config, "jax_enable_x64"),  # noqa: B009
            "matmul_precision": str(getattr(jax.config, "jax_default_matmul_precision", None)),
        },
    }


def differences(old: Identity, new: Identity, *, extend: bool = False) -> list[str]:
    """What differs, one sentence each; with `extend`, further runs and further updates are no difference."""
    found = [
        f"the version of {name}: {old['versions'].get(name)} there, {version} here"
        for name, version in new["versions"].items()
        if old["versions"].get(name) != version
    ]
    found += [text for name in new["functions"] if (text := _compare(name, old["functions"], new["functions"]))]
    found += _compare_grids(old["grid"], new["grid"], extend)
    for path in sorted({*old["data"], *new["data"]}):
        if old["data"].get(path) != new["data"].get(path):
            found.append(f"the shared data{path}")
    for name, value in new["settings"].items():
        before = old["settings"].get(name)
        value = [list(x) if isinstance(x, tuple) else x for x in value] if isinstance(value, tuple) else value
        more = name == "num_steps" and before is not None and value >= before
        if before != value and not (more and extend):
            hint = "; resume='extend' goes on with more updates" if more else ""
            found.append(f"{name}: {_short(before)} there, {_short(value)} here{hint}")
    return found


def _compare_grids(old: Any, new: Any, extend: bool) -> list[str]:
    if old["columns"] != new["columns"]:
        return [f"the columns of the grid: {old['columns']} there, {new['columns']} here"]
    before, now = old["rows"], new["rows"]
    changed = [i for i, (a, b) in enumerate(zip(before, now)) if a != b]
    if changed:
        return [f"the grid: run {changed[0]} has other values"]
    if len(now) < len(before) or (len(now) > len(before) and not extend):
        hint = "; resume='extend' adds the new ones" if len(now) > len(before) else ""
        return [f"the grid: {len(before)} runs there, {len(now)} here{hint}"]
    return []


def _compare(name: str, old: Any, new: Any) -> str | None:
    a, b = old.get(name), new[name]
    if a is None or b is None:
        there, here = ("none" if x is None else "a function" for x in (a, b))
        return None if there == here else f"{name}: {there} there, {here} here"
    # The program decides: another comment is no other function.
    if a["program"] == b["program"]:
        return None
    lines = [(x.strip(), y.strip()) for x, y in zip((a["source"] or "").splitlines(), (b["source"] or "").splitlines())]
    changed = next(((x, y) for x, y in lines if x != y), None)
    if changed:
        return f"the source of {name}: `{changed[0]}` there, `{changed[1]}` here"
    if a["source"] != b["source"]:
        return f"the source of {name}"
    return f"what {name} computes, though its source is the same: a function or a value that it uses has changed"


def _function(function: Callable[..., Any], program: ClosedJaxpr) -> dict[str, Any]:
    """The source and a digest of the traced program, which holds all functions and values that the source uses."""
    return {"source": _source(function), "program": program_digest(program, objects=False)}


def _source(function: Any) -> str | None:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return None


def _row_digests(leaves: list[np.ndarray]) -> list[str]:
    parts = [[row.tobytes() for row in np.ascontiguousarray(x)] for x in leaves]
    return [hashlib.sha256(b"|".join(row)).hexdigest()[:16] for row in zip(*parts)]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 80 else text[:77] + "..."
