"""Grids: combinations of values, and numbers that JAX's precision cannot hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import small

from cliffs.sweeps import product_grid


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
        ({"seed": np.array([5, 2**32 + 5]), "rate": np.ones(2)}, r"grid\['seed'\] holds 4294967301"),
    ],
)
def test_wrong_grids_are_named_by_their_leaf(grid, words):
    with pytest.raises(ValueError, match=words):
        small.run(over=grid)
