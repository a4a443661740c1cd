"""Where does clipped SGD stop, and what removes the bias: larger batches, clipping the batch, error feedback?

One parameter, `f(x) = x^2 / 2`, gradient `x + noise` with `noise = a` with probability p and `-b` otherwise, `p a =
(1 - p) b`, so that the mean is 0 and the rare value is the large one. Clipping to c shortens the rare one only: the
expected clipped gradient is 0 not at 0 but at

    x* = p (a - c) / (1 - p)    for  p <= 1/2, p a <= c <= a  (per example, whatever the batch and the learning rate).

Over all such noises of standard deviation s the worst is `s^2 / (4 c)` for `c >= s / 2`, else `s - c`: the
`min(s, s^2 / c)` of Koloskova, Hendrikx & Stich (2023), whose bounds hold for any threshold. Clipping the mean of a
batch has a smaller bias, found here by bisection of the exact expectation over the batch. Error feedback clips the
difference to an estimate: with one estimate for each example of a finite set it has no bias; on a noisy gradient it
takes momentum, and with `b1 (a + b) <= c` no difference is clipped any more once it runs. Everything exact is compared
with SGD as it runs.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs.clipping import clip_by_global_norm, clip_with_error_feedback
from cliffs.plotting import COLORS, figure

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    p: float = 0.1
    """Probability of the rare value."""
    a: float = 3.0
    """The rare value; the standard deviation is `a sqrt(p / (1 - p))`."""
    thresholds: tuple[float, ...] = (0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
    batches: tuple[int, ...] = (1, 4, 16, 64)
    threshold: float = 1.0
    """Where one threshold is looked at."""
    momenta: tuple[float, ...] = (1.0, 0.8, 0.6, 0.4, 0.3, 0.1)
    """b1 of error feedback: the weight of a new gradient in its average."""
    learning_rate: float = 0.01
    updates: int = 6000
    """The second half is averaged."""
    runs: int = 64
    examples: int = 20
    """Of the finite set, a share `p` of them the rare ones."""
    seed: int = 0


class Result(NamedTuple):
    """Fixed points, exact and measured."""

    config: Config
    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Any = print) -> Result:
    """By threshold, by batch, with error feedback."""
    c = config.threshold
    found = measure(config, clip_by_global_norm, {"limit": config.thresholds}, 1)
    by_threshold = [
        {
            "threshold": t,
            "exact": fixed_point(config, t, 1, per_example=True),
            "closed_form": closed_form(config, t),
            "worst_case": worst_bias(sigma(config), t),
            **mine,
        }
        for t, mine in zip(config.thresholds, found)
    ]
    say("thresholds done")
    by_batch = []
    for batch in config.batches:
        found = measure(config, clip_by_global_norm, {"limit": (INF, c), "example": (c, INF)}, batch)
        for what, mine in zip(("examples", "batch"), found):
            exact = fixed_point(config, c, batch, per_example=what == "examples")
            by_batch.append({"batch": batch, "clipped": what, "exact": exact, **mine})
    say("batches done")
    found = measure(config, lambda b1: clip_with_error_feedback(c, b1), {"limit": config.momenta}, 1)
    metrics = {
        "sigma": sigma(config),
        "by_threshold": by_threshold,
        "by_batch": by_batch,
        "error_feedback_on_noise": [{"b1": b1, **mine} for b1, mine in zip(config.momenta, found)],
        "finite_set": finite_set(config),
    }
    return Result(config, metrics, table(config, metrics))


def sigma(config: Config) -> float:
    """The noise's standard deviation."""
    return config.a * math.sqrt(config.p / (1 - config.p))


def closed_form(config: Config, c: float) -> float | None:
    """`p (a - c) / (1 - p)` where it holds, 0 from the largest value on, None below `p a`."""
    if c >= config.a:
        return 0.0
    return config.p * (config.a - c) / (1 - config.p) if c >= config.p * config.a else None


