"""Piano rolls from MATLAB files and from pickles."""

import pickle

import numpy as np
import pytest
import scipy.io

from cliffs.data import DataError, load_polyphonic, read_mat, read_pickle

# songs and steps of train / valid / test
COUNTS = {
    "Nottingham": ((694, 173, 170), (176_561, 45_513, 44_463)),
    "Piano_midi": ((87, 12, 25), (75_911, 8_540, 19_036)),
    "MuseData": ((524, 135, 124), (245_202, 82_755, 64_339)),
    "JSB_Chorales": ((229, 76, 77), (13_807, 4_602, 4_725)),
}


def rolls(seed=0):
    rng = np.random.default_rng(seed)
    return {fold: [rng.integers(0, 2, (n, 88)).astype(np.uint8) for n in (3, 5)] for fold in ("train", "valid", "test")}


def write_mat(path, folds):
    content = {}
    for fold, songs in folds.items():
        array = np.empty((1, len(songs)), object)
        array[0] = [*songs]
        content[fold] = array
    scipy.io.savemat(path, content)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_analytic_counts_of_the_published_sets(data_dir, name):
    music = load_polyphonic(name, data_dir)
    assert tuple(map(len, music)) == COUNTS[name][0]
    assert tuple(sum(map(len, fold)) for fold in music) == COUNTS[name][1]


def test_parity_mat_and_pickle_hold_the_same_songs(tmp_path):
    folds = rolls()
    write_mat(tmp_path / "a.mat", {f"{k}data": v for k, v in folds.items()})
    steps = {k: [[(np.flatnonzero(row) + 21).tolist() for row in song] for song in v] for k, v in folds.items()}
    (tmp_path / "a.pickle").write_bytes(pickle.dumps(steps, protocol=2))
    for music in (read_mat(tmp_path / "a.mat"), read_pickle(tmp_path / "a.pickle")):
        for fold, songs in folds.items():
            for got, want in zip(getattr(music, fold), songs, strict=True):
                np.testing.assert_array_equal(got, want)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("keep", [0, 40, 200])
def test_wrong_truncated_mat(tmp_path, keep):
    path = tmp_path / "a.mat"
    write_mat(path, {f"{k}data": v for k, v in rolls().items()})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cannot be read as a MATLAB file.*Delete it"):
        read_mat(path)


@pytest.mark.wrong_arguments
def test_wrong_wrong_key_and_wrong_shape(tmp_path):
    write_mat(tmp_path / "key.mat", rolls())
    with pytest.raises(DataError, match=r"no 'traindata'.*\['test', 'train', 'valid'\]"):
        read_mat(tmp_path / "key.mat")
    write_mat(tmp_path / "shape.mat", {f"{k}data": [s[:, :80] for s in v] for k, v in rolls().items()})
    with pytest.raises(DataError, match=r"no \[time, 88\] array"):
        read_mat(tmp_path / "shape.mat")


@pytest.mark.wrong_arguments
def test_wrong_name_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match="name must be one of"):
        load_polyphonic("Bach", tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_polyphonic("Nottingham", tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_mat(tmp_path / "none.mat")


@pytest.mark.wrong_arguments
def test_wrong_a_pickle_that_calls_anything_else_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'owned')!r}, 'w')",)

    (tmp_path / "bad.pickle").write_bytes(pickle.dumps({"train": [], "valid": [], "test": Attack()}))
    with pytest.raises(DataError, match=r"builtins.eval.*not loaded"):
        read_pickle(tmp_path / "bad.pickle")
    assert not (tmp_path / "owned").exists()
    (tmp_path / "cut.pickle").write_bytes(b"\x80\x02}q")
    with pytest.raises(DataError, match=r"cannot be read as a pickle"):
        read_pickle(tmp_path / "cut.pickle")
    (tmp_path / "pitch.pickle").write_bytes(pickle.dumps({"train": [[[20]]], "valid": [], "test": []}))
    with pytest.raises(DataError, match="off the keyboard"):
        read_pickle(tmp_path / "pitch.pickle")
