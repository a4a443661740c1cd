"""Results on disk: numbers with the settings, versions, device, revision and seconds that they were measured with.

A record is a folder with `metrics.json` and, where there are arrays, `arrays.npz`. Every file is written under another
name and renamed into place, so a killed program leaves either the old file or the new one, never half of one.
"""

import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, PyTree

__all__ = [
    "Record",
    "from_json",
    "git_revision",
    "load_arrays",
    "load_record",
    "machine",
    "save_arrays",
    "save_record",
    "to_json",
    "write_atomic",
]

PathLike = str | os.PathLike[str]
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")
"""Whose versions a record names."""


class Record(NamedTuple):
    """One result as it lies on disk."""

    name: str
    written: str
    """When, in ISO 8601 (UTC)."""
    seconds: float
    """What the computation took."""
    seed: int | None
    revision: str | None
    """The commit of the code, with `+` when the tree had changes; None outside a checkout."""
    machine: dict[str, str | int | None]
    settings: dict[str, PyTree]
    metrics: dict[str, PyTree]
    arrays: dict[str, np.ndarray]


def save_record(
    folder: PathLike,
    *,
    metrics: Mapping[str, PyTree],
    settings: Mapping[str, PyTree],
    seconds: float,
    seed: int | None = None,
    arrays: Mapping[str, ArrayLike | Sequence] | None = None,
    name: str | None = None,
    revision: str | None = None,
) -> pathlib.Path:
    """Write one result with all that is needed to trust it later; each file appears whole or not at all.

    **Arguments**

    - `folder`: made when it is missing. A record that lies there is replaced.
    - `metrics`: the numbers: nested mappings, sequences, arrays, NamedTuples. NaN and infinities become strings, since
      JSON has none; `load_record` turns them back.
    - `settings`: what the result was asked for with.
    - `seconds`: what the computation took.
    - `seed`: of the random numbers, where one seed decides them.
    - `arrays`: large results, written to `arrays.npz`. Without them an `arrays.npz` of an earlier record is removed:
      it would belong to other numbers.
    - `name`: the folder's name by default.
    - `revision`: the code's commit; `git_revision()` of the working directory by default. A long computation takes it
      at its start, when the code was read.

    **Returns** the folder.

    >>> with tempfile.TemporaryDirectory() as place:
    ...     folder = save_record(f"{place}/trial", metrics={"loss": np.inf}, settings={"lr": 0.1}, seconds=2.5, seed=0)
    ...     record = load_record(folder)
    >>> record.name, record.metrics, record.settings, record.seconds
    ('trial', {'loss': inf}, {'lr': 0.1}, 2.5)
    """
    folder = pathlib.Path(folder)
    record = {
        "name": name or folder.name,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(float(seconds), 2),
        "seed": seed,
        "git_revision": git_revision() if revision is None else revision,
        "machine": machine(),
        "settings": settings,
        "metrics": metrics,
    }
    text = json.dumps(to_json(record), indent=2) + "\n"
    if arrays:
        save_arrays(folder, arrays)
    else:
        (folder / "arrays.npz").unlink(missing_ok=True)
    write_atomic(folder / "metrics.json", lambda path: path.write_text(text))
    return folder


def load_record(folder: PathLike) -> Record:
    """Read a record that `save_record` wrote; the strings "nan", "inf" and "-inf" become numbers again.

    **Raises** `ValueError` naming the file when it is missing, damaged or no record.

    >>> load_record("no/such/folder")
    Traceback (most recent call last):
    ValueError: no/such/folder/metrics.json is no record: ...
    """
    path = pathlib.Path(folder) / "metrics.json"
    try:
        found = from_json(json.loads(path.read_text()))
        fields = {k: found[k] for k in ("name", "written", "seconds", "seed", "machine", "settings", "metrics")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no record: {error!r}") from error
    return Record(**fields, revision=found.get("git_revision"), arrays=load_arrays(folder))


def save_arrays(folder: PathLike, arrays: Mapping[str, ArrayLike | Sequence]) -> pathlib.Path:
    """Write `arrays.npz` alone: what a long computation does at once, before anything else can fail.

    >>> with tempfile.TemporaryDirectory() as place:
    ...     _ = save_arrays(place, {"loss": np.arange(3)})
    ...     load_arrays(place)["loss"].tolist()
    [0, 1, 2]
    """
    folder = pathlib.Path(folder)
    packed = {k: np.asarray(v) for k, v in arrays.items()}
    write_atomic(folder / "arrays.npz", lambda path: np.savez_compressed(path, allow_pickle=False, **packed))
    return folder


def load_arrays(folder: PathLike) -> dict[str, np.ndarray]:
    """The arrays of a record; none where it has no `arrays.npz`.

    **Raises** `ValueError` when the file is damaged.

    >>> load_arrays("no/such/folder")
    {}
    """
    path = pathlib.Path(folder) / "arrays.npz"
    if not path.exists():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {k: stored[k] for k in stored}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {error!r}") from error


def machine() -> dict[str, str | int | None]:
    """The device and the versions that a number is measured with.

    >>> sorted(machine())[:4]
    ['cores', 'device', 'devices', 'flax']
    """
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind if device.platform != "cpu" else _cpu_name(),
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def git_revision(folder: PathLike = ".", paths: Sequence[str] = ()) -> str | None:
    """The commit that the checkout around `folder` stands at, with `+` when its tree has changes; None outside one.

    With `paths` (relative to the folder) only changes there count: results that a program writes are no change of code.

    >>> with tempfile.TemporaryDirectory() as place:
    ...     print(git_revision(place))
    None
    """

    def git(*words: str) -> str:
        run = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", *paths) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_atomic(path: PathLike, write: Callable[[pathlib.Path], object]) -> None:
    """Let `write` fill a file of the same suffix beside `path`, then rename it into place.

    >>> with tempfile.TemporaryDirectory() as place:
    ...     write_atomic(f"{place}/a.txt", lambda path: path.write_text("whole"))
    ...     pathlib.Path(place, "a.txt").read_text()
    'whole'
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    try:
        write(pathlib.Path(name))
        # mkstemp makes files that only their owner may read.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def to_json(value: PyTree) -> PyTree:
    """`value` as JSON can hold it: arrays become lists, NamedTuples mappings, non-finite numbers and paths strings.

    >>> to_json({"a": np.float32(1.5), 2: (np.nan, -np.inf), "where": pathlib.Path("results")})
    {'a': 1.5, '2': ['nan', '-inf'], 'where': 'results'}
    """
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return to_json(value._asdict())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, pathlib.Path) else value


def from_json(value: PyTree) -> PyTree:
    """The reverse of `to_json` as far as JSON allows: the strings "nan", "inf" and "-inf" become numbers.

    >>> from_json({"a": ["inf", 1.5, "other"]})
    {'a': [inf, 1.5, 'other']}
    """
    if isinstance(value, dict):
        return {k: from_json(v) for k, v in value.items()}
    if isinstance(value, list):
        return [from_json(v) for v in value]
    return float(value) if value in ("nan", "inf", "-inf") else value


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
