"""The measurements of `curvature_alignment`: training, which steps are kept, and the curvature at each of them."""

import functools
import heapq
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from cliffs import curvature, recurrent, tasks, training
from cliffs._devices import over_devices
from experiments.hypotheses.curvature_alignment import CHUNK, GROUPS, arm_name

if TYPE_CHECKING:
    from experiments.hypotheses.curvature_alignment import Config


def measure_all(problem: "Problem", say: Any) -> tuple[dict, tuple | None]:
    """Train and measure every arm: its arrays, and the spectra of the first."""
    config, arms, density = problem.config, {}, None
    seeds = np.arange(config.seeds)
    for max_norm in config.max_norms:
        picked = train_and_pick(problem, seeds, np.full(config.seeds, max_norm, np.float32))
        say(f"trained {arm_name(max_norm)}")
        density = spectra(problem, picked) if density is None else density
        shape = picked["step"].shape
        flat, which = picked["params"].reshape(-1, problem.size), np.broadcast_to(seeds[:, None, None], shape).ravel()
        found = jax.jit(over_devices(problem.measure))(flat, which, picked["step"].ravel())
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


def key_of(seed, what):
    """The key of one purpose of one run."""
    return jax.random.fold_in(jax.random.key(seed), what)


class Problem:
    """The functions of one configuration; parameters travel as flat vectors."""

    def __init__(self, config: "Config"):
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
        pairs = curvature.eigenpairs(
            matvec, flat, key, num_leading=config.top, num_trailing=1, num_iterations=config.iterations, tolerance=1e-2
        )
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


def train_and_pick(problem: Problem, seeds: np.ndarray, max_norms: np.ndarray) -> dict:
    """Train all runs; keep the parameters of the top 1 % steps, of a typical step before each, and of random steps.

    The top 1 % is known only at the end, so the largest norms so far are kept with their parameters and give way to
    larger ones: nothing is replayed, the memory is a hundredth of the path.
    """
    config, runs = problem.config, len(seeds)
    keep = config.updates // 100
    train, smooth = jax.jit(over_devices(problem.train)), jax.jit(over_devices(problem.smooth))
    state = jax.jit(over_devices(problem.init))(seeds, max_norms)
    rng = np.random.default_rng(0)
    wanted = np.stack([np.sort(rng.choice(config.updates, config.points, replace=False)) for _ in seeds])
    random = np.zeros((*wanted.shape, problem.size), np.float32)
    top: list[list] = [[] for _ in seeds]  # heaps of (norm, step, parameters, step before, parameters before)
    norms, losses, smooths, norm_window, path_window = [], [], [], np.zeros(0), np.zeros(0)
    for first in range(0, config.updates, CHUNK):
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
        "params": np.stack([params, before, random], 1),
        "step": np.stack([step, before_step, wanted], 1),
        "norm": np.concatenate(norms, 1),
        "loss": np.concatenate(losses, 1),
        "diverged_at": np.asarray(state.diverged_at),
        "smoothness": jax.tree.map(lambda *x: np.concatenate([np.asarray(v) for v in x], 1), *smooths),
    }


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
