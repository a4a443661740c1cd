"""One compile for each kind of sweep: what is the same is found again, what is not is noticed."""

import collections
import contextlib
import types
from functools import partial
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
from cliffs.sweeps._digests import program_digest


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
    # Once for every call, and twice more while the one program is made.
    update: Any = chex.assert_max_traces(small.update, n=5)
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
    with pytest.raises(AssertionError, match="traced > 5 times"):
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


class Settings:
    """A setting of a class, read by a method of an object."""

    rate = 0.1

    def read(self):
        return self.rate


class Slots:
    """An object without a dict."""

    __slots__ = ("rate",)


NAMESPACE, SLOTS, QUEUE, OBJECT = types.SimpleNamespace(rate=0.1), Slots(), collections.deque([0.1]), Settings()
SLOTS.rate = 0.1


def loss(params):
    return NAMESPACE.rate * jnp.sum(params**2)


GRADIENT = jax.grad(loss)


@pytest.mark.parametrize("kind", ["namespace", "slots", "deque", "class", "function", "gradient"])
def test_invariance_whatever_a_function_reads_is_noticed(kind):
    def helper():
        return getattr(helper, "rate")  # noqa: B009

    def set_all(value):
        NAMESPACE.rate = SLOTS.rate = QUEUE[0] = Settings.rate = value
        setattr(helper, "rate", value)  # noqa: B010

    rates = {
        "namespace": lambda params: NAMESPACE.rate * params,
        "slots": lambda params: SLOTS.rate * params,
        "deque": lambda params: QUEUE[0] * params,
        "class": lambda params: OBJECT.read() * params,
        "function": lambda params: helper() * params,
        "gradient": lambda params: GRADIENT(params) / 2,
    }

    def update(state, run):
        return state._replace(params=state.params - rates[kind](state.params)), {}

    for value, compiled in ((0.1, True), (0.1, False), (0.5, True)):
        set_all(value)
        with compiles() as seen:
            found = sweep(small.init, update, small.grid(1, (1.0,)), 2, progress=False).state.params[0, 0]
        np.testing.assert_allclose(found, 3 * (1 - value) ** 2, rtol=1e-5)
        assert compiled or not seen


def digest(function) -> str:
    return program_digest(jax.make_jaxpr(function)(jnp.zeros(2)))


def test_property_digests_know_values_at_any_depth_and_callbacks():
    def held(value, wrap):
        constant = np.full(2, value)
        return wrap(lambda x: x * constant)

    def called(value):
        shape = jax.ShapeDtypeStruct((2,), np.dtype(jnp.zeros(2).dtype))
        return lambda x: jax.pure_callback(lambda y: y * value, shape, x)

    def looped(f):
        return lambda x: jax.lax.fori_loop(0, 2, lambda i, y: f(y), x)

    makers = [partial(held, wrap=wrap) for wrap in (lambda f: f, jax.jit, jax.vmap, looped)] + [called]
    seen = {digest(make(value)) for make in makers for value in (1.0, 2.0)}
    assert len(seen) == 10
    for make in makers:
        assert digest(make(1.0)) == digest(make(1.0))


def test_property_only_the_last_programs_are_kept(monkeypatch):
    monkeypatch.setattr(_programs, "MOST_KEPT", 3)
    for factor in range(4):
        sweep(small.init, lambda s, r, f=factor: (s, {"f": jnp.float32(f)}), small.grid(), 10, progress=False)
    assert len(_programs._kept) == 3
    with compiles() as seen:
        sweep(small.init, lambda s, r, f=3: (s, {"f": jnp.float32(f)}), small.grid(), 10, progress=False)
    assert not seen


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_invariance_a_changed_setting_of_jax_compiles_anew(precision):
    small.run()
    with jax.default_matmul_precision(precision), compiles() as seen:
        small.run()
    assert seen
