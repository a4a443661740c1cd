"""Does clipping help under Gaussian noise, and under heavy-tailed noise? Streaming least squares, then a small network.

Streaming least squares in d dimensions: rows `a ~ N(0, I)`, excess `D = |x - x*|^2`, residual `r = <a, x - x*> -
noise`, gradient `a r`, whose norm is about `sqrt(d) |r|`. One clipped step at its best learning rate reduces D in
proportion to

    mu^2 / nu    with    mu = P(|r| <= c),    nu = E[min(r^2, c^2)] / E[r^2]

times what an unclipped step does (Marshall et al. 2024, who say that with Gaussian noise clipping cannot help). For
Gaussian noise r is Gaussian, mu = E[r clip(r)] / E[r^2] by Stein's lemma, and mu^2 <= nu by Cauchy-Schwarz: no
threshold helps. With heavier tails the ratio is above 1, without a bound where the variance is infinite. Tested: the
ratio; SGD at the best of many learning rates for each threshold, against the equation `D' = D - 2 eta mu D + eta^2 d
nu E[r^2]`; and a small network with noise on its gradient, for SGD and for Adam (Chezhegov et al. 2025: Adam, too,
needs clipping under heavy tails). Learning rates are chosen on one half of the seeds and judged on the other.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import norm as normal

from cliffs.clipping import clip_by_global_norm
from cliffs.plotting import COLORS, figure
from cliffs.stats import bootstrap_interval
from experiments.hypotheses.noise_and_clipping_network import network_losses

NOISES: dict[str, float] = {"Gaussian": math.inf, "t, 3 degrees": 3.0, "t, 1.5 degrees": 1.5}
"""Degrees of freedom; all noises have the same median size."""
INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    dimension: int = 100
    noise: float = 0.5
    """Standard deviation of the Gaussian noise; the others have its median size."""
    updates: int = 500
    thresholds: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, INF)
    """Of the residual for least squares, of the gradient for the network, in units of the noise's median size."""
    rates: int = 10
    seeds: int = 32
    """An even number: the first half chooses the learning rate, the second half is reported."""
    hidden: int = 16
    batch: int = 16
    network_updates: int = 200
    network_noise: float = 1.0
    """Median norm of the noise on the network's gradient."""
    seed: int = 0


class Result(NamedTuple):
    """The ratio, and losses at the best learning rates."""

    config: Config
    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Any = print) -> Result:
    """The ratio, least squares, the network."""
    if config.seeds < 4 or config.seeds % 2:
        raise ValueError(f"seeds must be even and at least 4, got {config.seeds}")
    grid = np.geomspace(0.05, 10, 60)
    gains = {name: [gain(config, name, float(c), excess=1.0) for c in grid] for name in NOISES}
    metrics: dict[str, Any] = {"gain": {"thresholds": grid, **gains}, "least_squares": {}, "network": {}}
    for name in NOISES:
        metrics["least_squares"][name] = least_squares(config, name)
        say(f"least squares, {name}")
    for optimizer in ("SGD", "Adam"):
        for name in NOISES:
            losses = network_losses(config, optimizer, NOISES[name])
            metrics["network"][f"{optimizer}, {name}"] = judged(config, losses)
            say(f"network, {optimizer}, {name}")
    return Result(config, metrics, table(metrics))


def law(name: str) -> Any:
    """The standard law of a noise."""
    import scipy.stats

    return scipy.stats.norm() if math.isinf(NOISES[name]) else scipy.stats.t(NOISES[name])


def scale(config: Config, name: str) -> float:
    """What the standard law is multiplied by, so that all noises have one median size."""
    return median_size(config) / float(law(name).ppf(0.75))


def median_size(config: Config) -> float:
    """Of the noise, whatever its law."""
    return config.noise * float(law("Gaussian").ppf(0.75))


def quantiles(config: Config, name: str, count: int = 400) -> np.ndarray:
    """Noise values in the middle of `count` equal shares."""
    return scale(config, name) * law(name).ppf((np.arange(count) + 0.5) / count)


