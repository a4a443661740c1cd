"""Has a gated cell cliffs, too? The gradient norm along lines of recurrent weights, for RNN, LSTM and GRU.

A common teaching example: one input of ones at every step, T = 50, 32 units, the loss is the sum of the last state, a
random unit direction of the recurrent weights, offsets from -0.5 to 0.5, the norm of the gradient with respect to these
weights. Repeated here for three cells with recurrent weights from several initialisers and many seeds (biases as
PyTorch draws them), and once more along directions as long as the weights themselves: a unit direction of a 32 x 32
matrix moves each weight by 1/32 only.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import recurrent
from cliffs.landscape import random_direction, surface
from cliffs.plotting import COLORS, figure

KINDS = ("unit", "as long as the weights")


@dataclasses.dataclass(frozen=True)
class Config:
    """The scan."""

    hidden: int = 32
    length: int = 50
    points: int = 161
    reach: float = 0.5
    """Offsets reach from minus this to this."""
    seeds: int = 12
    seed: int = 0


class Result(NamedTuple):
    """Gradient norms along all lines, and what they say."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, ...]]
    norms: dict[tuple[str, str, str], np.ndarray]
    """(cell, initialiser, kind of direction) to `[seeds, points]`."""


def run(config: Config) -> Result:
    """Scan every cell, initialiser and seed."""
    kernels = initial_kernels(config.hidden)
    offsets = jnp.linspace(-config.reach, config.reach, config.points)
    norms, rows = {}, []
    for cell, step in cells(config).items():
        # All initialisations and seeds of a cell are one program.
        drawn = [
            draw_network(step, init, jax.random.fold_in(jax.random.key(config.seed), i))
            for init in kernels.values()
            for i in range(config.seeds)
        ]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *drawn)
        scan = jax.jit(lambda n, step=step: jax.lax.map(lambda one: scan_lines(config, step, *one), n))
        both = np.asarray(scan(stacked)).reshape(len(kernels), config.seeds, 2, -1)
        for (i, name), (j, kind) in itertools.product(enumerate(kernels), enumerate(KINDS)):
            norms[cell, name, kind] = both[i, :, j]
            rows.append({"cell": cell, "init": name, "direction": kind} | peaks(both[i, :, j]))
    metrics = {
        "rows": rows,
        "share_of_seeds_with_a_peak_100_times_the_median": shares(rows),
        "spacing_of_the_samples": float(offsets[1] - offsets[0]),
        "note": "spacing in units of the direction's length; narrower peaks can be missed: shares are lower bounds",
        "the_common_examples_own_setting": rows[0],
        "steepest": max(rows, key=lambda r: r["peak_over_median"][2]),
    }
    arrays = {"offsets": offsets} | {f"{c} / {n} / {d}": v.astype(np.float32) for (c, n, d), v in norms.items()}
    return Result(config, metrics, arrays, report(rows), norms)


def cells(config: Config) -> dict[str, Any]:
    """The three cells."""
    return {
        "RNN": recurrent.simple_cell(config.hidden),
        "LSTM": recurrent.lstm_cell(config.hidden),
        "GRU": recurrent.gru_cell(config.hidden),
    }


def initial_kernels(hidden: int) -> dict[str, Any]:
    """Initialisers of the recurrent kernels; the first is that of `torch.nn.RNN`, which the common example uses."""
    bound = hidden**-0.5
    return {
        "uniform (PyTorch)": lambda k, s, d: jax.random.uniform(k, s, d, -bound, bound),
        "orthogonal": recurrent.orthogonal(),
        "normal, radius 1": recurrent.gaussian(bound),
        "normal, radius 1.5": recurrent.gaussian(1.5 * bound),
        "normal, radius 2": recurrent.gaussian(2 * bound),
        "normal, radius 3": recurrent.gaussian(3 * bound),
    }


def draw_network(step: Any, init: Any, key: jax.Array) -> tuple[Any, Any, jax.Array]:
    """Parameters of a cell, its recurrent kernels, and the key of its direction."""
    key_cell, key_kernels, key_bias, key_direction = jax.random.split(key, 4)
    params = step.init(key_cell, 1)
    bound = step.hidden**-0.5
    # flax names the branches that see the state `h...`, the others `i...`.
    kernel = {
        n: init(jax.random.fold_in(key_kernels, i), leaf["kernel"].shape, jnp.float32)
        for i, (n, leaf) in enumerate(sorted(params.items()))
        if n.startswith("h")
    }
    for i, (n, leaf) in enumerate(sorted(params.items())):
        if "bias" in leaf:
            bias = jax.random.uniform(jax.random.fold_in(key_bias, i), leaf["bias"].shape, minval=-bound, maxval=bound)
            params = {**params, n: {**leaf, "bias": bias}}
    return params, kernel, key_direction


