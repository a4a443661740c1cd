"""Branches of fixed points of the one-unit map with both folds: ours for 1,000 weights at once, and public packages.

`F(x) - x = 0` with `F(x) = w s(x) + b` is followed in b from left of the first fold to right of the second, with the
same largest step and tolerance for everyone, in float64. Ours is one `jit(vmap)` over w that also brackets and locates
both folds. jaxcont (with `events=[Fold()]`) and pycont-lite (with its detection on, stability off) follow one branch
after the other, as their own examples do (jaxcont compiles anew for every call then, which counts); jaxcont is also run
compiled once, for one branch and under `vmap` for the same weights, where it follows branches but cannot detect folds;
like for like with that is ours without locating folds (`cliffs_branches`), and both ratios are recorded.
Times are per point on the branch, after the first call. The contestants take turns and each is given by its best turn.
A package that is not installed is null.
"""

import dataclasses
import functools
import math
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.dynamics import Stepping, continue_branch, solve_bifurcation
from cliffs.recurrent import OneUnitParams, one_unit_folds, one_unit_step

BOUNDS = (-8.0, 0.0)
MAX_STEP, TOLERANCE, POINTS = 0.1, 1e-10, 256
STEPPING = Stepping(max_step=MAX_STEP, step_size=0.01, min_step=1e-7, num_points=POINTS, tolerance=TOLERANCE)


@dataclasses.dataclass(frozen=True)
class Config:
    """How much to measure."""

    branches: int = 1000
    """Weights from 4.2 to 8, all followed at once."""
    turns: int = 5
    serial: int = 3
    """Branches that a package follows one after the other in each turn."""
    peers: bool = True


def start(w):
    """The fixed point at the left bound, by iterating the map (it contracts there)."""
    x = np.full(np.shape(w), BOUNDS[0])
    for _ in range(200):
        x = w / (1 + np.exp(-x)) + BOUNDS[0]
    return x


@functools.partial(jax.jit, static_argnames="locate")
def ours(w, x, locate: bool = True):
    """All branches, and their folds: where the tangent's parameter entry changes sign, then Newton."""

    def one(w, x):
        params = OneUnitParams(w, BOUNDS[0])
        branch = continue_branch(
            one_unit_step, params, "b", BOUNDS, x[None], stepping=STEPPING, scale=1.0, parameter_scale=1.0
        )
        if not locate:
            return branch, None
        slope = branch.tangents[:, -1]
        (at,) = jnp.nonzero(slope[:-1] * slope[1:] < 0, size=2)
        points = jax.vmap(
            lambda i: solve_bifurcation(
                "fold", one_unit_step, params, "b", branch.parameter[i], branch.states[i], max_iterations=8
            )
        )(at)
        return branch, points

    return jax.vmap(one)(w, x)


def run_ours(weights, locate=True):
    x = start(weights)
    jax.block_until_ready(ours(weights, x, locate))

    def turn():
        begun = time.perf_counter()
        branch, points = jax.block_until_ready(ours(weights, x, locate))
        seconds = time.perf_counter() - begun
        accepted = np.asarray(branch.accepted)
        if not locate:
            b, u = np.asarray(branch.parameter), np.asarray(branch.states)[..., 0]
            off = np.abs(weights[:, None] / (1 + np.exp(-u)) + b - u)[accepted].max()
            return seconds, int(accepted.sum()), float(off)
        found = np.sort(np.asarray(points.parameter), axis=1)
        error = np.abs(found - np.stack([np.asarray(one_unit_folds(w).b) for w in weights])).max()
        return seconds, int(accepted.sum()), float(error)

    return turn


def residual(u, b, w):
    """What jaxcont solves for 0."""
    return w * jax.nn.sigmoid(u) + b - u


def jaxcont_settings(jaxcont):
    """The same step sizes and tolerance as ours."""
    return jaxcont.ContinuationPar(
        ds=0.01, ds_max=MAX_STEP, max_steps=POINTS, newton_tol=TOLERANCE, compute_stability=False
    )


def run_jaxcont(weights):
    """One branch after the other, with fold detection."""
    try:
        import jaxcont
    except ImportError:
        return None

    settings = jaxcont_settings(jaxcont)

    def follow(w):
        problem = jaxcont.bif_problem(residual, u0=jnp.array([float(start(w))]), p0=BOUNDS[0], args=w)
        return jaxcont.continuation(problem, p_span=BOUNDS, settings=settings, events=[jaxcont.Fold()])

    def turn():
        begun, points, error = time.perf_counter(), 0, 0.0
        for w in weights:
            result = follow(float(w))
            points += int(result.branch.n_valid)
            found = sorted(e.p for e in result.events)
            error = max(
                error, float(np.abs(found - np.asarray(one_unit_folds(w).b)).max()) if len(found) == 2 else math.inf
            )
        return time.perf_counter() - begun, points, error

    turn()
    return turn


