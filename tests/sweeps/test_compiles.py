"""One compile for each kind of sweep: what is the same is found again, what is not is noticed."""

import contextlib
import gc
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sweeps import small

from cliffs import training
from cliffs.sweeps import _programs, sweep
from cliffs.sweeps._captured import captured


@contextlib.contextmanager
def compiles():
    """A list that grows by one with every program that XLA compiles."""
    seen = []

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_invariance_a_second_sweep_does_not_compile():
    small.run()
    with compiles() as seen:
        again = small.run(80, over=small.grid(rates=(0.02, 0.2, 5.0)))
    assert not seen
    assert again.metrics.loss.shape == (6, 80)
    with compiles() as seen:
        small.run(over=small.grid(seeds=7))
    assert seen  # another number of runs is another shape


def test_invariance_traces_do_not_grow_with_calls_or_with_runs_that_leave():
    chex.clear_trace_counter()
    # Three times for the first call: for its shapes, and twice while the one program is made.
    update: Any = chex.assert_max_traces(small.update, n=3)
    for _ in range(3):
        result = sweep(
            small.init,
            update,
            small.grid(),
            40,
            evaluate=small.evaluate,
            evaluate_every=10,
            stop_when_solved=True,
            progress=False,
        )
        assert len(np.unique(result.steps_run)) == 2  # runs left
    with pytest.raises(AssertionError, match="traced > 3 times"):
        sweep(small.init, update, small.grid(3), 40, progress=False)


class Rate:
    """A setting that lives outside of the functions."""

    def __init__(self, value):
        self.value = value


RATE, TABLE, SETTING = 0.1, {"rate": [0.1]}, Rate(0.1)


def test_invariance_a_changed_global_closure_or_attribute_is_noticed():
    def make(read):
        def update(state, run):
            return training.train_step(state, jnp.zeros(2), small.loss, optax.sgd(read()))

        return update

    def set_all(value):
        global RATE
        RATE = value
        TABLE["rate"][0] = value
        SETTING.value = value

    reads = {"global": lambda: RATE, "dict": lambda: TABLE["rate"][0], "attribute": lambda: SETTING.value}
    for name, read in reads.items():
        set_all(0.1)
        update = make(read)
        one, same = (sweep(small.init, update, small.grid(1, (1.0,)), 4, progress=False) for _ in range(2))
        set_all(0.2)
        two = sweep(small.init, update, small.grid(1, (1.0,)), 4, progress=False)
        np.testing.assert_allclose(one.state.params[0, 0], 3 * 0.8**4, rtol=1e-5)
        np.testing.assert_array_equal(one.state.params, same.state.params)
        np.testing.assert_allclose(two.state.params[0, 0], 3 * 0.6**4, rtol=1e-5, err_msg=name)


def test_property_keys_know_values_and_forget_nothing():
    def make(value):
        return lambda x: x * value

    assert captured(make)[0] == captured(make)[0]
    assert captured(make(1.0))[0] != captured(make(2.0))[0]
    array = np.zeros(3)
    function = make(array)
    before = captured(function)[0]
    assert captured(function)[0] == before
    array[1] = 1
    assert captured(function)[0] != before


def test_property_every_one_of_many_objects_is_looked_at():
    settings = [Rate(0.1) for _ in range(20)]

    def update(x):
        return x * sum(s.value for s in settings)

    seen = {captured(update)[0]}
    for setting in settings:
        setting.value = 0.2
        seen.add(captured(update)[0])
    assert len(seen) == 21


def test_property_programs_go_with_the_functions_they_were_compiled_from():
    def update(state, run):
        return small.update(state, run)

    before = len(_programs._kept)
    sweep(small.init, update, small.grid(), 10, progress=False)
    assert len(_programs._kept) > before
    del update
    gc.collect()
    assert len(_programs._kept) <= before


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_invariance_a_changed_setting_of_jax_compiles_anew(precision):
    small.run()
    with jax.default_matmul_precision(precision), compiles() as seen:
        small.run()
    assert seen
