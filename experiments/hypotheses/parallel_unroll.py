"""How many Newton sweeps does a whole sequence take, against the largest Lyapunov exponent?

`h_t = tanh(g J h_{t-1} + u_t)` with `J_ij ~ N(0, 1/n)` and weak noise `u`, solved for all t at once by
`cliffs.recurrent.parallel_unroll` (DEER). The expectation: where the exponent is negative, an error at one time dies
out along the sequence and a few sweeps suffice whatever the length; where it is positive, it grows, and the sweeps go
with the length. What came out: the expectation holds up to a gain of 1. Above it networks with a clearly negative
exponent fail too, since the sweeps start where the step expands and not where the trajectory ends. A search that does
not reach the tolerance is flagged, and the states are compared with the loop's, so that a false flag would show.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.plotting import COLORS, figure
from cliffs.recurrent import parallel_unroll, unroll
from cliffs.spectra import lyapunov_exponents

VARIANTS: dict[str, tuple[Any, float]] = {"newton": ("newton", 0.0), "damped": ("newton", 0.1), "quasi": ("quasi", 0.0)}
RIGHT = 1e-6
"""States within this of the loop's count as right."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    units: int = 20
    lengths: tuple[int, ...] = (100, 500, 3000)
    gains: tuple[float, ...] = (0.5, 0.67, 0.83, 1.0, 1.17, 1.33, 1.5, 1.67, 1.83, 2.0)
    seeds: int = 3
    noise: float = 0.1
    """Standard deviation of the inputs."""
    max_sweeps: int = 100
    tolerance: float = 1e-8
    seed: int = 0


class Result(NamedTuple):
    """Sweeps, flags and errors `[lengths, gains, seeds]` for each variant."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Any = print) -> Result:
    """Every variant at the middle length, Newton at all."""
    arrays: dict[str, Any] = {}
    middle = sorted(config.lengths)[len(config.lengths) // 2]
    for name in VARIANTS:
        for length in config.lengths:
            if name == "newton" or length == middle:
                begun = time.perf_counter()
                found = measure(name, length, config)
                arrays |= {f"{name}_{length}_{key}": value for key, value in found.items()}
                seconds = time.perf_counter() - begun
                say(f"{name}, {length} steps: {found['converged'].mean():.0%} converged, {seconds:.1f} s")
    metrics, rows = summarise(arrays, config)
    return Result(config, metrics, arrays, rows)


def step(params: Any, state: Any, inputs: Any) -> Any:
    """`h' = tanh(g J h + u)`."""
    gain, matrix = params
    return jnp.tanh(gain * (matrix @ state) + inputs)


def measure(name: str, length: int, config: Config) -> dict[str, np.ndarray]:
    """Exponent, sweeps, flag and largest error of the states, each `[gains, seeds]`."""
    form, damping = VARIANTS[name]

    def one(case):
        gain, key = case
        k_matrix, k_state, k_inputs = jax.random.split(key, 3)
        n = config.units
        params = gain, jax.random.normal(k_matrix, (n, n), float) / n**0.5
        start = jax.random.normal(k_state, (n,), float)
        inputs = config.noise * jax.random.normal(k_inputs, (length, n), float)
        found = parallel_unroll(
            step,
            params,
            start,
            inputs,
            form=form,
            damping=damping,
            tolerance=config.tolerance,
            max_sweeps=config.max_sweeps,
        )
        error = jnp.max(jnp.abs(found.states - unroll(step, params, start, inputs)))
        exponent = lyapunov_exponents(step, params, start, inputs, num_exponents=1)[0]
        return {"exponent": exponent, "sweeps": found.num_sweeps, "converged": found.converged, "error": error}

    with jax.enable_x64(True):
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(config.seed), i))(jnp.arange(config.seeds))
        gains = jnp.repeat(jnp.asarray(config.gains), config.seeds)
        cases = gains, jnp.tile(keys, len(config.gains))
        found = jax.jit(lambda cases: jax.lax.map(one, cases))(cases)
        return {k: np.asarray(v).reshape(len(config.gains), config.seeds) for k, v in found.items()}


def summarise(arrays: dict[str, Any], config: Config) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """What converged and what did not, by the sign of the exponent."""
    metrics: dict[str, Any] = {}
    rows = [
        ("variant, length", "exponent < 0: sweeps (10, 50, 90 %), converged", "exponent > 0: converged", "wrong flags")
    ]
    for key in [k.removesuffix("_sweeps") for k in arrays if k.endswith("_sweeps")]:
        exponent, sweeps, converged, error = (
            arrays[f"{key}_{k}"] for k in ("exponent", "sweeps", "converged", "error")
        )
        stable = exponent < 0
        # A converged search of a chaotic sequence may differ from the loop by rounding that grew.
        wrong = int((converged & stable & ~(error < RIGHT)).sum())
        metrics[key] = {
            "sweeps_where_stable_quantiles": np.quantile(sweeps[stable], [0.1, 0.5, 0.9]) if stable.any() else None,
            "converged_where_stable": [int(converged[stable].sum()), int(stable.sum())],
            "converged_where_chaotic": [int(converged[~stable].sum()), int((~stable).sum())],
            "flagged_right_but_wrong_where_stable": wrong,
        }
        quantiles = ", ".join(f"{q:.0f}" for q in np.quantile(sweeps[stable], [0.1, 0.5, 0.9])) if stable.any() else "-"
        rows.append(
            (
                key.replace("_", ", "),
                f"{quantiles}; {converged[stable].sum()} of {stable.sum()}",
                f"{converged[~stable].sum()} of {(~stable).sum()}",
                str(wrong),
            )
        )
    return metrics, rows


def draw(result: Result) -> dict[str, Any]:
    """Sweeps against the exponent: by length for Newton, by variant at the middle length."""
    fig, (left, right) = figure(1, 2, size=(11, 4))
    config, arrays = result.config, result.arrays
    middle = sorted(config.lengths)[len(config.lengths) // 2]
    colors = (COLORS["clipped"], COLORS["accent"], COLORS["unclipped"], COLORS["good"], COLORS["unstable"])
    for length, color in zip(config.lengths, colors):
        _points(left, arrays, f"newton_{length}", color, f"{length} steps")
    for name, color in zip(VARIANTS, colors):
        _points(right, arrays, f"{name}_{middle}", color, name)
    left.set(title=f"Newton, {config.units} units, gains {config.gains[0]:g} to {config.gains[-1]:g}")
    right.set(title=f"variants at {middle} steps")
    for ax in (left, right):
        ax.axvline(0, color=COLORS["unstable"], lw=0.8)
        ax.set(xlabel="largest Lyapunov exponent (nats per step)", ylabel="sweeps", yscale="log")
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncol": 3}
        ax.legend(fontsize=8, title=f"crosses: not converged in {config.max_sweeps}", title_fontsize=8, **below)
    return {"parallel_unroll": fig}


def _points(ax: Any, arrays: dict[str, Any], key: str, color: str, label: str) -> None:
    exponent, sweeps, converged = (arrays[f"{key}_{k}"].ravel() for k in ("exponent", "sweeps", "converged"))
    ax.plot(exponent[converged], sweeps[converged], "o", color=color, ms=4, alpha=0.8, label=label)
    ax.plot(exponent[~converged], sweeps[~converged], "x", color=color, ms=5)


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
