"""One process of several that train one sweep together: `one_of_many.py folder port count index devices`.

Not a test: `test_processes.py` starts it. The process prints one line when the sweep ended, process 0 saves the result.
"""

import sys
import time

import jax


def main(folder, port, count, index, devices):
    """Train the small problem on `devices` devices of this process."""
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index, heartbeat_timeout_seconds=10)
    from sweeps import small

    from cliffs.sweeps import Progress

    def wait(evaluations, active):
        time.sleep(0.1)  # so that there is time to kill it
        return active

    assert jax.device_count() == count * devices
    # A log each: only process 0 must write one.
    progress = Progress(show=False, json_lines=f"{folder}/log-{count}-{index}.jsonl")
    result = small.run(600, small.grid(3), checkpoint=f"{folder}/c", prune=wait, progress=progress)
    if index == 0:
        result.save(f"{folder}/result")
    print(f"process {index} of {count}: {len(result)} runs, complete: {result.complete}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
