"""One sweep over several processes: the same bits, and a lost process costs no more than the present block."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
from sweeps import small

from cliffs.sweeps import load_sweep

SECONDS_UNTIL_THE_OTHERS_END = 60


def start(folder, count, devices):
    """Several processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": ":".join(p for p in sys.path if p)}
    worker = os.path.join(os.path.dirname(__file__), "one_of_many.py")
    return [
        subprocess.Popen(
            [sys.executable, worker, *map(str, (folder, port, count, index, devices))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in range(count)
    ]


def end(processes, seconds):
    """What they wrote; all are ended when this returns."""
    try:
        return [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def alone():
    return small.run(600, small.grid(3), devices=jax.local_devices()[:4])


def test_integration_a_killed_process_ends_the_others_and_fewer_resume_to_the_same_bits(alone, tmp_path):
    four = start(tmp_path, 4, 1)
    until = time.monotonic() + 120
    while len(list(tmp_path.glob("c/checkpoint-*"))) < 2 and time.monotonic() < until:
        assert all(process.poll() is None for process in four), end(four, 60)
        time.sleep(0.02)
    parts = sorted(p.name for p in max(tmp_path.glob("c/checkpoint-*")).iterdir())
    assert parts == ["manifest.json", *(f"part-{i}.npz" for i in range(4))]
    four[2].send_signal(signal.SIGKILL)
    wrote = end(four, SECONDS_UNTIL_THE_OTHERS_END)
    for index in (0, 1, 3):
        out, err = wrote[index]
        assert four[index].returncode != 0
        assert "complete" not in out
        assert "To resume, start all processes again" in err, err[-3000:]

    two = start(tmp_path, 2, 2)
    wrote = end(two, 120)
    for index, (out, err) in enumerate(wrote):
        # Gloo writes to stdout as well.
        assert out.endswith(f"process {index} of 2: 9 runs, complete: True\n"), err[-3000:]
    small.assert_same(load_sweep(tmp_path / "result"), alone)
    assert sorted(p.name for p in tmp_path.glob("log-*")) == ["log-2-0.jsonl", "log-4-0.jsonl"]
