"""The measurements of `training_dynamics`: training, attractors of every update, the tracked point, the association."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import recurrent, tasks, training
from cliffs.diagnosis import spike_association
from cliffs.dynamics import Settling, find_fixed_points, match_attractors, same_attractor, settle, track_fixed_point
from cliffs.spectra import lyapunov_exponents

if TYPE_CHECKING:
    from experiments.hypotheses.training_dynamics import Config

RESIDUAL = 1e-5
"""Below this residual, in float32, the tracked fixed point counts as known."""
HELD = (0.0, 0.0, 0.25, 0.25, 0.25, 0.25)
"""The mean distractor."""


def train(config: "Config") -> dict[str, Any]:
    """All runs with the parameters before every update; leaves `[runs, updates (+ 1), ...]`."""
    loss = training.classification_loss(recurrent.rnn_step("tanh"))

    def one(run_seed, max_norm):
        key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), run_seed), 2)[0]
        chain = optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(config.learning_rate))
        params = recurrent.paper_init("smart_tanh", key, 6, config.hidden, 4)

        def body(state, _):
            batch = batch_of(config, run_seed, state.step)
            new, metrics = training.train_step(state, batch, loss, chain)
            return new, (state.params.rnn, metrics.loss, metrics.grad_norm, metrics.aux)

        state, (params, losses, norms, errors) = jax.lax.scan(
            body, training.init_train_state(params, chain), length=config.updates
        )
        params = jax.tree.map(lambda p, last: jnp.concatenate([p, last[None]]), params, state.params.rnn)
        return {"params": params, "loss": losses, "norm": norms, "error": errors}

    seeds = np.tile(np.arange(config.seeds), len(config.thresholds))
    limits = np.repeat(np.array(config.thresholds, np.float32), config.seeds)
    return every_run(one, seeds, limits) | {"seed": seeds, "max_norm": limits}


def every_run(one: Any, *trees: Any) -> Any:
    """`one` for every run, as one compiled program; numpy arrays come back."""
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(*trees))


def batch_of(config: "Config", run_seed: Any, step: Any) -> Any:
    """The batch that update `step` of a run was computed on."""
    key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), run_seed), 2)[1]
    return tasks.temporal_order(jax.random.fold_in(key, step), config.batch, config.length)


def attractors(config: "Config", seeds: Any, params: Any) -> dict[str, Any]:
    """What each update's own batch sees: attractors, crossings, exponents; leaves `[runs, updates, ...]`.

    The final states of the batch of update t are followed to their attractors under the parameters before update
    t - 1, before update t (where the gradient was taken) and after it. Of each of these two changes (last axis),
    `basin` says that a sequence changed attractors while both persist (followed, neither arrives at the other), `ended`
    that the attractor before it leads to the one after it but not back, or the reverse: an attractor ended or began.
    A change of period alone counts as neither: many ends have no period only because they settle slowly.
    """
    step, held, zero = recurrent.rnn_step("tanh"), jnp.array(HELD), jnp.zeros(config.hidden)
    settling = Settling(max_steps=config.settle_steps, max_period=2, tolerance=1e-5, window=config.settle_steps // 2)
    following = dataclasses.replace(settling, max_steps=config.settle_steps // 2)

    def one(seed, p):
        def at(t):
            before, here, after = (
                jax.tree.map(lambda v, k=k: v[jnp.clip(t + k, 0, config.updates)], p) for k in (-1, 0, 1)
            )
            inputs = batch_of(config, seed, t).inputs

            def ends(params):
                last = recurrent.unroll(step, params, jnp.zeros((config.batch, config.hidden)), inputs)[-1]
                return settle(step, params, last, held, settling)

            first, second, third = ends(before), ends(here), ends(after)
            compare = functools.partial(match_attractors, step, inputs=held, settling=following)
            changes = [compare(before, here, first, second), compare(here, after, second, third)]
            driven = functools.partial(lyapunov_exponents, step, here, zero, num_exponents=1)
            asymptotic = lyapunov_exponents(
                step, here, second.orbit[0, 0], jnp.broadcast_to(held, (128, 6)), num_exponents=1, interval=2
            )
            return {
                "basin": jnp.stack([(~c.forward & ~c.backward).any() for c in changes]),
                "ended": jnp.stack([(c.forward != c.backward).any() for c in changes]),
                "without_cycle": (second.period == 0).mean(),
                "attractors": _count_ends(second),
                "exponent": asymptotic[0],
                "driven": jax.vmap(driven, in_axes=1)(inputs).max(),
            }

        return jax.lax.map(at, jnp.arange(config.updates), batch_size=8)

    return every_run(one, seeds, params)


def _count_ends(ends: Any) -> Any:
    """How many different attractors a batch ends on."""

    def pick(i):
        return jax.tree.map(lambda v: v[i][None], ends)

    count = ends.period.shape[0]
    same = jax.vmap(lambda i: jax.vmap(lambda j: same_attractor(pick(i), pick(j), 1e-3)[0])(jnp.arange(count)))
    earlier = jnp.tril(same(jnp.arange(count)), -1).any(1)
    return (~earlier).sum()


def tracked_point(config: "Config", params: Any) -> dict[str, Any]:
    """The fixed point of the held map that is the attractor at the start, followed through training by Newton.

    Returns its multipliers `[runs, updates + 1, n]`, its residual, the states, by how much they moved since the last
    update, and where the point was lost (Newton did not converge from where it was) and taken up from the origin.
    """
    step, held = recurrent.rnn_step("tanh"), jnp.array(HELD)

    def one(p):
        first = settle(step, jax.tree.map(lambda v: v[0], p), jnp.zeros((1, config.hidden)), held).orbit[0, 0]

        # Where the point has gone in a fold, another is taken up from the origin.
        return track_fixed_point(step, p, first, held, tolerance=RESIDUAL)

    track = every_run(one, params)
    named = {key: getattr(track, key) for key in ("residual", "lost", "moved", "multipliers")}
    return named | {"points": track.states}


def association(spike: Any, near: Any, shifts: int, seed: int = 0) -> dict[str, Any]:
    """P(event | spike), P(spike | event), base rates, and what shifts of the events in time give, under recorded names.

    `near` says whether an update has an event beside it; what cannot be had (no spike, no event) is None.
    """
    found = spike_association(spike, near, shifts, seed)
    low, high = found.shifted
    numbers = {
        "p_event_given_spike": found.event_given_spike,
        "p_event": found.event_rate,
        "shifted_low": low,
        "shifted_high": high,
        "p_spike_given_event": found.spike_given_event,
        "p_spike": found.spike_rate,
        "p_value": found.p_value,
    }
    counts = {
        "spikes": found.spikes,
        "updates_beside_an_event": found.events,
        "spikes_beside_an_event": found.together,
    }
    return counts | {name: None if np.isnan(x) else x for name, x in numbers.items()}


def count_fixed_points(config: "Config", params: Any) -> Any:
    """How many fixed points the held map has at a few times in training, from 64 starts each: `[runs, times]`."""
    starts = jnp.tanh(1.5 * jax.random.normal(jax.random.key(config.seed + 2), (64, config.hidden)))
    times = np.linspace(0, config.updates, config.snapshots).astype(int)
    step, runs = recurrent.rnn_step("tanh"), len(jax.tree.leaves(params)[0])

    def at(run, t):
        here = jax.tree.map(lambda p: jnp.asarray(p[run, t]), params)
        return len(find_fixed_points(step, here, starts, jnp.array(HELD), max_iterations=60).kind)

    return times, np.array([[at(run, t) for t in times] for run in range(runs)])


def stability_events(track: dict[str, Any], jump: float) -> dict[str, Any]:
    """What the tracked point does in each update, `[runs, updates]` bools: changes stability, is lost, or jumps.

    A point that moves farther than `jump` has been exchanged for another by Newton's method; that the two differ in
    stability is no bifurcation.
    """
    known = track["residual"] < RESIDUAL
    unstable = (np.abs(track["multipliers"]) > 1).sum(-1)
    lost = known[:, :-1] & (track["lost"][:, 1:] | ~known[:, 1:])
    both = known[:, 1:] & known[:, :-1] & ~lost
    jumps = both & (track["moved"][:, 1:] > jump)
    return {"changed": both & ~jumps & (unstable[:, 1:] != unstable[:, :-1]), "lost": lost, "jumps": jumps}


def event_table(found: dict[str, Any], track: dict[str, Any], jump: float) -> dict[str, Any]:
    """Whether each update has each kind of event just before it and in it: `[runs, updates, 2]` bools."""
    stability = stability_events(track, jump)
    # A change of stability, or the fixed point itself is lost (a fold, or an update too large for Newton's method).
    own = stability["changed"] | stability["lost"]
    before = np.pad(own, ((0, 0), (1, 0)))[:, :-1]
    events = {"basin": found["basin"], "ended": found["ended"], "stability": np.stack([before, own], -1)}
    return events | {"any": np.logical_or.reduce(list(events.values()))}


def tracking_record(track: dict[str, Any], jump: float) -> dict[str, Any]:
    """How the tracked point fared, by run; and how many jumps other limits would count."""
    known = track["residual"] < RESIDUAL
    unstable = known & (np.abs(track["multipliers"]) > 1).any(-1)
    counts = {key: value.sum(1) for key, value in stability_events(track, jump).items()}
    return counts | {
        "share_known": known.mean(1),
        "share_unstable_of_known": unstable.sum(1) / np.maximum(known.sum(1), 1),
        "jumps_by_limit": {
            f"{f * jump:g}": int(stability_events(track, f * jump)["jumps"].sum()) for f in (0.25, 0.5, 1, 2, 4)
        },
    }
