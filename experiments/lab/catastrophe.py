"""A small network meets a cliff: the same seed and the same batches, with and without clipping."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import recurrent, tasks, training
from cliffs.clipping import clip_by_global_norm
from cliffs.landscape import gradient_direction, surface
from experiments.lab import look

IDEA = """
A small network learns the order of two symbols in sequences of 20 steps. Its error falls, until one update meets a
**cliff**: the gradient is suddenly large, and a step along it throws the network far away. The second run is the same
in everything, but its gradients are clipped.
"""
BEHIND = (
    "clipping.clip_by_global_norm",
    "training.train_step",
    "tasks.temporal_order",
    "landscape.surface",
)

UNITS, STEPS, BATCH, UPDATES = 24, 20, 10, 600
POINTS = 241
NAMES = ("without clipping", "with clipping")
STEP = recurrent.rnn_step("tanh")
LOSS = training.classification_loss(STEP)
CHANCE = float(np.log(4))
SMOOTH = 10
"""Updates that the drawn error is a mean of."""


class Result(NamedTuple):
    """Two runs that differ in the threshold alone."""

    seed: int
    threshold: float
    rate: float
    loss: np.ndarray
    """`[2, UPDATES]`, without and with clipping, before each update."""
    norm: np.ndarray
    """`[2, UPDATES]`, of the gradient before clipping."""
    cliff: int
    """The update with which the run without clipping loses what it has learned."""
    offsets: np.ndarray
    """Distances from that network, downhill along the gradient of its batch."""
    line: np.ndarray
    """The loss of that batch there."""
    steps: tuple[float, float]
    """How far the update without, and with, clipping goes along that line."""


def sample(key: jax.Array) -> tasks.SequenceBatch:
    """One batch of the paper's temporal-order task."""
    return tasks.temporal_order(key, BATCH, STEPS)


def _keys(seed: Any) -> tuple[jax.Array, jax.Array]:
    return jax.random.fold_in(jax.random.key(seed), 0), jax.random.fold_in(jax.random.key(seed), 1)


def _init(key: jax.Array) -> recurrent.ModelParams:
    glorot = recurrent.glorot()
    return recurrent.init_model(key, 6, UNITS, 4, w_rec=recurrent.orthogonal(), w_in=glorot, w_out=glorot)


@jax.jit
def _train(seed, threshold, rate):
    first, batches = _keys(seed)

    def run(limit):
        optimizer = optax.chain(clip_by_global_norm(limit), optax.sgd(rate))

        def body(state, _):
            new, metrics = training.train_step(state, sample(jax.random.fold_in(batches, state.step)), LOSS, optimizer)
            return new, (metrics.loss, metrics.grad_norm, state.params)

        return jax.lax.scan(body, training.init_train_state(_init(first), optimizer), length=UPDATES)[1]

    return jax.vmap(run)(jnp.stack([jnp.inf, threshold]))


@jax.jit
def _slice(params, seed, update, reach):
    batch = sample(jax.random.fold_in(_keys(seed)[1], update))
    loss = training.at_batch(LOSS, batch)
    downhill = jax.tree.map(lambda g: -g, gradient_direction(loss, params))
    offsets = reach * jnp.linspace(-0.25, 1.25, POINTS)
    return offsets, surface(loss, params, [downhill], [offsets], gradient=False, chunk_size=POINTS).loss


@functools.lru_cache(maxsize=64)
def compute(seed: int, threshold: float, rate: float) -> Result:
    """`UPDATES` updates of both runs, and the loss along the gradient where the one without clipping is thrown back."""
    loss, norm, params = _train(seed, jnp.float32(threshold), jnp.float32(rate))
    loss, norm = np.asarray(loss), np.asarray(norm)
    cliff = _find(loss[0])
    steps = rate * norm[0, cliff], rate * min(norm[0, cliff], threshold)
    there = jax.tree.map(lambda p: p[0, cliff], params)
    offsets, line = _slice(there, seed, cliff, jnp.float32(steps[0]))
    return Result(
        seed=seed,
        threshold=threshold,
        rate=rate,
        loss=loss,
        norm=norm,
        cliff=cliff,
        offsets=np.asarray(offsets),
        line=np.asarray(line),
        steps=(float(steps[0]), float(steps[1])),
    )


