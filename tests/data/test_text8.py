"""text8 and files of its form."""

import zipfile

import numpy as np
import pytest

from cliffs.data import DataError, load_text8, read_text8


def written(path, text, member="text8"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, text)
    return path


def test_analytic_folds_are_90_5_and_5_per_cent_in_order(tmp_path):
    text = "".join(np.random.default_rng(0).choice(list(" abcdefghijklmnopqrstuvwxyz"), 1_000))
    corpus = read_text8(written(tmp_path / "small.zip", text))
    assert [len(fold) for fold in corpus[:3]] == [900, 50, 50]
    assert "".join(corpus.symbols[i] for fold in corpus[:3] for i in fold) == text


def test_analytic_the_prefix_has_its_counts(data_dir):
    path = data_dir / "text8" / "text8_prefix_12500000.zip"
    if not path.exists():
        pytest.skip("the prefix of text8 is not in the data folder")
    corpus = read_text8(path)
    assert [len(fold) for fold in corpus[:3]] == [11_250_000, 625_000, 625_000]
    share = np.bincount(np.concatenate(corpus[:3]), minlength=27) / 12.5e6
    assert -(share * np.log2(share)).sum() == pytest.approx(4.117, abs=1e-3)


@pytest.mark.wrong_arguments
def test_wrong_files_of_another_form_say_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="has the byte 65 at 2"):
        read_text8(written(tmp_path / "upper.zip", "abA"))
    with pytest.raises(DataError, match="no zip file with a member text8"):
        read_text8(written(tmp_path / "other.zip", "ab", member="text9"))
    (tmp_path / "text").write_text("abc")
    with pytest.raises(DataError, match="no zip file"):
        read_text8(tmp_path / "text")
    with pytest.raises(DataError, match=r"text8.zip does not exist. Put"):
        load_text8(tmp_path)
