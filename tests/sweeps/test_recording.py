"""Histories that fit: which metrics are kept, and how several updates share one record."""

import jax
import numpy as np
import pytest
from sweeps import small


@pytest.fixture(scope="module")
def full():
    return small.run()


@pytest.mark.parametrize("every", [2, 5, 10])
def test_invariance_fewer_records_change_no_run(full, every):
    thin = small.run(record_every=every)
    for a, b in zip(jax.tree.leaves(thin.state), jax.tree.leaves(full.state)):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(thin.metrics.loss, full.metrics.loss[:, every - 1 :: every])
    np.testing.assert_array_equal(thin.mask, full.mask[:, every - 1 :: every])
    np.testing.assert_array_equal(thin.solved_at, full.solved_at)


def test_parity_reductions_are_numpys(full):
    asked = {"loss": "mean", "grad_norm": "max", "aux": "min"}
    got = small.run(record_every=5, record=asked)
    new, old = got.metrics, full.metrics
    pairs = {"mean": (new.loss, old.loss), "max": (new.grad_norm, old.grad_norm)}
    for name, (a, b) in (pairs | {"min": (new.aux["size"], old.aux["size"])}).items():
        want = getattr(np, name)(b.reshape(6, -1, 5), axis=2)
        mask = full.mask.reshape(6, -1, 5).all(2)
        np.testing.assert_allclose(a[mask], want[mask], rtol=1e-6)
        assert np.isnan(a[~mask]).all()


def test_property_what_is_not_asked_for_is_not_kept(full):
    only = small.run(record=["loss"])
    assert only.metrics.grad_norm is None
    np.testing.assert_array_equal(only.metrics.loss, full.metrics.loss)
    nothing = small.run(record=())
    assert jax.tree.leaves(nothing.metrics) == []
    np.testing.assert_array_equal(nothing.evaluations["error"], full.evaluations["error"])
    nested = small.run(record=["aux/size"])
    assert nested.metrics.loss is None
    np.testing.assert_array_equal(nested.metrics.aux["size"], full.metrics.aux["size"])


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"record_every": 3}, "record_every must divide evaluate_every=10, got 3"),
        ({"record_every": 0}, "record_every must be a whole number of at least 1, got 0"),
        ({"record": "loss"}, "record must be names of metrics"),
        ({"record": ["accuracy"]}, r"record names 'accuracy', the metrics of update are \['loss'"),
        ({"record": {"loss": ["mean"]}}, r"record asks for \['mean'\] of 'loss', the reductions are"),
        ({"record": [["loss"]]}, r"record names \['loss'\], the metrics of update are"),
        ({"record": {"loss": "median"}}, "record asks for 'median' of 'loss', the reductions are"),
    ],
)
def test_wrong_records_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        small.run(**options)
