"""The measurements of `cliff_law`: walls of the one-unit map, three kinds of walls, trained networks, the verdict."""

import concurrent.futures
import warnings
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import recurrent, tasks, training
from cliffs.landscape import (
    boundary_multiplier,
    cliff_law,
    cliff_profiles,
    compare_laws,
    eigenvector_direction,
    gradient_direction,
    locate_boundary,
    parameter_direction,
    random_direction,
    state_after,
)
from cliffs.recurrent import OneUnitParams, linear_step, one_unit_step

if TYPE_CHECKING:
    from experiments.hypotheses.cliff_law import Config

KINDS = ("gradient", "hessian", "random")


def one_unit(config: "Config") -> tuple[list[dict[str, Any]], Any]:
    """The law at several w, with the multiplier and the boundary found independently; `(rows, what is drawn)`."""
    lengths = np.array(config.lengths)

    def loss(params, length):
        x = state_after(one_unit_step, params, jnp.asarray(0.5), None, length, max_length=max(config.lengths))
        return (jax.nn.sigmoid(x) - 0.7) ** 2

    def boundary(w):
        def final(b):
            return state_after(one_unit_step, OneUnitParams(w, b), jnp.asarray(0.5), None, 400, max_length=400)

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
        peak, width = np.asarray(profiles.peak)[good], np.asarray(profiles.width)[good]
        versus = compare_laws(lengths[good], width)
        rows.append(
            {
                "w": w,
                "boundary": float(b),
                "multiplier": m,
                "law": law._asdict(),
                "deviation": law.deviation,
                "lengths": lengths[good],
                "peak": peak,
                "width": width,
                "width_exponential_against_power": versus._asdict(),
            }
        )
        if w == config.w_drawn:
            shown = (profiles, law, loss)
    return rows, shown


def kinds(lengths: np.ndarray) -> dict[str, dict[str, Any]]:
    """Width and peak of the three kinds of walls at these lengths."""
    most = int(max(lengths))

    def one_unit_loss(start):
        def loss(params, length):
            x = state_after(one_unit_step, params, jnp.asarray(start), None, length, max_length=most)
            return (jax.nn.sigmoid(x) - 0.7) ** 2

        return loss

    def linear_loss(w, length):
        x = state_after(linear_step, w[None, None], jnp.ones(1), None, length, max_length=most)
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
        kept, width, peak = (np.asarray(x)[keep] for x in (lengths, profiles.width, profiles.peak))
        end = np.log(width[-2:]), np.log(kept[-2:])
        out[name] = {
            "width_exponent_between_the_two_largest_lengths": float(np.diff(end[0])[0] / np.diff(end[1])[0]),
            "lengths": kept,
            "width": width,
            "peak": peak,
            "position": np.asarray(profiles.position)[keep],
            "width_laws": compare_laws(kept, width)._asdict(),
            "peak_laws": compare_laws(kept, peak)._asdict(),
        }
    return out


