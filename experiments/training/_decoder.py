"""A small decoder-only transformer in flax nnx, split once: its parameters are a dict, its loss a pure function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class Block(nnx.Module):
    """Attention and a perceptron, each behind its norm and added to what it reads."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.norm_attention = nnx.RMSNorm(width, rngs=rngs)
        self.attend = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.mix = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.norm_mlp = nnx.RMSNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, time, width = x.shape
        parts = self.attend(self.norm_attention(x)).reshape(batch, time, 3, self.heads, width // self.heads)
        seen = jax.nn.dot_product_attention(*(parts[:, :, i] for i in range(3)), is_causal=True)
        x = x + self.mix(seen.reshape(batch, time, width))
        return x + self.down(jax.nn.gelu(self.up(self.norm_mlp(x))))


class Decoder(nnx.Module):
    """Symbols `[batch, time]` to logits `[batch, time, symbols]` of the symbol after each."""

    def __init__(self, symbols: int, length: int, layers: int, width: int, heads: int, rngs: nnx.Rngs):
        self.symbol = nnx.Embed(symbols, width, rngs=rngs)
        self.place = nnx.Embed(length, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(layers)])
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.out = nnx.Linear(width, symbols, use_bias=False, rngs=rngs)

    def __call__(self, symbols: jax.Array) -> jax.Array:
        x = self.symbol(symbols) + self.place(jnp.arange(symbols.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))


class Functions(NamedTuple):
    """The decoder for a sweep."""

    init: Callable[[Any], Any]
    """`init(key) -> params`, a dict of arrays: N(0, 1/fan-in), scales of norms 1."""
    loss: Callable[[Any, Any], Any]
    """`loss(params, rows [batch, time + 1]) -> nats per symbol`, each symbol from those before it."""
    size: int
    """How many parameters."""


def functional(symbols: int, length: int, layers: int, width: int, heads: int) -> Functions:
    """The decoder's two functions."""
    model = nnx.eval_shape(lambda: Decoder(symbols, length, layers, width, heads, nnx.Rngs(0)))
    graph, state = nnx.split(model)
    shapes = nnx.to_pure_dict(state)
    count = sum(x.size for x in jax.tree.leaves(shapes))

    def init(key):
        # flax's own initialisers draw for each array, which takes longer to compile than the model.
        drawn, used = jax.random.normal(key, (count,)), 0

        def leaf(path, x):
            nonlocal used
            values, used = drawn[used : used + x.size].reshape(x.shape), used + x.size
            name = path[-1].key
            if name == "scale":
                return jnp.ones(x.shape)
            return values / (x.shape[0] if name == "kernel" else width) ** 0.5

        return jax.tree_util.tree_map_with_path(leaf, shapes)

    def loss(params, rows):
        rows = rows.astype(jnp.int32)
        logits = nnx.merge(graph, params)(rows[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 1:]).mean()

    return Functions(init, loss, count)


def layer_of(path: str) -> str:
    """The group of a leaf for rules by group: its block, or its module outside of the blocks."""
    parts = path.split("/")
    return "/".join(parts[:2] if parts[0] == "blocks" else parts[:1])
