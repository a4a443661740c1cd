"""Checkpoints: a sweep that was stopped goes on to the same bits; what cannot be used is noticed."""

import json
import logging
import os
import re
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sweeps import small

from cliffs import training
from cliffs.sweeps import Checkpoint, Progress, prune, sweep
from cliffs.sweeps._book import Book


@pytest.fixture
def interrupt(monkeypatch):
    """`interrupt(k)`: Ctrl-C is pressed while block k is computed, once."""

    def at(block):
        counted, add = [], Book.add

        def counting(self, *args):
            counted.append(1)
            if len(counted) == block:
                signal.raise_signal(signal.SIGINT)
            return add(self, *args)

        monkeypatch.setattr(Book, "add", counting)

    return at


def test_property_a_program_that_ignores_sigint_goes_on(whole, interrupt):
    interrupt(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    small.assert_same(small.run(), whole)


@pytest.fixture(scope="module")
def whole():
    """The sweep that nothing disturbed: 40 updates in 4 blocks; runs leave after the second."""
    return small.run()


def stopped(tmp_path, interrupt, block=1, **options):
    """A folder with the checkpoints of a sweep that was stopped after some blocks."""
    interrupt(block)
    result = small.run(checkpoint=tmp_path / "c", **options)
    assert not result.complete
    return tmp_path / "c"


@pytest.mark.parametrize("block", [1, 2, 3])
def test_invariance_a_stopped_sweep_goes_on_to_the_same_bits(whole, tmp_path, interrupt, block):
    interrupt(block)
    part = small.run(checkpoint=tmp_path / "c")
    assert not part.complete
    assert part.steps_run.max() == 10 * block
    assert f"interrupted after {10 * block} of 40 updates; sweep again with checkpoint=" in part.notes[0]
    np.testing.assert_array_equal(part.metrics.loss[:2, : 10 * block], whole.metrics.loss[:2, : 10 * block])
    rest = small.run(checkpoint=tmp_path / "c")
    assert rest.complete
    assert rest.notes == ()
    small.assert_same(rest, whole)
    assert len(list((tmp_path / "c").glob("checkpoint-*"))) == 2


def test_invariance_other_devices_go_on_to_the_same_bits(whole, tmp_path, interrupt):
    folder = stopped(tmp_path, interrupt, devices=jax.local_devices()[:3])
    small.assert_same(small.run(checkpoint=folder, devices=jax.local_devices()[:2]), whole)


def test_integration_a_finished_sweep_returns_at_once(whole, tmp_path, monkeypatch):
    small.run(checkpoint=tmp_path)
    monkeypatch.setattr(Book, "add", None)  # nothing is computed
    small.assert_same(small.run(checkpoint=tmp_path), whole)


def test_integration_ctrl_c_without_a_checkpoint_returns_what_there_is(whole, interrupt):
    interrupt(2)
    part = small.run()
    assert part.steps_run.tolist() == [20] * 6
    assert part.notes == ("interrupted after 20 of 40 updates; it had no checkpoint",)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    np.testing.assert_array_equal(part.mask.sum(1), 20)


@pytest.mark.wrong_arguments
def test_wrong_second_ctrl_c_ends_at_once(monkeypatch):
    def twice(self, *args):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Book, "add", twice)
    with pytest.raises(KeyboardInterrupt):
        small.run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit of the arrays": (lambda p: flip(p / "part-0.npz"), "part-0.npz is not what was written"),
    "arrays cut short": (lambda p: cut(p / "part-0.npz"), "part-0.npz is not what was written"),
    "no arrays": (lambda p: (p / "part-0.npz").unlink(), "part-0.npz is missing"),
    "a flipped bit of the manifest": (lambda p: flip(p / "manifest.json"), "its manifest (was changed|cannot be read)"),
    "an emptied manifest": (lambda p: (p / "manifest.json").write_text(""), "its manifest cannot be read"),
    "another manifest": (lambda p: (p / "manifest.json").write_text("[]"), "its manifest cannot be read"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "it has no manifest"),
    "an empty folder": (lambda p: [f.unlink() for f in p.iterdir()], "it has no manifest"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_property_a_damaged_checkpoint_is_passed_over_for_the_one_before(whole, tmp_path, interrupt, caplog, case):
    damage, words = DAMAGES[case]
    folder = stopped(tmp_path, interrupt, 3)
    before, newest = sorted(folder.glob("checkpoint-*"))
    damage(newest)
    with caplog.at_level(logging.WARNING):
        result = small.run(checkpoint=folder)
    small.assert_same(result, whole)
    assert len(result.notes) == 1
    assert newest.name in result.notes[0]
    assert f"went back to {before.name}" in result.notes[0]
    assert re.search(words, result.notes[0])
    assert result.notes[0] in caplog.text


def test_property_without_a_good_checkpoint_the_sweep_starts_again_and_says_so(whole, tmp_path, interrupt):
    folder = stopped(tmp_path, interrupt, 3)
    for path in folder.glob("checkpoint-*"):
        flip(path / "part-0.npz")
    result = small.run(checkpoint=folder)
    small.assert_same(result, whole)
    assert len(result.notes) == 2
    assert "starts from the beginning" in result.notes[1]


def test_integration_leftovers_of_a_killed_writer_do_no_harm(whole, tmp_path, interrupt):
    folder = stopped(tmp_path, interrupt, 2)
    (folder / ".writing-000099").mkdir()
    (folder / ".writing-000099" / "part-0.npz").write_bytes(b"half")
    small.assert_same(small.run(checkpoint=folder), whole)
    assert not list(folder.glob(".writing-*"))


def other_update(state, run):
    noise = 0.2 * jax.random.normal(jax.random.fold_in(jax.random.key(run["seed"]), state.step), (2,))
    return training.train_step(state, noise, small.loss, optax.sgd(run["rate"]))


def other_loss(params, batch):
    return jnp.sum((params - batch) ** 2) * 1.5, {"size": jnp.abs(params).max()}


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 80}, "in num_steps: 40 there, 80 here; resume='extend' goes on with more updates"),
        ({"steps": 20}, "in num_steps: 40 there, 20 here. Take"),
        ({"evaluate_every": 20}, "in evaluate_every: 10 there, 20 here"),
        ({"over": small.grid(rates=(0.01, 0.1, 11.0))}, "in the grid: run 4 has other values"),
        ({"over": small.grid(seeds=1)}, "in the grid: run 1 has other values"),
        ({"stop_when_solved": False}, "in stop_when_solved: True there, False here"),
        ({"record": ["loss"]}, "in record: None there"),
        ({"evaluate": None, "stop_when_solved": False}, "in evaluate: a function there, none here"),
        ({"lanes": 2}, "in lanes: 1 there, 2 here"),
        ({"prune": prune.successive_halving("error")}, "in prune: None there, SuccessiveHalving"),
    ],
)
def test_wrong_another_sweep_is_refused_with_what_differs(tmp_path, interrupt, options, words):
    folder = stopped(tmp_path, interrupt)
    with pytest.raises(ValueError, match="holds another sweep, it differs .*" + words):
        small.run(checkpoint=folder, **options)