def networks(config: "Config", say: Any) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Train on temporal order at T = 20, then follow one wall along every direction from length to length.

    Returns a row for each line, and the networks' training errors.
    """
    root = jax.random.key(config.seed)
    trained, errors = train_networks(config, root)
    say(f"trained {config.seeds} networks, errors {np.round(errors, 3).tolist()}")
    # Sequences of T = 20, prolonged by distractors to the longest.
    key_batch, key_rest, _ = jax.random.split(jax.random.fold_in(root, 10_000), 3)
    batch = tasks.temporal_order(key_batch, config.batch, 20)
    shape = max(config.network_lengths) - 20, config.batch
    rest = jax.nn.one_hot(jax.random.randint(key_rest, shape, 2, 6), 6)
    inputs = np.concatenate([np.asarray(batch.inputs), np.asarray(rest)])
    targets = np.asarray(batch.targets)

    def measure(device, members):
        """All lines of some networks on one device; the lines of several devices run side by side."""
        rows = []
        with jax.default_device(device), jax.enable_x64(True):
            loss = training.classification_loss(recurrent.rnn_step("tanh"))
            data = tasks.SequenceBatch(jnp.asarray(inputs, float), jnp.asarray(targets), jnp.asarray(20))

            def cost(params, length):
                return loss(params, data._replace(length=length))[0]

            steepest = jax.jit(lambda p: gradient_direction(lambda q: cost(q, 20), p))
            most_curved = jax.jit(lambda p, key: eigenvector_direction(lambda q: cost(q, 20), p, key))
            for i in members:
                params = jax.tree.map(lambda x, i=i: jnp.asarray(x[i], float), trained)
                lines = {"gradient": steepest(params), "hessian": most_curved(params, hessian_key(root, i))}
                lines = {name: optax.tree.scale(optax.tree.norm(params), line) for name, line in lines.items()}
                for name, direction in (lines | random_directions(config, params, root, i)).items():
                    row = follow_wall(config, cost, params, direction)
                    learned = bool(errors[i] <= config.learned)
                    rows.append(
                        {"network": i, "direction": name, "training_error": errors[i], "learned": learned} | row
                    )
        return rows

    devices = jax.local_devices()
    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
        warnings.simplefilter("ignore", UserWarning)  # `resolved` says the same of each wall
        shares = [range(k, config.seeds, len(devices)) for k in range(len(devices))]
        rows = [row for part in pool.map(measure, devices, shares) for row in part]
    rows.sort(key=lambda row: (row["network"], row["direction"]))
    return rows, errors


def train_networks(config: "Config", root: Any) -> tuple[Any, np.ndarray]:
    """Parameters of every network (leaves `[seeds, ...]`) and the error of their last 100 batches."""
    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    chain = optax.chain(optax.clip_by_global_norm(config.threshold), optax.sgd(config.learning_rate))

    def train(seed):
        key = jax.random.fold_in(root, seed)
        params = recurrent.paper_init("basic_tanh", jax.random.fold_in(key, 0), 6, config.hidden, 4)
        run_key = jax.random.fold_in(key, 1)
        return training.fit(loss, chain, params, lambda k: tasks.temporal_order(k, 20, 20), run_key, config.updates)

    trained, history = jax.jit(lambda seeds: jax.lax.map(train, seeds))(jnp.arange(config.seeds))
    return jax.tree.map(np.asarray, trained.params), np.asarray(history.aux)[:, -100:].mean(1)


def hessian_key(root: Any, i: int) -> Any:
    """Of the Lanczos iterations for network i."""
    return jax.random.fold_in(jax.random.fold_in(root, 20_000), i)


def random_directions(config: "Config", params: Any, root: Any, i: int) -> dict[str, Any]:
    """Random lines of network i, each filter as long as the weights'."""
    root = jax.random.split(jax.random.fold_in(root, 10_000), 3)[2]
    keys = [jax.random.fold_in(root, i * config.random_directions + j) for j in range(config.random_directions)]
    return {f"random {j}": random_direction(key, params, normalize="filter") for j, key in enumerate(keys)}


def follow_wall(config: "Config", cost: Any, params: Any, direction: Any) -> dict[str, Any]:
    """One wall at every length: position, peak, width, floor and, where four of them are resolved, their law."""
    found, bounds = [], (-config.reach, config.reach)
    for length in config.network_lengths:
        options = {"num_points": 129, "num_walls": 2, "chunk_size": 1}
        wall = cliff_profiles(cost, np.array([length]), params, direction, bounds, **options)
        found.append(wall)
        # The steepest wall of all of the line is another one at each length: stay with this one.
        (width,), (position,) = np.asarray(wall.width), np.asarray(wall.position)
        near = np.array([-1, 1]) * min(config.window * width, config.reach)
        low, high = np.clip(position + near, -config.reach, config.reach)
        bounds = float(low), float(high)
    fields = ("position", "peak", "width", "floor", "resolved", "cut_off")
    row: dict[str, Any] = {k: np.array([getattr(p, k)[0] for p in found]) for k in fields}
    use = row["resolved"] & ~row["cut_off"]
    if use.sum() >= 4:
        lengths = np.array(config.network_lengths)[use]
        row["width_laws"] = compare_laws(lengths, row["width"][use])._asdict()
        row["peak_laws"] = compare_laws(lengths, row["peak"][use])._asdict()
    return row


def judge(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Which law the widths follow: counts over the lines of networks that learned, by kind of direction.

    Growth of the peak and narrowing compare the ends of the range of lengths, where both walls are resolved.
    """
    learned = [r for r in rows if r["learned"]]
    kinds_of = {kind: [r for r in learned if r["direction"].split()[0] == kind] for kind in KINDS}
    verdict = {name: _count(part) for name, part in ({"all": learned} | kinds_of).items()}
    lost = {r["network"] for r in rows if not r["learned"]}
    return verdict | {"networks": {"learned": len({r["network"] for r in learned}), "left_out": len(lost)}}


def _count(rows: list[dict[str, Any]]) -> dict[str, Any]:
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
        "lines": len(rows),
        "fitted": len(fitted),
        "walls_at_both_ends": len(both),
        "unresolved_or_cut_off_at_the_longest": sum(not u[-1] for u in use),
        "exponential_better_by_4": int((delta > 4).sum()),
        "power_better_by_4": int((delta < -4).sum()),
        "undecided": int((np.abs(delta) <= 4).sum()),
    } | {k: np.percentile(v, [25, 50, 75]).tolist() if v else None for k, v in ratios.items()}