def run_jaxcont_compiled(weights):
    """All branches at once, compiled, without folds: its detection does not run under jit or vmap."""
    try:
        import jaxcont
    except ImportError:
        return None

    settings = jaxcont_settings(jaxcont)

    @jax.jit
    @jax.vmap
    def follow(w, x):
        problem = jaxcont.bif_problem(residual, u0=x[None], p0=BOUNDS[0], args=w)
        return jaxcont.continuation(problem, p_span=BOUNDS, settings=settings).branch

    x = start(weights)
    jax.block_until_ready(follow(weights, x))

    def turn():
        begun = time.perf_counter()
        branch = jax.block_until_ready(follow(weights, x))
        seconds = time.perf_counter() - begun
        b, u = np.asarray(branch.params), np.asarray(branch.states)[..., 0]
        valid = np.asarray(branch.valid)
        off = np.abs(weights[:, None] / (1 + np.exp(-u)) + b - u)[valid].max()
        return seconds, int(valid.sum()), float(off)

    return turn


def run_pycont(weights):
    """One branch after the other, with fold detection."""
    try:
        import pycont
    except ImportError:
        return None

    options = {
        "tolerance": TOLERANCE,
        "initial_directions": "increase_p",
        "param_min": BOUNDS[0] - 1,
        "param_max": BOUNDS[1],
        "analyze_stability": False,
    }

    def turn():
        begun, points, error = time.perf_counter(), 0, 0.0
        for w in weights:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = pycont.arclengthContinuation(
                    lambda u, p, w=w: w / (1 + np.exp(-u)) + p - u,
                    np.array([start(w)]),
                    BOUNDS[0],
                    1e-6,
                    MAX_STEP,
                    0.01,
                    POINTS,
                    solver_parameters=dict(options),
                    verbosity="off",
                )
            points += sum(len(b.p_path) for b in result.branches)
            found = sorted(float(e.p) for e in result.events if e.kind == "LP")
            error = max(
                error, float(np.abs(found - np.asarray(one_unit_folds(w).b)).max()) if len(found) == 2 else math.inf
            )
        return time.perf_counter() - begun, points, error

    return turn


class Result(NamedTuple):
    """Of each contestant its time per point, its points and its error; ratios to ours."""

    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Callable[[str], None] = print) -> Result:
    """Measure everybody in turns, in float64."""
    with jax.enable_x64(True):
        turns, failures = contestants(config)
        measured: dict[str, list] = {name: [] for name in turns}
        for _ in range(config.turns):
            for name, turn in turns.items():
                if turn is not None:
                    measured[name].append(turn())
            say(", ".join(f"{name} {min(runs)[0]:.3g} s" for name, runs in measured.items() if runs))
    return report(measured, failures)


def contestants(config: Config) -> tuple[dict[str, Any], dict[str, str]]:
    """One turn of each as a function (None where a package is missing or breaks), and what broke."""
    weights = np.linspace(4.2, 8.0, config.branches)
    few = np.linspace(4.5, 8.0, config.serial)
    makers = {
        "cliffs": lambda: run_ours(weights),
        "cliffs_branches": lambda: run_ours(weights, locate=False),
        "jaxcont": lambda: run_jaxcont(few) if config.peers else None,
        "jaxcont_jit": lambda: run_jaxcont_compiled(few[:1]) if config.peers else None,
        "jaxcont_vmapped": lambda: run_jaxcont_compiled(weights) if config.peers else None,
        "pycont_lite": lambda: run_pycont(few) if config.peers else None,
    }
    turns, failures = {}, {}
    for name, make in makers.items():
        try:
            turns[name] = make()
        except Exception as error:  # a peer that breaks is reported, and does not cost us our own numbers
            if name.startswith("cliffs"):
                raise
            turns[name], failures[name] = None, f"{type(error).__name__}: {error}"
    return turns, failures


def report(measured: dict[str, list], failures: dict[str, str]) -> Result:
    """Each by its best turn, and the ratios."""
    best: dict[str, Any] = {}
    for name, runs in measured.items():
        seconds, points, error = min(runs) if runs else (math.nan, 1, math.nan)
        row = {"us_per_point": 1e6 * seconds / points, "points": points, "seconds": seconds, "error": error}
        best[name] = row if runs else None
    price = {name: row and row["us_per_point"] for name, row in best.items()}
    ratios = {f"ratio_{k}": v and v / price["cliffs"] for k, v in price.items() if not k.startswith("cliffs")}
    like = price["jaxcont_vmapped"]
    ratios["ratio_jaxcont_vmapped_like_for_like"] = like and like / price["cliffs_branches"]
    metrics = {
        "rows": best,
        "stepping": {"max_step": MAX_STEP, "tolerance": TOLERANCE, "bounds": BOUNDS},
        "us_per_point": price,
        "fold_error": {k: best[k] and best[k]["error"] for k in ("cliffs", "jaxcont", "pycont_lite")},
        **ratios,
    }
    if failures:
        metrics["failures"] = failures
    rows = [("contestant", "us per point", "points and error")]
    rows += [
        (name, f"{row['us_per_point']:.3f}", f"{row['points']} points, error {row['error']:.1e}")
        if row
        else (name, "-")
        for name, row in best.items()
    ]
    return Result(metrics, rows)


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
