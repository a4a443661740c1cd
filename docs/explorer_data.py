"""Writes the summaries of results/ that docs/explorer.html shows into the page.

python docs/explorer_data.py
"""

import json
import pathlib
import re

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "explorer.html"
BLOCK = re.compile(r'(<script id="results" type="application/json">\n).*?(\n</script>)', re.DOTALL)


def summaries() -> dict[str, object]:
    """The numbers of the page's last section, from the experiments' records."""
    stability = _metrics("hypotheses/stability_map")
    arrays = np.load(ROOT / "results" / "hypotheses" / "stability_map" / "arrays.npz")
    spectra = _metrics("hypotheses/spectra")
    strategies = _metrics("training/clipping_strategies")
    finite = np.isfinite(arrays["thresholds"])  # the last one, infinity, is no clipping and has no place on the axis
    starts, settings = stability["metrics"]["starts"], strategies["settings"]
    intervals = {r["solved"]: r["interval"] for rule in strategies["metrics"]["strategies"].values() for r in rule}
    some = ", ".join(f"{k} solved {100 * intervals[k][0]:.0f} to {100 * intervals[k][1]:.0f} %" for k in (1, 5, 10))
    small = stability["metrics"]["largest_share_left_where_rate_x_threshold_is_at_most_0.03"]
    return {
        "stability": {
            "rates": [_short(x) for x in arrays["learning_rates"]],
            "thresholds": [_short(x) for x in arrays["thresholds"][finite]],
            "left_share": [[_short(x) for x in row] for row in arrays["left_share"][:, finite]],
            "note": f"Stronger grey: a larger share of {starts} starts leaves the valley of this surface within "
            f"{stability['settings']['updates']} updates. Below the dashed line (rate x threshold = 0.03) the share is "
            f"{small:g}. The point is the pair of sliders above. Made by: python -m experiments stability_map",
        },
        "growth": [
            {"name": _plain(name), "rate": [_short(x) for x in row["rate_nats_per_step_10_50_90"]]}
            for name, row in spectra["metrics"]["initialisations"].items()
        ],
        "growth_note": f"Growth of the largest singular value of the Jacobians' product over "
        f"{spectra['settings']['length']} steps: median and 10 to 90 % of {spectra['settings']['seeds']} seeds. "
        "Made by: python -m experiments spectra",
        "success": {
            "rules": [
                {
                    "rule": "no clipping" if rule == "none" else rule,
                    "results": [
                        {
                            "threshold": None if r["threshold"] == "inf" else _short(r["threshold"]),
                            "solved": r["solved"],
                            "runs": r["runs"],
                            "interval": [_short(x) for x in r["interval"]],
                        }
                        for r in results
                    ],
                }
                for rule, results in strategies["metrics"]["strategies"].items()
            ],
            "note": f"Temporal order over {settings['length']} steps, {settings['hidden']} units, "
            f"{settings['updates']} updates at learning rate {settings['learning_rate']:g}, {settings['seeds']} seeds. "
            f"95 % intervals: {some}. Thresholds of different rules are not comparable with each other. "
            "Made by: python -m experiments clipping_strategies",
        },
    }


def page_with(found: dict[str, object], page: str) -> str:
    """The page with these numbers in it."""
    text = json.dumps(found, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    return BLOCK.sub(lambda match: match[1] + text + match[2], page)


def _metrics(name: str) -> dict:
    return json.loads((ROOT / "results" / name / "metrics.json").read_text())


def _short(x: float) -> float:
    return float(f"{float(x):.5g}")


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("Gaussian N(0, 0.01), tanh", "Gaussian, tanh")


if __name__ == "__main__":
    PAGE.write_text(page_with(summaries(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {PAGE.stat().st_size / 1024:.0f} KiB")
