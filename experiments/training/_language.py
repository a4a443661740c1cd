"""A small language made in code: words drawn independently, with Zipf's shares. The floor of the loss is known.

The letters since the last space decide what may follow, so the loss of a perfect model is that of a walk on the tree of
all beginnings of words: exact, at every place of a row that starts with a word. A file of text takes its place where
asked for; its floor is unknown.
"""

import collections
import pathlib
from typing import NamedTuple

import numpy as np

SYMBOLS = " abcdefghijklmnopqrstuvwxyz"


class Language(NamedTuple):
    """Words, each with the space that ends it, and how often they come."""

    words: tuple[str, ...]
    shares: np.ndarray

    @property
    def entropy_rate(self) -> float:
        """Nats per character: the entropy of a word over its mean length; the space makes words uniquely readable."""
        lengths = np.array([len(word) for word in self.words])
        return float(-(self.shares * np.log(self.shares)).sum() / (self.shares * lengths).sum())


def make_language(words: int, seed: int) -> Language:
    """Different words of 2 to 6 letters; the k-th most common one has a share in proportion to 1/k."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < words:
        letters = rng.choice(list(SYMBOLS[1:]), rng.integers(2, 7))
        found["".join(letters) + " "] = None
    shares = 1 / np.arange(1, words + 1)
    return Language(tuple(found), shares / shares.sum())


def write_rows(language: Language, rows: int, length: int, seed: int) -> np.ndarray:
    """Numbers of symbols `[rows, length]`; every row starts with a word."""
    rng = np.random.default_rng(seed)
    shortest = min(map(len, language.words))
    chosen = rng.choice(len(language.words), (rows, -(-length // shortest)), p=language.shares)
    texts = ["".join(language.words[word] for word in row)[:length] for row in chosen]
    return np.array([[SYMBOLS.index(letter) for letter in text] for text in texts], np.uint8)


def nats_of_truth(language: Language, rows: np.ndarray) -> np.ndarray:
    """What the language itself pays for each character of rows that start with a word, `[rows, length]`."""
    weights = _weights(language)
    nats = np.zeros(rows.shape)
    for i, row in enumerate(rows):
        begun = ""
        for t, symbol in enumerate(row):
            after = begun + SYMBOLS[symbol]
            nats[i, t] = np.log(weights[begun] / weights[after])
            begun = "" if SYMBOLS[symbol] == " " else after
    return nats


def exact_floor(language: Language, length: int) -> np.ndarray:
    """The expected `nats_of_truth` of each place of a row, `[length]`: entropies along the tree of beginnings."""
    weights = _weights(language)
    children = collections.defaultdict(list)
    for begun in weights:
        if begun:
            children[begun[:-1]].append(begun)
    entropy = {
        begun: float(-sum(weights[n] / weights[begun] * np.log(weights[n] / weights[begun]) for n in following))
        for begun, following in children.items()
    }
    where, floor = {"": 1.0}, []
    for _ in range(length):
        floor.append(sum(share * entropy[begun] for begun, share in where.items()))
        step = collections.defaultdict(float)
        for begun, share in where.items():
            for following in children[begun]:
                step["" if following.endswith(" ") else following] += share * weights[following] / weights[begun]
        where = step
    return np.array(floor)


def read_rows(file: str, length: int) -> tuple[np.ndarray, int]:
    """A text as numbers of its own symbols, cut into rows `[rows, length]`, and how many symbols it has."""
    text = pathlib.Path(file).read_text(encoding="utf-8")
    symbols, numbers = np.unique(list(text), return_inverse=True)
    rows = len(numbers) // length
    if rows < 2 or len(symbols) > 256:
        raise ValueError(
            f"text must hold at least two rows of {length} characters, of at most 256 symbols; {file} has {rows} rows "
            f"and {len(symbols)} symbols"
        )
    return numbers[: rows * length].reshape(rows, length).astype(np.uint8), len(symbols)


def _weights(language: Language) -> dict[str, float]:
    """From every beginning of a word, the empty one and the whole word with its space among them, to its share."""
    weights: dict[str, float] = collections.defaultdict(float)
    for word, share in zip(language.words, language.shares):
        for end in range(len(word) + 1):
            weights[word[:end]] += float(share)
    return dict(weights)
