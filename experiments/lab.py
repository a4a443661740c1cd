"""The lab: eight ideas to move by hand. `uv run --extra lab marimo run experiments/lab.py`.

What is computed and drawn stands in experiments/lab/, a file for each tab; here controls are wired to it.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="cliffs lab", css_file="lab/page.css", html_head_file="lab/head.html")

with app.setup:
    import os
    import pathlib
    import sys
    from collections.abc import Iterable
    from typing import Any

    import marimo as mo
    import numpy as np

    ROOT = pathlib.Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(ROOT))

    import jax

    # Programs that were compiled once are there at the next start.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

    from experiments.lab import bifurcations, catastrophe, cliff, clipping, descent, growth, omega, training_run
    from experiments.lab.pad import Pad, Theme
    from experiments.lab.page import page

    TABS = ("Catastrophe", "Cliff", "Descent", "Rules", "Omega", "Growth", "Training", "Bifurcations")

    def decades(low: float, high: float, each: int = 10) -> list[float]:
        """Numbers with three digits, `each` of them a decade."""
        count = round(each * np.log10(high / low)) + 1
        return [float(f"{v:.3g}") for v in np.geomspace(low, high, count)]

    def between(low: float, high: float, step: float) -> list[float]:
        """Evenly spaced numbers, both ends included."""
        return np.round(np.arange(low, high + step / 2, step), 4).tolist()

    def slider(label: str, steps: Iterable[float], value: float) -> Any:
        """A slider over these numbers that shows its value."""
        return mo.ui.slider(steps=list(steps), value=value, label=label, show_value=True, full_width=True)

    def pad(x: float, y: float) -> Any:
        """A canvas with its handle at this point."""
        return mo.ui.anywidget(Pad(point=[x, y]))


@app.cell
def _():
    theme = mo.ui.anywidget(Theme())
    nav = mo.ui.tabs(dict.fromkeys(TABS, ""), value=TABS[0])
    title = mo.Html('<h1 class="lab-title">cliffs lab: why gradients explode, and what clipping does</h1>')
    mo.vstack([title, nav, theme], gap=0.25)
    return nav, theme


@app.cell
def _(nav, theme):
    # Nothing is computed before the browser has said whether it is dark.
    dark = theme.value["dark"]
    tab = None if dark is None else nav.value
    return dark, tab


@app.cell
def _():
    seed_1 = slider("seed", range(40), 19)
    threshold_1 = slider("threshold", decades(0.1, 100), 1.0)
    rate_1 = slider("learning rate", decades(0.01, 1), 0.1)
    return rate_1, seed_1, threshold_1


@app.cell
def _(dark, rate_1, seed_1, tab, threshold_1):
    mo.stop(tab != "Catastrophe")
    found_1 = catastrophe.compute(seed_1.value, threshold_1.value, rate_1.value)
    page(catastrophe, found_1, [seed_1, threshold_1, rate_1], dark)
    return


@app.cell
def _():
    w_2 = slider("weight w", between(4.3, 6.5, 0.05), 5.0)
    length_2 = slider("length T (steps)", range(5, cliff.MAX_LENGTH + 1), 50)
    pad_2 = pad(-2.66, 1.0)
    return length_2, pad_2, w_2


@app.cell
def _(dark, length_2, pad_2, tab, w_2):
    mo.stop(tab != "Cliff")
    found_2 = cliff.compute(w_2.value, length_2.value, pad_2.value["point"][0])
    page(cliff, found_2, [w_2, length_2], dark, pad_2)
    return


@app.cell
def _():
    threshold_3 = slider("threshold", decades(0.01, 1000), 0.1)
    rate_3 = slider("learning rate", decades(0.001, 10), 0.1)
    pad_3 = pad(5.0, -2.3)
    return pad_3, rate_3, threshold_3


@app.cell
def _(dark, pad_3, rate_3, tab, threshold_3):
    mo.stop(tab != "Descent")
    _x, _y = pad_3.value["point"]
    found_3 = descent.compute(_x, _y, threshold_3.value, rate_3.value)
    page(descent, found_3, [threshold_3, rate_3], dark, pad_3)
    return


@app.cell
def _():
    threshold_4 = slider("threshold of norm, value and leaf clipping", between(0.1, 4, 0.05), 1.0)
    usual_4 = slider("usual norm of the updates before (EMA)", between(0.1, 4, 0.05), 1.0)
    multiplier_4 = slider("multiple of it that is allowed (EMA)", between(1, 5, 0.1), 2.0)
    pad_4 = pad(3.5, 1.6)
    return multiplier_4, pad_4, threshold_4, usual_4


@app.cell
def _(dark, multiplier_4, pad_4, tab, threshold_4, usual_4):
    mo.stop(tab != "Rules")
    _x, _y = pad_4.value["point"]
    found_4 = clipping.compute(_x, _y, threshold_4.value, usual_4.value, multiplier_4.value)
    page(clipping, found_4, [threshold_4, usual_4, multiplier_4], dark, pad_4)
    return


@app.cell
def _():
    weight_5 = slider("λ, weight of Ω", [0.0, *decades(0.01, 10)], 2.0)
    scale_5 = slider("scale of the initial recurrent weights", between(0.5, 2, 0.05), 1.5)
    seed_5 = slider("seed", range(10), 0)
    return scale_5, seed_5, weight_5


@app.cell
def _(dark, scale_5, seed_5, tab, weight_5):
    mo.stop(tab != "Omega")
    found_5 = omega.compute(weight_5.value, scale_5.value, seed_5.value)
    page(omega, found_5, [weight_5, scale_5, seed_5], dark)
    return


@app.cell
def _():
    scale_6 = slider("spectral radius of the weights", between(0.1, 2.5, 0.02), 0.7)
    units_6 = mo.ui.dropdown(growth.ACTIVATIONS, value="tanh", label="units")
    seed_6 = slider("seed", range(10), 0)
    return scale_6, seed_6, units_6


@app.cell
def _(dark, scale_6, seed_6, tab, units_6):
    mo.stop(tab != "Growth")
    found_6 = growth.compute(scale_6.value, seed_6.value, units_6.value)
    page(growth, found_6, [scale_6, units_6, seed_6], dark)
    return


@app.cell
def _():
    x0_8 = slider("first state x₀", between(-5, 5, 0.1), 0.5)
    pad_8 = pad(5.0, -2.5)
    return pad_8, x0_8


@app.cell
def _(dark, pad_8, tab, x0_8):
    mo.stop(tab != "Bifurcations")
    _x, _y = pad_8.value["point"]
    found_8 = bifurcations.compute(_x, _y, x0_8.value)
    page(bifurcations, found_8, [x0_8], dark, pad_8)
    return


@app.cell
def _(tab):
    # Once the picture is there.
    mo.stop(tab != "Bifurcations")
    bifurcations.warm()
    return


# The one that takes its time is last: before its end the cells below would keep the former tab's pictures.
@app.cell
def _():
    first_7 = training_run.Choice()
    task_7 = mo.ui.dropdown(list(training_run.TASKS), value=first_7.task, label="task")
    cell_7 = mo.ui.dropdown(training_run.CELLS, value=first_7.cell, label="cell")
    init_7 = mo.ui.dropdown(list(training_run.INITS), value=first_7.init, label="initial weights")
    strategy_7 = mo.ui.dropdown(training_run.STRATEGIES, value=first_7.strategy, label="clipping strategy")
    threshold_7 = slider("threshold τ", decades(0.01, 100), first_7.threshold)
    rate_7 = slider("learning rate", decades(0.001, 10), first_7.rate)
    seed_7 = slider("seed", range(10), first_7.seed)
    train_7 = mo.ui.run_button(label="Train", kind="success")
    controls_7 = [task_7, cell_7, init_7, strategy_7, threshold_7, rate_7, seed_7, train_7]
    shown_7 = {"choice": first_7}
    finished_7 = {}
    return cell_7, controls_7, finished_7, init_7, rate_7, seed_7, shown_7, strategy_7, task_7, threshold_7, train_7


@app.cell
def _(
    cell_7, controls_7, dark, finished_7, init_7, rate_7, seed_7, shown_7, strategy_7, tab, task_7, threshold_7, train_7
):
    mo.stop(tab != "Training")
    if train_7.value:
        words_7 = (task_7.value, cell_7.value, init_7.value, strategy_7.value)
        shown_7["choice"] = training_run.Choice(*words_7, threshold_7.value, rate_7.value, seed_7.value)
    choice_7 = shown_7["choice"]
    history_7 = finished_7.get(choice_7)
    if history_7 is None:
        for history_7 in training_run.train(choice_7):
            mo.output.replace(page(training_run, history_7, controls_7, dark))
        finished_7[choice_7] = history_7
    page(training_run, history_7, controls_7, dark)
    return


if __name__ == "__main__":
    app.run()