def scan_lines(config: Config, step: Any, params: Any, kernel: Any, key: jax.Array) -> jax.Array:
    """The gradient norm of one network along one random direction of its recurrent kernels, `[2, points]`."""
    offsets = jnp.linspace(-config.reach, config.reach, config.points)

    def loss(kernel):
        whole = {n: leaf | ({"kernel": kernel[n]} if n in kernel else {}) for n, leaf in params.items()}
        inputs = jnp.ones((config.length, 1))
        return step.features(recurrent.unroll(step, whole, step.initial_state(), inputs))[-1].sum()

    direction = random_direction(key, jax.tree.map(jnp.ones_like, kernel), normalize="global")
    unit = optax.tree.scale(1 / optax.tree.norm(direction), direction)
    long = optax.tree.scale(optax.tree.norm(kernel), unit)
    lines = [surface(loss, kernel, [d], [offsets], chunk_size=config.points) for d in (unit, long)]
    return jnp.stack([jnp.asarray(line.grad_norm) for line in lines])


def peaks(norm: np.ndarray) -> dict[str, Any]:
    """How far the gradient norm `[seeds, points]` rises above its median along the line, over seeds."""
    jump = norm.max(1) / np.median(norm, 1)
    with np.errstate(divide="ignore"):
        edge = np.exp(np.abs(np.diff(np.log(norm), axis=1)).max(1))
    return {
        "peak_over_median": np.percentile(jump, [50, 90, 100]),
        "largest_norm": norm.max(),
        "median_norm": np.median(norm),
        "share_with_a_peak_100_times_the_median": float((jump > 100).mean()),
        "share_with_a_peak_10000_times_the_median": float((jump > 1e4).mean()),
        "largest_factor_between_neighbours": edge.max(),
    }


def shares(rows: list[dict]) -> dict[str, dict[str, dict[str, float]]]:
    """Cell to kind of direction to initialiser to the share of seeds with a peak above 100 times the median."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for r in rows:
        by_kind = table.setdefault(r["cell"], {kind: {} for kind in KINDS})
        by_kind[r["direction"]][r["init"]] = r["share_with_a_peak_100_times_the_median"]
    return table


def report(rows: list[dict]) -> list[tuple[str, ...]]:
    """The rows of the printed table."""
    head = ("cell, recurrent weights, direction", "peak / median (median seed, largest)", "seeds with a peak above 100")
    lines: list[tuple[str, ...]] = [head]
    for r in rows:
        middle, _, most = r["peak_over_median"]
        what = f"{r['cell']}, {r['init']}, {r['direction']}"
        lines.append((what, f"{middle:.3g}, {most:.3g}", f"{r['share_with_a_peak_100_times_the_median']:.0%}"))
    return lines


def draw(result: Result) -> dict[str, Any]:
    """The steepest line of every cell and initialiser."""
    names, kernels = list(cells(result.config)), list(initial_kernels(result.config.hidden))
    fig, axes = figure(len(names), len(kernels), size=(17, 7.6), sharex=True, sharey=True)
    for line, cell in zip(axes, names):
        for ax, name in zip(line, kernels):
            for kind, color in zip(KINDS, (COLORS["clipped"], COLORS["unclipped"])):
                norm = result.norms[cell, name, kind]
                steepest = norm[np.argmax(norm.max(1) / np.median(norm, 1))]
                ax.plot(result.arrays["offsets"], steepest, color=color, linewidth=1.1, label=f"direction: {kind}")
            ax.set(yscale="log", ylim=(1e-2, 1e8))
            if cell == names[0]:
                ax.set_title(name, fontsize=10)
        line[0].set_ylabel(f"{cell}: gradient norm")
    for ax in axes[-1]:
        ax.set_xlabel("offset")
    axes[0, 0].legend(fontsize=8, loc="lower left")
    return {"cliff_scan": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
