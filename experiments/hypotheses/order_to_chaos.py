"""At which gain do random tanh networks turn chaotic? Measured Lyapunov exponents against mean field.

`x' = g J tanh(x)` with `J_ij ~ N(0, 1/n)`, autonomous, from a random start. For n to infinity the largest exponent
has a closed form up to one fixed-point equation (`cliffs.spectra.mean_field_exponent`): log g below g = 1, positive
above. Finite networks are ordered a little beyond g = 1 (fixed points and cycles); the figure and the metrics say by
how much.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.plotting import COLORS, figure
from cliffs.spectra import kaplan_yorke_dimension, lyapunov_exponents, mean_field_exponent

GAINS = np.unique(
    np.round(np.concatenate([np.arange(0.5, 0.85, 0.1), np.arange(0.85, 1.5, 0.05), np.arange(1.5, 3.05, 0.25)]), 3)
)
RESOLUTION = 5.0
"""Exponents below this over the number of steps are not told from 0."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    sizes: tuple[int, ...] = (25, 50, 100, 200, 500)
    seeds: int = 32
    """Random matrices for each size; sizes above 200 take half of them."""
    steps: int = 1500
    warmup: int = 500
    """Steps before the exponents are measured."""
    seed: int = 0
    spectrum_size: int = 100
    spectrum_steps: int = 600
    spectrum_gains: tuple[float, ...] = (0.8, 1.0, 1.2, 1.5, 2.0, 3.0)


