"""Table, words and figure of the comparison on a transformer."""

from typing import Any

import numpy as np

from cliffs.plotting import COLORS, figure

TROUBLES = ("clean", "bad batch", "hot warm-up", "heavy-tailed noise")
SHOWN = {
    "none inf": COLORS["unclipped"],
    "clip_by_global_norm 1": COLORS["clipped"],
    "adaptive_grad_clip 0.01": COLORS["accent"],
    "clip_by_spectral_norm 0.1": COLORS["good"],
}
"""The rules and settings whose course is drawn."""


def table(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each rule and setting, `*` at the default: final loss in each trouble, jump and recovery."""
    rows = [("rule, setting", *(f"final, {t}" for t in TROUBLES), "jump, back after: bad batch", "hot warm-up")]
    for name, settings in by_rule(metrics).items():
        for threshold, cells in settings.items():
            star = " *" if threshold == metrics["defaults"][name] else ""
            label = name if np.isinf(threshold) else f"{name} {threshold:g}{star}"
            finals = [f"{cells[t]['final']:.2f} {_interval(cells[t]['final_interval'])}" for t in TROUBLES]
            rows.append((label, *finals, _jump(cells["bad batch"]), _jump(cells["hot warm-up"])))
    return rows


def by_rule(metrics: dict[str, Any]) -> dict[str, dict[float, dict[str, Any]]]:
    """Cells by rule, threshold and trouble."""
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for cell in metrics["cells"]:
        found.setdefault(cell["rule"], {}).setdefault(cell["threshold"], {})[cell["trouble"]] = cell
    return found


def words(metrics: dict[str, Any]) -> list[str]:
    """The recommendation in sentences."""
    advice = metrics["recommendation"]
    lines = [f"losses in nats per symbol above the floor {metrics['floor']:.3f}; intervals: bootstrap over seeds, 95 %"]
    for trouble, part in advice["by_trouble"].items():
        others = ", ".join(part["as_good"][1:]) or "none"
        lines.append(f"{trouble}: best {part['best']} ({part['final']:.2f}); not told apart from it: {others}")
    for which, what in (
        ("overall", "smallest worst regret"),
        ("overall_at_defaults", "the same among defaults"),
        ("no_clipping", "without clipping"),
    ):
        part = advice[which]
        parts = ", ".join(f"{t} {p['regret']:.2f} {_interval(p['interval'])}" for t, p in part["by_trouble"].items())
        lines.append(f"{what}: {part['setting']}, {part['worst_regret']:.2f} ({parts})")
    return lines


def markdown(metrics: dict[str, Any]) -> str:
    """The rules at their defaults as docs/which-clipping.md has them, the smallest worst regret first.

    Bold: the interval of the change against no clipping, same seeds, same trouble, leaves 0 out.
    """
    worst = metrics["recommendation"]["worst_regret"]
    default = metrics["defaults"]
    rules = by_rule(metrics)

    def cell_text(cell):
        low, high = cell["change_interval"]
        text = f"{cell['final']:.2f}"
        return f"**{text}**" if low * high > 0 else text

    lines = ["| rule, default | " + " | ".join(TROUBLES) + " | jump, back after a bad batch | worst regret |"]
    lines.append("| --- " * (len(TROUBLES) + 3) + "|")
    for name in sorted(default, key=lambda n: worst[f"{n} {default[n]:g}"]):
        cells = rules[name][default[name]]
        bad = cells["bad batch"]
        back = f"{bad['recovery']:.0f}" if np.isfinite(bad["recovery"]) else "not"
        label = "no clipping" if name == "none" else f"`{name}` {default[name]:g}"
        parts = [cell_text(cells[t]) for t in TROUBLES]
        parts += [f"{bad['jump']:.2f}, {back}", f"{worst[f'{name} {default[name]:g}']:.2f}"]
        lines.append(f"| {label} | " + " | ".join(parts) + " |")
    return "\n".join(lines)


def _interval(interval: Any) -> str:
    return f"[{interval[0]:.2f}, {interval[1]:.2f}]"


def _jump(cell: dict[str, Any]) -> str:
    back = f"{cell['recovery']:.0f}" if np.isfinite(cell["recovery"]) else "not"
    return f"{cell['jump']:.2f} {_interval(cell['jump_interval'])}, {back}"


def draw(metrics: dict[str, Any], arrays: dict[str, Any], config: Any) -> Any:
    """Above: final losses, a panel for each trouble. Below: the mean course of some rules."""
    rules = by_rule(metrics)
    default = metrics["defaults"]

    def score(name):  # the mean over troubles at the default
        return np.mean([rules[name][default[name]][t]["final"] for t in TROUBLES])

    names = sorted(rules, key=score)
    height = 0.27 * len(names) + 4.2
    ratios = (0.27 * len(names) + 0.8, 3.0)
    fig, axes = figure(2, 4, size=(15, height), height_ratios=ratios)
    for column, trouble in enumerate(TROUBLES):
        _finals(axes[0, column], rules, names, default, trouble)
        if column:
            axes[0, column].set_yticklabels([])
        _course(axes[1, column], arrays, trouble, config)
    axes[0, 0].set_yticklabels([name.replace("_", " ") for name in names], fontsize=8)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    axes[1, 0].legend(handles, labels, fontsize=8)
    axes[0, 0].plot([], [], "o-", color=COLORS["clipped"], label="default, 95 % interval of the mean")
    axes[0, 0].plot([], [], "|", color=COLORS["unstable"], ms=7, label="two other settings")
    axes[0, 0].plot([], [], color=COLORS["unclipped"], label="no clipping")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    return fig


def _finals(ax: Any, rules: Any, names: list[str], default: dict[str, float], trouble: str) -> None:
    none = rules["none"][default["none"]][trouble]
    ax.axvspan(*none["final_interval"], color=COLORS["unclipped"], alpha=0.12, lw=0)
    every = [(cell[trouble]["final"], cell[trouble]["final_interval"]) for r in rules.values() for cell in r.values()]
    edge = 1.05 * max(high for final, (_, high) in every if final <= 1.4 * none["final"])  # the others are named there
    ax.axvline(none["final"], color=COLORS["unclipped"], lw=1)
    for i, name in enumerate(names):
        for threshold, cells in rules[name].items():
            cell, mine = cells[trouble], threshold == default[name]
            color = COLORS["unclipped"] if name == "none" else COLORS["clipped"] if mine else COLORS["unstable"]
            low, high = cell["final_interval"]
            if cell["final"] > edge:
                if mine:
                    beyond = f"{cell['final']:.2f} \N{RIGHTWARDS ARROW}"
                    place = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "center"}
                    ax.text(0.99, i, beyond, fontsize=8, **place)
                continue
            if mine:
                ax.plot([low, high], [i, i], color=color, lw=2.5, alpha=0.4)
            ax.plot(cell["final"], i, "o" if mine else "|", color=color, ms=5 if mine else 7)
    ax.set(
        yticks=range(len(names)),
        ylim=(len(names) - 0.5, -0.5),
        title=trouble,
        xlabel="final loss above the floor (nats)",
    )


def _course(ax: Any, arrays: dict[str, Any], trouble: str, config: Any) -> None:
    width = config.window
    for label, color in SHOWN.items():
        if f"{label} {trouble} loss" not in arrays:
            continue
        losses = arrays[f"{label} {trouble} loss"]
        if trouble != "clean":
            losses = losses - arrays[f"{label} clean loss"]
        kernel = np.ones(width) / width
        course = np.convolve(losses, kernel, "valid")
        ax.plot(
            np.arange(len(course)) + width - 1,
            course,
            color=color,
            lw=1.3,
            label=label.replace("_", " ").replace(" inf", ""),
        )
    if trouble == "bad batch":
        ax.axvspan(config.bad_at, config.bad_at + config.bad_updates, color=COLORS["accent"], alpha=0.3, lw=0)
    if trouble == "hot warm-up":
        ax.axvspan(0, config.hot_updates, color=COLORS["accent"], alpha=0.15, lw=0)
    if trouble != "clean":
        ax.axhline(config.tolerance, color=COLORS["unstable"], lw=0.8, ls=":")
    what = "loss" if trouble == "clean" else "loss above the untroubled twin's"
    ax.set(xlabel="update", ylabel=f"{what} (nats)")
