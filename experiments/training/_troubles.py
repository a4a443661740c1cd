"""Trains the small decoder with AdamW in trouble: one compiled sweep for each clipping rule.

Three kinds of trouble, each drawn from the run's key and the update's number: a bad batch (random symbols for a few
updates), a learning rate that is too high in the warm-up, and heavy-tailed noise on the gradient. All runs of one seed
see the same rows in the same order, so that a run and its untroubled twin differ by the trouble alone.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import clipping, sweeps, training
from experiments.training import _language
from experiments.training._decoder import functional, layer_of


@dataclasses.dataclass(frozen=True)
class Setting:
    """The model, its text and the troubles."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    words: int = 16
    """Of the language made in code."""
    text: str | None = None
    """A file of characters instead of that language."""
    rows: int = 4096
    test_rows: int = 32
    batch: int = 2
    length: int = 32
    updates: int = 80
    learning_rate: float = 4e-3
    warmup: int = 8
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.01
    bad_at: int = 40
    bad_updates: int = 4
    hot: float = 10.0
    """How many times too high the learning rate is in the hot warm-up."""
    hot_updates: int = 12
    noise: float = 5.0
    """The noise is this norm over sqrt(chi-square / degrees): a multivariate Student t."""
    degrees: float = 1.5
    """Degrees of freedom of the noise: its variance is infinite up to 2."""
    rule_warmup: int = 15
    """Of the rules that have one: theirs are made for longer runs."""
    seeds: int = 8
    seed: int = 0
    checkpoint: str | None = None
    """A folder: each sweep that is done is kept there, and not run again."""


class Corpus(NamedTuple):
    """Rows of symbols `[rows, length + 1]`, how many symbols there are, and what a perfect model pays on the test."""

    rows: np.ndarray
    test: np.ndarray
    symbols: int
    floor: float


