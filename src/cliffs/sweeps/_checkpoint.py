"""Checkpoints of a sweep: written whole or not at all, read only if every byte is what was written.

A folder holds the last two: `checkpoint-000012/` with `part-0.npz` (one part for each process, with the runs on its
devices) and `manifest.json` (the sha256 of every part, of itself, and what the sweep is). It is written under another
name and renamed when all of it is on the disk.
"""

import dataclasses
import hashlib
import io
import json
import logging
import os
import pathlib
import re
import shutil
import time
from typing import Any

import jax
import numpy as np

from cliffs.sweeps._book import Book
from cliffs.sweeps._contracts import NUMBER, check_count
from cliffs.sweeps._files import jsonable, npz_bytes, pack, unpack, write_file
from cliffs.sweeps._identity import Identity
from cliffs.sweeps._processes import Processes

FORMAT = 1
_COLUMNS = ("steps_run", "solved_at", "diverged_at", "pruned_at", "ended", "started")
_log = logging.getLogger("cliffs.sweeps")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where and how often a sweep writes what it has: after every evaluation, or every so many seconds."""

    folder: str | os.PathLike[str]
    every_seconds: float = 0.0
    """The least time between two checkpoints; at the end of the sweep and after Ctrl-C one is always written."""
    keep: int = 2
    """How many are kept; with 1 there is none to fall back to."""


def check_checkpoint(checkpoint: Any) -> Checkpoint | None:
    """A `Checkpoint` from a folder or None."""
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, Checkpoint):
        if not isinstance(checkpoint, (str, os.PathLike)):
            raise ValueError(f"checkpoint must be a folder or a Checkpoint, got {checkpoint!r}")
        checkpoint = Checkpoint(checkpoint)
    if not isinstance(checkpoint.folder, (str, os.PathLike)):
        raise ValueError(f"a Checkpoint's folder must be a path, got {checkpoint.folder!r}")
    if not isinstance(checkpoint.every_seconds, NUMBER) or not checkpoint.every_seconds >= 0:
        raise ValueError(f"every_seconds must be a number of at least 0, got {checkpoint.every_seconds!r}")
    check_count("keep", checkpoint.keep)
    path = pathlib.Path(checkpoint.folder)
    if path.exists() and not path.is_dir():
        raise ValueError(f"checkpoint must be a folder, {path} is a file")
    return checkpoint


@dataclasses.dataclass(frozen=True)
class Found:
    """A checkpoint that is whole."""

    identity: Identity
    parts: list[dict[str, Any]]

    def fill(self, book: Book) -> None:
        """Write what it holds into the book, which may have more runs and more room in its histories."""
        covered = np.zeros(book.runs, bool)
        for part in self.parts:
            runs = part["runs"]
            covered[runs] = True
            for name in _COLUMNS:
                getattr(book, name)[runs] = part[name]
            for name in ("state", "records", "evaluations"):
                for whole, saved in zip(jax.tree.leaves(getattr(book, name)), part[name], strict=True):
                    if name == "state":
                        whole[runs] = saved
                    else:
                        whole[runs, : saved.shape[1]] = saved
        if not covered[: len(self.identity["grid"]["rows"])].all():
            raise ValueError("the parts of the checkpoint do not hold all runs")


class Store:
    """The checkpoints of one sweep in one folder."""

    def __init__(self, checkpoint: Checkpoint, processes: Processes):
        self.folder = pathlib.Path(checkpoint.folder)
        self._settings = checkpoint
        self._processes = processes
        self._lock: int | None = None
        self._written = time.monotonic()
        self._number = 0

    def __enter__(self) -> "Store":
        if self._processes.index == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder)
            for leftover in self.folder.glob(".writing-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        self._processes.wait("checkpoints open")
        self._number = max([number for number, _ in self._all()], default=0)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def newest(self) -> tuple[Found | None, list[str]]:
        """The newest checkpoint that is whole, and what is wrong with those that had to be passed over."""
        notes = []
        for _, path in sorted(self._all(), reverse=True):
            try:
                found = read_checkpoint(path)
            except (ValueError, OSError) as error:
                notes.append(f"{path.name} cannot be used: {error}")
                continue
            if notes:
                notes[-1] += f"; went back to {path.name}"
            break
        else:
            found = None
            if notes:
                notes[-1] += "; there is no other one: the sweep starts from the beginning"
        for note in notes:
            _log.warning("%s: %s", self.folder, note)
        return found, notes

    def is_time(self) -> bool:
        """Whether the next one is due; all processes hear the first one's answer."""
        due = time.monotonic() - self._written >= self._settings.every_seconds
        return due if self._settings.every_seconds == 0 else self._processes.first_says(due)

    def write(self, book: Book, own: np.ndarray, identity: Identity) -> None:
        """Write the runs `own` of this process; the states of these in the book are up to date.

        **Raises** `OSError` when it cannot be written (the disk is full); the ones before stay as they are.
        """
        number = self._number + 1
        temporary = self.folder / f".writing-{number:06d}"
        final = self.folder / f"checkpoint-{number:06d}"
        name = f"part-{self._processes.index}.npz"
        failure, digest = None, b"\0" * 32
        try:
            if self._processes.index == 0:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
            self._processes.wait(f"checkpoint {number} begun")
            content = npz_bytes(_part(book, own))
            write_file(temporary / name, content)
            digest = hashlib.sha256(content).digest()
        except OSError as error:
            failure = error
        digests = self._processes.gather(np.frombuffer(digest, np.uint8))
        try:
            # A part that could not be written has the digest 0.
            if failure is None and all(d.any() for d in digests) and self._processes.index == 0:
                files = {f"part-{i}.npz": bytes(d).hex() for i, d in enumerate(digests)}
                _publish(temporary, final, {"format": FORMAT, "files": files, "identity": identity})
                self._remove_older(number)
        except OSError as error:
            failure = error
        failed = self._processes.gather(np.array([failure is not None or not all(d.any() for d in digests)]))
        if any(f.any() for f in failed):
            if self._processes.index == 0:
                shutil.rmtree(temporary, ignore_errors=True)
            last = f"checkpoint-{self._number:06d} is untouched" if self._number else "there is none yet"
            raise OSError(
                getattr(failure, "errno", None) or 0,
                f"checkpoint {number} could not be written to {self.folder} ({failure or 'in another process'}); "
                f"the last good one: {last}. Make room and call sweep again with the same checkpoint",
            ) from None
        self._number = number
        self._written = time.monotonic()

    def _all(self) -> list[tuple[int, pathlib.Path]]:
        found = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in self.folder.iterdir())
        return [(int(match[1]), path) for match, path in found if match]

    def _remove_older(self, number: int) -> None:
        for other, path in self._all():
            if other <= number - self._settings.keep:
                shutil.rmtree(path, ignore_errors=True)


