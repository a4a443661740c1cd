"""Find a data file, or download it: named folder first, then the cache, then the canonical address.

Whatever is returned has the expected sha256. A download goes to `<file>.part` and is renamed when its sum is
right, so a reader never sees half a file; a broken-off download is taken up where it stopped. Processes that want
the same file at the same time take turns: the first fetches it, the others find it.
"""

import contextlib
import hashlib
import http.client
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

DATA_DIR_VARIABLE = "CLIFFS_DATA_DIR"
CACHE_DIR_VARIABLE = "CLIFFS_CACHE_DIR"
BLOCK = 1 << 16


class DataError(RuntimeError):
    """A data file is missing, damaged or cannot be downloaded; the message says what to do."""


class Source(NamedTuple):
    """A data file: its path below a data folder, its sha256, its size in bytes and its address."""

    path: str
    sha256: str
    size: int
    url: str


def cache_dir() -> pathlib.Path:
    """Where downloads are kept: `$CLIFFS_CACHE_DIR`, else `~/.cache/cliffs`.

    >>> cache_dir().name != ""
    True
    """
    return pathlib.Path(os.environ.get(CACHE_DIR_VARIABLE) or pathlib.Path.home() / ".cache" / "cliffs")


def locate(source: Source, data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """The path of a data file, whose sha256 has been checked.

    **Arguments**

    - `source`: which file.
    - `data_dir`: the folder that holds it; `$CLIFFS_DATA_DIR` when not given. With neither, the file is taken from the
      cache folder, into which it is downloaded the first time.

    **Returns** its path.

    **Raises** `DataError` when the named folder lacks the file, the sum is wrong, or the download fails.

    >>> import hashlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "notes.txt").write_text("a b c")
    >>> source = Source("notes.txt", hashlib.sha256(b"a b c").hexdigest(), 5, "https://example.org/notes.txt")
    >>> locate(source, folder).name
    'notes.txt'
    """
    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if not data_dir:
        return download(source, cache_dir() / source.path)
    path = pathlib.Path(data_dir) / source.path
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. Put {source.path} there ({source.url}), or leave out the data folder "
            f"(argument or ${DATA_DIR_VARIABLE}) to have it downloaded."
        )
    found = file_sha256(path)
    if found != source.sha256:
        raise DataError(
            f"{path} is not the expected file: sha256 {found}, {path.stat().st_size:,} bytes; expected "
            f"{source.sha256}, {source.size:,} bytes. Replace it by {source.url}."
        )
    return path


def download(source: Source, target: pathlib.Path, *, timeout: float = 30.0) -> pathlib.Path:
    """Fetch `source.url` to `target` unless it is there already; resumes a broken-off download.

    **Arguments**: `source`; `target`, the final path; `timeout` in seconds for each read.

    **Returns** `target`.

    **Raises** `DataError` when the address cannot be read, or what it gives has the wrong sum (the partial file is
    removed in that case, and kept otherwise).

    >>> import hashlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "there.txt").write_text("a b c")
    >>> source = Source("there.txt", hashlib.sha256(b"a b c").hexdigest(), 5, (folder / "there.txt").as_uri())
    >>> download(source, folder / "copy.txt").read_text()
    'a b c'
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(target.parent):
        if not (target.is_file() and file_sha256(target) == source.sha256):
            _fetch(source, target, timeout)
    return target


@contextlib.contextmanager
def _exclusive(folder: pathlib.Path) -> Iterator[None]:
    """Hold the folder's lock; the system gives it back when the process ends in whatever way."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes may fetch the same file, and the sum catches a mixed part.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fetch(source: Source, target: pathlib.Path, timeout: float) -> None:
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    if have > source.size:
        part.unlink()
        have = 0
    if have < source.size:
        _transfer(source, part, have, timeout)
    found = file_sha256(part)
    if found != source.sha256:
        size = part.stat().st_size
        if size < source.size:
            raise DataError(
                f"the download of {source.url} stopped at {size:,} of {source.size:,} bytes; call again to go on"
            )
        part.unlink()
        raise DataError(
            f"{source.url} gave a file with sha256 {found} ({size:,} bytes), expected {source.sha256} "
            f"({source.size:,} bytes). Get {source.path} elsewhere and name its folder by ${DATA_DIR_VARIABLE}."
        )
    os.replace(part, target)


def _transfer(source: Source, part: pathlib.Path, have: int, timeout: float) -> None:
    request = urllib.request.Request(source.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            # A server that ignores the range sends the whole file again (200 instead of 206).
            mode = "ab" if have and answer.status == 206 else "wb"
            with open(part, mode) as out:
                while block := answer.read(BLOCK):
                    out.write(block)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise DataError(
            f"cannot download {source.url}: {error}. Get {source.path} another way and name its folder by the data "
            f"folder argument or ${DATA_DIR_VARIABLE}."
        ) from error


def file_sha256(path: pathlib.Path) -> str:
    """The sha256 of a file, in hex.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as f:
    ...     file_sha256(pathlib.Path(f.name))[:8]
    'e3b0c442'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
