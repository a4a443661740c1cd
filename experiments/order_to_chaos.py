"""Random tanh networks turn from order to chaos at gain 1: measured Lyapunov exponents against mean field.

`x' = g J tanh(x)` with `J_ij ~ N(0, 1/n)`, autonomous, from a random start. For n to infinity the largest exponent
has a closed form up to one fixed-point equation (`cliffs.spectra`): log g below g = 1, positive above. Finite
networks are ordered a little beyond g = 1 (fixed points and cycles); the figure and the metrics say by how much.
"""

import dataclasses
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.plotting import plot_order_to_chaos
from cliffs.spectra import kaplan_yorke_dimension, lyapunov_exponents, mean_field_exponent
from experiments import common


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    sizes: tuple[int, ...] = (25, 50, 100, 200, 500)
    networks: int = 32
    """Random matrices for each size; sizes above 200 take half of them."""
    num_steps: int = 1500
    warmup: int = 500
    seed: int = 0
    spectrum_size: int = 100
    spectrum_steps: int = 600
    spectrum_gains: tuple[float, ...] = (0.8, 1.0, 1.2, 1.5, 2.0, 3.0)


GAINS = np.unique(np.round(np.concatenate([np.arange(0.5, 0.85, 0.1), np.arange(0.85, 1.5, 0.05),
                                           np.arange(1.5, 3.05, 0.25)]), 3))  # fmt: skip

RESOLUTION = 5.0
"""Exponents below this over the number of steps are not told from 0."""


def step(params, state, inputs=None):
    """`x' = g J tanh(x)`. The gain is apart from the matrix so that all gains share one matrix product."""
    gain, matrix = params
    return gain * (jnp.tanh(state) @ matrix)


def network(key, n):
    """`(J, x_0)` of one random network."""
    k_matrix, k_state = jax.random.split(key)
    return jax.random.normal(k_matrix, (n, n)) / n**0.5, jax.random.normal(k_state, (n,))


def leading(n: int, runs: int, config: Config) -> np.ndarray:
    """The largest exponent `[gains, runs]`."""

    def one(key):
        matrix, state = network(key, n)
        return jax.vmap(
            lambda gain: lyapunov_exponents(
                step, (gain, matrix), state, num_steps=config.num_steps, warmup=config.warmup, num_exponents=1
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


def crossing(gains: np.ndarray, values: np.ndarray) -> float:
    """The gain from which on `values` stays above 0, by linear interpolation; NaN when there is none."""
    below = np.flatnonzero(values <= 0)
    if len(below) == 0 or below[-1] == len(values) - 1:
        return float("nan")
    i = below[-1]
    return float(gains[i] - values[i] * (gains[i + 1] - gains[i]) / (values[i + 1] - values[i]))


def main(config: Config) -> pathlib.Path:
    """Run, save, and return the folder."""
    started = time.perf_counter()
    with jax.enable_x64(True):
        theory = np.asarray(jax.vmap(mean_field_exponent)(jnp.asarray(GAINS)))
        fine = np.linspace(0.5, 3, 251)
        curve = np.asarray(jax.vmap(mean_field_exponent)(jnp.asarray(fine)))
    measured, sizes = {}, {}
    for n in config.sizes:
        begun = time.perf_counter()
        runs = config.networks if n <= 200 else max(1, config.networks // 2)
        measured[n] = leading(n, runs, config)
        chaotic = GAINS >= 1.5
        ordered = GAINS <= 0.85
        middle = np.median(measured[n], axis=1)
        # A cycle on a torus has exponent 0, which a run of T steps shows as a few 1/T of either sign.
        resolved = measured[n] - RESOLUTION / config.num_steps
        crossings = np.array([crossing(GAINS, column) for column in resolved.T])
        sizes[n] = {
            "networks": runs,
            "seconds": time.perf_counter() - begun,
            "crossing_gain_of_median": crossing(GAINS, np.median(resolved, axis=1)),
            "crossing_gain_quantiles_10_50_90": np.nanquantile(crossings, [0.1, 0.5, 0.9]),
            "largest_error_of_median_for_gain_1.5_to_3": np.abs(middle - theory)[chaotic].max(),
            "largest_error_of_median_for_gain_up_to_0.85": np.abs(middle - theory)[ordered].max(),
            "networks_that_never_cross": int(np.isnan(crossings).sum()),
            "share_chaotic": {f"{g:g}": (resolved[i] > 0).mean() for i, g in enumerate(GAINS) if 0.85 < g < 1.5},
        }
        print(f"n={n}: {sizes[n]}", flush=True)
    whole = spectra(config)
    above = resolved_spectra(whole, config.spectrum_steps)
    dimension = jax.vmap(kaplan_yorke_dimension)(jnp.asarray(above)) / config.spectrum_size
    figure = plot_order_to_chaos(GAINS, measured, (fine, curve), dict(zip(config.spectrum_gains, whole)))
    metrics = {
        "gains": GAINS,
        "mean_field": theory,
        "sizes": sizes,
        "resolution_of_the_spectra": RESOLUTION / config.spectrum_steps,
        "kaplan_yorke_dimension_over_n": dict(zip(map(str, config.spectrum_gains), np.asarray(dimension))),
        "positive_exponents_over_n": dict(zip(map(str, config.spectrum_gains), (above > 0).mean(1))),
    }  # fmt: skip
    arrays = {f"n{n}": v for n, v in measured.items()} | {"gains": GAINS, "mean_field": theory, "spectra": whole}
    return common.save(
        "order_to_chaos", metrics=metrics, settings=dataclasses.asdict(config), started=started, arrays=arrays,
        figures={"order_to_chaos": figure}, seed=config.seed,
    )  # fmt: skip


if __name__ == "__main__":
    import tyro

    print(main(tyro.cli(Config)))
