"""How a sweep would run: lanes that fit, bytes, seconds."""

import jax
import numpy as np
import pytest
from sweeps import small

from cliffs.sweeps import plan_sweep, sweep
from cliffs.sweeps._devices import Layout
from cliffs.sweeps._plan import choose_lanes, fitting_lanes, program_bytes
from cliffs.sweeps._programs import prepare

GRID = small.grid(seeds=32, rates=(0.01, 0.02))


@pytest.fixture(scope="module")
def functions():
    return prepare(small.init, small.update, small.evaluate, GRID, None, 10, None, 1)


def test_integration_the_plan_says_what_the_sweep_then_does():
    plan = plan_sweep(small.init, small.update, GRID, 40, evaluate=small.evaluate, evaluate_every=10)
    result = sweep(small.init, small.update, GRID, 40, evaluate=small.evaluate, evaluate_every=10, progress=False)
    assert (plan.runs, plan.lanes, plan.devices) == (64, 1, jax.local_device_count())
    assert plan.history_bytes == sum(x.nbytes for x in jax.tree.leaves((result.metrics, result.evaluations)))
    assert plan.state_bytes == sum(x.nbytes for x in jax.tree.leaves(result.state))
    assert plan.bytes_per_device > plan.state_bytes / plan.devices
    assert plan.block_seconds is not None
    assert plan.seconds is not None
    assert plan.block_seconds > 0
    np.testing.assert_allclose(plan.seconds, plan.block_seconds * 64 / plan.devices * 4)
    text = str(plan)
    assert "64 runs on" in text
    assert "when no run ends early" in text


def test_integration_the_sweep_after_a_plan_does_not_compile(functions):
    def update(state, run):
        return small.update(state, run)

    plan = plan_sweep(small.init, update, GRID, 40, evaluate_every=10, calibrate=False)
    assert plan.seconds is None
    assert plan.compile_seconds > 0
    again = plan_sweep(small.init, update, GRID, 40, evaluate_every=10, calibrate=False)
    assert again.compile_seconds < plan.compile_seconds / 5


def test_property_lanes_are_chosen_so_that_the_program_fits(functions):
    devices = tuple(jax.local_devices()[:2])
    needs = {lanes: program_bytes(functions.advance(Layout(devices, lanes, 64))) for lanes in (1, 32)}
    assert needs[1] < needs[32]
    assert fitting_lanes(functions, devices, 64, needs[32]) == 32
    budget = (needs[1] + needs[32]) // 2
    lanes = fitting_lanes(functions, devices, 64, budget)
    assert 1 <= lanes < 32
    assert program_bytes(functions.advance(Layout(devices, lanes, 64))) <= budget
    with pytest.raises(ValueError, match=r"a single run at a time takes .* on each device, 1e\+03 B are allowed"):
        fitting_lanes(functions, devices, 64, 1000)


def test_property_on_a_cpu_one_lane_is_taken(functions):
    devices = tuple(jax.local_devices())
    assert choose_lanes(functions, devices, 64, None, 0.8) == 1
    assert choose_lanes(functions, devices, 64, 4, 0.8) == 4
    with pytest.raises(ValueError, match=r"memory_fraction must lie in \(0, 1\], got 1.5"):
        choose_lanes(functions, devices, 64, None, 1.5)


class Accelerator:
    """A device that says how much memory it has."""

    platform, process_index = "gpu", 0

    def __init__(self, count):
        self.count = count

    def memory_stats(self):
        return {"bytes_limit": self.count}


@pytest.mark.wrong_arguments  # a stand-in for a device
def test_property_on_an_accelerator_the_fraction_of_its_memory_counts(functions, monkeypatch):
    asked = []
    monkeypatch.setattr("cliffs.sweeps._plan.fitting_lanes", lambda f, d, runs, budget: asked.append(budget) or 7)
    devices = (Accelerator(1000), Accelerator(800))
    assert choose_lanes(functions, devices, 64, None, 0.5) == 7
    assert asked == [400]
    assert choose_lanes(functions, (Accelerator(None),) * 4, 64, None, 0.5) == 16