class Result(NamedTuple):
    """The exponents and the curve that they are held against."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, ...]]
    measured: dict[int, np.ndarray]
    """Size to the largest exponent `[gains, seeds]`."""
    mean_field: tuple[np.ndarray, np.ndarray]
    """Gains and exponents of the curve for n to infinity."""


def run(config: Config, say: Any = print) -> Result:
    """Measure every size, and whole spectra of one."""
    fine = np.linspace(0.5, 3, 251)
    with jax.enable_x64(True):
        theory, curve = (np.asarray(jax.vmap(mean_field_exponent)(jnp.asarray(g))) for g in (GAINS, fine))
    measured, sizes = {}, {}
    for n in config.sizes:
        begun = time.perf_counter()
        runs = config.seeds if n <= 200 else max(1, config.seeds // 2)
        measured[n] = leading(n, runs, config)
        sizes[n] = summarise(measured[n], theory, config.steps) | {"seconds": time.perf_counter() - begun}
        say(f"n = {n}: {runs} networks in {sizes[n]['seconds']:.1f} s")
    whole = spectra(config)
    above = resolved_spectra(whole, config.spectrum_steps)
    dimension = np.asarray(jax.vmap(kaplan_yorke_dimension)(jnp.asarray(above))) / config.spectrum_size
    metrics = {
        "gains": GAINS,
        "mean_field": theory,
        "sizes": sizes,
        "resolution_of_the_spectra": RESOLUTION / config.spectrum_steps,
        "kaplan_yorke_dimension_over_n": dict(zip(map(str, config.spectrum_gains), dimension)),
        "positive_exponents_over_n": dict(zip(map(str, config.spectrum_gains), (above > 0).mean(1))),
    }
    arrays = {f"n{n}": v for n, v in measured.items()} | {"gains": GAINS, "mean_field": theory, "spectra": whole}
    rows = [("units", "median network turns chaotic at gain", "off mean field from gain 1.5 on (nats per step)")]
    for n, size in sizes.items():
        crossing, off = size["crossing_gain_of_median"], size["largest_error_of_median_for_gain_1.5_to_3"]
        rows.append((str(n), f"{crossing:.2f}", f"{off:.3f}"))
    return Result(config, metrics, arrays, rows, measured, (fine, curve))


def step(params: Any, state: Any, inputs: Any = None) -> Any:
    """`x' = g J tanh(x)`. The gain is apart from the matrix so that all gains share one matrix product."""
    gain, matrix = params
    return gain * (jnp.tanh(state) @ matrix)


def network(key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """`(J, x_0)` of one random network."""
    k_matrix, k_state = jax.random.split(key)
    return jax.random.normal(k_matrix, (n, n)) / n**0.5, jax.random.normal(k_state, (n,))


def leading(n: int, runs: int, config: Config) -> np.ndarray:
    """The largest exponent `[gains, runs]`."""

    def one(key):
        matrix, state = network(key, n)
        return jax.vmap(
            lambda gain: lyapunov_exponents(
                step, (gain, matrix), state, num_steps=config.steps, warmup=config.warmup, num_exponents=1
            )[0]
        )(jnp.asarray(GAINS, jnp.float32))

    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(config.seed), i))(n * 1000 + jnp.arange(runs))
    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys)).T


def spectra(config: Config) -> np.ndarray:
    """Whole spectra `[gains, n]` of one network."""
    matrix, state = network(jax.random.fold_in(jax.random.key(config.seed), 7), config.spectrum_size)

    def one(gain):
        return lyapunov_exponents(step, (gain, matrix), state, num_steps=config.spectrum_steps, warmup=200)

    return np.asarray(jax.jit(lambda gains: jax.lax.map(one, gains))(jnp.asarray(config.spectrum_gains)))


def resolved_spectra(whole: np.ndarray, num_steps: int) -> np.ndarray:
    """Spectra less what `num_steps` steps resolve: an exponent that converges to 0 is 0 only to a few 1/T."""
    return whole - RESOLUTION / num_steps


def summarise(exponents: np.ndarray, theory: np.ndarray, steps: int) -> dict[str, Any]:
    """Where networks of one size turn chaotic, and how far the median is from mean field; `[gains, seeds]`."""
    middle = np.median(exponents, axis=1)
    # A cycle on a torus has exponent 0, which a run of T steps shows as a few 1/T of either sign.
    resolved = exponents - RESOLUTION / steps
    crossings = np.array([crossing(GAINS, column) for column in resolved.T])
    crossed = crossings[np.isfinite(crossings)]
    return {
        "networks": exponents.shape[1],
        "crossing_gain_of_median": crossing(GAINS, np.median(resolved, axis=1)),
        "crossing_gain_quantiles_10_50_90": np.quantile(crossed, [0.1, 0.5, 0.9]) if crossed.size else None,
        "largest_error_of_median_for_gain_1.5_to_3": np.abs(middle - theory)[GAINS >= 1.5].max(),
        "largest_error_of_median_for_gain_up_to_0.85": np.abs(middle - theory)[GAINS <= 0.85].max(),
        "networks_that_never_cross": len(crossings) - len(crossed),
        "share_chaotic": {f"{g:g}": (resolved[i] > 0).mean() for i, g in enumerate(GAINS) if 0.85 < g < 1.5},
    }


def crossing(gains: np.ndarray, values: np.ndarray) -> float:
    """The gain from which on `values` stays above 0, by linear interpolation; NaN when there is none."""
    below = np.flatnonzero(values <= 0)
    if len(below) == 0 or below[-1] == len(values) - 1:
        return float("nan")
    i = below[-1]
    return float(gains[i] - values[i] * (gains[i + 1] - gains[i]) / (values[i + 1] - values[i]))


def draw(result: Result) -> dict[str, Any]:
    """The largest exponent against the gain, the surroundings of the transition, and whole spectra."""
    fig, (whole, near, third) = figure(1, 3, size=(15, 4.2))
    for ax in (whole, near):
        _draw_exponents(ax, result)
    whole.set(title="x' = g J tanh(x): median, 10 to 90 %", ylabel="largest Lyapunov exponent (nats per step)")
    whole.legend(fontsize=8, loc="lower right")
    inside = np.concatenate([v[(GAINS >= 0.85) & (GAINS <= 1.5)].ravel() for v in result.measured.values()])
    near.set(xlim=(0.85, 1.5), title="around the transition")
    near.set(ylim=(max(np.nanmin(inside), -0.12), np.nanmax(inside) + 0.02))
    _draw_spectra(third, result)
    return {"order_to_chaos": fig}


def _draw_exponents(ax: Any, result: Result) -> None:
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0.85, 0.1, len(result.measured)))
    ax.axhline(0, color=COLORS["unstable"], lw=0.8)
    ax.axvline(1, color=COLORS["unstable"], lw=0.8, ls=":")
    for (n, values), shade in zip(result.measured.items(), shades):
        low, middle, high = np.nanquantile(values, [0.1, 0.5, 0.9], axis=1)
        ax.fill_between(GAINS, low, high, color=shade, alpha=0.2, lw=0)
        ax.plot(GAINS, middle, "o-", color=shade, ms=3, lw=1, label=f"n = {n}, {values.shape[1]} networks")
    ax.plot(*result.mean_field, color=COLORS["unclipped"], lw=2, label="mean field, n to infinity")
    ax.set(xlabel="gain g")


def _draw_spectra(ax: Any, result: Result) -> None:
    from matplotlib import colormaps

    spectra, gains = result.arrays["spectra"], result.config.spectrum_gains
    for gain, values, shade in zip(gains, spectra, colormaps["plasma"](np.linspace(0.05, 0.85, len(gains)))):
        index = (np.arange(len(values)) + 0.5) / len(values)
        ax.plot(index, values, color=shade, lw=1.6, label=f"g = {gain:g}")
    ax.axhline(0, color=COLORS["unstable"], lw=0.8)
    title = f"whole spectrum, one network of n = {result.config.spectrum_size}"
    ax.set(xlabel="index / n", ylabel="exponent (nats per step)", title=title, ylim=(max(-4.0, spectra.min()), None))
    ax.legend(fontsize=8)


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
