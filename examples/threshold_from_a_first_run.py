"""Log gradient norms for a while without clipping, and let the library propose a threshold."""

import jax
import optax

import cliffs
from cliffs import recurrent, tasks, training


def train(clip: optax.GradientTransformation, updates: int):
    loss = training.classification_loss(cliffs.rnn_step("tanh"))
    params = recurrent.paper_init("smart_tanh", jax.random.key(0), 6, 20, 4)
    return training.fit(
        loss,
        optax.chain(clip, optax.sgd(0.05)),
        params,
        lambda key: tasks.temporal_order(key, 20, 20),
        jax.random.key(1),
        updates,
    )


def main(updates: int = 300) -> None:
    _, first = train(optax.identity(), updates)
    proposal = cliffs.suggest_threshold(first.grad_norm)
    print(proposal)
    print(cliffs.diagnose(first.grad_norm, losses=first.loss))
    _, second = train(cliffs.clip_by_global_norm(proposal.suggested), updates)
    print(f"loss without clipping {float(first.loss[-50:].mean()):.3f}, with {float(second.loss[-50:].mean()):.3f}")


if __name__ == "__main__":
    main()
