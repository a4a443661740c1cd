"""The paper's hypothesis along real training: where the gradient explodes, curvature explodes in the same direction.

Pascanu, Mikolov & Bengio (2012, section 2.4) suppose that "when gradients explode so does the curvature along v" and
that gradient and leading eigenvector of the curvature are aligned. Here: temporal order (T = 20, 50 tanh units), plain
SGD, 32 seeds with clipping at norm 1 (the ICML 2013 setting) and the same seeds without. The steps whose gradient norm
is in the top 1 % of their run are compared with random steps of the run, and with the typical step of the 50 before
each (so that the phase of training is the same). Gradient and Hessian are those of the step's own mini-batch; the
Hessian is measured on a second, fresh mini-batch too ("fresh"), which shares no noise with the gradient that was picked
for its size, and comes first. Many runs do not learn (`learned_loss`): every comparison is made for all runs, for those
that learned and for those that did not. Ratios are of medians within a seed; intervals are bootstraps over seeds.
"""

import dataclasses
import functools
import heapq
import json
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

from cliffs import curvature, recurrent, sweeps, tasks, training
from experiments import common
from experiments.curvature_comparison import SUBSETS, correct, number, over_seeds, slope, split, verdict

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
    learned_loss: float = 0.4
    """A run has learned when its mean loss over the last 50 mini-batches (never seen before) is below this: above it
    lie the plateaus, ln 2 where one of the two symbols is told apart and ln 4 where none is."""
    reanalyse: bool = False
    """Compare and draw again from the arrays that the last full run recorded, without training."""


def key_of(seed, what):
    """The key of one purpose of one run."""
    return jax.random.fold_in(jax.random.key(seed), what)


class Problem:
    """The functions of one configuration; parameters travel as flat vectors."""

    def __init__(self, config: Config):
        self.config = config
        self.step = recurrent.rnn_step("tanh")
        self.task_loss = training.classification_loss(self.step)
        flat, self.unravel = ravel_pytree(recurrent.paper_init(config.init, jax.random.key(0), 6, config.hidden, 4))
        self.size = flat.size

    def logits(self, flat, batch):
        params, inputs = self.unravel(flat), batch.inputs
        start = jnp.zeros((*inputs.shape[1:-1], self.config.hidden))
        return recurrent.readout(params.readout, recurrent.unroll(self.step, params.rnn, start, inputs)[-1])

    def batch(self, seed, step, what=1):
        key = jax.random.fold_in(key_of(seed, what), step)
        return tasks.temporal_order(key, self.config.batch, self.config.length)

    def loss(self, flat, batch):
        return self.task_loss(self.unravel(flat), batch)

    def optimizer(self, max_norm):
        return optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(self.config.learning_rate))

    def init(self, seed, max_norm):
        params = recurrent.paper_init(self.config.init, key_of(seed, 0), 6, self.config.hidden, 4)
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
            return curvature.smoothness_between(lambda p: self.loss(p, batch)[0], path[i], path[i + 1])

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


def fit_paths(arm: dict, config: Config) -> dict:
    """(L0, L1) of every run with its interval over seeds, and of the 99 % bound; how much better than a constant."""
    along, norms, weights = arm["path_smoothness"], arm["path_grad_norm"], arm["path_resolved"].astype(np.float32)
    fits = {}
    for name, quantile in (("median", 0.5), ("bound", 0.99)):
        fit = jax.vmap(lambda y, g, w, q=quantile: curvature.fit_smoothness(y, g, quantile=q, weights=w))(
            along, norms, weights
        )
        fits[name] = {k: over_seeds(getattr(fit, k), config.resamples) for k in ("l0", "l1")}
        fits[name]["error_over_constant"] = over_seeds(fit.error / fit.constant_error, config.resamples)
    pairs = [(g[w > 0], y[w > 0]) for y, g, w in zip(along, norms, weights)]
    fits["rank_correlation"] = over_seeds([stats.spearmanr(*p).statistic for p in pairs], config.resamples)
    fits["slope"] = over_seeds([slope(*p) for p in pairs], config.resamples)
    return fits | {"resolved": float(weights.mean())}


