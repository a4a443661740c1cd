"""A small training run of one's own: task, cell, initialisation, clipping strategy; what `diagnose` says of it."""

import functools
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import clipping, recurrent, tasks, training
from cliffs.diagnosis import Diagnosis, diagnose
from experiments.lab import look

IDEA = """
Choose and press **Train**: error and gradient norm are drawn while the network learns, and `diagnose` reads the norms
as a practitioner would. Try the strategy "none", then a gated cell.
"""
BEHIND = (
    "diagnosis.diagnose",
    "training.train_step",
    "clipping.STRATEGIES",
    "recurrent.init_model",
    "tasks",
)

UNITS, BATCH, UPDATES, CHUNK = 24, 16, 1000, 50
LENGTH = 20
CELLS = ("tanh", "LSTM, forget bias 1", "GRU")
INITS = {
    "orthogonal": recurrent.orthogonal(),
    "basic tanh": recurrent.gaussian(0.1),
    "smart tanh": recurrent.sparse_spectral(),
    "identity + noise": recurrent.identity_plus_noise(),
    "Gaussian 0.01": recurrent.gaussian(0.01),
}
TASKS = {
    "temporal order": (tasks.temporal_order, 6, 4, training.classification_loss),
    "addition": (tasks.addition, 2, 1, training.regression_loss),
    "multiplication": (tasks.multiplication, 2, 1, training.regression_loss),
}
NO_CLIPPING = "none"
STRATEGIES = (NO_CLIPPING, *clipping.STRATEGIES)


class Choice(NamedTuple):
    """What is trained. Task, cell, initialisation and strategy make a program; the rest are numbers in it."""

    task: str = "temporal order"
    cell: str = "tanh"
    init: str = "orthogonal"
    strategy: str = "clip_by_global_norm"
    threshold: float = 1.0
    rate: float = 0.1
    seed: int = 0


class History(NamedTuple):
    """What has been seen so far; arrays `[updates]`."""

    choice: Choice
    loss: np.ndarray
    norm: np.ndarray
    wrong: np.ndarray
    """The share of the batch's sequences that are wrong."""

    def diagnosis(self) -> Diagnosis | None:
        """What `cliffs.diagnosis.diagnose` says; None while there is too little to read."""
        used = self.choice.threshold if self.choice.strategy == "clip_by_global_norm" else None
        try:
            return diagnose(self.norm, max_norm=used, losses=self.loss)
        except ValueError:
            return None


def _recurrent_kernel(path: str) -> bool:
    """The square matrices of a gated cell, one a gate, where rules on the recurrent matrix look for them."""
    return path.startswith("rnn/h") and path.endswith("/kernel")


@functools.lru_cache(maxsize=32)
def _programs(task: str, cell: str, init: str, strategy: str) -> tuple[Any, Any]:
    draw, features, outputs, make_loss = TASKS[task]
    glorot = recurrent.glorot()
    step: Any
    if cell == "tanh":
        step = recurrent.rnn_step("tanh")
    else:
        step = recurrent.gru_cell(UNITS) if cell == "GRU" else recurrent.lstm_cell(UNITS, 1.0)
    loss = make_loss(step)

    def optimizer(threshold, rate):
        if strategy == NO_CLIPPING:
            return optax.sgd(rate)
        info = clipping.STRATEGIES[strategy]
        gated = {"select", "recurrent"} & set(inspect.signature(info.factory).parameters) if cell != "tanh" else ()
        rule = info.make(threshold, **dict.fromkeys(gated, _recurrent_kernel))
        # Rules on the matrix act on the parameters after the update.
        return optax.chain(optax.sgd(rate), rule) if info.on_matrix else optax.chain(rule, optax.sgd(rate))

    @jax.jit
    def begin(seed, threshold, rate):
        key = jax.random.key(seed)
        params = recurrent.init_model(key, features, UNITS, outputs, w_rec=INITS[init], w_in=glorot, w_out=glorot)
        if cell != "tanh":
            params = params._replace(rnn=step.init(key, features))
        return training.init_train_state(params, optimizer(threshold, rate))

    @jax.jit
    def go(state, seed, threshold, rate):
        key = jax.random.fold_in(jax.random.key(seed), 1)

        def body(state, _):
            batch = draw(jax.random.fold_in(key, state.step), BATCH, LENGTH)
            new, metrics = training.train_step(state, batch, loss, optimizer(threshold, rate))
            return new, (metrics.loss, metrics.grad_norm, metrics.aux)

        return jax.lax.scan(body, state, length=CHUNK)

    return begin, go


def train(choice: Choice, updates: int = UPDATES) -> Iterator[History]:
    """Yields the history after every `CHUNK` updates, so that it can be drawn while the run goes on."""
    begin, go = _programs(*choice[:4])
    numbers = jnp.float32(choice.threshold), jnp.float32(choice.rate)
    state, pieces = begin(choice.seed, *numbers), []
    for _ in range(updates // CHUNK):
        state, rows = go(state, choice.seed, *numbers)
        pieces.append([np.asarray(x) for x in rows])
        yield History(choice, *(np.concatenate(column) for column in zip(*pieces)))


def told(history: History) -> str:
    """`diagnose`'s words: one line a finding, and the threshold that it would choose."""
    found = history.diagnosis()
    if found is None:
        return "Too few updates for a diagnosis."
    lines = [f"- **{finding.name}**: {finding.advice}" for finding in found.findings]
    if found.threshold:
        lines.append(f"- suggested threshold **{look.brief(found.threshold.suggested)}**")
    return "\n".join(lines)


def figures(history: History, dark: bool) -> dict[str, Any]:
    """Loss, share wrong and gradient norm."""
    c, drawn = look.colors(dark), {}
    found = history.diagnosis()
    numbers = {
        "strategy": history.choice.strategy,
        "updates": len(history.loss),
        "loss": history.loss[-1],
        "findings": found.names() if found else [],
    }
    k = np.arange(len(history.loss))
    name = "error (nats)" if history.choice.task == "temporal order" else "squared error (1)"
    panel = look.panel(dark, "update", name, height=300, **numbers)
    look.line(panel, k, history.loss, c["clipped"], "error of the batch", width=1.4)
    panel.update_yaxes(rangemode="tozero")
    drawn["Error"] = panel
    panel = look.panel(dark, "update", "‖gradient‖ (1)", ylog=True, height=300, **numbers)
    look.line(panel, k, np.where(history.norm > 0, history.norm, np.nan), c["unclipped"], "before clipping", width=1.4)
    if history.choice.strategy == "clip_by_global_norm":
        look.line(panel, [0, UPDATES], [history.choice.threshold] * 2, c["soft"], "threshold", dash="dot", width=1.6)
    drawn["Gradient norm"] = panel
    for panel in drawn.values():
        panel.update_xaxes(range=[0, UPDATES])
    return drawn
