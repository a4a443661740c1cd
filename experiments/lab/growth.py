"""Vanishing against exploding: how the scale of the recurrent weights decides what becomes of a gradient in time."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs import penalties, recurrent, spectra
from experiments.lab import look

IDEA = """
Backpropagation multiplies one Jacobian a step. Below a critical scale of the weights the gradient **vanishes** on its
way back in time, above it **explodes**; only near it do early steps hear of a late error. Move the scale.
"""
BEHIND = (
    "penalties.state_gradients",
    "spectra.step_jacobians",
    "spectra.jacobian_products",
    "spectra.log_singular_values",
    "spectra.growth_report",
)

UNITS, STEPS = 32, 40
ACTIVATIONS = ("tanh", "relu", "identity")


class Result(NamedTuple):
    """One untrained network at one scale of its recurrent weights."""

    scale: float
    activation: str
    norms: np.ndarray
    """`||dE/dx_t||` for t = 1 .. STEPS."""
    singular: np.ndarray
    """Of the recurrent matrix, largest first."""
    log_product: np.ndarray
    """Logarithms of the singular values of the Jacobians' product over all steps, largest first."""
    radius: float
    """Spectral radius of the recurrent matrix."""
    can_explode: bool
    """The paper's necessary condition: a singular value, times the largest slope of the units, above 1."""

    @property
    def growth(self) -> float:
        """`||dE/dx_1|| / ||dE/dx_T||`: what the way back through all steps makes of the gradient."""
        return float(self.norms[0] / self.norms[-1])


def network(key: jax.Array, scale: Any) -> tuple[recurrent.RNNParams, jax.Array]:
    """Gaussian weights whose matrix has the spectral radius `scale`, and a sequence of small random inputs."""
    weights, ins, inputs = jax.random.split(key, 3)
    w_rec = recurrent.gaussian(UNITS**-0.5)(weights, (UNITS, UNITS))
    w_in = recurrent.gaussian(0.1)(ins, (1, UNITS))
    params = recurrent.RNNParams(recurrent.scale_to_spectral_radius(w_rec, scale), w_in, jnp.zeros(UNITS))
    return params, jax.random.normal(inputs, (STEPS, 1))


@functools.partial(jax.jit, static_argnames="activation")
def _measure(scale, seed, activation):
    step = recurrent.rnn_step(activation)
    params, inputs = network(jax.random.key(seed), scale)
    start = jnp.zeros(UNITS)
    states, d = penalties.state_gradients(step, params, start, inputs, error=lambda x: x[-1].sum())
    before = jnp.concatenate([start[None], states[:-1]])
    product = spectra.jacobian_products(spectra.step_jacobians(step, params, before, inputs))
    last = jax.tree.map(lambda x: x[-1:], product)
    report = spectra.growth_report(params.w_rec, activation, num_powers=1)
    return {
        "norms": jnp.linalg.norm(d, axis=-1),
        "singular": jnp.linalg.svd(params.w_rec, compute_uv=False),
        "log_product": spectra.log_singular_values(last)[0],
        "radius": report.spectral_radius,
        "can_explode": report.can_explode,
    }


def compute(scale: float, seed: int, activation: str) -> Result:
    """Gradient norms, singular values and the report of one network, in float64."""
    with jax.enable_x64(True):
        found = jax.tree.map(np.asarray, _measure(jnp.asarray(float(scale)), seed, activation))
    return Result(
        scale=scale,
        activation=activation,
        norms=found["norms"],
        singular=found["singular"],
        log_product=found["log_product"],
        radius=float(found["radius"]),
        can_explode=bool(found["can_explode"]),
    )


def verdict(result: Result) -> str:
    """Vanishes, explodes, or keeps its size within a factor of ten."""
    if result.growth < 0.1:
        return "vanishes"
    return "explodes" if result.growth > 10 else "keeps its size"


def told(result: Result) -> str:
    """The sentence under the picture."""
    change = look.brief(result.growth)
    necessary = "above 1, so it could explode" if result.can_explode else "so it cannot explode"
    largest = look.brief(result.singular[0])
    return (
        f"On its way back through {STEPS} steps the gradient **{verdict(result)}**: "
        f"its norm is multiplied by {change}. "
        f"By the paper's condition: the largest singular value is {largest}, {necessary}."
    )


def figures(result: Result, dark: bool) -> dict[str, Any]:
    """Bars of `||dE/dx_t||`, the singular values of the matrix and of the product."""
    c = look.colors(dark)
    color = {"vanishes": c["clipped"], "explodes": c["unclipped"], "keeps its size": c["third"]}[verdict(result)]
    numbers = {"scale": result.scale, "growth": result.growth, "norms": result.norms}
    bars = look.panel(dark, "time step t", "‖dE/dx<sub>t</sub>‖ (1)", ylog=True, height=300, **numbers)
    low, high = 1e-12, 1e12
    t = np.arange(1, STEPS + 1)
    # Bars from 1 up or down: what is below vanished, what is above exploded.
    seen = np.clip(result.norms / result.norms[-1], low, high)
    bars.add_bar(x=t, y=seen - 1, base=1.0, marker={"color": color}, showlegend=False)
    look.line(bars, [0, STEPS + 1], [1, 1], c["soft"], dash="dot", width=1.5)
    reach = max(1.0, np.abs(np.log10(seen)).max() * 1.1)
    bars.update_yaxes(
        range=[-reach, reach],
        dtick=max(1, int(np.ceil(reach / 3))),
        title_text="‖dE/dx<sub>t</sub>‖ / ‖dE/dx<sub>T</sub>‖ (1)",
    )
    bars.update_xaxes(range=[0, STEPS + 1])
    ranks = np.arange(1, UNITS + 1)
    matrix = look.panel(dark, "rank", "singular value of W (1)", height=300, **numbers)
    look.line(matrix, [0, UNITS + 1], [1, 1], c["soft"], dash="dot", width=1.5)
    look.dots(matrix, ranks, result.singular, color, size=7)
    matrix.update_yaxes(range=[0, max(1.2, 1.08 * result.singular[0])])
    product = look.panel(dark, "rank", f"of the {STEPS}-step product, log<sub>10</sub> (1)", height=300, **numbers)
    look.line(product, [0, UNITS + 1], [0, 0], c["soft"], dash="dot", width=1.5)
    look.dots(product, ranks, result.log_product / np.log(10), color, size=7)
    return {
        f"Gradient of the error at t = {STEPS} by step": bars,
        "Singular values of the matrix W": matrix,
        "Singular values of all steps together": product,
    }