def worst_bias(s: float, c: float) -> float:
    """The largest bias that two values of standard deviation s can give: `s^2 / 4c`, or `s - c` below `c = s / 2`.

    >>> round(worst_bias(1.0, 2.0), 3), worst_bias(1.0, 0.25)
    (0.125, 0.75)
    """
    return s**2 / (4 * c) if c >= s / 2 else s - c


def fixed_point(config: Config, c: float, batch: int, *, per_example: bool) -> float:
    """Where the expected clipped gradient of a batch is 0: an exact sum over its number of rare values, bisected."""
    p, a, b = config.p, config.a, config.p * config.a / (1 - config.p)
    counts = range(2) if per_example else range(batch + 1)
    n = 1 if per_example else batch
    chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts]
    noises = [(k * a - (n - k) * b) / n for k in counts]

    def expected(x):
        return sum(chance * min(max(x + noise, -c), c) for chance, noise in zip(chances, noises))

    low, high = -config.a, config.a
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < 0 else (low, middle)
    return (low + high) / 2


def measure(
    config: Config,
    rule: Callable[[Any], optax.GradientTransformation],
    settings: Mapping[str, Sequence[float]],
    batch: int,
) -> list[dict[str, float]]:
    """The mean of x over the second half of many runs of SGD, and its standard error over runs, for each setting.

    `rule(limit)` sees the mean of the batch's gradients, each clipped to `example` before, if given.
    """
    b = config.p * config.a / (1 - config.p)

    def one(setting, key):
        optimizer = optax.chain(rule(setting["limit"]), optax.sgd(config.learning_rate))
        most = setting.get("example", INF)

        def body(carry, step):
            x, state = carry
            rare = jax.random.bernoulli(jax.random.fold_in(key, step), config.p, (batch,))
            gradient = jnp.clip(x + jnp.where(rare, config.a, -b), -most, most).mean()
            updates, state = optimizer.update(gradient, state, x)
            return (optax.apply_updates(x, updates), state), x

        start = jnp.zeros(())
        xs = jax.lax.scan(body, (start, optimizer.init(start)), jnp.arange(config.updates))[1]
        return xs[config.updates // 2 :].mean()

    keys = jax.random.split(jax.random.key(config.seed), config.runs)
    columns = {name: jnp.asarray(values, jnp.float32) for name, values in settings.items()}
    means = np.asarray(jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(columns, keys), float)
    errors = means.std(1, ddof=1) / math.sqrt(config.runs)
    return [{"measured": float(m), "standard_error": float(e)} for m, e in zip(means.mean(1), errors)]


def finite_set(config: Config) -> dict[str, dict[str, float | None]]:
    """The whole set at every step, no noise: where three ways of clipping end, and where they should.

    Example i has the loss `(x + noise_i)^2 / 2`, with exactly a share p of rare ones: the optimum is 0 again.
    """
    rare = round(config.p * config.examples)
    if not 0 < rare < config.examples:
        raise ValueError(f"examples must hold some rare ones, got {config.examples} with p={config.p}")
    common = -rare * config.a / (config.examples - rare)
    noises = jnp.array([config.a] * rare + [common] * (config.examples - rare))
    c = config.threshold
    plain, feedback = clip_by_global_norm(c), clip_with_error_feedback(c)
    share = dataclasses.replace(config, p=rare / config.examples)
    return {
        "examples clipped": {
            "expected": closed_form(share, c),
            "measured": _descend(jax.vmap(lambda g: plain.update(g, plain.init(g))[0]), noises),
        },
        "mean clipped": {"expected": 0.0, "measured": _descend_mean(plain, noises)},
        "error feedback for each example": {"expected": 0.0, "measured": _descend_with_state(feedback, noises)},
    }


def _descend(clip: Callable[[Any], Any], noises: Any) -> float:
    body = lambda x, _: (x - 0.1 * clip(x + noises).mean(), None)  # noqa: E731
    return float(jax.lax.scan(body, jnp.float32(1.0), length=2000)[0])


def _descend_mean(rule: Any, noises: Any) -> float:
    body = lambda x, _: (x - 0.1 * rule.update((x + noises).mean(), rule.init(x))[0], None)  # noqa: E731
    return float(jax.lax.scan(body, jnp.float32(1.0), length=2000)[0])


def _descend_with_state(rule: Any, noises: Any) -> float:
    def body(carry, _):
        x, states = carry
        estimates, states = jax.vmap(lambda g, s: rule.update(g, s))(x + noises, states)
        return (x - 0.1 * estimates.mean(), states), None

    states = jax.vmap(rule.init)(noises)
    return float(jax.lax.scan(body, (jnp.float32(1.0), states), length=2000)[0][0])


def table(config: Config, metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """Measured beside exact."""
    rows = [("one parameter, two-point noise", "x measured", "exact")]
    for r in metrics["by_threshold"]:
        rows.append((f"batch 1, threshold {r['threshold']:g}", _measured(r), f"{r['exact']:.4f}"))
    for r in metrics["by_batch"]:
        what = f"batch {r['batch']}, threshold {config.threshold:g}, {r['clipped']} clipped"
        rows.append((what, _measured(r), f"{r['exact']:.4f}"))
    for r in metrics["error_feedback_on_noise"]:
        rows.append((f"error feedback, b1 = {r['b1']:g}", _measured(r), "0 without bias"))
    for name, r in metrics["finite_set"].items():
        rows.append((f"finite set, {name}", f"{r['measured']:.4f}", f"{r['expected']:.4f}"))
    return rows


def _measured(row: dict[str, float]) -> str:
    return f"{row['measured']:.4f} +- {row['standard_error']:.4f}"


def draw(result: Result) -> dict[str, Any]:
    """The bias against the threshold, the batch, and the momentum of error feedback."""
    config, metrics = result.config, result.metrics
    fig, (left, middle, right) = figure(1, 3, size=(14, 4))
    fine = np.geomspace(min(config.thresholds), max(config.thresholds), 200)
    exact = [fixed_point(config, t, 1, per_example=True) for t in fine]
    left.plot(fine, exact, color=COLORS["clipped"], label="exact")
    worst = [worst_bias(metrics["sigma"], t) for t in fine]
    left.plot(fine, worst, color=COLORS["unstable"], ls="--", label="worst two-point noise: $s^2/4c$")
    rows = metrics["by_threshold"]
    left.plot([r["threshold"] for r in rows], [r["measured"] for r in rows], "o", color=COLORS["stable"], label="SGD")
    left.set(xlabel="threshold c", ylabel="x where it stops (optimum: 0)", title=f"batch 1, s = {metrics['sigma']:.2g}")
    for what, color in (("examples", COLORS["unclipped"]), ("batch", COLORS["clipped"])):
        rows = [r for r in metrics["by_batch"] if r["clipped"] == what]
        batches = [r["batch"] for r in rows]
        middle.plot(batches, [r["exact"] for r in rows], color=color, label=f"{what} clipped, exact")
        middle.plot(batches, [r["measured"] for r in rows], "o", color=color)
    middle.set(xscale="log", xlabel="batch", title=f"what is clipped, c = {config.threshold:g}")
    middle.set_xticks(config.batches, [str(b) for b in config.batches])
    middle.set_xticks([], minor=True)
    rows = metrics["error_feedback_on_noise"]
    right.plot([r["b1"] for r in rows], [r["measured"] for r in rows], "o-", color=COLORS["good"], label="SGD")
    plain = fixed_point(config, config.threshold, 1, per_example=True)
    right.axhline(plain, color=COLORS["clipped"], lw=1, ls="--", label="plain clipping")
    right.axhline(0, color=COLORS["unstable"], lw=0.8)
    right.set(xscale="log", xlabel="b1 (1: no momentum)", title=f"error feedback, batch 1, c = {config.threshold:g}")
    for ax in (left, middle, right):
        ax.legend(fontsize=8)
    return {"clipping_bias": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
