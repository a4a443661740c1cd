"""Grids: combinations of values, and numbers that JAX's precision cannot hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import small

from cliffs.sweeps import plan_sweep, product_grid, sweep


def test_property_product_grid_varies_the_last_axis_fastest():
    axes = product_grid(a=[1, 2], b=[0.1, 0.2, 0.3])
    assert axes["a"].tolist() == [1, 1, 1, 2, 2, 2]
    assert axes["b"].tolist() == [0.1, 0.2, 0.3] * 2


def test_property_product_grid_takes_generators_arrays_and_typed_keys():
    axes = product_grid(a=(i for i in range(2)), key=jax.random.split(jax.random.key(0), 2), b=jnp.arange(2.0))
    assert axes["a"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    words = jax.random.key_data(axes["key"])
    assert (words[0] == words[1]).all()
    assert (words[0] != words[2]).any()
    listed = product_grid(key=[jax.random.key(3), jax.random.key(4)])["key"]
    assert (jax.random.key_data(listed[1]) == jax.random.key_data(jax.random.key(4))).all()


@given(seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5, unique=True))
def test_property_seeds_of_32_bits_stay_different_on_the_device(seeds):
    column = product_grid(seed=seeds)["seed"]
    assert jax.device_put(column).tolist() == seeds


def test_integration_seeds_above_the_int32_range_train_different_runs():
    result = small.run(10, product_grid(rate=[0.1], seed=[5, 2**31 + 5, 2**32 - 1]))
    assert len(np.unique(result.metrics.loss[:, -1])) == 3


def test_property_with_x64_large_seeds_and_floats_fit(x64):
    column = product_grid(seed=[5, 2**32 + 5], x=[1e39, 1.0])
    assert jax.device_put(column["seed"]).tolist() == [5, 5, 2**32 + 5, 2**32 + 5]
    assert np.isfinite(jax.device_put(column["x"])).all()


def test_property_integers_that_numpy_would_make_floats_stay_what_they_are(x64):
    assert product_grid(seed=[2**63 + 1, 1])["seed"].tolist() == [2**63 + 1, 1]
    assert product_grid(seed=[np.uint64(2**53 + 1), np.int64(3)])["seed"].tolist() == [2**53 + 1, 3]
    assert product_grid(a=[2**53, True, 0.5])["a"].tolist() == [2**53, 1, 0.5]
    assert product_grid(a=[np.array([]), np.array([])])["a"].shape == (2, 0)
    assert product_grid(a=np.ma.array([1.0, 2.0]))["a"].tolist() == [1, 2]  # nothing is masked


def test_property_a_result_keeps_the_grid_that_it_was_given():
    rates = np.array([0.01, 0.1])
    result = small.run(10, {"rate": rates, "seed": np.arange(2)})
    rates[:] = 7
    assert result.grid["rate"].tolist() == [0.01, 0.1]


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"seed": []}, "seed must have at least one value"),
        ({"seed": [5, 2**32 + 5]}, "seed holds 4294967301"),
        ({"seed": [-1, 2**31]}, "seed holds 2147483648"),
        ({"seed": [2**70]}, "seed holds 1180591620717411303424"),
        ({"rate": [1.0, 1e39]}, "rate holds 1e\\+39"),
        ({"rate": [1e-46]}, "rate holds 1e-46"),
        ({"rate": [0.1, 0.1 + 1e-12]}, "rate holds 0.1 and 0.100000000001"),
        ({"name": ["tanh", "relu"]}, "name holds 'tanh'"),
        ({"norm": [None, 1.0]}, "norm holds None"),
        ({"norm": [object()]}, "norm holds <object"),
        ({"norm": "12"}, "norm must be a sequence"),
        ({"norm": 3.0}, "norm must be a sequence"),
        ({"norm": np.float32(3)}, "norm must be a sequence"),
        ({"norm": [[1, 2], [3]]}, "norm must hold values of one shape"),
        ({"a": [2**53 + 1, 2**53, 0.5]}, "a holds 9007199254740993, which becomes 9007199254740992.0 beside floats"),
        ({"a": [[0.5, 1], [2, np.int64(2**53 + 1)]]}, "a holds 9007199254740993, which becomes"),
        ({"a": [2**53 + 1, 0.5j]}, "a holds 9007199254740993, which becomes"),
        ({"seed": [2**64 - 1, -1]}, "seed holds 18446744073709551615, which becomes 1.8446744073709552e\\+19 beside"),
        ({"seed": [2**63, -1]}, "seed holds -1 and 9223372036854775808, which no integer dtype holds together"),
        ({"seed": [2**63, 1]}, "seed holds 9223372036854775808, which does not fit into the uint32"),
        ({"norm": np.ma.array([1.0, 2.0], mask=[True, False])}, "norm has masked entries"),
        ({"key": [jax.random.key(0), 1]}, "key must hold random keys or numbers, not both, got 1 beside keys"),
        (
            {"key": [jax.random.key(0), jax.random.key(0, impl="rbg")]},
            "key must hold random keys of one kind .*rbg.*fry",
        ),
        (
            {"key": [jax.random.key(0), jax.random.split(jax.random.key(0))]},
            r"one kind and shape, got .*\[2\] and .*\[\]",
        ),
        ({"norm": [1.0, np.ma.masked]}, "norm has masked entries"),
    ],
)
def test_wrong_values_of_a_grid_are_named_with_their_column(axes, words):
    with pytest.raises(ValueError, match=words):
        product_grid(**axes)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({}, "grid must hold arrays"),
        ({"seed": np.zeros(0)}, "grid must hold arrays"),
        ({"seed": np.zeros(2), "rate": np.zeros(3)}, r"grid\['rate'\]\": 3, .*grid\['seed'\]\": 2"),
        ({"seed": [0, 1]}, r"grid\['seed'\]\[0\] is 0: each leaf"),
        ({"seed": np.array(["a", "b"])}, r"grid\['seed'\] holds"),
        ({"seed": np.array([0, None])}, r"grid\['seed'\] holds 0 \(object\)"),
        ({"seed": np.array(3)}, r"grid\['seed'\] has no run axis"),
        ({"seed": np.ma.array([1, 2], mask=[True, False])}, r"grid\['seed'\] has masked entries"),
        ({"seed": np.array([5, 2**32 + 5]), "rate": np.ones(2)}, r"grid\['seed'\] holds 4294967301"),
    ],
)
def test_wrong_grids_are_named_by_their_leaf(grid, words):
    with pytest.raises(ValueError, match=words):
        small.run(over=grid)


def with_data(data):
    """A sweep of one update whose metrics are the data that the update has seen."""

    def update(state, run, data):
        return state, {name: x.sum() for name, x in data.items()}

    return sweep(small.init, update, {"rate": np.ones(1)}, 1, data=data, progress=False)


def test_property_shared_data_reach_the_update_as_they_are():
    seen = with_data(
        {
            "large": np.array([2**32 - 1]),
            "python": 3,
            "digits": np.array([0.1, 0.1 + 1e-12]),
            "inf": np.array([np.inf]),
            "tiny": np.array([1e-300]),
            "unmasked": np.ma.array([1.0, 2.0]),
            "jax": jnp.arange(3),
        }
    ).metrics
    assert {name: float(x[0, 0]) for name, x in seen.items()} == {
        "large": 2**32 - 1,
        "python": 3,
        "digits": pytest.approx(0.2),
        "inf": np.inf,
        "tiny": 0,
        "unmasked": 3,
        "jax": 3,
    }


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"ids": np.array([1, 2**32 + 7])}, r"data\['ids'\] holds 4294967303, which does not fit into the int32"),
        (
            {"x": [{"y": np.array([1e39])}]},
            r"data\['x'\]\[0\]\['y'\] holds 1e\+39, which does not fit into the float32",
        ),
        ({"x": -(2**31) - 1}, r"data\['x'\] holds -2147483649"),
        (np.array([1e300]), "data holds 1e\\+300"),
        ({"x": np.ma.array([1.0, 2.0], mask=[True, False])}, r"data\['x'\] has masked entries"),
        ("abc", r"data holds .*'abc'.*allowed are numbers, bools and random keys"),
        ({"f": max}, r"data\['f'\] holds <built-in function max> \(object\), allowed are numbers"),
        ({"x": np.array(["a"])}, r"data\['x'\] holds .*'a'"),
    ],
)
def test_wrong_shared_data_are_named_by_their_leaf(data, words):
    with pytest.raises(ValueError, match=words):
        with_data(data)
    with pytest.raises(ValueError, match=words):
        plan_sweep(small.init, lambda state, run, data: (state, {}), small.grid(), 10, data=data)
