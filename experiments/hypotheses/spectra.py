"""Do singular values of the Jacobian product grow or shrink with its length? By initialisation, over many seeds.

Networks at initialisation, driven by random one-hot symbols (six, as in the temporal order task): the paper's three
recipes, a small Gaussian, Glorot, orthogonal, identity plus noise with ReLU units, and an LSTM with forget bias 1.
Figures: `growth` (largest, median and smallest singular value), `rates` (log s_1 / T of every seed), `components`
(norms of all temporal components of one network). One network of 2,000 units is measured matrix-free, and checked
against scipy's ARPACK on analytic Jacobians. Dead ReLU units make a Jacobian singular: of the values below about
1e-16 of that panel some are zeros, shown as what rounding leaves in their place.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs import recurrent, spectra
from cliffs.plotting import COLORS, figure, plot_singular_values, plot_temporal_components

STEPS = (1, 2, 4, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    hidden: int = 50
    """Units; the LSTM has half, so that every state has as many entries."""
    length: int = 100
    seeds: int = 20
    symbols: int = 6
    seed: int = 0
    large: int = 2000
    """Units of the network that is measured matrix-free; 0 to leave it out."""
    large_length: int = 30
    large_values: int = 8


class Result(NamedTuple):
    """Singular values of every initialisation and the components of one network."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, ...]]
    curves: dict[str, np.ndarray]
    """Initialisation to logarithms of singular values `[seeds, times, n]`."""
    steps: np.ndarray


def run(config: Config, say: Any = print) -> Result:
    """Measure every initialisation in float64, then one large network."""
    steps = np.array([t for t in STEPS if t < config.length] + [config.length])
    curves, metrics = {}, {}
    with jax.enable_x64(True):
        for name, network in networks(config).items():
            begun = time.perf_counter()
            logs, report = measure(network, config, steps)
            curves[name] = np.asarray(logs)
            metrics[name] = summary(logs, report, config.length) | {"seconds": time.perf_counter() - begun}
            say(f"{name}: {metrics[name]['seconds']:.1f} s")
        norms = components(config)
        large = measure_large(config) if config.large else None
    arrays = {f"log_singular_values_{i}": logs.astype(np.float32) for i, logs in enumerate(curves.values())}
    arrays |= {"names": np.array(list(curves)), "steps": steps, "temporal_components": norms}
    rows = [("initialisation", "log s_1 / T (nats per step): 10, 50, 90 % of seeds")]
    for name, numbers in metrics.items():
        rows.append((name, ", ".join(f"{v:.3g}" for v in numbers["rate_nats_per_step_10_50_90"])))
    if large:
        off = f"off ARPACK by {large['largest_difference_from_arpack']:.1e} in {large['seconds']:.1f} s"
        rows.append((f"{large['units']} units, matrix-free", off))
    return Result(config, {"initialisations": metrics, "large": large}, arrays, rows, curves, steps)


def vanilla(init: Callable[[jax.Array, int, int], recurrent.RNNParams], activation: str):
    """`(step, params from a key, zero state, activation)` of a vanilla network."""
    return recurrent.rnn_step(activation), init, lambda n: jnp.zeros(n), activation


def from_recipe(name: str):
    """Recurrent part of one of the paper's three initialisations."""

    def init(key, symbols, hidden):
        return recurrent.paper_init(name, key, symbols, hidden, 4, jnp.float64).rnn

    return init


def from_matrix(w_rec: jax.nn.initializers.Initializer, w_in: jax.nn.initializers.Initializer):
    """A network with the given initialisers and zero biases."""

    def init(key, symbols, hidden):
        k_rec, k_in = jax.random.split(key)
        return recurrent.RNNParams(
            w_rec(k_rec, (hidden, hidden), jnp.float64), w_in(k_in, (symbols, hidden), jnp.float64), jnp.zeros(hidden)
        )

    return init


