"""The paper's hypothesis along real training: where the gradient explodes, curvature explodes in the same direction.

Pascanu, Mikolov & Bengio (2012, section 2.4) suppose that "when gradients explode so does the curvature along v" and
that gradient and leading eigenvector of the curvature are aligned. Here: temporal order (T = 20, 50 tanh units), plain
SGD, 32 seeds with clipping at norm 1 (the ICML 2013 setting) and the same seeds without. The steps whose gradient norm
is in the top 1 % of their run are compared with random steps of the run, and with the typical step of the 50 before
each (so that the phase of training is the same). Gradient and Hessian are those of the step's own mini-batch; the
Hessian is measured on a second, fresh mini-batch too ("fresh"), which shares no noise with the gradient that was picked
for its size. Ratios are of medians within a seed; intervals are bootstraps over seeds.
"""

import dataclasses
import functools
import heapq
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec as P
from scipy import stats

from cliffs import curvature, initializers, rnn, smoothness, spectrum, sweep, tasks, training
from experiments import common

GROUPS = ("top 1 %", "typical step before", "random step")
CHUNK = 50  # steps between two looks of the host; also the window in which a typical step is sought


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    seeds: int = 32
    steps: int = 3000
    learning_rate: float = 0.01
    max_norms: tuple[float, ...] = (1.0, float("inf"))
    length: int = 20
    hidden: int = 50
    batch: int = 20
    init: str = "smart_tanh"
    points: int = 20
    """Steps per run and group whose curvature is measured."""
    iterations: int = 25
    """Lanczos iterations."""
    top: int = 5
    """Size of the eigenspace whose share of the gradient's energy is measured: the largest |eigenvalues| among so many
    leading ones and the smallest."""
    smoothness_every: int = 10
    smoothness_batch: int = 100
    """Sequences of the fixed held-out batch on which smoothness is measured."""
    resamples: int = 2000


def key_of(seed, what):
    """The key of one purpose of one run."""
    return jax.random.fold_in(jax.random.key(seed), what)


class Problem:
    """The functions of one configuration; parameters travel as flat vectors."""

    def __init__(self, config: Config):
        self.config = config
        self.step = rnn.rnn_step("tanh")
        self.task_loss = training.classification_loss(self.step)
        flat, self.unravel = ravel_pytree(initializers.paper_init(config.init, jax.random.key(0), 6, config.hidden, 4))
        self.size = flat.size

    def logits(self, flat, batch):
        params, inputs = self.unravel(flat), batch.inputs
        start = jnp.zeros((*inputs.shape[1:-1], self.config.hidden))
        return rnn.readout(params.readout, rnn.unroll(self.step, params.rnn, start, inputs)[-1])

    def batch(self, seed, step, what=1):
        key = jax.random.fold_in(key_of(seed, what), step)
        return tasks.temporal_order(key, self.config.batch, self.config.length)

    def loss(self, flat, batch):
        return self.task_loss(self.unravel(flat), batch)

    def optimizer(self, max_norm):
        return optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(self.config.learning_rate))

    def init(self, seed, max_norm):
        params = initializers.paper_init(self.config.init, key_of(seed, 0), 6, self.config.hidden, 4)
        return training.init_train_state(ravel_pytree(params)[0], self.optimizer(max_norm))

    def train(self, state, seed, max_norm):
        """`CHUNK` steps: the state after them, gradient norms and losses, parameters before each step."""

        def body(state, _):
            batch = self.batch(seed, state.step)
            new, metrics = training.train_step(state, batch, self.loss, self.optimizer(max_norm))
            return new, (metrics.grad_norm, metrics.loss, state.params)

        return jax.lax.scan(body, state, length=CHUNK)

    def smooth(self, path, seed):
        """Local smoothness on the run's held-out batch at every `smoothness_every`-th step of a chunk."""
        batch = tasks.temporal_order(key_of(seed, 2), self.config.smoothness_batch, self.config.length)
        starts = jnp.arange(0, CHUNK - 1, self.config.smoothness_every)

        def one(i):
            return smoothness.smoothness_between(lambda p: self.loss(p, batch)[0], path[i], path[i + 1])

        return jax.lax.map(one, starts)

    def measure(self, flat, seed, step):
        """Everything about the curvature at one step's parameters on its mini-batch."""
        config, batch = self.config, self.batch(seed, step)
        gradient = jax.grad(lambda p: self.loss(p, batch)[0])(flat)
        matvec = curvature.hessian_operator(lambda p: self.loss(p, batch)[0], flat)
        part = curvature.gauss_newton_operator(
            lambda p: self.logits(p, batch),
            lambda y: optax.softmax_cross_entropy_with_integer_labels(y, batch.targets).mean(),
            flat,
        )
        key = jax.random.fold_in(key_of(seed, 3), step)
        pairs = curvature.eigenpairs(matvec, flat, key, num_leading=config.top, num_trailing=1,
                                     num_iterations=config.iterations, tolerance=1e-2)  # fmt: skip
        gauss_newton = curvature.eigenpairs(part, flat, key, num_iterations=config.iterations, tolerance=1e-2)
        fresh_batch = self.batch(seed, step, what=4)
        fresh = curvature.hessian_operator(lambda p: self.loss(p, fresh_batch)[0], flat)
        other = curvature.eigenpairs(fresh, flat, key, num_trailing=1, num_iterations=config.iterations)
        found = curvature.alignment(gradient, pairs)
        first, other_first = (jnp.argmax(jnp.abs(p.values)) for p in (pairs, other))
        return {
            "grad_norm": optax.tree.norm(gradient),
            "largest": pairs.values[0],
            "smallest": pairs.values[-1],
            "leading": jnp.abs(pairs.values[first]),
            "converged": pairs.converged[first],
            "cosine": found.cosines[first],
            "share": found.share[config.top - 1],
            "along_gradient": curvature.curvature_along(matvec, gradient),
            "fresh_leading": jnp.abs(other.values[other_first]),
            "fresh_cosine": curvature.alignment(gradient, other).cosines[other_first],
            "gauss_newton": gauss_newton.values[0],
            "gauss_newton_cosine": curvature.alignment(gradient, gauss_newton).cosines[0],
        }