@pytest.mark.wrong_arguments
def test_wrong_another_function_version_or_value_is_refused(tmp_path, interrupt, monkeypatch):
    folder = stopped(tmp_path, interrupt)

    def again(update=small.update):
        return sweep(
            small.init,
            update,
            small.grid(),
            40,
            evaluate=small.evaluate,
            evaluate_every=10,
            stop_when_solved=True,
            checkpoint=folder,
            progress=False,
        )

    with pytest.raises(ValueError, match=r"in the source of update: `.*def update.*` there, `def other_update"):
        again(other_update)
    with monkeypatch.context() as patch:
        patch.setattr(small, "loss", other_loss)
        with pytest.raises(ValueError, match="in what update computes, though its source is the same"):
            again()
    with monkeypatch.context() as patch:
        patch.setattr(jax, "__version__", "9.9.9")
        with pytest.raises(ValueError, match=r"in the version of jax: .* there, 9.9.9 here"):
            again()
    with jax.enable_x64(True), pytest.raises(ValueError, match="in x64: False there, True here"):
        again()
    assert again().complete


@pytest.mark.wrong_arguments
def test_wrong_another_constant_of_a_compiled_helper_is_refused(tmp_path):
    def update_with(table):
        @jax.jit
        def helper(x):
            return x + jnp.asarray(table)

        return lambda state, run: (state._replace(params=helper(state.params)), {})

    options = {"evaluate_every": 2, "checkpoint": str(tmp_path), "progress": False}
    table = np.array([1.0, 2.0], np.float32)
    sweep(small.init, update_with(table), small.grid(), 4, **options)
    sweep(small.init, update_with(table.copy()), small.grid(), 4, **options)
    with pytest.raises(ValueError, match="in what update computes, though its source is the same"):
        sweep(small.init, update_with(10 * table), small.grid(), 8, resume="extend", **options)