def networks(config: Config) -> dict[str, Any]:
    """Every initialisation by its name in the figures."""
    lstm = recurrent.lstm_cell(config.hidden // 2, forget_bias=1.0)
    return {
        "sigmoid (paper)": vanilla(from_recipe("sigmoid"), "logistic"),
        "basic_tanh (paper)": vanilla(from_recipe("basic_tanh"), "tanh"),
        "smart_tanh (paper)": vanilla(from_recipe("smart_tanh"), "tanh"),
        "Gaussian N(0, 0.01), tanh": vanilla(from_matrix(recurrent.gaussian(0.01), recurrent.gaussian(0.01)), "tanh"),
        "Glorot, tanh": vanilla(from_matrix(recurrent.glorot(), recurrent.glorot()), "tanh"),
        "orthogonal, tanh": vanilla(from_matrix(recurrent.orthogonal(), recurrent.glorot()), "tanh"),
        "identity + noise, ReLU": vanilla(
            from_matrix(recurrent.identity_plus_noise(0.001), recurrent.glorot()), "relu"
        ),
        "LSTM, forget bias 1": (
            lstm,
            lambda key, symbols, hidden: lstm.init(key, symbols, jnp.float64),
            lambda n: lstm.initial_state((), jnp.float64),
            None,
        ),
    }


def trajectory(network, key, config: Config):
    """`(params, states before each step, inputs)` of one seed."""
    step, init, zero, _ = network
    k_init, k_inputs = jax.random.split(key)
    params, state = init(k_init, config.symbols, config.hidden), zero(config.hidden)
    symbols = jax.random.randint(k_inputs, (config.length,), 0, config.symbols)
    inputs = jax.nn.one_hot(symbols, config.symbols, dtype=jnp.float64)
    states = recurrent.unroll(step, params, state, inputs)
    before = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs[:-1]]), state, states)
    return params, before, inputs


def measure(network, config: Config, steps: np.ndarray):
    """`(log singular values [seeds, times, n], growth reports or None)`."""

    def products(key):
        params, states, inputs = trajectory(network, key, config)
        product = spectra.jacobian_products(spectra.step_jacobians(network[0], params, states, inputs))
        report = spectra.growth_report(params.w_rec, network[3]) if network[3] else None
        return jax.tree.map(lambda x: x[steps - 1], product), report

    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(config.seed), i))(jnp.arange(config.seeds))
    # Two programs: as one, the LSTM's stood still in XLA's thread pool on two cores (jaxlib 0.10.2).
    product, report = jax.block_until_ready(jax.jit(jax.vmap(products))(keys))
    return jax.jit(jax.vmap(spectra.log_singular_values))(product), report


def quantiles(values: np.ndarray) -> list[float]:
    """10, 50 and 90 % over seeds, nearest rank (a value can be -inf)."""
    return np.quantile(np.asarray(values), [0.1, 0.5, 0.9], method="nearest").tolist()


def summary(logs: np.ndarray, report, length: int) -> dict[str, Any]:
    """The numbers of one initialisation; logarithms to base 10, quantiles 10/50/90 over seeds."""
    ten = np.asarray(logs)[:, -1] / np.log(10)
    out = {
        "log10_largest_10_50_90": quantiles(ten[:, 0]),
        "log10_median_10_50_90": quantiles(ten[:, ten.shape[1] // 2]),
        "log10_smallest_10_50_90": quantiles(ten[:, -1]),
        "rate_nats_per_step_10_50_90": quantiles(np.asarray(logs)[:, -1, 0] / length),
        "share_of_seeds_whose_largest_exceeds_1": float((ten[:, 0] > 0).mean()),
        "share_of_seeds_that_grew_first_and_are_below_1_at_the_end": float(
            ((np.asarray(logs)[:, :, 0].max(1) > 0) & (ten[:, 0] < 0)).mean()
        ),
    }
    if report is not None:
        out |= {
            "slope_times_singular_value_10_50_90": quantiles(report.largest_singular_value),
            "slope_times_spectral_radius_10_50_90": quantiles(report.spectral_radius),
            "peak_power_norm_10_50_90": quantiles(report.peak_power_norm),
            "share_that_can_explode": float(np.mean(report.can_explode)),
            "share_where_the_spectral_radius_misleads": float(np.mean(report.radius_misleads)),
        }
    return out


def measure_large(config: Config) -> dict[str, Any]:
    """The leading singular values of one large network, matrix-free, beside ARPACK on W and the slopes."""
    from scipy.sparse.linalg import LinearOperator, svds

    n, time_steps, k = config.large, config.large_length, config.large_values
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 99), 3)
    params = recurrent.RNNParams(1.5 * jax.random.normal(keys[0], (n, n), jnp.float64) / n**0.5, jnp.zeros((1, n)))
    step, start = recurrent.rnn_step("tanh", "pre_activation"), jax.random.normal(keys[1], (n,))
    inputs = jnp.zeros((time_steps, 1))
    states = recurrent.unroll(step, params, start, inputs)
    before = jnp.concatenate([start[None], states[:-1]])
    run = jax.jit(
        lambda p: spectra.leading_singular_values(
            step, p, before, inputs, num_values=k, oversampling=24, tolerance=1e-6, key=keys[2]
        )
    )
    begun = time.perf_counter()
    compiled = run.lower(params).compile()
    compile_seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    got = jax.block_until_ready(compiled(params))
    seconds = time.perf_counter() - begun

    w, slopes = np.asarray(params.w_rec), 1 - np.tanh(np.asarray(before)) ** 2

    def forward(v):
        for slope in slopes:
            v = (slope * np.ravel(v)) @ w
        return v

    def backward(v):
        for slope in slopes[::-1]:
            v = slope * (w @ np.ravel(v))
        return v

    begun = time.perf_counter()
    operator: Any = LinearOperator((n, n), matvec=forward, rmatvec=backward, dtype=float)  # pyright: ignore
    values: Any = svds(operator, k=k, return_singular_vectors=False, rng=0)
    want = np.log(np.sort(values)[::-1])
    return {
        "units": n,
        "steps": time_steps,
        "log_values": got.log_values,
        "passes": got.num_passes,
        "change_in_last_pass": got.change,
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "arpack_seconds": time.perf_counter() - begun,
        "largest_difference_from_arpack": np.abs(np.asarray(got.log_values) - want).max(),
        "bytes_of_all_step_jacobians": time_steps * n * n * 8,
    }


