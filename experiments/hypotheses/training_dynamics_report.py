"""What the experiment on training dynamics prints and draws."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cliffs.plotting import COLORS, figure

EVENTS = {
    "basin": "basin boundary crossed",
    "ended": "attractor ended or began",
    "stability": "tracked fixed point bifurcates",
    "any": "any of these",
}
GROUPS = {"unclipped": True, "clipped": False}
SIDES = {"before": (0,), "own update": (1,), "both sides": (0, 1)}
"""The update that led to the spike's parameters (it cannot be the spike's doing), the spike's own update, or either."""


def association_table(
    association: Callable[..., dict[str, Any]], max_norm: Any, spike: Any, events: dict[str, Any], shifts: int
) -> dict[str, Any]:
    """The association of spikes with every kind of event: group to side to event to its numbers."""
    table: dict[str, Any] = {}
    for name, none in GROUPS.items():
        rows = np.isinf(max_norm) == none
        table[name] = {
            label: {key: association(spike[rows], events[key][rows][..., sides].any(-1), shifts) for key in EVENTS}
            for label, sides in SIDES.items()
        }
    return table


def verdicts(table: dict[str, Any]) -> dict[str, Any]:
    """The test of any event, for each group and side, with the number of tests that the whole table makes."""
    tests = sum(len(cells) for sides in table.values() for cells in sides.values())
    found = {
        name: {
            side: {
                "spikes": cells["any"]["spikes"],
                "beside_an_event": cells["any"]["spikes_beside_an_event"],
                "share": cells["any"]["p_event_given_spike"],
                "share_of_all_updates": cells["any"]["p_event"],
                "p_value": cells["any"]["p_value"],
                "p_value_bonferroni": min(1.0, tests * cells["any"]["p_value"]),
            }
            for side, cells in sides.items()
        }
        for name, sides in table.items()
    }
    return {"tests": tests, "any": found}


def verdict_lines(verdicts: dict[str, Any]) -> list[str]:
    """One line for each group and side."""
    tests, lines = verdicts["tests"], []
    lines.append(f"\nverdicts on any event ({tests} tests were made; p is uncorrected, then times {tests}):")
    for name, sides in verdicts["any"].items():
        for side, v in sides.items():
            if not v["spikes"]:
                lines.append(f"  {name}, {side}: no spikes")
                continue
            strength = "not more than by chance"
            if v["p_value"] < 0.05:
                strength = "more than by chance" + (
                    "" if v["p_value_bonferroni"] < 0.05 else " only if this were the one test made"
                )
            lines.append(
                f"  {name}, {side}: {v['beside_an_event']} of {v['spikes']} spikes ({v['share']:.1%}), "
                f"all updates {v['share_of_all_updates']:.1%}; p = {v['p_value']:.4f} "
                f"({v['p_value_bonferroni']:.3f}): {strength}"
            )
    lines.append("  'before' is the update that led to the spike's parameters: it cannot be the spike's own doing.")
    return lines


def run_lines(out: dict[str, Any], found: dict[str, Any], tracked: dict[str, Any]) -> list[str]:
    """Who learned, and how far the events of each run can be trusted."""
    lines = []
    heads = ("error", "ends without a cycle", "point known", "unstable", "changes", "lost", "jumps")
    lines.append("\n" + "run".ljust(20) + "".join(h.rjust(len(h) + 3) for h in heads))
    for i, (seed, limit) in enumerate(zip(out["seed"], out["max_norm"])):
        values = (
            f"{out['error'][i, -50:].mean():.3f}",
            f"{found['without_cycle'][i].mean():.2f}",
            f"{tracked['share_known'][i]:.2f}",
            f"{tracked['share_unstable_of_known'][i]:.2f}",
            tracked["changed"][i],
            tracked["lost"][i],
            tracked["jumps"][i],
        )
        lines.append(
            f"seed {seed}, norm <= {limit:g}".ljust(20)
            + "".join(str(v).rjust(len(h) + 3) for v, h in zip(values, heads))
        )
    lines.append(
        "an end without a cycle is compared by its mean and spread alone; error: of the last 50 updates' batches"
    )
    return lines


def table_lines(table: dict[str, Any]) -> list[str]:
    """All tests."""
    lines = []
    heads = ("P(ev|spike)", "shifted 95 %", "P(ev)", "P(spike|ev)", "P(spike)", "p")
    lines.append("\nspikes beside ...".ljust(35) + "".join(h.rjust(w) for h, w in zip(heads, (12, 16, 8, 13, 10, 8))))
    for name in GROUPS:
        for label, cells in table[name].items():
            lines.append(f"{name}, {label}")
            for key, c in cells.items():
                conditional = "-" if c["p_event_given_spike"] is None else f"{c['p_event_given_spike']:.3f}"
                reverse = "-" if c["p_spike_given_event"] is None else f"{c['p_spike_given_event']:.3f}"
                interval = "-" if c["shifted_low"] is None else f"[{c['shifted_low']:.3f}, {c['shifted_high']:.3f}]"
                lines.append(
                    f"  {EVENTS[key]:<32}{conditional:>12}{interval:>16}{c['p_event']:>8.3f}{reverse:>13}"
                    f"{c['p_spike']:>10.3f}{c['p_value']:>8.4f}"
                )
    return lines