def variance(config: Config, name: str) -> float:
    """Of the noise; infinite up to 2 degrees of freedom."""
    return scale(config, name) ** 2 * float(law(name).var())


def moments(excess: Any, c: Any, noises: Any) -> tuple[Any, Any]:
    """`P(|r| <= c)` and `E[min(r^2, c^2)]` for `r = sqrt(excess) z - noise`: exact in z, a mean over the noises."""
    s = jnp.sqrt(excess)[..., None]
    c = jnp.asarray(c)[..., None]
    low, high = (-c + noises) / s, (c + noises) / s
    inside = normal.cdf(high) - normal.cdf(low)
    # E[(s z - n)^2; low < z < high], by parts; z phi(z) is 0 at infinity.
    edge = lambda z: jnp.where(jnp.isfinite(z), z * normal.pdf(z), 0.0)  # noqa: E731
    second = s**2 * (inside + edge(low) - edge(high))
    second += 2 * s * noises * (normal.pdf(high) - normal.pdf(low)) + noises**2 * inside
    outside = jnp.where(jnp.isfinite(c), c**2 * (1 - inside), 0.0)
    return inside.mean(-1), (second + outside).mean(-1)


def gain(config: Config, name: str, c: float, excess: float) -> float:
    """`mu^2 / nu`; infinite where the variance is."""
    whole = excess + variance(config, name)
    inside, second = moments(jnp.asarray(excess), c, jnp.asarray(quantiles(config, name, 4000)))
    return float(inside**2 * whole / second)


def least_squares(config: Config, name: str) -> dict[str, Any]:
    """The excess at the end by threshold, at the best learning rate: from SGD, and from the equation for its mean."""
    d, size = config.dimension, median_size(config)
    rates = jnp.geomspace(0.05, 20.0, config.rates) / d
    noises = jnp.asarray(quantiles(config, name))

    def descend(threshold, rate, key):
        optimizer: Any = optax.chain(clip_by_global_norm(threshold * size * math.sqrt(d)), optax.sgd(rate))
        start = jnp.ones(d) / math.sqrt(d)

        def body(state, step):
            k_row, k_noise = jax.random.split(jax.random.fold_in(key, step))
            row = jax.random.normal(k_row, (d,))
            noise = scale(config, name) * draw_noise(k_noise, NOISES[name])
            gradient = row * (row @ state - noise)
            updates, _ = optimizer.update(gradient, optimizer.init(state), state)
            return state + updates, None

        end: Any = jax.lax.scan(body, start, jnp.arange(config.updates))[0]
        return jnp.sum(end**2)

    def equation(threshold, rate):
        def body(excess, _):
            inside, second = moments(excess, threshold * size, noises)
            return excess - 2 * rate * inside * excess + rate**2 * d * second, None

        return jax.lax.scan(body, jnp.ones(()), length=config.updates)[0]

    thresholds = jnp.asarray(config.thresholds)
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    over = jax.vmap(jax.vmap(jax.vmap(descend, (None, None, 0)), (None, 0, None)), (0, None, None))
    excess = np.asarray(jax.jit(over)(thresholds, rates, keys), float)
    predicted = np.asarray(jax.jit(jax.vmap(jax.vmap(equation, (None, 0)), (0, None)))(thresholds, rates), float)
    found = judged(config, excess)
    # Quantiles cannot stand for a variance that is infinite.
    best = np.nanmin(np.where(np.isfinite(predicted), predicted, np.inf), axis=1)
    known = np.isfinite(variance(config, name)) | np.isfinite(config.thresholds)
    found["equation"] = [float(b) if k else None for b, k in zip(best, known)]
    return found


def draw_noise(key: Any, degrees: float) -> Any:
    """One value of the standard law."""
    return jax.random.normal(key) if math.isinf(degrees) else jax.random.t(key, degrees)


