# ruff: noqa: E402 - what jax is told must precede its import
"""Fixtures that every test module may use."""

import importlib.metadata
import os
import pathlib
import signal
import sys

KEPT = pathlib.Path(__file__).resolve().parents[1] / ".cache"

# Must be set before jax starts. Four host devices, so that sharding is tested on any machine. The other flags are about
# XLA's compile time, most of what the tests cost: one module instead of 32 side by side, fewer passes of LLVM, and the
# former code generator where it can be had. Together they save more than half. What the environment names goes first:
# `XLA_FLAGS=--xla_force_host_platform_device_count=4` tests what users get.
# jaxlib 0.11.2 has no other generator than the new one.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=4"
    " --xla_cpu_parallel_codegen_split_count=1"
    " --xla_backend_optimization_level=1"
    + (" --xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib") == "0.10.2" else ""),
)

# Two threads for each device, as use_all_cores has it: with fewer, programs with batched decompositions may hang.
os.environ.setdefault("PJRT_NPROC", "8")

# Compiled programs are kept in the checkout, so that the test workers share them and a second run is quick.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(KEPT / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# Without byte code every process compiles jax and the rest from their sources, the workers and what the tests start:
# where Python is told not to write it beside the sources, it is kept in the checkout as well.
if sys.dont_write_bytecode:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(KEPT / "python")
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(KEPT / "python")

import hypothesis
import jax
import jaxtyping
import pytest
import typechecker

# Annotated types and shapes are checked at every call, so they cannot lie. Must precede the import of cliffs.
typechecker.install()

hypothesis.settings.register_profile(
    "cliffs",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("cliffs")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def errors_of_our_own(request):
    """Tests of what wrong arguments give see the library's own errors, not those of the type check."""
    off = request.node.get_closest_marker("wrong_arguments") is not None
    jaxtyping.config.update("jaxtyping_disable", off)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def default_handler():
    """Python's own answer to SIGINT, also where the tests run in the background."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture
def x64():
    """float64 inside the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def reference():
    """Numbers of the one-unit map to 25 digits, computed by `reference_numbers.py` with mpmath."""
    import json

    return json.loads(pathlib.Path(__file__).with_name("reference_numbers.json").read_text())


@pytest.fixture(scope="session")
def data_dir():
    """The folder with the real data sets; skipped where it is absent."""
    path = SHARED / "data"
    if not path.exists():
        pytest.skip("real data sets are not on this machine (../shared/data)")
    return path
