"""A sweep that is killed again and again, and checkpoints that are damaged: the result must not change by one bit.

    python experiments/benchmarks/resume_torture.py

A child process trains a small grid with a checkpoint after every evaluation. It is killed (SIGKILL) at random moments,
every second time while a checkpoint is being written, and started again on the same folder, until it ends by itself.
Then the last checkpoint of a half-finished sweep is damaged (a flipped byte, cut short, emptied, its manifest gone) and
the sweep is started once more. A case counts when the final result equals that of an undisturbed sweep to the bit, and,
for a damage, when the notes name it. The last line is one JSON object.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Config:
    """How often."""

    kills: int = 30
    corruptions: int = 20
    runs: int = 12
    steps: int = 4_000
    evaluate_every: int = 50
    devices: int = 2
    seed: int = 0


class Result(NamedTuple):
    """How many of how many were right."""

    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Any = print) -> Result:
    """Kill and damage; `30/30` and `20/20` when all is well."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "undisturbed").mkdir()
        want = finish(config, folder / "undisturbed")["digest"]
        metrics = torture(config, folder, want, say) | corrupt(config, folder, want, say)
    rows = [
        ("kills that changed nothing", f"{metrics['good']}/{metrics['kills']}"),
        ("of these inside the writing of a checkpoint", str(metrics["torn"])),
        ("damaged checkpoints with a clean answer", f"{metrics['clean']}/{metrics['corruptions']}"),
    ]
    return Result(metrics, rows)


def child(config: Config, folder: str) -> None:
    """Train, and print a digest of everything that the sweep left, and its notes."""
    from cliffs.sweeps import use_all_cores

    use_all_cores(config.devices)
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from cliffs import recurrent, tasks, training
    from cliffs.sweeps import product_grid, sweep

    loss = training.classification_loss(recurrent.rnn_step("tanh"))

    def optimizer(run):
        return optax.chain(optax.clip_by_global_norm(run["max_norm"]), optax.adam(0.01))

    def init(run):
        params = recurrent.paper_init("smart_tanh", jax.random.key(run["seed"]), 6, 8, 4)
        return training.init_train_state(params, optimizer(run))

    def update(state, run):
        key = jax.random.fold_in(jax.random.key(run["seed"] + 1000), state.step)
        return training.train_step(state, tasks.temporal_order(key, 4, 10), loss, optimizer(run))

    def evaluate(state, run):
        return {"norm": jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(state.params)))}

    grid = product_grid(max_norm=[0.1, 1.0], seed=list(range(config.runs // 2)))
    result = sweep(
        init,
        update,
        grid,
        config.steps,
        evaluate=evaluate,
        evaluate_every=config.evaluate_every,
        checkpoint=folder,
        progress=False,
    )
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((result.state, result.metrics, result.evaluations, result.steps_run)):
        digest.update(np.asarray(leaf).tobytes())
    print(json.dumps({"digest": digest.hexdigest(), "notes": result.notes}), flush=True)


def start(config: Config, folder: pathlib.Path) -> subprocess.Popen:
    """The child process; compiled programs are kept, so that a restart takes a second or two."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    cache["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, __file__, "child", str(folder), json.dumps(dataclasses.asdict(config))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **cache},
    )


def finish(config: Config, folder: pathlib.Path) -> dict:
    """Run the child to its end."""
    process = start(config, folder)
    out, err = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(f"the child ended with {process.returncode}:\n{err[-2000:]}")
    return json.loads(out.splitlines()[-1])


def kill_once(process: subprocess.Popen, folder: pathlib.Path, writing: bool, chance: random.Random) -> bool:
    """Kill the child at a random moment of its work, or while it writes; False when it ended before that."""
    seen = set(folder.glob("checkpoint-*"))
    while process.poll() is None and set(folder.glob("checkpoint-*")) <= seen:
        time.sleep(0.002)  # it is still starting
    if writing:
        while process.poll() is None and not any(folder.glob(".writing-*")):
            pass
        time.sleep(chance.uniform(0, 0.002))
    else:
        time.sleep(chance.uniform(0, 0.2))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True


def torture(config: Config, folder: pathlib.Path, want: str, say: Any) -> dict[str, int]:
    """Kill until there were enough, over as many sweeps as it takes."""
    chance = random.Random(config.seed)
    kills = good = torn = sweeps = 0
    while kills < config.kills:
        here, at_start = folder / f"sweep-{sweeps}", kills
        here.mkdir()
        while kills < config.kills:
            if not kill_once(start(config, here), here, kills % 2 == 1, chance):
                break
            kills += 1
            torn += any(here.glob(".writing-*"))
        same = finish(config, here)["digest"] == want
        good += (kills - at_start) * same
        sweeps += 1
        say(f"{kills} kills ({torn} left a half-written checkpoint), {good} with the same bits")
    return {"kills": kills, "good": good, "torn": torn, "sweeps": sweeps}


def flip(path: pathlib.Path, chance: random.Random) -> None:
    """One bit of one byte."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def cut(path: pathlib.Path, chance: random.Random) -> None:
    """Some bytes less."""
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])


DAMAGES = {
    "flipped": flip,
    "cut": cut,
    "emptied": lambda path, chance: path.write_bytes(b""),
    "missing": lambda path, chance: path.unlink(),
}


def corrupt(config: Config, folder: pathlib.Path, want: str, say: Any) -> dict[str, int]:
    """Damage the newest checkpoint of a sweep that was killed half-way."""
    chance = random.Random(config.seed + 1)
    template = folder / "template"
    template.mkdir()
    process = start(config, template)
    while process.poll() is None and len(list(template.glob("checkpoint-*"))) < 2:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    for leftover in template.glob(".writing-*"):
        shutil.rmtree(leftover)
    clean = []
    for case in range(config.corruptions):
        here = folder / f"damaged-{case}"
        shutil.copytree(template, here)
        newest = max(here.glob("checkpoint-*"))
        kind = list(DAMAGES)[case % len(DAMAGES)]
        name = ("manifest.json", "part-0.npz")[(case // len(DAMAGES)) % 2] if kind != "missing" else "manifest.json"
        DAMAGES[kind](newest / name, chance)
        got = finish(config, here)
        named = any(newest.name in note for note in got["notes"])
        clean.append(got["digest"] == want and named)
        say(f"{kind} {name}: {'clean' if clean[-1] else 'WRONG'}; {got['notes']}")
    return {"corruptions": len(clean), "clean": sum(clean)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(Config(**json.loads(sys.argv[3])), sys.argv[2])
    else:
        sys.path.insert(0, str(ROOT))
        from experiments import runner

        runner.main(__file__)