def _find(loss: np.ndarray, wide: int = 20) -> int:
    """The update with which a run loses what it has learned.

    The mean of `wide` updates rises most there, since one batch alone is noise; near it the update with the largest
    rise from its batch to the next.
    """
    loss = np.nan_to_num(loss, nan=50.0)
    mean = np.convolve(loss, np.ones(wide) / wide, mode="valid")
    middle = int(np.argmax(mean[wide:] - mean[:-wide])) + wide
    near = np.arange(max(middle - wide, 0), min(middle + wide, len(loss) - 1))
    return int(near[np.argmax(loss[near + 1] - loss[near])])


def told(result: Result) -> str:
    """The sentence under the picture."""
    k, norm = result.cliff, result.norm[0]
    usual = float(np.nanmedian(norm[max(0, k - 60) : k + 1]))
    ends = [look.brief(float(np.nanmean(x[-40:]))) for x in result.loss]
    clipped = 100 * float((result.norm[1] > result.threshold).mean())
    what = f"No cliff is met in {UPDATES} updates"
    if met(result):
        jump = [look.brief(result.loss[0, i], 2) for i in (k, k + 1)]
        what = (
            f"At update {k} the gradient's norm is **{look.brief(norm[k])}**, {look.brief(norm[k] / usual, 2)} times "
        )
        what += f"the usual, and the error jumps from {jump[0]} to {jump[1]}"
    return (
        f"{what}. Over the last 40 updates the error is **{ends[0]}** without clipping and **{ends[1]}** with it "
        f"(chance: 1.39); {clipped:.0f} % of the updates were clipped."
    )


def met(result: Result) -> bool:
    """Whether the error rose by half a nat or more with the update that is called the cliff."""
    return bool(result.loss[0, result.cliff + 1] - result.loss[0, result.cliff] > 0.5)


def figures(result: Result, dark: bool) -> dict[str, Any]:
    """Loss and norm of both runs, and the cliff itself."""
    c, drawn = look.colors(dark), {}
    colors = (c["unclipped"], c["clipped"])
    numbers = {
        "seed": result.seed,
        "threshold": result.threshold,
        "cliff": result.cliff,
        "norm": result.norm[0, result.cliff],
        "end": [x[-40:].mean() for x in result.loss],
    }
    panel = look.panel(dark, "update", f"error (nats), mean of {SMOOTH} updates", height=310, **numbers)
    seen = np.stack([np.convolve(row, np.ones(SMOOTH) / SMOOTH, "valid") for row in result.loss])
    at = np.arange(SMOOTH - 1, UPDATES)
    for name, row, color in zip(NAMES, seen, colors):
        look.line(panel, at, row, color, name)
    look.line(panel, [0, UPDATES], [CHANCE] * 2, c["soft"], "chance", dash="dot", width=1.5)
    before = seen[0, max(result.cliff - SMOOTH, 0)]
    look.dots(panel, [result.cliff], [before], c["ink"], "the cliff", symbol="circle-open", size=13)
    panel.update_yaxes(range=[0, 1.15 * max(CHANCE, float(np.nanmax(seen)))])
    drawn["Error: one run falls off the cliff" if met(result) else "Error of both runs"] = panel

    panel = look.panel(dark, "update", "‖gradient‖ (1)", ylog=True, height=310, **numbers)
    for name, row, color in zip(NAMES, result.norm, colors):
        look.line(panel, np.arange(UPDATES), np.maximum(row, 1e-7), color, name, width=1.3)
    look.line(panel, [0, UPDATES], [result.threshold] * 2, c["ink"], "threshold", dash="dot", width=1.6)
    norm = result.norm[0, result.cliff]
    look.dots(panel, [result.cliff], [norm], c["ink"], "the cliff", symbol="circle-open", size=13)
    look.decades(panel, result.norm, [result.threshold])
    drawn["Gradient norm before clipping"] = panel

    panel = look.panel(
        dark, "distance downhill (weights, Euclidean)", "error of that batch (nats)", height=310, **numbers
    )
    look.line(panel, result.offsets, result.line, c["ink"], width=1.8)
    places = (0.0, *result.steps)
    for name, step, color in zip(("before", "after the update", "after the clipped one"), places, (c["ink"], *colors)):
        symbol = "circle" if step else "circle-open"
        look.dots(panel, [step], [np.interp(step, result.offsets, result.line)], color, name, symbol=symbol, size=12)
    drawn[f"The cliff itself: error along the gradient of update {result.cliff}"] = panel
    return drawn