def corpus(config: Setting) -> Corpus:
    """The language made in code, or a text, whose floor is not known and set to 0."""
    length = config.length + 1
    if config.text is not None:
        rows, symbols = _language.read_rows(config.text, length)
        cut = max(1, min(config.test_rows, len(rows) // 2))
        return Corpus(rows[:-cut], rows[-cut:], symbols, 0.0)
    language = _language.make_language(config.words, config.seed)
    rows = _language.write_rows(language, config.rows, length, config.seed + 1)
    test = _language.write_rows(language, config.test_rows, length, config.seed + 2)
    floor = float(_language.nats_of_truth(language, test)[:, 1:].mean())
    return Corpus(rows, test, len(_language.SYMBOLS), floor)


class Noise(NamedTuple):
    """What the noise of one update is made of."""

    key: Any
    norm: Any
    degrees: float
    gaussian: Any
    """Standard normal numbers, twice as many as there are parameters. A window at a random place is the direction:
    shifted by one entry or more, two windows are as good as independent, and no update draws a whole vector."""


def heavy_tailed_noise(noise: Noise) -> optax.GradientTransformation:
    """Add a vector of Student's t: Gaussian of that norm, divided by one `sqrt(chi-square / degrees)` an update."""

    def update(updates, state, params=None):
        k_place, k_tail = jax.random.split(jax.random.fold_in(noise.key, state))
        leaves, tree = jax.tree.flatten(updates)
        size = sum(x.size for x in leaves)
        at = jax.random.randint(k_place, (), 0, len(noise.gaussian) - size + 1)
        tail = jnp.sqrt(jax.random.chisquare(k_tail, noise.degrees) / noise.degrees)
        scale, noisy = noise.norm / size**0.5 / tail, []
        for x in leaves:
            direction = jax.lax.dynamic_slice(noise.gaussian, (at,), (x.size,)).reshape(x.shape)
            noisy.append(x + scale * direction)
            at += x.size
        return jax.tree.unflatten(tree, noisy), state + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def optimizer(config: Setting, name: str, run: Mapping[str, Any], gaussian: Any) -> optax.GradientTransformation:
    """AdamW in its parts, with the rule under telemetry where it belongs: before Adam, or around it."""

    def rate(count):
        ramp = jnp.minimum((count + 1) / config.warmup, 1.0)
        return config.learning_rate * ramp * jnp.where(count < config.hot_updates, run["heat"], 1.0)

    noise = heavy_tailed_noise(Noise(run_key(config, run, 2), run["noise"], config.degrees, gaussian))
    adam = optax.scale_by_adam(config.b1, config.b2)
    step = (optax.add_decayed_weights(config.weight_decay), optax.scale_by_learning_rate(rate))
    if name == "none":
        return optax.chain(noise, clipping.with_telemetry(optax.identity()), adam, *step)
    factory, extra = clipping.STRATEGIES[name].factory, extra_settings(config, name)
    if name == "clip_update_rms":  # StableAdamW: Adam stands inside
        extra |= {"inner": adam, "b2": config.b2}
    rule = clipping.with_telemetry(factory(run["threshold"], **extra))
    if name == "clip_update_rms":
        return optax.chain(noise, rule, *step)
    return optax.chain(noise, rule, adam, *step)


def extra_settings(config: Setting, name: str) -> dict[str, Any]:
    """Arguments without which a rule does not fit this model or these short runs."""
    extra: dict[str, Any] = {}
    if name in ("clip_by_zscore", "clip_by_ema_leaf_norm", "clip_spikes"):
        extra["warmup"] = config.rule_warmup
    if name in ("clip_by_group_norm", "clip_by_group_band"):
        extra["group"] = layer_of
    if name == "clip_by_spectral_norm":  # a decomposition of 27 matrices at each update would take an hour by itself
        extra["mode"] = "soft"
    return extra


def run_key(config: Setting, run: Mapping[str, Any], what: int) -> Any:
    """The key of one purpose of one run; troubles and thresholds do not enter it."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), run["seed"]), what)


def train(config: Setting, text: Corpus, name: str, grid: Mapping[str, Any]) -> sweeps.SweepResult:
    """All runs of a grid under one rule.

    Its columns: `threshold`, `seed`, and of the troubles `bad` (0 or 1), `heat` (times the learning rate in the hot
    warm-up; 1 is none) and `noise` (its norm; 0 is none).
    """
    kept = None
    if config.checkpoint is not None:
        kept = pathlib.Path(config.checkpoint) / f"{name}-{_digest(config, grid)}"
        if kept.with_name(kept.name + ".json").exists():
            return sweeps.load_sweep(kept)
    model = functional(text.symbols, config.length, config.layers, config.width, config.heads)

    def init(run):
        start = optimizer(config, name, run, jnp.zeros(2 * model.size))
        return training.init_train_state(model.init(run_key(config, run, 0)), start)

    def update(state, run, data):
        k_rows, k_bad = jax.random.split(jax.random.fold_in(run_key(config, run, 1), state.step))
        batch = data["rows"][jax.random.randint(k_rows, (config.batch,), 0, len(text.rows))]
        rubbish = jax.random.randint(k_bad, batch.shape, 0, text.symbols).astype(batch.dtype)
        since = state.step - config.bad_at
        batch = jnp.where((run["bad"] > 0) & (since >= 0) & (since < config.bad_updates), rubbish, batch)
        rule = optimizer(config, name, run, data["gaussian"])
        state, metrics = training.train_step(state, batch, model.loss, rule)
        seen = next(part for part in state.opt_state if isinstance(part, clipping.TelemetryState))
        aux = {"norm": seen.norm_before, "clipped": seen.clipped.astype(jnp.float32), "cosine": seen.cosine}
        return state, metrics._replace(aux=aux)

    def evaluate(state, run, data):
        return {"loss": model.loss(state.params, data["test"])}

    gaussian = np.random.default_rng(config.seed).standard_normal(2 * model.size, np.float32)
    result = sweeps.sweep(
        init,
        update,
        dict(grid),
        config.updates,
        evaluate=evaluate,
        evaluate_every=config.updates,
        data={"rows": text.rows, "test": text.test, "gaussian": gaussian},
        progress=False,
    )
    if not result.complete:
        raise KeyboardInterrupt(f"{name}: {'; '.join(result.notes)}")
    result = dataclasses.replace(result, state={})  # the weights of all runs are large, and no longer needed
    if kept is not None:
        result.save(kept)
    return result


def _digest(config: Setting, grid: Mapping[str, Any]) -> str:
    """A short name of all that decides what a sweep computes."""
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(Setting) if f.name != "checkpoint"}
    columns = {k: np.asarray(v).tolist() for k, v in grid.items()}
    return hashlib.sha256(json.dumps([fields, columns], sort_keys=True).encode()).hexdigest()[:12]
