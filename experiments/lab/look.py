"""One look for the lab's pictures: the explorer page's colours (after Okabe & Ito), light and dark; plotly panels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

LIGHT = {
    "card": "#ffffff",
    "ink": "#14181d",
    "soft": "#4d5763",
    "grid": "#e3e7ec",
    "clipped": "#0066ab",
    "unclipped": "#c24a00",
    "third": "#00785a",
    "fourth": "#7a3e78",
    "fifth": "#8a6100",
    "low": "#f4f6f9",
    "high": "#68717c",
}
DARK = {
    "card": "#171b22",
    "ink": "#eef1f5",
    "soft": "#a8b2be",
    "grid": "#2b333d",
    "clipped": "#5cb8f0",
    "unclipped": "#f59a3c",
    "third": "#3fcfa4",
    "fourth": "#d9a3d6",
    "fifth": "#e6cf5a",
    "low": "#1c2129",
    "high": "#808a96",
}
FONT = 'system-ui, "Segoe UI", Roboto, sans-serif'


def colors(dark: bool) -> dict[str, str]:
    """The colours of a theme."""
    return DARK if dark else LIGHT


def panel(
    dark: bool, x: str, y: str, *, xlog: bool = False, ylog: bool = False, height: int = 330, **numbers: Any
) -> Any:
    """An empty plotly figure with named axes; `numbers` are kept in `layout.meta`, where a test can read them."""
    import plotly.graph_objects as go

    look = colors(dark)
    axis = {
        "gridcolor": look["grid"],
        "linecolor": look["soft"],
        "tickcolor": look["soft"],
        "tickfont": {"color": look["soft"], "size": 12},
        "showline": True,
        "ticks": "outside",
        "zeroline": False,
    }
    power = {"type": "log", "exponentformat": "power", "dtick": 1, "minor": {"ticks": ""}}

    def title(text: str) -> dict[str, Any]:
        return {"title": {"text": text, "font": {"color": look["ink"], "size": 13}, "standoff": 8}}

    layout = {
        "template": "none",
        "height": height,
        "autosize": True,
        "margin": {"l": 68, "r": 14, "t": 12, "b": 48},
        "paper_bgcolor": look["card"],
        "plot_bgcolor": look["card"],
        "font": {"color": look["ink"], "family": FONT, "size": 13},
        "showlegend": False,  # the page writes it above the picture, where it can wrap
        "hoverlabel": {"bgcolor": look["card"], "font": {"color": look["ink"]}},
        "dragmode": False,
        "meta": plain(numbers),
        # A zoom by the double click survives new numbers.
        "uirevision": "kept",
        "xaxis": axis | title(x) | (power if xlog else {}),
        "yaxis": axis | title(y) | (power if ylog else {}),
    }
    # All at once: each later change of a layout costs plotly milliseconds.
    return go.Figure(layout=layout)


def decades(figure: Any, *values: Any, least: float = 2.0) -> None:
    """The range of a logarithmic y-axis around these numbers, at least so many powers of ten, with at most 7 labels."""
    seen = np.concatenate([np.ravel(np.asarray(v, float)) for v in values])
    logs = np.log10(seen[np.isfinite(seen) & (seen > 0)])
    low, high = (float(logs.min()), float(logs.max())) if logs.size else (0.0, 0.0)
    short = max(0.0, least - (high - low)) / 2
    low, high = low - short - 0.05 * (high - low), high + short + 0.08 * (high - low)
    figure.update_yaxes(range=[low, high], dtick=max(1, math.ceil((high - low) / 7)))


def line(figure: Any, x: Any, y: Any, color: str, name: str = "", *, dash: str = "solid", width: float = 2) -> None:
    """A line; without a name it is not in the legend."""
    style = {"color": color, "dash": dash, "width": width}
    shown = {"name": name, "showlegend": bool(name)}
    figure.add_scatter(x=numbers_of(x), y=numbers_of(y), mode="lines", line=style, **shown)


def dots(figure: Any, x: Any, y: Any, color: str, name: str = "", *, symbol: str = "circle", size: float = 9) -> None:
    """Points; symbols that end in -open are hollow."""
    style = {"color": color, "symbol": symbol, "size": size, "line": {"width": 2, "color": color}}
    shown = {"name": name, "showlegend": bool(name)}
    figure.add_scatter(x=numbers_of(x), y=numbers_of(y), mode="markers", marker=style, **shown)


def label(figure: Any, x: float, y: float, text: str, color: str, **options: Any) -> None:
    """Words at a point of the picture; on a logarithmic axis give the logarithm, as plotly wants it."""
    figure.add_annotation(x=x, y=y, text=text, font={"color": color, "size": 12}, **{"showarrow": False, **options})


def numbers_of(values: Any) -> list[float | None]:
    """A list for JSON; what is not finite is a gap."""
    return [float(v) if math.isfinite(v) else None for v in np.asarray(values, float).ravel()]


def plain(value: Any) -> Any:
    """Numbers, lists and dicts that JSON knows."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if np.ndim(value):
        return [plain(v) for v in value]
    item = np.asarray(value).item()
    return item if not isinstance(item, float) or math.isfinite(item) else None


def brief(value: float, digits: int = 3) -> str:
    """A number for a sentence: `0.0123`, `5751`, `1.2e-7` with a real minus and power of ten."""
    if not math.isfinite(value):
        return "not a number" if value != value else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 < exponent < 5:
        text = f"{value:.{digits}g}" if exponent < digits else f"{value:.0f}"
        return text.replace("-", "−")
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    raised = str(int(power)).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    return f"{mantissa} × 10{raised}".replace("-", "−")


def points(x: Any, y: Any) -> dict[str, list[float | None]]:
    """Two columns for the canvas, rounded to what a screen can show."""
    return {"x": [_rounded(v) for v in numbers_of(x)], "y": [_rounded(v) for v in numbers_of(y)]}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.7g}")


def shades(values: Any, low: float, high: float) -> Sequence[int]:
    """`values` as 0 .. 255 between two numbers, row by row from the top, for the canvas."""
    share = (np.asarray(values, float) - low) / (high - low)
    return np.clip(np.nan_to_num(share, nan=1.0) * 255, 0, 255).astype(np.uint8).ravel().tolist()
