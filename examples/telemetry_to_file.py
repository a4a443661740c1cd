"""Write what the clipping did at every step to a JSON-lines file, then read the file's diagnosis."""

import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import optax

import cliffs


def loss(params: dict, batch: tuple) -> jax.Array:
    x, y = batch
    return jnp.mean((jnp.tanh(x @ params["w1"]) @ params["w2"] - y) ** 2)


def main(path: pathlib.Path | None = None) -> None:
    path = path or pathlib.Path(tempfile.mkdtemp()) / "log.jsonl"
    optimizer = optax.chain(cliffs.with_telemetry(cliffs.clip_by_global_norm(1.0), per_leaf=True), optax.sgd(0.1))
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"w1": jax.random.normal(keys[0], (3, 8)), "w2": jax.random.normal(keys[1], (8, 1))}
    x = jax.random.normal(keys[2], (64, 3))
    batch = x, jnp.sin(x.sum(1, keepdims=True))

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    with path.open("w") as file:
        for _ in range(100):
            params, state, value = step(params, state)
            file.write(json.dumps({"loss": float(value), **cliffs.read_telemetry(state)}) + "\n")

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    report = cliffs.diagnose([row["norm_before"] for row in rows], losses=[row["loss"] for row in rows])
    print(f"{len(rows)} lines in {path.name}; loss {rows[0]['loss']:.3f} -> {rows[-1]['loss']:.3f}")
    print(report)


if __name__ == "__main__":
    main()
