"""The lesson's scan: the gradient norm along one direction of the recurrent weights, for three cells and several inits.

    python experiments/cliff_scan.py

As in the lesson: one input of ones at every step, T = 50, 32 units, the loss is the sum of the last state, a random
unit direction of the recurrent weights, offsets from -0.5 to 0.5, the norm of the gradient with respect to these
weights. Repeated for a vanilla network, an LSTM and a GRU with recurrent weights from several initialisers and many
seeds (biases as PyTorch draws them), and once more along directions as long as the weights themselves: a unit
direction of a 32 x 32 matrix moves each weight by 1/32 only.
"""

import dataclasses
import itertools
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))


KINDS = ("unit", "as long as the weights")


@dataclasses.dataclass(frozen=True)
class Config:
    """The scan."""

    hidden: int = 32
    length: int = 50
    points: int = 161
    reach: float = 0.5
    seeds: int = 12
    seed: int = 0


def initial_kernels(hidden):
    """Initialisers of the recurrent kernels; the first is that of `torch.nn.RNN`, which the lesson's code uses."""
    import jax

    from cliffs import recurrent

    bound = hidden**-0.5
    return {
        "uniform (PyTorch)": lambda k, s, d: jax.random.uniform(k, s, d, -bound, bound),
        "orthogonal": recurrent.orthogonal(),
        "normal, radius 1": recurrent.gaussian(bound),
        "normal, radius 1.5": recurrent.gaussian(1.5 * bound),
        "normal, radius 2": recurrent.gaussian(2 * bound),
        "normal, radius 3": recurrent.gaussian(3 * bound),
    }


def draw(step, init, key):
    """Parameters of a cell, its recurrent kernels, and the key of its direction."""
    import jax
    import jax.numpy as jnp

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


def main(config: Config) -> pathlib.Path:
    """Scan, draw, write results/cliff_scan/."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from cliffs import recurrent
    from cliffs.landscape import random_direction, surface
    from cliffs.plotting import COLORS, figure
    from experiments import common

    started = time.perf_counter()
    steps = {
        "RNN": recurrent.simple_cell(config.hidden), "LSTM": recurrent.lstm_cell(config.hidden),
        "GRU": recurrent.gru_cell(config.hidden),
    }  # fmt: skip
    kernels = initial_kernels(config.hidden)
    offsets = jnp.linspace(-config.reach, config.reach, config.points)

    def scan(step, params, kernel, key):
        """The gradient norm of one network along one random direction of its recurrent kernels."""

        def loss(kernel):
            whole = {n: leaf | ({"kernel": kernel[n]} if n in kernel else {}) for n, leaf in params.items()}
            inputs = jnp.ones((config.length, 1))
            return step.features(recurrent.unroll(step, whole, step.initial_state(), inputs))[-1].sum()

        direction = random_direction(key, jax.tree.map(jnp.ones_like, kernel), normalize="global")
        unit = optax.tree.scale(1 / optax.tree.norm(direction), direction)
        long = optax.tree.scale(optax.tree.norm(kernel), unit)
        return jnp.stack([
            surface(loss, kernel, [d], [offsets], chunk_size=config.points).grad_norm for d in (unit, long)
        ])  # fmt: skip

    norms, rows = {}, []
    for cell, step in steps.items():
        networks = [draw(step, init, jax.random.fold_in(jax.random.key(config.seed), i))
                    for init in kernels.values() for i in range(config.seeds)]  # fmt: skip
        # All initialisations and seeds of a cell are one program.
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *networks)
        run = jax.jit(lambda n, step=step: jax.lax.map(lambda one: scan(step, *one), n))
        both = np.asarray(run(stacked)).reshape(len(kernels), config.seeds, 2, -1)
        for (i, name), (j, kind) in itertools.product(enumerate(kernels), enumerate(KINDS)):
            norm = norms[cell, name, kind] = both[i, :, j]
            jump = norm.max(1) / np.median(norm, 1)
            with np.errstate(divide="ignore"):
                edge = np.exp(np.abs(np.diff(np.log(norm), axis=1)).max(1))
            rows.append({
                "cell": cell, "init": name, "direction": kind, "peak_over_median": np.percentile(jump, [50, 90, 100]),
                "largest_norm": norm.max(), "median_norm": np.median(norm),
                "share_with_a_peak_100_times_the_median": float((jump > 100).mean()),
                "share_with_a_peak_10000_times_the_median": float((jump > 1e4).mean()),
                "largest_factor_between_neighbours": edge.max(),
            })  # fmt: skip

    fig, axes = figure(len(steps), len(kernels), size=(17, 7.6), sharex=True, sharey=True)
    for line, cell in zip(axes, steps):
        for ax, name in zip(line, kernels):
            for kind, color in zip(KINDS, (COLORS["clipped"], COLORS["unclipped"])):
                norm = norms[cell, name, kind]
                steepest = norm[np.argmax(norm.max(1) / np.median(norm, 1))]
                ax.plot(offsets, steepest, color=color, linewidth=1.1, label=f"direction: {kind}")
            ax.set_yscale("log")
            ax.set_ylim(1e-2, 1e8)
            if cell == "RNN":
                ax.set_title(name, fontsize=10)
        line[0].set_ylabel(f"{cell}: gradient norm")
    for ax in axes[-1]:
        ax.set_xlabel("offset")
    axes[0, 0].legend(fontsize=8, loc="lower left")
    worst = max(rows, key=lambda r: r["peak_over_median"][2])
    lesson = rows[0]
    shares = {
        cell: {
            kind: {r["init"]: r["share_with_a_peak_100_times_the_median"] for r in rows
                   if (r["cell"], r["direction"]) == (cell, kind)} for kind in KINDS
        } for cell in steps
    }  # fmt: skip
    spacing = float(offsets[1] - offsets[0])
    metrics = {
        "rows": rows, "share_of_seeds_with_a_peak_100_times_the_median": shares, "spacing_of_the_samples": spacing,
        "note": "spacing in units of the direction's length; narrower peaks can be missed: shares are lower bounds",
        "the_lessons_own_setting": lesson, "steepest": worst,
    }  # fmt: skip
    arrays = {"offsets": offsets} | {f"{c} / {n} / {d}": v.astype(np.float32) for (c, n, d), v in norms.items()}
    folder = common.save(
        "cliff_scan", metrics=metrics, settings=dataclasses.asdict(config), started=started, seed=config.seed,
        arrays=arrays, figures={"cliff_scan": fig},
    )  # fmt: skip
    for r in rows:
        middle, _, most = r["peak_over_median"]
        print(
            f"{r['cell']:4} {r['init']:18} {r['direction']:22}: peak / median {middle:.3g} (median seed), "
            f"{most:.3g} (largest); "
            f"{r['share_with_a_peak_100_times_the_median']:.0%} above 100; largest norm {r['largest_norm']:.3g}"
        )
    print(
        f"share of {config.seeds} seeds with a peak above 100 x the median, sampled every {spacing:g} of the direction:"
    )
    for cell, kinds in shares.items():
        for kind, row in kinds.items():
            print(f"{cell:4} {kind:22}: " + ", ".join(f"{name} {share:.0%}" for name, share in row.items()))
    return folder


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