def over_runs(function, runs: int):
    """`function` of one run over the leading axis of its arguments, one run per lane, on all devices."""
    count = max(k for k in range(1, jax.local_device_count() + 1) if runs % k == 0)
    mesh = jax.make_mesh((count,), ("runs",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:count])

    def on_one_device(*args):
        return jax.lax.map(lambda run: function(*run), args)

    return jax.jit(jax.shard_map(on_one_device, mesh=mesh, in_specs=P("runs"), out_specs=P("runs"), check_vma=False))


def train_and_pick(problem: Problem, seeds: np.ndarray, max_norms: np.ndarray) -> dict:
    """Train all runs; keep the parameters of the top 1 % steps, of a typical step before each, and of random steps.

    The top 1 % is known only at the end, so the largest norms so far are kept with their parameters and give way to
    larger ones: nothing is replayed, the memory is a hundredth of the path.
    """
    config, runs = problem.config, len(seeds)
    keep = config.steps // 100
    train, smooth = over_runs(problem.train, runs), over_runs(problem.smooth, runs)
    state = over_runs(problem.init, runs)(seeds, max_norms)
    rng = np.random.default_rng(0)
    wanted = np.stack([np.sort(rng.choice(config.steps, config.points, replace=False)) for _ in seeds])
    random = np.zeros((*wanted.shape, problem.size), np.float32)
    top: list[list] = [[] for _ in seeds]  # heaps of (norm, step, parameters, step before, parameters before)
    norms, losses, smooths, norm_window, path_window = [], [], [], np.zeros(0), np.zeros(0)
    for first in range(0, config.steps, CHUNK):
        state, (norm, loss, path) = train(state, seeds, max_norms)
        smooths.append(smooth(path, seeds))
        norm, path = np.asarray(norm), np.asarray(path)
        norms.append(norm)
        losses.append(np.asarray(loss))
        # Two chunks together hold the window before every step of the newer one; `first - offset` is its place there.
        norm_window = norm if not first else np.concatenate([norm_window[:, -CHUNK:], norm], 1)
        path_window = path if not first else np.concatenate([path_window[:, -CHUNK:], path], 1)
        offset = first + CHUNK - norm_window.shape[1]
        for run in range(runs):
            for j in np.flatnonzero((wanted[run] >= first) & (wanted[run] < first + CHUNK)):
                random[run, j] = path_window[run, wanted[run, j] - offset]
            size = np.where(np.isfinite(norm_window[run]), norm_window[run], -1.0)
            for i in range(max(1, first - offset), len(size)):
                if len(top[run]) == keep and size[i] <= top[run][0][0]:
                    continue
                begin = max(0, i - CHUNK)
                typical = begin + np.argsort(size[begin:i])[(i - begin - 1) // 2]
                point, before = (path_window[run, k].copy() for k in (i, typical))
                heapq.heappush(top[run], (size[i], i + offset, point, typical + offset, before))
                if len(top[run]) > keep:
                    heapq.heappop(top[run])
    # A random `points` of the top 1 %, so that all groups are of one size.
    some = [[heap[i] for i in rng.choice(keep, config.points, replace=False)] for heap in top]
    _, step, params, before_step, before = (np.array([[entry[j] for entry in run] for run in some]) for j in range(5))
    return {
        "params": np.stack([params, before, random], 1), "step": np.stack([step, before_step, wanted], 1),
        "norm": np.concatenate(norms, 1), "loss": np.concatenate(losses, 1),
        "diverged_at": np.asarray(state.diverged_at),
        "smoothness": jax.tree.map(lambda *x: np.concatenate([np.asarray(v) for v in x], 1), *smooths),
    }  # fmt: skip


def over_seeds(values, resamples: int) -> dict:
    """The median over seeds with its 95 % bootstrap interval (percentiles)."""
    values = np.asarray(values, float)
    draws = np.random.default_rng(1).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(np.median(values[draws], axis=1), [0.025, 0.975])
    return {"median": float(np.median(values)), "interval": [float(low), float(high)], "values": values}


def compare(found: dict, config: Config) -> dict:
    """Ratios and differences between groups, one number per seed, then over seeds; leaves `[runs, group, point]`."""
    out = {}
    for other, name in ((1, "before"), (2, "random")):
        for quantity in ("grad_norm", "leading", "fresh_leading", "gauss_newton"):
            middle = np.median(found[quantity], -1)
            out[f"{quantity}_ratio_{name}"] = over_seeds(middle[:, 0] / middle[:, other], config.resamples)
        # Along the gradient the curvature has a sign: its size is compared here, the sign is counted below.
        middle = np.median(np.abs(found["along_gradient"]), -1)
        out[f"along_gradient_ratio_{name}"] = over_seeds(middle[:, 0] / middle[:, other], config.resamples)
        for quantity in ("cosine", "fresh_cosine", "share"):
            middle = found[quantity].mean(-1)
            out[f"{quantity}_difference_{name}"] = over_seeds(middle[:, 0] - middle[:, other], config.resamples)
    for group, name in enumerate(("top", "before", "random")):
        out[name] = {
            "cosine": over_seeds(found["cosine"][:, group].mean(-1), config.resamples),
            "fresh_cosine": over_seeds(found["fresh_cosine"][:, group].mean(-1), config.resamples),
            "gauss_newton_cosine": over_seeds(found["gauss_newton_cosine"][:, group].mean(-1), config.resamples),
            "share": over_seeds(found["share"][:, group].mean(-1), config.resamples),
            "gauss_newton_over_hessian": over_seeds(
                np.median(found["gauss_newton"][:, group] / found["leading"][:, group], -1), config.resamples),
            "positive_along_gradient": float((found["along_gradient"][:, group] > 0).mean()),
            "leading_is_positive": float((found["largest"][:, group] >= -found["smallest"][:, group]).mean()),
            "converged": float(found["converged"][:, group].mean()),
        }  # fmt: skip
    # How fast curvature grows with the gradient: 1 is Zhang's condition, 2 that of one exploding output direction.
    out["slope"] = over_seeds([slope(x, y) for x, y in zip(found["grad_norm"], found["leading"])], config.resamples)
    return out


def slope(x, y) -> float:
    """The least-squares slope of log y on log x."""
    x, y = (np.log(v).ravel() for v in (x, y))
    return float(np.polyfit(x - x.mean(), y - y.mean(), 1)[0])


def fit_paths(smooth: smoothness.Smoothness, config: Config) -> dict:
    """(L0, L1) of every run with its interval over seeds, and of the 99 % bound; how much better than a constant."""
    weights = np.asarray(smooth.resolved, np.float32)
    fits = {}
    for name, quantile in (("median", 0.5), ("bound", 0.99)):
        fit = jax.vmap(lambda y, g, w, q=quantile: smoothness.fit_smoothness(y, g, quantile=q, weights=w))(
            smooth.smoothness, smooth.grad_norm, weights
        )
        fits[name] = {k: over_seeds(getattr(fit, k), config.resamples) for k in ("l0", "l1")}
        fits[name]["error_over_constant"] = over_seeds(fit.error / fit.constant_error, config.resamples)
    pairs = [(g[w > 0], y[w > 0]) for y, g, w in zip(smooth.smoothness, smooth.grad_norm, weights)]
    fits["rank_correlation"] = over_seeds([stats.spearmanr(*p).statistic for p in pairs], config.resamples)
    fits["slope"] = over_seeds([slope(*p) for p in pairs], config.resamples)
    return fits | {"resolved": float(weights.mean())}


def verdict(result: dict) -> str:
    """One sentence; a claim is held when its 95 % interval over seeds excludes no effect, against both controls."""

    def above(name, bound):
        return all(result[f"{name}_{other}"]["interval"][0] > bound for other in ("before", "random"))

    def word(holds):
        return "is" if holds else "is not clearly"

    return (
        f"at the largest gradients the leading curvature {word(above('leading_ratio', 1))} larger, the curvature along "
        f"the gradient {word(above('along_gradient_ratio', 1))} larger, and the gradient "
        f"{word(above('cosine_difference', 0))} closer to the leading eigenvector; with the Hessian of fresh data the "
        f"leading curvature {word(above('fresh_leading_ratio', 1))} larger and the gradient "
        f"{word(above('fresh_cosine_difference', 0))} closer"
    )


def figures(groups: dict, smooths: dict, fits: dict, results: dict, density) -> dict:
    """The three figures."""
    from cliffs.plotting import COLORS, figure
    from cliffs.plotting import curvature as draw

    colors = dict(zip(GROUPS, (COLORS["unclipped"], COLORS["clipped"], COLORS["unstable"])))
    quantities = {
        "grad_norm": "gradient norm",
        "leading": "leading |eigenvalue|",
        "along_gradient": "|curvature| along g",
    }
    rows = {}
    for name, found in groups.items():
        ratios = [
            {"label": f"{words}\nagainst {what}", "color": colors[GROUPS[place]]}
            | results[name][f"{key}_ratio_{other}"]
            for key, words in quantities.items()
            for place, other, what in ((1, "before", "typical"), (2, "random", "random"))
        ]
        title = f"{name}: slope {results[name]['slope']['median']:.2f}"
        steps = {
            g: {k: found[k][:, i].ravel() for k in ("grad_norm", "leading", "cosine")} for i, g in enumerate(GROUPS)
        }
        rows[title] = (steps, ratios)
    made = {"alignment": draw.plot_alignment(rows, colors, chance=next(iter(groups.values()))["size"] ** -0.5)}
    fig, axes = figure(1, len(groups), size=(5.5 * len(groups), 4.2), squeeze=False, sharey=True)
    for ax, name in zip(axes[0], groups):
        s, lines = smooths[name], {}
        for which, words, color in (("median", "median", "stable"), ("bound", "99 % bound", "accent")):
            l0, l1 = (fits[name][which][k]["median"] for k in ("l0", "l1"))
            lines[f"{words} of the median seed: L0 = {l0:.2g}, L1 = {l1:.2g}"] = (l0, l1, COLORS[color])
        mask = np.asarray(s.resolved)
        draw.plot_smoothness(ax, s.smoothness[mask], s.grad_norm[mask], lines)
        ax.set_title(f"{name}: rank correlation {fits[name]['rank_correlation']['median']:.2f}")
    made["smoothness"] = fig
    points, curves = density
    made["density"], ax = figure()
    draw.plot_spectral_density(ax, points, {k: (v, colors[k]) for k, v in curves.items()})
    ax.set_title("spectrum at the largest gradient of one clipped run")
    return made


def spectra(problem: Problem, picked: dict) -> tuple[np.ndarray, dict]:
    """Spectral densities at the largest gradient kept of the first run and at the typical step before it."""
    place = np.argmax(picked["norm"][0][picked["step"][0, 0]])
    nodes = {}
    for group in (0, 1):
        flat, step = jnp.asarray(picked["params"][0, group, place]), picked["step"][0, group, place]
        here = functools.partial(problem.loss, batch=problem.batch(0, step))
        matvec = curvature.hessian_operator(lambda p, here=here: here(p)[0], flat)
        nodes[GROUPS[group]] = spectrum.spectral_density(matvec, flat, jax.random.key(4), num_probes=6)
    reach = max(float(jnp.max(jnp.abs(d.nodes))) for d in nodes.values())
    low = min(float(jnp.min(d.nodes)) for d in nodes.values())
    points = np.linspace(low - 0.05 * reach, 1.05 * reach, 1500)
    return points, {k: np.asarray(spectrum.smoothed(d, jnp.asarray(points), 0.006 * reach)) for k, d in nodes.items()}


def main(config: Config) -> dict:
    """Train, measure, compare, write the result."""
    started = time.perf_counter()
    if config.steps % CHUNK or not 1 <= config.points <= config.steps // 100:
        raise ValueError(f"steps must be a multiple of {CHUNK} and points at most steps / 100, got {config}")
    problem = Problem(config)
    results, groups, smooths, fits, arrays, density = {}, {}, {}, {}, {}, None
    for max_norm in config.max_norms:
        name = f"clipped at {max_norm:g}" if np.isfinite(max_norm) else "unclipped"
        seeds = np.arange(config.seeds)
        picked = train_and_pick(problem, seeds, np.full(config.seeds, max_norm, np.float32))
        trained = time.perf_counter()
        density = spectra(problem, picked) if density is None else density
        shape = picked["step"].shape
        flat, which = picked["params"].reshape(-1, problem.size), np.broadcast_to(seeds[:, None, None], shape).ravel()
        found = over_runs(problem.measure, which.size)(flat, which, picked["step"].ravel())
        found = {k: np.asarray(v).reshape(shape) for k, v in found.items()}
        # The parameters kept are those of the step: its gradient norm comes out again.
        recorded = np.take_along_axis(picked["norm"], picked["step"].reshape(len(seeds), -1), 1).reshape(shape)
        np.testing.assert_allclose(found["grad_norm"], recorded, rtol=1e-2)
        results[name], smooths[name] = compare(found, config), picked["smoothness"]
        fits[name] = fit_paths(picked["smoothness"], config)
        groups[name] = found | {"size": problem.size}
        results[name] |= {
            "verdict": verdict(results[name]), "smoothness": fits[name],
            "final_loss": over_seeds(picked["loss"][:, -CHUNK:].mean(1), config.resamples),
            "norm_quantiles": dict(zip(("median", "p99", "max"), np.nanquantile(picked["norm"], [0.5, 0.99, 1.0]))),
            "diverged": int((picked["diverged_at"] >= 0).sum()),
        }  # fmt: skip
        kept = {k: v.astype(np.float32) for k, v in found.items()} | {"step": picked["step"].astype(np.int32)}
        kept |= {f"path_{k}": np.asarray(getattr(picked["smoothness"], k)) for k in ("smoothness", "grad_norm")}
        arrays |= {f"{name.replace(' ', '_')}_{k}": v for k, v in kept.items()}
        r = results[name]
        print(f"{name} ({trained - started:.0f} s of training): {r['verdict']}")
        for key in [k.removesuffix("_before") for k in r if k.endswith("_before")]:
            text = [f"{r[f'{key}_{o}']['median']:.3g} {np.round(r[f'{key}_{o}']['interval'], 3)} against {o}"
                    for o in ("before", "random")]  # fmt: skip
            print(f"  {key}: " + "; ".join(text))
        print(f"  slope {r['slope']['median']:.2f} {np.round(r['slope']['interval'], 2)}", flush=True)
    common.save(
        "curvature_alignment", metrics=results, settings=dataclasses.asdict(config), started=started, seed=0,
        arrays=arrays, figures=figures(groups, smooths, fits, results, density),
    )  # fmt: skip
    return results


if __name__ == "__main__":
    import tyro

    sweep.use_all_cores()
    main(tyro.cli(Config))
