"""What is compiled for a tree of many leaves: as many different programs as for one of few."""

import re

import jax
import jax.numpy as jnp
import pytest
from tests.untyped import present

from cliffs.clipping import STRATEGIES, with_telemetry

RULES = ("clip_by_global_norm", "clip_by_leaf_norm", "clip_by_group_norm", "clip_by_block_rms", "clip_by_ema_leaf_norm")

ENTRY_BY_ENTRY = ("clip", "clip_spikes", "clip_by_ema_max", "clip_update_rms", "clip_with_error_feedback")


def different_programs(function, *args) -> int:
    """How many fused programs differ in more than the names of their operands and lengths of vectors."""
    compiled = present(jax.jit(function).lower(*args).compile().as_text())
    text = re.sub(r", metadata=\{[^}]*\}", "", compiled)
    bodies = re.findall(r"^%fused_computation[^\n]*\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    return len({re.sub(r"%[\w.\-]+|parameter\(\d+\)|\[\d+\]", "", body) for body in bodies})


@pytest.mark.parametrize("name", RULES)
def test_property_more_leaves_of_a_shape_need_no_more_programs(name):
    rule, counts = STRATEGIES[name].make(1.0), []
    for leaves in (6, 12):
        params = {f"layer{i:02}": {"w": jnp.ones((5, 5))} for i in range(leaves)}
        counts.append(different_programs(rule.update, params, rule.init(params)))
    assert 0 < counts[1] <= counts[0]


def test_documented_an_entry_taken_from_its_place_is_a_program_of_its_own():
    """Why `each_leaf` sums under a mask."""

    def scaled(leaves, factors):
        return [x * factors[i] for i, x in enumerate(leaves)]

    assert different_programs(scaled, [jnp.ones((5, 5))] * 6, jnp.ones(6)) >= 6


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("name", ["clip_by_global_norm", "adaptive_grad_clip", *ENTRY_BY_ENTRY])
def test_property_an_update_needs_no_memory_of_the_size_of_the_tree(name, recorded):
    tree = {f"layer{i}": jnp.ones((256, 256)) for i in range(8)}
    rule = STRATEGIES[name].make(0.5)
    rule = with_telemetry(rule) if recorded else rule
    compiled = jax.jit(rule.update).lower(tree, rule.init(tree), tree).compile()
    one = tree["layer0"].nbytes
    # Of eight; telemetry compares gradient and result, which are to be read from where they are.
    assert present(compiled.memory_analysis()).temp_size_in_bytes < (1.5 * one if recorded else one)
