"""Penn Treebank characters."""

import numpy as np
import pytest

from cliffs.data import DataError, characters_of, encode, load_penn_treebank


@pytest.mark.parametrize(
    ("newline", "sizes", "symbols"),
    [(False, (4_975_414, 389_672, 438_662), 49), (True, (5_017_482, 393_042, 442_423), 50)],
)
def test_analytic_counts_of_the_released_files(data_dir, newline, sizes, symbols):
    corpus = load_penn_treebank(data_dir, newline=newline)
    assert tuple(map(len, corpus[:3])) == sizes
    assert len(corpus.symbols) == symbols
    assert len(np.unique(corpus.train)) == symbols
    assert len(np.unique(corpus.test)) == symbols - 2


def test_analytic_encoding_is_inverted_by_the_symbols():
    text = characters_of(" the cat <unk> \n N sat \n", newline=True)
    assert text == "the_cat_<unk>\nN_sat\n"
    corpus = encode({"train": text, "valid": "cat", "test": "sat\n"})
    assert "".join(corpus.symbols[i] for i in corpus.train) == text
    assert "".join(corpus.symbols[i] for i in corpus.test) == "sat\n"


@pytest.mark.wrong_arguments
def test_wrong_unknown_symbol_names_fold_and_symbol():
    with pytest.raises(DataError, match=r"valid fold.*'z'"):
        encode({"train": "abc", "valid": "az", "test": "b"})


@pytest.mark.wrong_arguments
def test_wrong_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"ptb.train.txt does not exist. Put"):
        load_penn_treebank(tmp_path)