def judged(config: Config, losses: np.ndarray) -> dict[str, Any]:
    """Losses `[thresholds, rates, seeds]` at the learning rates that the first half of the seeds chooses.

    Reported of the second half: the median, the 90 % quantile, and the median of the log ratio to no clipping.
    """
    half = losses.shape[-1] // 2
    losses = np.where(np.isfinite(losses), losses, 1e6)
    chosen = np.median(losses[..., :half], axis=-1).argmin(1)
    mine = losses[np.arange(len(losses)), chosen, half:]
    ratio = np.log(mine / mine[-1])
    low, high = bootstrap_interval(ratio.T, np.median)
    return {
        "thresholds": config.thresholds,
        "rate_index": chosen,
        "median": np.median(mine, axis=1),
        "quantile_90": np.quantile(mine, 0.9, axis=1),
        "ratio": np.exp(np.median(ratio, axis=1)),
        "ratio_low": np.exp(low),
        "ratio_high": np.exp(high),
    }


def table(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """Each case's best threshold against none."""
    rows = [("case", "best threshold: loss / loss without clipping, 95 %", "90 % quantiles, clipped and not")]
    cases = {f"least squares, {k}": v for k, v in metrics["least_squares"].items()}
    cases |= {f"network, {k}": v for k, v in metrics["network"].items()}
    for name, r in cases.items():
        i = int(np.argmin(r["ratio"][:-1]))
        text = f"{r['thresholds'][i]:g}: {r['ratio'][i]:.2f} [{r['ratio_low'][i]:.2f}, {r['ratio_high'][i]:.2f}]"
        rows.append((name, text, f"{r['quantile_90'][i]:.3g}, {r['quantile_90'][-1]:.3g}"))
    return rows


def draw(result: Result) -> dict[str, Any]:
    """The ratio by threshold; least squares against the equation; the network with SGD and Adam."""
    metrics, config = result.metrics, result.config
    fig, axes = figure(1, 4, size=(16, 3.8))
    colors = dict(zip(NOISES, (COLORS["clipped"], COLORS["accent"], COLORS["unclipped"])))
    finite = [t for t in config.thresholds if np.isfinite(t)]
    places = [t if np.isfinite(t) else 3 * max(finite) for t in config.thresholds]
    for name, color in colors.items():
        gains = np.asarray(metrics["gain"][name])
        if np.isfinite(gains).all():
            axes[0].plot(metrics["gain"]["thresholds"], gains, color=color, label=name)
        r = metrics["least_squares"][name]
        axes[1].plot(places, r["median"], "o", color=color, ms=4, label=name)
        known = [(x, y) for x, y in zip(places, r["equation"]) if y is not None]
        axes[1].plot(*zip(*known), color=color, lw=1)
        for ax, which in zip(axes[2:], ("SGD", "Adam")):
            r = metrics["network"][f"{which}, {name}"]
            spread = [r["ratio"] - r["ratio_low"], r["ratio_high"] - r["ratio"]]
            ax.errorbar(places, r["ratio"], spread, fmt="o-", color=color, ms=4, capsize=2, label=name)
    axes[0].plot([], [], color=colors["t, 1.5 degrees"], label="t, 1.5 degrees: infinite")
    axes[0].axhline(1, color=COLORS["unstable"], lw=0.8)
    axes[0].set(
        xscale="log", xlabel="threshold c of the residual", ylabel="$\\mu^2/\\nu$", title="gain of a clipped step"
    )
    axes[1].set(yscale="log", ylabel="excess at the end", title="least squares: SGD and the equation (lines)")
    for ax, which in zip(axes[2:], ("SGD", "Adam")):
        ax.axhline(1, color=COLORS["unstable"], lw=0.8)
        ax.set(yscale="log", ylabel="test loss / that without clipping", title=f"network, {which}")
    for ax in axes[1:]:
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:.2g}")
        ax.tick_params(axis="y", which="both", labelsize=8)
        ax.set(xscale="log", xlabel="threshold / median size of the noise")
        ax.set_xticks(places, [f"{t:g}" if np.isfinite(t) else "none" for t in config.thresholds])
        ax.set_xticks([], minor=True)
    for ax in axes:
        ax.legend(fontsize=7)
    return {"noise_and_clipping": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