def components(config: Config) -> np.ndarray:
    """The norms `[t, k]` of all temporal components of one Glorot network."""
    network = networks(config)["Glorot, tanh"]
    params, before, inputs = trajectory(network, jax.random.fold_in(jax.random.key(config.seed), 0), config)
    state = jax.tree.map(lambda x: x[0], before)

    def norms(p):
        return spectra.temporal_components(lambda x, t: jnp.sum(x**2) / 2, network[0], p, state, inputs)[0]

    return np.asarray(jax.jit(norms)(params))


def draw(result: Result) -> dict[str, Any]:
    """Growth in a panel for each initialisation, the rates of all, the components of one network."""
    title = f"growth over {result.config.length} steps, {result.config.seeds} seeds"
    rates = {name: logs[:, -1, 0] / result.config.length for name, logs in result.curves.items()}
    fig, ax = figure(size=(5.2, 4.2))
    plot_temporal_components(result.arrays["temporal_components"], ax)
    ax.set_title("temporal components, Glorot, tanh")
    return {"growth": _draw_growth(result), "rates": _draw_rates(rates, title), "components": fig}


def _draw_growth(result: Result, columns: int = 4) -> Any:
    rows = -(-len(result.curves) // columns)
    fig, axes = figure(rows, columns, size=(3.6 * columns, 3.0 * rows), sharex=True, sharey=True, squeeze=False)
    for ax in axes.ravel()[len(result.curves) :]:
        ax.remove()
    for index, (ax, (name, logs)) in enumerate(zip(axes.ravel(), result.curves.items())):
        plot_singular_values(logs, result.steps, ax, decades=(-16, 3))
        ax.set(title=name)
        if index % columns:
            ax.set(ylabel="")
        last = index >= len(result.curves) - columns
        ax.set(xlabel="steps in the product" if last else "")
        ax.tick_params(labelbottom=last)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    return fig


def _draw_rates(rates: dict[str, np.ndarray], title: str) -> Any:
    """The rate of every seed as a dot, their median as a bar, one row per initialisation."""
    fig, ax = figure(size=(6.4, 0.42 * len(rates) + 1.4))
    spread = np.random.default_rng(0)
    for row, values in enumerate(rates.values()):
        jitter = spread.uniform(-0.22, 0.22, len(values))
        color = COLORS["unclipped"] if np.median(values) > 0 else COLORS["clipped"]
        ax.plot(values, row + jitter, ".", color=color, ms=4, alpha=0.6)
        ax.plot([np.median(values)] * 2, [row - 0.35, row + 0.35], color=COLORS["stable"], lw=1.6)
    ax.axvline(0, color=COLORS["stable"], lw=0.7)
    # Rates lie between -4 and 0.01: linear up to the threshold, logarithmic beyond.
    ax.set_xscale("symlog", linthresh=0.05)
    every = np.concatenate(list(rates.values()))
    low, high = 1.3 * min(every.min(), -0.02), 1.3 * max(every.max(), 0.02)
    marks = [m for m in (-4, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 4) if low <= m <= high]
    ax.set_xticks(marks, [f"{m:g}" for m in marks])
    ax.minorticks_off()
    ax.set(xlim=(low, high), yticks=range(len(rates)), yticklabels=list(rates), title=title)
    ax.set(xlabel="growth of the largest singular value (nats per step)")
    ax.invert_yaxis()
    return fig


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
