"""text8: the first 100 million characters of cleaned English Wikipedia (Mahoney 2006), 26 letters and the space."""

import os
import zipfile

import numpy as np

from cliffs.data._download import DataError, Source, locate
from cliffs.data._penn_treebank import CharacterCorpus

SOURCE = Source(
    "text8/text8.zip",
    "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    31_344_016,
    "http://mattmahoney.net/dc/text8.zip",
)
SYMBOLS = " abcdefghijklmnopqrstuvwxyz"


def load_text8(data_dir: str | os.PathLike | None = None) -> CharacterCorpus:
    """text8 with its usual folds: 90, 5 and 5 million characters over 27 symbols.

    **Arguments**

    - `data_dir`: folder with `text8/text8.zip`; see `cliffs.data.locate`.

    **Returns** a `CharacterCorpus` of uint8 indices.

    **Raises** `DataError`, saying what to do, when the file is missing or not the expected one.

    Source: Mahoney (2006), "About the test data", http://mattmahoney.net/dc/textdata.html.

    >>> corpus = load_text8("folder/with/data")  # doctest: +SKIP
    >>> corpus.train.shape, len(corpus.symbols)  # doctest: +SKIP
    ((90000000,), 27)
    """
    return read_text8(locate(SOURCE, data_dir))


def read_text8(path: str | os.PathLike) -> CharacterCorpus:
    """A file of text8's form, the whole of it or a part: the folds are its first 90 %, then 5 %, then the last 5 %.

    **Arguments**

    - `path`: a zip file with one member `text8` of lower-case letters and spaces.

    **Returns** a `CharacterCorpus` of uint8 indices over 27 symbols, the space first.

    **Raises** `DataError` when the file has another form.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".zip") as file:
    ...     with zipfile.ZipFile(file, "w") as archive:
    ...         archive.writestr("text8", " anarchism originated")
    ...     corpus = read_text8(file.name)
    >>> "".join(corpus.symbols[i] for i in corpus.train)
    ' anarchism origina'
    """
    try:
        with zipfile.ZipFile(path) as archive:
            text = np.frombuffer(archive.read("text8"), np.uint8)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no zip file with a member text8: {error}") from error
    table = np.full(256, 255, np.uint8)
    table[[ord(c) for c in SYMBOLS]] = np.arange(len(SYMBOLS))
    stream = table[text]
    if (stream == 255).any():
        first = int(np.argmax(stream == 255))
        raise DataError(f"{path} has the byte {int(text[first])} at {first:,}; text8 has a to z and spaces only")
    valid, test = len(stream) * 90 // 100, len(stream) * 95 // 100
    return CharacterCorpus(stream[:valid], stream[valid:test], stream[test:], SYMBOLS)
