"""The law of the cliff: how high and how narrow a wall of the loss is, against the sequence length T.

    python experiments/cliff_law.py

Three kinds of walls in one dimension, each measured with the same tool:

- where the start state crosses the boundary of two basins (Fig. 3): peak `C m^T`, width `C' m^-T`, with m the
  multiplier of the unstable fixed point on the boundary;
- where an attractor vanishes in a fold: the passage through the bottleneck takes `pi / sqrt(mu)` steps, so the wall
  stands at `mu ~ T^-2` from the fold and its width is `~ T^-3`;
- where a fixed point loses its stability, `x_T = w^T x_0` with a bounded read-out at w = 1: width `~ 1/T`.

Then networks of 50 units trained on temporal order at T = 20 whose sequences are prolonged by distractors: the
steepest wall at T = 20 along the gradient, the Hessian's leading eigenvector and random directions, followed to each
longer T, and which law describes its width.
"""

import concurrent.futures
import dataclasses
import pathlib
import sys
import time
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    w: tuple[float, ...] = (4.5, 5.0, 5.5, 6.0)
    """Recurrent weights of the one-unit map at which the law is fitted."""
    lengths: tuple[int, ...] = (25, 40, 50, 70, 85, 100)
    networks: int = 4
    network_lengths: tuple[int, ...] = (20, 30, 45, 70, 100)
    random_directions: int = 2
    hidden: int = 50
    sequences: int = 4
    """In the loss of the trained networks."""
    updates: int = 4000
    learning_rate: float = 0.03
    threshold: float = 1.0
    reach: float = 0.3
    """Walls are sought up to this far along a direction of the length of the parameters."""
    window: float = 2.0
    """At the next length the wall is looked for this many of its widths to both sides of where it stood."""
    learned: float = 0.1
    """Networks whose training error at T = 20 is above this are measured, but not part of the verdict."""
    seed: int = 0


NAMES = {
    "gradient": "along the gradient",
    "hessian": "along the Hessian's eigenvector",
    "random": "along random directions",
}


def one_unit(config: Config):
    """The law at several w, with the multiplier and the boundary found independently."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from cliffs.landscape import (
        boundary_multiplier,
        cliff_law,
        cliff_profiles,
        compare_laws,
        locate_boundary,
        parameter_direction,
        state_after,
    )
    from cliffs.recurrent import OneUnitParams, one_unit_step

    lengths = np.array(config.lengths)

    def loss(params, length):
        x = state_after(one_unit_step, params, jnp.asarray(0.5), length, max_length=max(config.lengths))
        return (jax.nn.sigmoid(x) - 0.7) ** 2

    def boundary(w):
        def final(b):
            return state_after(one_unit_step, OneUnitParams(w, b), jnp.asarray(0.5), 400, max_length=400)

        return locate_boundary(final, -4.0, -1.5)

    boundary = jax.jit(boundary)
    rows, shown = [], None
    for w in config.w:
        b = boundary(jnp.asarray(w))
        starts = jnp.linspace(-4.0, 4.0, 17)[:, None]
        m = boundary_multiplier(one_unit_step, OneUnitParams(jnp.asarray(w), b), starts)
        base = OneUnitParams(w, 0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # unresolved walls are left out of the fit
            profiles = cliff_profiles(loss, lengths, base, parameter_direction(base, "b"), (-4.0, -1.5))
        good = profiles.resolved & ~profiles.cut_off
        law = cliff_law(
            lengths[good], jax.tree.map(lambda x, good=good: x[good], profiles), multiplier=m, corrections=2
        )
        versus = compare_laws(lengths[good], profiles.width[good])
        rows.append({
            "w": w, "boundary": float(b), "multiplier": m, "law": law._asdict(), "deviation": law.deviation,
            "lengths": lengths[good], "peak": profiles.peak[good], "width": profiles.width[good],
            "width_exponential_against_power": versus._asdict(),
        })  # fmt: skip
        if w == 5.0:
            shown = (profiles, law, m, loss)
    return rows, shown


def kinds(lengths):
    """Width and peak of the three kinds of walls at these lengths."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from cliffs.landscape import cliff_profiles, compare_laws, parameter_direction, state_after
    from cliffs.recurrent import OneUnitParams, linear_step, one_unit_step

    most = int(max(lengths))

    def one_unit_loss(start):
        def loss(params, length):
            x = state_after(one_unit_step, params, jnp.asarray(start), length, max_length=most)
            return (jax.nn.sigmoid(x) - 0.7) ** 2

        return loss

    def linear_loss(w, length):
        x = state_after(linear_step, w[None, None], jnp.ones(1), length, max_length=most)
        return (jnp.tanh(x[0]) - 0.7) ** 2

    base = OneUnitParams(5.0, 0.0)
    bias = parameter_direction(base, "b")
    cases = {
        "basin boundary (w = 5, x0 = 0.5)": (one_unit_loss(0.5), base, bias, (-4.0, -1.5)),
        # Started on the upper branch, the state stays there until the branch ends at b = -2.6556.
        "fold (w = 5, x0 = 3)": (one_unit_loss(3.0), base, bias, (-3.4, -2.3)),
        "loss of stability (x_T = w^T, bounded read-out)": (linear_loss, jnp.asarray(0.0), 1.0, (0.5, 1.02)),
    }
    out = {}
    for name, (loss, params, direction, bounds) in cases.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            profiles = cliff_profiles(loss, lengths, params, direction, bounds)
        keep = profiles.resolved & ~profiles.cut_off
        end = np.log(profiles.width[keep][-2:]), np.log(np.asarray(lengths)[keep][-2:])
        out[name] = {
            "width_exponent_between_the_two_largest_lengths": float(np.diff(end[0])[0] / np.diff(end[1])[0]),
            "lengths": np.asarray(lengths)[keep], "width": profiles.width[keep], "peak": profiles.peak[keep],
            "position": profiles.position[keep],
            "width_laws": compare_laws(np.asarray(lengths)[keep], profiles.width[keep])._asdict(),
            "peak_laws": compare_laws(np.asarray(lengths)[keep], profiles.peak[keep])._asdict(),
        }  # fmt: skip
    return out