def figures(size: int, groups: dict, results: dict, density) -> dict:
    """The figures; that of the spectrum only where it was measured."""
    from cliffs import plotting as draw
    from cliffs.plotting import COLORS, figure

    colors = dict(zip(GROUPS, (COLORS["unclipped"], COLORS["clipped"], COLORS["unstable"])))
    bars = (
        ("grad_norm", "gradient norm", SUBSETS[:1]),
        ("fresh_leading", "leading |eigenvalue|", SUBSETS),
        ("leading", "own-batch |eigenvalue|", SUBSETS[:1]),
        ("along_gradient", "|curvature| along g", SUBSETS[:1]),
    )
    rows = {}
    for name, found in groups.items():
        ratios = [
            {"label": f"{words}{'' if part == 'all' else ', ' + part.replace('_', ' ')}\nagainst {what}"}
            | {"color": colors[GROUPS[place]]}
            | results[name][part][f"{key}_ratio_{other}"]
            for key, words, parts in bars
            for part in parts
            if results[name][part]
            for place, other, what in ((1, "before", "typical"), (2, "random", "random"))
        ]
        title = f"{name}, Hessian of fresh data: slope {results[name]['all']['fresh_slope']['median']:.2f}"
        shown = {"grad_norm": "grad_norm", "leading": "fresh_leading", "cosine": "fresh_cosine"}
        steps = {g: {k: found[v][:, i].ravel() for k, v in shown.items()} for i, g in enumerate(GROUPS)}
        rows[title] = (steps, ratios)
    made = {"alignment": draw.plot_alignment(rows, colors, chance=size**-0.5)}
    fig, axes = figure(1, len(groups), size=(5.5 * len(groups), 4.2), squeeze=False, sharey=True)
    for ax, name in zip(axes[0], groups):
        arm, lines = groups[name], {}
        for which, words, color in (("median", "median", "stable"), ("bound", "99 % bound", "accent")):
            l0, l1 = (results[name]["smoothness"][which][k]["median"] for k in ("l0", "l1"))
            lines[f"{words} of the median seed: L0 = {l0:.2g}, L1 = {l1:.2g}"] = (l0, l1, COLORS[color])
        mask = arm["path_resolved"]
        draw.plot_smoothness(ax, arm["path_smoothness"][mask], arm["path_grad_norm"][mask], lines)
        ax.set_title(f"{name}: rank correlation {results[name]['smoothness']['rank_correlation']['median']:.2f}")
    made["smoothness"] = fig
    if density is None:
        return made
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
        nodes[GROUPS[group]] = curvature.spectral_density(matvec, flat, jax.random.key(4), num_probes=6)
    reach = max(float(jnp.max(jnp.abs(d.nodes))) for d in nodes.values())
    low = min(float(jnp.min(d.nodes)) for d in nodes.values())
    points = np.linspace(low - 0.05 * reach, 1.05 * reach, 1500)
    return points, {k: np.asarray(curvature.smoothed(d, jnp.asarray(points), 0.006 * reach)) for k, d in nodes.items()}


def measure_all(problem: Problem) -> tuple[dict, tuple]:
    """Train and measure every arm: its arrays, and the spectra of the first."""
    config, arms, density = problem.config, {}, None
    seeds = np.arange(config.seeds)
    for max_norm in config.max_norms:
        picked = train_and_pick(problem, seeds, np.full(config.seeds, max_norm, np.float32))
        density = spectra(problem, picked) if density is None else density
        shape = picked["step"].shape
        flat, which = picked["params"].reshape(-1, problem.size), np.broadcast_to(seeds[:, None, None], shape).ravel()
        found = over_runs(problem.measure, which.size)(flat, which, picked["step"].ravel())
        found = {k: np.asarray(v, np.float32).reshape(shape) for k, v in found.items()}
        # The parameters kept are those of the step: its gradient norm comes out again.
        recorded = np.take_along_axis(picked["norm"], picked["step"].reshape(len(seeds), -1), 1).reshape(shape)
        np.testing.assert_allclose(found["grad_norm"], recorded, rtol=1e-2)
        arms[arm_name(max_norm)] = found | {
            "step": picked["step"].astype(np.int32),
            "final_loss": picked["loss"][:, -CHUNK:].mean(1),
            "norm_quantiles": np.nanquantile(picked["norm"], [0.5, 0.99, 1.0]),
            "diverged": (picked["diverged_at"] >= 0).sum(),
            **{f"path_{k}": getattr(picked["smoothness"], k) for k in ("smoothness", "grad_norm", "resolved")},
        }
    return arms, density


