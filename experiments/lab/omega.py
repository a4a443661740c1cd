"""What the penalty Omega does: growth of a gradient in time, and the error surface, of a network with and without."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import penalties, recurrent, spectra, tasks, training
from cliffs.landscape import random_direction, surface
from experiments.lab import look

IDEA = """
The penalty **Ω** asks that the gradient keep its length from step to step. The same network is trained on the same
batches without and with it: the product of the Jacobians grows less, and **the error surface loses its steepest
walls**.
"""
BEHIND = (
    "penalties.unroll_with_omega",
    "penalties.exact_omega",
    "spectra.jacobian_products",
    "landscape.surface",
)

UNITS, STEPS, BATCH, UPDATES = 16, 20, 8, 400
RATE, MAX_NORM = 0.1, 1.0
POINTS, REACH = 31, 0.3
STEP = recurrent.rnn_step("tanh")


class Network(NamedTuple):
    """One network after training; numpy arrays."""

    loss: float
    growth: np.ndarray
    """`[STEPS]`: logarithm of the largest singular value of the first t Jacobians' product, mean over sequences."""
    slopes: np.ndarray
    """`||grad E||` on a slice through the network, `[POINTS, POINTS]`: the steepness of its error surface."""
    steepest: float
    """The largest gradient norm on that slice: how rough the surface is."""
    omega: float
    """`cliffs.penalties.exact_omega` per step: the mean of `(||d_t J_t|| / ||d_t|| - 1)^2`."""


class Result(NamedTuple):
    """The same network, batches and slice, trained without and with the penalty."""

    weight: float
    networks: tuple[Network, Network]


def _error(params, batch):
    return lambda states: training.last_step_nats(STEP)(params, states, batch)[0]


def _init(key: jax.Array, scale: Any) -> recurrent.ModelParams:
    glorot = recurrent.glorot()
    made = recurrent.init_model(key, 6, UNITS, 4, w_rec=recurrent.orthogonal(), w_in=glorot, w_out=glorot)
    return made._replace(rnn=made.rnn._replace(w_rec=scale * made.rnn.w_rec))


@jax.jit
def _train(weight, scale, seed):
    key = jax.random.key(seed)
    optimizer = optax.chain(optax.clip_by_global_norm(MAX_NORM), optax.sgd(RATE))
    unroll = functools.partial(penalties.unroll_with_omega, weight=weight)
    loss = training.readout_loss(STEP, training.last_step_nats(STEP), unroll=unroll)

    def sample(key):
        return tasks.temporal_order(key, BATCH, STEPS)

    return training.fit(loss, optimizer, _init(key, scale), sample, jax.random.fold_in(key, 1), UPDATES)[0].params


@jax.jit
def _measure(params, seed):
    batch = tasks.temporal_order(jax.random.key(seed + 1000), BATCH, STEPS)
    loss = training.at_batch(training.readout_loss(STEP, training.last_step_nats(STEP)), batch)
    start = training.zero_state(STEP, params, (BATCH,))
    states = recurrent.unroll(STEP, params.rnn, start, batch.inputs)
    before = jnp.concatenate([start[None], states[:-1]])

    def growth(before, inputs):
        product = spectra.jacobian_products(spectra.step_jacobians(STEP, params.rnn, before, inputs))
        return spectra.log_singular_values(product)[:, 0]

    rate = jax.vmap(growth, in_axes=(1, 1))(before, batch.inputs).mean(0)
    directions = [random_direction(jax.random.key(i), params) for i in (7, 8)]
    offsets = [jnp.linspace(-REACH, REACH, POINTS)] * 2
    seen = surface(loss, params, directions, offsets, chunk_size=POINTS)
    value = penalties.exact_omega(STEP, params.rnn, start, batch.inputs, error=_error(params, batch))
    slopes = jnp.asarray(seen.grad_norm)
    return loss(params), rate, slopes, slopes.max(), value / STEPS


def network(weight: float, scale: float, seed: int) -> Network:
    """Trained with this weight of the penalty, then measured without it."""
    out = _measure(_train(jnp.float32(weight), jnp.float32(scale), seed), seed)
    value, growth, seen, steepest, omega = jax.tree.map(np.asarray, out)
    return Network(float(value), growth, seen, float(steepest), float(omega))


_without = functools.lru_cache(maxsize=64)(lambda scale, seed: network(0.0, scale, seed))


def compute(weight: float, scale: float, seed: int) -> Result:
    """Orthogonal recurrent weights times `scale`, `UPDATES` updates with weight 0 and with `weight`."""
    return Result(weight, (_without(scale, seed), network(weight, scale, seed)))


def told(result: Result) -> str:
    """The sentence under the picture."""
    a, b = result.networks
    grown = [look.brief(float(np.exp(n.growth[-1])), 2) for n in (a, b)]
    rough = [look.brief(n.steepest, 2) for n in (a, b)]
    return (
        f"With λ = {look.brief(result.weight)} the product of {STEPS} Jacobians has norm **{grown[1]}** "
        f"(without: {grown[0]}), and the steepest place of the surface a gradient of **{rough[1]}** "
        f"(without: {rough[0]})."
    )


def figures(result: Result, dark: bool) -> dict[str, Any]:
    """Growth in time, and both surfaces on one scale."""
    c, drawn = look.colors(dark), {}
    numbers = {
        "weight": result.weight,
        "omega": [n.omega for n in result.networks],
        "growth": [n.growth[-1] for n in result.networks],
        "steepest": [n.steepest for n in result.networks],
    }
    names = ("without Ω", "with Ω")
    panel = look.panel(dark, "steps of time", "norm of the Jacobian product (1)", ylog=True, height=320, **numbers)
    look.line(panel, [1, STEPS], [1, 1], c["soft"], "keeps its size", dash="dot", width=1.5)
    for name, net, color, dash in zip(names, result.networks, (c["unclipped"], c["clipped"]), ("dash", "solid")):
        look.line(panel, np.arange(1, STEPS + 1), np.exp(net.growth), color, name, dash=dash, width=2.6)
    look.decades(panel, *(np.exp(net.growth) for net in result.networks))
    drawn["Growth through time"] = panel
    axis = np.linspace(-REACH, REACH, POINTS)
    bar = {"title": {"text": "‖gradient‖ (1)", "side": "right", "font": {"size": 13}}, "thickness": 12}
    bar |= {"tickvals": [-1, 0, 1, 2], "ticktext": ["0.1", "1", "10", "100"], "tickfont": {"color": c["soft"]}}
    for name, net in zip(names, result.networks):
        panel = look.panel(
            dark, "random direction 1 (relative)", "random direction 2 (relative)", height=320, **numbers
        )
        z = np.round(np.log10(np.maximum(net.slopes.T, 1e-9)), 3)
        panel.add_heatmap(z=z.tolist(), x=axis, y=axis, zmin=-1, zmax=2, colorscale="Cividis", colorbar=bar)
        look.dots(panel, [0], [0], "#ffffff", symbol="circle-open", size=11)
        drawn[f"Surface's steepness {name}"] = panel
    return drawn