def draw_runs(length: int, found: dict[str, Any]) -> Any:
    """One run without and one with clipping: norms with spikes, events, multipliers, exponents."""
    fig, axes = figure(3, 2, size=(12, 8), sharex=True)
    for column, (name, none) in enumerate(GROUPS.items()):
        rows = np.flatnonzero(np.isinf(found["max_norm"]) == none)
        run = int(rows[found["spike"][rows].sum(1).argmax()])
        top, middle, bottom = axes[:, column]
        _draw_norm(top, found, run)
        top.set(title=f"{name}, seed {found['seed'][run]}")
        for place, label, color in ((0, "largest", "stable"), (2, "third largest", "unstable")):
            values = np.where(found["known"][run], np.abs(found["multipliers"][run, :, place]), np.nan)
            middle.plot(values, color=COLORS[color], lw=1.2 - 0.1 * place, label=label)
        middle.axhline(1, color=COLORS["unclipped"], lw=0.8, ls="--")
        middle.set(ylabel="modulus", title="multipliers of the tracked fixed point")
        middle.legend(loc="best", fontsize=8)
        driven = f"driven, {length} steps, largest of the batch"
        bottom.plot(found["exponent"][run], color=COLORS["stable"], lw=1.0, label="held input, on the attractor")
        bottom.plot(found["driven"][run], color=COLORS["clipped"], lw=1.0, label=driven)
        bottom.axhline(0, color=COLORS["unclipped"], lw=0.8, ls="--")
        bottom.set(ylabel="nats per step", xlabel="update", title="leading Lyapunov exponent")
        bottom.legend(loc="best", fontsize=8)
    return fig


def _draw_norm(ax: Any, found: dict[str, Any], run: int) -> None:
    """The norm with its spikes, and below it a mark at every event."""
    norm, spike = found["norm"][run], found["spike"][run]
    t = np.arange(len(norm))
    ax.semilogy(t, norm, color=COLORS["unstable"], lw=0.8, label="gradient norm")
    ax.plot(t[spike], norm[spike], "v", ms=5, color=COLORS["unclipped"], label="spike")
    low, high = ax.get_ylim()
    for k, (key, color) in enumerate(zip(("basin", "ended", "stability"), ("clipped", "accent", "good"))):
        where = t[found["events"][key][run].any(-1)]
        ax.plot(where, np.full(len(where), low * 0.55**k), "|", color=COLORS[color], ms=7, label=EVENTS[key])
    ax.set(ylabel="norm before clipping", ylim=(low * 0.2, high * 20))
    ax.legend(loc="upper left", fontsize=7.5, ncol=2, frameon=True, framealpha=0.9)


def draw_association(table: dict[str, Any]) -> Any:
    """P(event | spike) beside what shifted events give."""
    fig, axes = figure(1, 2, size=(11, 4.0), sharey=True)
    tallest = 0.0
    for ax, name in zip(axes, GROUPS):
        places = np.arange(len(EVENTS))
        cells = [table[name]["both sides"][key] for key in EVENTS]
        heights = [100 * (c["p_event_given_spike"] or 0) for c in cells]
        ax.bar(places, heights, 0.55, color=COLORS[name], label="updates beside a spike")
        low, high = (np.array([100 * (c[k] or 0) for c in cells]) for k in ("shifted_low", "shifted_high"))
        ax.vlines(places, low, high, color="black", lw=3, label="events shifted in time (95 %)")
        everywhere = [100 * c["p_event"] for c in cells]
        ax.hlines(everywhere, places - 0.4, places + 0.4, color=COLORS["accent"], lw=2.5, label="all updates")
        for x, c, h, most in zip(places, cells, heights, high):
            text = f"{c['spikes_beside_an_event']}/{c['spikes']}\np = {c['p_value']:.3f}"
            top = max(h, most)
            tallest = max(tallest, top)
            ax.annotate(text, (x, top), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=8)
        ax.set_xticks(places, [label.replace(" ", "\n", 2) for label in EVENTS.values()], fontsize=8)
        ax.set_title(f"{name}: {cells[0]['spikes']} spikes")
    axes[0].set_ylim(0, 1.35 * max(tallest, 5))  # room for the words above the bars
    axes[0].set_ylabel("% with such an event")
    axes[1].legend(loc="upper left", fontsize=8)
    return fig