@pytest.mark.parametrize("block", [2, 4])
def test_invariance_extending_gives_the_bits_of_one_longer_sweep(tmp_path, interrupt, block):
    long = small.run(80, over=small.grid(rates=(0.01, 0.1, 10.0, 0.02)))
    if block < 4:
        stopped(tmp_path, interrupt, block)
    else:
        small.run(checkpoint=tmp_path / "c")
    result = small.run(80, over=small.grid(rates=(0.01, 0.1, 10.0, 0.02)), checkpoint=tmp_path / "c", resume="extend")
    small.assert_same(result, long)


def test_integration_extending_repeats_nothing(tmp_path, monkeypatch):
    small.run(checkpoint=tmp_path)
    computed, add = [], Book.add

    def counting(self, runs, *args):
        computed.append((runs.tolist(), int(self.steps_run[runs[0]])))
        return add(self, runs, *args)

    monkeypatch.setattr(Book, "add", counting)
    small.run(60, over=small.grid(rates=(0.01, 0.1, 10.0, 0.02)), checkpoint=tmp_path, resume="extend")
    # The new runs 6 and 7 catch up, then all that are left go on together.
    assert computed == [([6, 7], 0), ([6, 7], 10), ([6, 7], 20), ([6, 7], 30), ([0, 1, 6, 7], 40), ([0, 1, 6, 7], 50)]


@pytest.mark.wrong_arguments
def test_wrong_runs_cannot_be_added_to_a_sweep_that_prunes(tmp_path):
    rule = prune.successive_halving("error")
    small.run(checkpoint=tmp_path, prune=rule)
    with pytest.raises(ValueError, match="runs cannot be added to a sweep that prunes"):
        small.run(over=small.grid(rates=(0.01, 0.1, 10.0, 1.0)), checkpoint=tmp_path, prune=rule, resume="extend")


@pytest.mark.wrong_arguments
def test_wrong_full_disk_is_told_and_the_last_good_checkpoint_stays(whole, tmp_path, interrupt):
    folder = stopped(tmp_path, interrupt)
    (good,) = folder.glob("checkpoint-*")
    size = (good / "part-0.npz").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(OSError, match=r"checkpoint 2 could not be written .*checkpoint-000001 is untouched"):
            small.run(checkpoint=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in folder.iterdir() if p.name != ".lock"] == [good.name]
    small.assert_same(small.run(checkpoint=folder), whole)


@pytest.mark.wrong_arguments
def test_wrong_two_sweeps_in_one_folder_are_refused(tmp_path):
    seen = []

    def inside(evaluations, active):
        try:
            small.run(checkpoint=tmp_path)
        except ValueError as error:
            seen.append(str(error))
        return active

    small.run(checkpoint=tmp_path, prune=inside)
    assert seen == [f"checkpoint: another sweep is writing to {tmp_path}"] * 4