def networks(config: Config):
    """Train on temporal order at T = 20, then follow one wall along every direction from length to length."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from cliffs import recurrent, tasks, training
    from cliffs.landscape import (
        cliff_profiles,
        compare_laws,
        eigenvector_direction,
        gradient_direction,
        random_direction,
    )

    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    root = jax.random.key(config.seed)
    chain = optax.chain(optax.clip_by_global_norm(config.threshold), optax.sgd(config.learning_rate))

    def train(seed):
        key = jax.random.fold_in(root, seed)
        params = recurrent.paper_init("basic_tanh", jax.random.fold_in(key, 0), 6, config.hidden, 4)
        return training.fit(
            loss, chain, params, lambda k: tasks.temporal_order(k, 20, 20), jax.random.fold_in(key, 1), config.updates
        )  # fmt: skip

    trained, history = jax.jit(lambda seeds: jax.lax.map(train, seeds))(jnp.arange(config.networks))
    errors = np.asarray(history.aux)[:, -100:].mean(1)
    trained = jax.tree.map(np.asarray, trained.params)
    longest = max(config.network_lengths)
    key_batch, key_rest, key_direction = jax.random.split(jax.random.fold_in(root, 10_000), 3)
    key_hessian = jax.random.fold_in(root, 20_000)
    batch = tasks.temporal_order(key_batch, config.sequences, 20)
    rest = jax.nn.one_hot(jax.random.randint(key_rest, (longest - 20, config.sequences), 2, 6), 6)
    inputs = np.concatenate([np.asarray(batch.inputs), np.asarray(rest)])

    def measure(device, members):
        """All lines of some networks on one device; the lines of several devices run side by side."""
        rows = []
        with jax.default_device(device), jax.enable_x64(True):
            data = tasks.SequenceBatch(jnp.asarray(inputs, float), jnp.asarray(np.asarray(batch.targets)), 20)

            def cost(params, length):
                return loss(params, data._replace(length=length))[0]

            gradient = jax.jit(lambda p: gradient_direction(lambda q: cost(q, 20), p))
            hessian = jax.jit(lambda p, key: eigenvector_direction(lambda q: cost(q, 20), p, key))
            for i in members:
                params = jax.tree.map(lambda x, i=i: jnp.asarray(x[i], float), trained)
                size = optax.tree.norm(params)
                directions = {
                    "gradient": optax.tree.scale(size, gradient(params)),
                    "hessian": optax.tree.scale(size, hessian(params, jax.random.fold_in(key_hessian, i))),
                }
                for j in range(config.random_directions):
                    key = jax.random.fold_in(key_direction, i * config.random_directions + j)
                    directions[f"random {j}"] = random_direction(key, params, normalize="filter")
                for name, direction in directions.items():
                    found, bounds = [], (-config.reach, config.reach)
                    for length in config.network_lengths:
                        wall = cliff_profiles(
                            cost, np.array([length]), params, direction, bounds,
                            num_points=129, num_walls=2, chunk_size=1,
                        )  # fmt: skip
                        found.append(wall)
                        # The steepest wall of all of the line is another one at each length: stay with this one.
                        near = np.array([-1, 1]) * min(config.window * wall.width[0], config.reach)
                        bounds = np.clip(wall.position[0] + near, -config.reach, config.reach)
                    fields = ("position", "peak", "width", "floor", "resolved", "cut_off")
                    table = {k: np.array([getattr(p, k)[0] for p in found]) for k in fields}
                    use = table["resolved"] & ~table["cut_off"]
                    row = {
                        "network": i, "direction": name, "training_error": errors[i],
                        "learned": bool(errors[i] <= config.learned), **table,
                    }  # fmt: skip
                    if use.sum() >= 4:
                        lengths = np.array(config.network_lengths)[use]
                        row["width_laws"] = compare_laws(lengths, table["width"][use])._asdict()
                        row["peak_laws"] = compare_laws(lengths, table["peak"][use])._asdict()
                    rows.append(row)
        return rows

    devices = jax.local_devices()
    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
        warnings.simplefilter("ignore", UserWarning)  # `resolved` says the same of each wall
        shares = [range(k, config.networks, len(devices)) for k in range(len(devices))]
        rows = [row for part in pool.map(measure, devices, shares) for row in part]
    rows.sort(key=lambda row: (row["network"], row["direction"]))
    return rows, errors


def main(config: Config) -> pathlib.Path:
    """Measure, draw, write results/cliff_law/."""
    from cliffs.sweeps import use_all_cores

    use_all_cores()
    import jax
    import numpy as np

    from cliffs.landscape import parameter_direction, sample_line
    from cliffs.plotting import COLORS, figure, plot_cliff_law, plot_profile
    from cliffs.recurrent import OneUnitParams
    from experiments import common

    started = time.perf_counter()
    with jax.enable_x64(True):
        rows, (profiles, law, m, loss) = one_unit(config)
        kind_lengths = np.array([20, 40, 80, 160, 320, 640])
        walls = kinds(kind_lengths)
        base = OneUnitParams(5.0, 0.0)
        lines = {}
        for i in (0, 2, len(config.lengths) - 1):
            t, wide = config.lengths[i], 8 * profiles.width[i]
            middle = profiles.position[i]
            lines[t] = sample_line(
                lambda p, t=t: loss(p, t), base, parameter_direction(base, "b"), (middle - wide, middle + wide),
                tolerance=1e-3,
            )  # fmt: skip
    nets, errors = networks(config)
    lengths = np.array(config.lengths)

    one, axes = figure(1, 3, size=(14, 4))
    plot_cliff_law(
        axes[0], lengths, profiles.peak,
        {
            f"{law.peak_constant:.4f} · {law.peak_multiplier:.4f}$^T$": (
                lambda t: law.peak_constant * law.peak_multiplier**t
            )
        },
        name="peak of |dE/db|",
    )  # fmt: skip
    axes[0].set_title(f"w = 5; the boundary's multiplier is {m:.4f}")
    plot_cliff_law(
        axes[1], lengths, profiles.width,
        {
            f"{law.width_constant:.4f} · {law.width_multiplier:.4f}$^{{-T}}$": (
                lambda t: law.width_constant * law.width_multiplier**-t
            ),
            "~ 1/T": lambda t: profiles.width[0] * lengths[0] / t,
        },
        name="width at half maximum",
    )  # fmt: skip
    for i, t in zip((0, 2, len(lengths) - 1), lines):
        profile = jax.tree.map(lambda x, i=i: x[i], profiles)
        plot_profile(axes[2], lines[t].offsets, lines[t].slope, profile, label=f"T = {t}")
    axes[2].legend()
    axes[2].set_title("the same wall at every scale")

    three, axes = figure(1, 2, size=(11, 4.4))
    for ax, quantity in zip(axes, ("width", "peak")):
        for (name, wall), color in zip(walls.items(), (COLORS["unclipped"], COLORS["clipped"], COLORS["good"])):
            power = wall[f"{quantity}_laws"]
            best = f"T^{power['exponent']:.2f}" if power["delta_aic"] < 0 else f"{np.exp(power['rate']):.3f}^T"
            ax.plot(wall["lengths"], wall[quantity], "o-", color=color, markersize=4, label=f"{name}: {best}")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("sequence length T")
        ax.set_ylabel(f"{quantity} of the wall")
        ax.set_xticks(kind_lengths, [str(t) for t in kind_lengths])
        ax.minorticks_off()
    axes[0].set_title("three kinds of walls, three laws")
    axes[1].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))

    fig, axes = figure(1, 2, size=(11, 4.4))
    for ax, quantity in zip(axes, ("width", "peak")):
        drawn = set()
        for row in nets:
            kind = row["direction"].split()[0]
            color = COLORS[{"gradient": "unclipped", "hessian": "good"}.get(kind, "clipped")]
            use = row["resolved"] & ~row["cut_off"]
            ax.plot(np.array(config.network_lengths)[use], row[quantity][use], marker="o", color=color, alpha=0.6,
                    markersize=3.5, linestyle="-" if row["learned"] else ":",
                    label=None if kind in drawn else NAMES[kind])  # fmt: skip
            drawn.add(kind)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("sequence length T")
        ax.set_ylabel(f"{quantity} of the wall")
        ax.set_xticks(config.network_lengths, [str(t) for t in config.network_lengths])
        ax.minorticks_off()
    axes[0].set_title(f"one wall for each line, {config.networks} networks (dotted: did not learn)", fontsize=10)
    axes[1].legend()
    verdict = judge(nets)
    metrics = {
        "one_unit": rows, "kinds": walls, "networks": nets, "network_errors_at_T20": errors, "verdict": verdict,
    }  # fmt: skip
    folder = common.save(
        "cliff_law", metrics=metrics, settings=dataclasses.asdict(config), started=started, seed=config.seed,
        figures={"one_unit": one, "kinds": three, "networks": fig},
    )  # fmt: skip
    for row in rows:
        print(
            f"w = {row['w']}: multiplier {row['multiplier']:.6f}; from the peaks {row['deviation'][0]:+.1e}, from the "
            f"widths {row['deviation'][1]:+.1e}; constants {row['law']['peak_constant']:.4f}, "
            f"{row['law']['width_constant']:.5f}"
        )
    for name, wall in walls.items():
        w = wall["width_laws"]
        last = wall["width_exponent_between_the_two_largest_lengths"]
        print(
            f"{name}: width ~ T^{w['exponent']:.2f} (at the end T^{last:.3f}) or {np.exp(w['rate']):.4f}^T, "
            f"delta AIC {w['delta_aic']:+.1f}"
        )
    for name, part in verdict.items():
        print(f"{name}: {part}")
    return folder


def judge(rows):
    """Which law the widths follow: counts over the lines of networks that learned, by kind of direction.

    Growth of the peak and narrowing compare the ends of the range of lengths, where both walls are resolved.
    """
    learned = [r for r in rows if r["learned"]]
    kinds_of = {kind: [r for r in learned if r["direction"].split()[0] == kind] for kind in NAMES}
    verdict = {name: _count(part) for name, part in ({"all": learned} | kinds_of).items()}
    lost = {r["network"] for r in rows if not r["learned"]}
    return verdict | {"networks": {"learned": len({r["network"] for r in learned}), "left_out": len(lost)}}


def _count(rows):
    import numpy as np

    fitted = [r for r in rows if "width_laws" in r]
    delta = np.array([r["width_laws"]["delta_aic"] for r in fitted])
    use = [r["resolved"] & ~r["cut_off"] for r in rows]
    both = [r for r, u in zip(rows, use) if u[0] and u[-1]]
    ratios = {
        "peak_last_over_first_length_quartiles": [r["peak"][-1] / r["peak"][0] for r in both],
        "width_first_over_last_length_quartiles": [r["width"][0] / r["width"][-1] for r in both],
        "exponent_quartiles": [r["width_laws"]["exponent"] for r in fitted],
        "multiplier_of_width_quartiles": [np.exp(-r["width_laws"]["rate"]) for r in fitted],
    }
    return {
        "lines": len(rows), "fitted": len(fitted), "walls_at_both_ends": len(both),
        "unresolved_or_cut_off_at_the_longest": sum(not u[-1] for u in use),
        "exponential_better_by_4": int((delta > 4).sum()), "power_better_by_4": int((delta < -4).sum()),
        "undecided": int((np.abs(delta) <= 4).sum()),
    } | {k: np.percentile(v, [25, 50, 75]).tolist() if v else None for k, v in ratios.items()}  # fmt: skip


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