def read_checkpoint(path: pathlib.Path) -> Found:
    """A checkpoint whose every byte is as it was written.

    **Raises** `ValueError` that says what is wrong with it.
    """
    try:
        record = json.loads((path / "manifest.json").read_bytes())
        body = record["body"]
        if hashlib.sha256(_canonical(body)).hexdigest() != record["sha256"]:
            raise ValueError("its manifest was changed")
    except FileNotFoundError:
        raise ValueError("it has no manifest") from None
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError("its manifest cannot be read") from None
    if body["format"] != FORMAT:
        raise ValueError(f"it has format {body['format']}, this version writes {FORMAT}")
    parts = []
    for name, digest in body["files"].items():
        try:
            content = (path / name).read_bytes()
        except FileNotFoundError:
            raise ValueError(f"{name} is missing") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{name} is not what was written")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            parts.append(unpack(json.loads(str(arrays["tree"])), arrays))
    return Found(body["identity"], parts)


def _part(book: Book, own: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of some runs as arrays of an npz file; the histories as far as they are filled."""
    done = int(book.steps_run.max(initial=0))
    content: dict[str, Any] = {"runs": own}
    content |= {name: getattr(book, name)[own] for name in _COLUMNS}
    content["state"] = [x[own] for x in jax.tree.leaves(book.state)]
    for name in ("records", "evaluations"):
        leaves = jax.tree.leaves(getattr(book, name))
        content[name] = [x[own, : -(-x.shape[1] * done // book.num_steps)] for x in leaves]
    arrays: dict[str, np.ndarray] = {}
    tree = pack(content, "part", arrays)
    return {"tree": np.array(json.dumps(tree)), **arrays}


def _publish(temporary: pathlib.Path, final: pathlib.Path, body: Any) -> None:
    """Write the manifest and give the folder its name, when all of it is on the disk."""
    body = jsonable(body)
    text = json.dumps({"sha256": hashlib.sha256(_canonical(body)).hexdigest(), "body": body})
    write_file(temporary / "manifest.json", text.encode())
    _sync_folder(temporary)
    os.replace(temporary, final)
    _sync_folder(final.parent)


def _canonical(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _sync_folder(path: pathlib.Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return  # folders cannot be opened everywhere
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(folder: pathlib.Path) -> int | None:
    """Held until closed, or until the process ends in whatever way. Two sweeps in one folder would spoil each other."""
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"checkpoint: another sweep is writing to {folder}") from None
    except OSError:
        pass  # a file system without locks
    return handle
