"""Every clipping strategy on the temporal order task, seeds and thresholds in one sweep per strategy.

Figures: `strategies` (success rate, updates to solve, clip fraction, mean cosine), `norm_versus_value` (the plane),
`diagnosis` (the norms of an unclipped run with the suggested threshold). Metrics also hold the worked example
(10, 1) at threshold 5, and what of a thousandfold spike passes each variant of the moving-average rule.
"""

import dataclasses
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import clipping as c
from cliffs import recurrent, sweeps, tasks, training
from cliffs.diagnosis import diagnose
from experiments import common


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    length: int = 20
    hidden: int = 50
    batch: int = 20
    learning_rate: float = 0.1
    seeds: int = 10
    steps: int = 3000
    evaluate_every: int = 200
    test_sequences: int = 1000
    """Fresh sequences per evaluation; a run is solved when fewer than 1 % are wrong."""


# Name to factory and the values of its first argument, the threshold, that the sweep goes through.
STRATEGIES = {"none": (lambda t: optax.identity(), (float("inf"),))} | {
    name: (info.factory, info.thresholds) for name, info in c.STRATEGIES.items()
}
ON_MATRIX = tuple(name for name, info in c.STRATEGIES.items() if info.on_matrix)


def optimizer(name: str, threshold, learning_rate: float) -> optax.GradientTransformation:
    """SGD with the strategy under telemetry: before the learning rate, or after it for rules on the matrix."""
    strategy = c.with_telemetry(STRATEGIES[name][0](threshold))
    parts = (optax.sgd(learning_rate), strategy) if name in ON_MATRIX else (strategy, optax.sgd(learning_rate))
    return optax.chain(*parts)


def run_strategy(name: str, config: Config) -> sweeps.SweepResult:
    """All seeds and thresholds of one strategy as one compiled sweep."""
    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    place = 1 if name in ON_MATRIX else 0

    def key(run, what):
        return jax.random.fold_in(jax.random.key(run["seed"]), what)

    def init(run):
        params = recurrent.paper_init("smart_tanh", key(run, 0), 6, config.hidden, 4)
        return training.init_train_state(params, optimizer(name, run["threshold"], config.learning_rate))

    def update(state, run):
        batch = tasks.temporal_order(jax.random.fold_in(key(run, 1), state.step), config.batch, config.length)
        tx = optimizer(name, run["threshold"], config.learning_rate)
        state, metrics = training.train_step(state, batch, loss, tx)
        seen = state.opt_state[place]
        return state, metrics._replace(aux={"cosine": seen.cosine, "clipped": seen.clipped.astype(jnp.float32)})

    def evaluate(state, run):
        fresh = jax.random.fold_in(key(run, 2), state.step)
        error = loss(state.params, tasks.temporal_order(fresh, config.test_sequences, config.length))[1]
        return {"error": error, "solved": error < 0.01}

    grid = sweeps.product_grid(threshold=np.float32(STRATEGIES[name][1]), seed=np.arange(config.seeds))
    return sweeps.sweep(init, update, grid, config.steps, evaluate=evaluate, evaluate_every=config.evaluate_every,
                       stop_when_solved=True, progress=False)  # fmt: skip


def summarise(result: sweeps.SweepResult) -> list[dict]:
    """One dict per threshold."""
    rows = []
    for threshold in np.unique(result.grid["threshold"]):
        mine = result.grid["threshold"] == threshold
        solved = result.solved_at[mine]
        won = int((solved >= 0).sum())
        clipped, cosine = (np.asarray(result.metrics.aux[k])[mine] for k in ("clipped", "cosine"))
        rows.append({
            "threshold": float(threshold), "runs": int(mine.sum()), "solved": won, "success": won / int(mine.sum()),
            "interval": common.wilson(won, int(mine.sum())),
            "steps_to_solve": float(np.median(solved[solved >= 0])) if won else None,
            "diverged": int((result.diverged_at[mine] >= 0).sum()),
            "clip_fraction": float(np.nanmean(clipped)), "cosine": float(np.nanmean(cosine)),
            "final_error": float(np.mean([e[np.isfinite(e)][-1] for e in result.evaluations["error"][mine]])),
        })  # fmt: skip
    return rows


def worked_example() -> dict:
    """(10, 1) at threshold 5, by norm and by value."""
    g = jnp.array([10.0, 1.0])
    table = {}
    for name, rule in (("norm", c.clip_by_global_norm(5.0)), ("value", c.clip(5.0))):
        out = np.asarray(rule.update(g, rule.init(g))[0], float)
        cosine = out @ np.asarray(g) / np.linalg.norm(out) / np.linalg.norm(g)
        table[name] = {"result": out.tolist(), "norm": float(np.linalg.norm(out)),
                       "turned_by_degrees": float(np.degrees(np.arccos(min(cosine, 1.0))))}  # fmt: skip
    return table


def spike_passing() -> dict:
    """What is left of a spike of 1000 after 100 norms of 1, and of the next norm of 1, in the three variants."""
    table = {}
    for variant in ("before", "after", "clipped"):
        rule = c.clip_by_ema_norm(update=variant)
        state = rule.init(jnp.zeros(1))
        update = jax.jit(rule.update)
        for size in [1.0] * 100 + [1000.0]:
            out, state = update(jnp.array([size]), state)
        table[variant] = {"spike_after": float(out[0]), "average_after": float(state.mean)}
    return table


def main(config: Config) -> dict:
    """Run all strategies and write the result."""
    from cliffs.plotting import plot_diagnosis, plot_norm_versus_value, plot_strategies

    started = time.perf_counter()
    rows, arrays, norms = {}, {}, None
    for name in STRATEGIES:
        begun = time.perf_counter()
        result = run_strategy(name, config)
        rows[name] = summarise(result)
        arrays |= {f"{name}_solved_at": result.solved_at, f"{name}_threshold": result.grid["threshold"]}
        if name == "none":  # the longest unclipped run, as a real history to diagnose
            norms = np.asarray(result.metrics.grad_norm)[np.argmax(result.steps_run)]
            norms = norms[: result.steps_run.max()]
        solved = [f"{row['solved']}/{row['runs']}" for row in rows[name]]
        print(f"{name:26s} solved {solved} in {time.perf_counter() - begun:.1f} s", flush=True)
    diagnosis = diagnose(norms)
    metrics = {
        "strategies": rows, "worked_example": worked_example(), "ema_spike": spike_passing(),
        "diagnosis_of_an_unclipped_run": {"findings": diagnosis.names(), "report": str(diagnosis)},
    }  # fmt: skip
    common.save(
        "clipping_strategies", metrics=metrics, settings=dataclasses.asdict(config), started=started,
        arrays=arrays | {"unclipped_norms": norms}, seed=0,
        figures={"strategies": plot_strategies(rows), "norm_versus_value": plot_norm_versus_value(),
                 "diagnosis": plot_diagnosis(norms, diagnosis)},
    )  # fmt: skip
    print(diagnosis)
    return metrics


if __name__ == "__main__":
    import tyro

    sweeps.use_all_cores()
    main(tyro.cli(Config))