def test_property_seconds_between_checkpoints_are_kept(tmp_path):
    small.run(checkpoint=Checkpoint(tmp_path / "a", every_seconds=1e9))
    assert [p.name for p in (tmp_path / "a").glob("checkpoint-*")] == ["checkpoint-000001"]
    small.run(checkpoint=Checkpoint(tmp_path / "b", keep=3))
    assert len(list((tmp_path / "b").glob("checkpoint-*"))) == 3


def test_property_keys_and_half_precision_survive_a_checkpoint(tmp_path, interrupt):
    def optimizer(run):
        return optax.chain(optax.add_noise(0.1, 0.5, run["key"]), optax.sgd(0.1))

    def init(run):
        return training.init_train_state(jnp.ones(3, jnp.bfloat16), optimizer(run))

    def update(state, run):
        return training.train_step(state, jnp.zeros(3, jnp.bfloat16), small.loss, optimizer(run))

    def run(**options):
        keys = {"key": jax.random.split(jax.random.key(1), 3)}
        return sweep(init, update, keys, 20, evaluate_every=5, progress=False, **options)

    want = run()
    interrupt(2)
    assert not run(checkpoint=tmp_path).complete
    got = run(checkpoint=tmp_path)
    for a, b in zip(jax.tree.leaves((got.state, got.metrics)), jax.tree.leaves((want.state, want.metrics))):
        assert a.dtype == b.dtype
        a, b = (jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b))
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checkpoint": 3}, "checkpoint must be a folder or a Checkpoint, got 3"),
        ({"checkpoint": Checkpoint("x", keep=0)}, "keep must be a whole number of at least 1, got 0"),
        ({"checkpoint": Checkpoint("x", every_seconds=-1.0)}, "every_seconds must be a number of at least 0"),
        ({"checkpoint": __file__}, "checkpoint must be a folder, .* is a file"),
        ({"resume": "never"}, "resume must be 'exact' or 'extend', got 'never'"),
        ({"devices": []}, "devices must name at least one device"),
        ({"devices": "cpu"}, r"devices must be a sequence of devices such as jax.devices\(\), got 'cpu'"),
        ({"devices": [0]}, "devices must be a sequence of devices .*, it holds 0"),
        ({"devices": jax.devices()[0]}, "devices must be a sequence of devices .*, got CpuDevice"),
        ({"devices": jax.devices()[:1] * 2}, "devices must name each device once"),
        ({"memory_fraction": "a"}, r"memory_fraction must lie in \(0, 1\], got 'a'"),
        ({"stop_when_solved": "no"}, "stop_when_solved must be True or False, got 'no'"),
    ],
)
def test_wrong_settings_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        small.run(**options)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("record", "fields", "words"),
    [
        (Checkpoint, {"folder": 3}, "a Checkpoint's folder must be a path, got 3"),
        (Checkpoint, {"folder": "x", "keep": "a"}, "keep must be a whole number of at least 1, got 'a'"),
        (Checkpoint, {"folder": "x", "every_seconds": "a"}, "every_seconds must be a number of at least 0, got 'a'"),
        (Progress, {"show": "no"}, "a Progress's show must be None, True or False, got 'no'"),
        (Progress, {"json_lines": 3}, "a Progress's json_lines must be the path of a file or None, got 3"),
    ],
)
def test_wrong_fields_of_settings_are_named(record, fields, words):
    with pytest.raises(ValueError, match=words):
        small.run(**{record.__name__.lower(): record(**fields)})


def test_property_the_manifest_says_what_the_sweep_was(tmp_path):
    small.run(checkpoint=tmp_path)
    newest = max(tmp_path.glob("checkpoint-*"))
    body = json.loads((newest / "manifest.json").read_text())["body"]
    assert body["identity"]["versions"]["jax"] == jax.__version__
    assert "def update" in body["identity"]["functions"]["update"]["source"]
    assert sorted(os.listdir(newest)) == ["manifest.json", "part-0.npz"]
