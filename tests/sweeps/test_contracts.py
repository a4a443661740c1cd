"""Functions that do not keep the contract of a sweep are named, with what they returned and what is allowed."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sweeps import small

from cliffs import clipping, training
from cliffs.sweeps import sweep


def with_state(change):
    """An update that returns another state."""
    return lambda state, run: (change(state, run), {})


UPDATES = {
    "only the state": (lambda state, run: state, r"update must return \(state, metrics\), got a TrainState"),
    "three things": (lambda state, run: (state, {}, {}), r"update must return \(state, metrics\), got a tuple of 3"),
    "another dtype": (
        with_state(lambda s, r: s._replace(params=s.params.astype(jnp.bfloat16))),
        r"the leaf state.params is bfloat16\[2\], in init's state it is float32\[2\]",
    ),
    "a grown leaf": (
        with_state(lambda s, r: s._replace(params=jnp.zeros(3))),
        r"the leaf state.params is float32\[3\], in init's state it is float32\[2\]",
    ),
    "another tree": (
        with_state(lambda s, r: s._replace(params={"w": s.params})),
        r"the leaf state.params is in what init returns, not in update's",
    ),
    "keys as metrics": (lambda s, r: (s, {"key": jax.random.key(0)}), "update returns a random key at"),
    "no arrays": (lambda s, r: (s, {"name": "adam"}), "update must return arrays"),
    "other arguments": (lambda s: (s, {}), r"update is called as update\(state, run\), but"),
}
EVALUATIONS = {
    "a number": (lambda s, r: jnp.zeros(()), r"evaluate must return a dict .* got one array float32\[\]"),
    "a vector": (lambda s, r: {"solved": jnp.zeros(3, bool)}, r"'solved' must be one bool, got bool\[3\]"),
    "no bool": (lambda s, r: {"solved": jnp.zeros(())}, r"'solved' must be one bool, got float32\[\]"),
    "a nested one": (lambda s, r: {"solved": {"a": jnp.array(True)}}, "'solved' must be one bool, got a dict"),
    "other arguments": (lambda s: {}, r"evaluate is called as evaluate\(state, run\)"),
}


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("case", UPDATES)
def test_wrong_update_is_named_with_its_leaf(case):
    update, words = UPDATES[case]
    with pytest.raises(ValueError, match=words):
        sweep(small.init, update, small.grid(), 20)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("case", EVALUATIONS)
def test_wrong_evaluate_is_named(case):
    evaluate, words = EVALUATIONS[case]
    with pytest.raises(ValueError, match=words):
        small.run(evaluate=evaluate)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("init", "words"),
    [
        (lambda run: {"params": jnp.zeros(2)}, "init must return a state with a field or property diverged_at"),
        (lambda run: small.init(run)._replace(diverged_at=jnp.zeros(2)), r"diverged_at must be one integer, got float"),
        (lambda: 0, r"init is called as init\(run\)"),
        (None, "init must be a function"),
    ],
)
def test_wrong_init_is_named(init, words):
    with pytest.raises(ValueError, match=words):
        sweep(init, small.update, small.grid(), 20)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_steps": 1e3}, "num_steps must be a whole number of at least 1, got 1000.0"),
        ({"num_steps": 0}, "num_steps must be a whole number of at least 1, got 0"),
        ({"num_steps": "10"}, "num_steps must be a whole number"),
        ({"num_steps": 50, "evaluate_every": 20}, "num_steps must be a multiple of evaluate_every, got 50 and 20"),
        ({"num_steps": 20, "evaluate_every": 2.5}, "evaluate_every must be a whole number"),
        ({"num_steps": 101}, "num_steps=101 has no divisor .* take 200 updates"),
        ({"num_steps": 20, "lanes": 0}, "lanes must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_numbers_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        sweep(small.init, small.update, small.grid(), **options)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("evaluate", [None, lambda state, run: {"done": state.step > 5}])
def test_wrong_stopping_without_an_entry_solved_is_refused(evaluate):
    with pytest.raises(ValueError, match="stop_when_solved goes by the entry 'solved' of what evaluate returns, got"):
        small.run(evaluate=evaluate)


def test_integration_fifty_steps_need_no_interval_of_evaluation():
    result = sweep(small.init, small.update, small.grid(), 50, evaluate=small.evaluate, progress=False)
    assert result.evaluations["error"].shape == (6, 1)


def test_integration_a_raising_rule_gives_one_error_that_names_the_update(caplog):
    def optimizer(run):
        return optax.chain(clipping.clip_by_global_norm(1.0, nonfinite="raise"), optax.sgd(run["rate"]))

    def update(state, run):
        bad = lambda params, batch: (jnp.sum(params) / (state.step < 3), ())  # noqa: E731
        return training.train_step(state, None, bad, optimizer(run))

    def init(run):
        return training.init_train_state(jnp.ones(2), optimizer(run))

    with caplog.at_level(logging.ERROR), pytest.raises(FloatingPointError, match=r"update 3 .*inside a run") as caught:
        sweep(init, update, {"rate": np.ones(2)}, 10, progress=False)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "Traceback" not in str(caught.value)
    assert not caplog.records
