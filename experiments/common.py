"""What every experiment shares: where a result goes, and what is written beside it.

A result is a folder `results/<name>/` with `metrics.json` (settings, versions, device, seed, seconds, git
revision and the numbers), `arrays.npz`, and each figure as PNG and SVG.
"""

import datetime
import functools
import json
import math
import os
import pathlib
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = pathlib.Path(os.environ.get("CLIFFS_RESULTS_DIR", ROOT / "results"))


def machine() -> dict[str, Any]:
    """The machine and the versions that a number was measured on."""
    import flax
    import jaxlib
    import optax

    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind if device.platform != "cpu" else _cpu_name(),
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "optax": optax.__version__,
        "flax": flax.__version__,
        "numpy": np.__version__,
    }


def _cpu_name() -> str:
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_revision() -> str | None:
    """The commit that the code stood at, with `+` when the tree had changes; None outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain", "--", "src", "experiments"], cwd=ROOT,
                               capture_output=True, text=True, check=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: arrays become lists, non-finite numbers become strings."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, pathlib.Path):
        return str(value)
    return value


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval for a rate."""
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (rate * (1 - rate) / trials + z * z / (4 * trials * trials)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def budgeted(updates: int, evaluate_every: int, budget: float) -> tuple[int, int]:
    """`budget` times the updates, at least one, and an interval of evaluation that divides them."""
    wanted = max(1, round(budget * updates))
    every = min(evaluate_every, wanted)
    return max(every, wanted // every * every), every


def write_atomic(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    """Let `write` fill a temporary file of the same suffix beside `path`, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    try:
        write(pathlib.Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def _draw(figure: Any, metadata: Mapping[str, Any] | None, path: pathlib.Path) -> None:
    import matplotlib

    # Text of an SVG stays text, and its identifiers do not change from run to run.
    with matplotlib.rc_context({"svg.hashsalt": "cliffs", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=150, bbox_inches="tight", metadata=metadata)


def save_arrays(name: str, arrays: Mapping[str, Any]) -> pathlib.Path:
    """Write `results/<name>/arrays.npz`; returns the folder."""
    packed = {k: np.asarray(v) for k, v in arrays.items()}
    write_atomic(RESULTS / name / "arrays.npz", lambda p: np.savez_compressed(p, allow_pickle=False, **packed))
    return RESULTS / name


def save(
    name: str,
    *,
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
    started: float,
    arrays: Mapping[str, Any] | None = None,
    figures: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> pathlib.Path:
    """Write one result folder; returns its path.

    `started` is `time.perf_counter()` at the beginning; `figures` maps a file stem to a matplotlib figure.
    """
    folder = RESULTS / name
    record = {
        "name": name,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 2),
        "seed": seed,
        "git_revision": git_revision(),
        "machine": machine(),
        "settings": settings,
        "metrics": metrics,
    }
    text = json.dumps(plain(record), indent=2) + "\n"
    write_atomic(folder / "metrics.json", lambda p: p.write_text(text))
    if arrays:
        save_arrays(name, arrays)
    for stem, figure in (figures or {}).items():
        for suffix in ("png", "svg"):
            metadata = {"Date": None} if suffix == "svg" else None
            write_atomic(folder / f"{stem}.{suffix}", functools.partial(_draw, figure, metadata))
    return folder