def arm_name(max_norm: float) -> str:
    return f"clipped at {max_norm:g}" if np.isfinite(max_norm) else "unclipped"


def analyse(arms: dict, config: Config) -> dict:
    """Every number of every arm from its arrays; the verdicts know how many comparisons were made in all."""
    results = {}
    for name, arm in arms.items():
        found = {k: v for k, v in arm.items() if np.shape(v) == np.shape(arm["grad_norm"])}
        # A diverged run has no number for its loss: it has not learned.
        results[name] = split(found, arm["final_loss"] < config.learned_loss, config.resamples) | {
            "smoothness": fit_paths(arm, config),
            "final_loss": over_seeds(arm["final_loss"], config.resamples),
            "norm_quantiles": dict(zip(("median", "p99", "max"), arm["norm_quantiles"])),
            "diverged": int(arm["diverged"]),
        }
    comparisons = correct(results)
    for arm in results.values():
        arm["comparisons"] = comparisons
        arm["verdict"] = verdict(arm, comparisons, config.learned_loss)
    return results


def show(name: str, result: dict):
    """Print the verdict and every contrast, split by learned and not learned."""
    print(f"{name}: {result['verdict']}")
    for part in (p for p in SUBSETS if result[p]):
        r = result[part]
        print(f"  {part.replace('_', ' ')} ({r['runs']} runs)")
        for key in [k.removesuffix("_before") for k in r if k.endswith("_before")]:
            print(f"    {key}: " + "; ".join(f"{number(r[f'{key}_{o}'])} against {o}" for o in ("before", "random")))
        print(f"    slope: {number(r['fresh_slope'])} fresh, {number(r['slope'])} own batch", flush=True)


def main(config: Config) -> dict:
    """Train, measure, compare, write the result."""
    started = time.perf_counter()
    if config.steps % CHUNK or not 1 <= config.points <= config.steps // 100:
        raise ValueError(f"steps must be a multiple of {CHUNK} and points at most steps / 100, got {config}")
    problem, names = Problem(config), [arm_name(m) for m in config.max_norms]
    if config.reanalyse:
        folder = common.RESULTS / "curvature_alignment"
        before, density = json.loads((folder / "metrics.json").read_text()), None
        measured = before["metrics"].get("measured") or {k: before[k] for k in ("git_revision", "written", "seconds")}
        with np.load(folder / "arrays.npz") as stored:
            prefixes = {name: f"{name.replace(' ', '_')}_" for name in names}
            arms = {n: {k[len(p) :]: stored[k] for k in stored if k.startswith(p)} for n, p in prefixes.items()}
    else:
        measured = None  # by this very run
        arms, density = measure_all(problem)
    results = analyse(arms, config)
    for name in names:
        show(name, results[name])
    common.save(
        "curvature_alignment", metrics=results | {"measured": measured}, settings=dataclasses.asdict(config),
        started=started, seed=0,
        arrays={f"{name.replace(' ', '_')}_{k}": v for name, arm in arms.items() for k, v in arm.items()},
        figures=figures(problem.size, arms, results, density),
    )  # fmt: skip
    return results


if __name__ == "__main__":
    import tyro

    sweeps.use_all_cores()
    main(tyro.cli(Config))
