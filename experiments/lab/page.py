"""How a tab is laid out: the idea, the picture with its controls, what the numbers say, more pictures. Needs marimo."""

from collections.abc import Sequence
from typing import Any

import marimo as mo


def page(tab: Any, found: Any, controls: Sequence[Any], dark: bool, pad: Any = None) -> Any:
    """One tab: `tab` is its module, `found` what it has computed, `pad` the canvas that shows its `view`."""
    names = ", ".join(f"<code>cliffs.{name}</code>" for name in tab.BEHIND)
    side = (
        f'<div class="card side"><div class="controls">{"".join(map(_html, controls))}</div>'
        f'<div class="told" aria-live="polite">{_markdown(tab.told(found))}</div>'
        f'<p class="behind">Computed by {names}.</p></div>'
    )
    cards = [
        f'<figure class="card"><figcaption>{title}</figcaption>{_key(figure)}{_html(figure)}</figure>'
        for title, figure in tab.figures(found, dark).items()
    ]
    if pad is None:
        body = f'<div class="single">{side}</div><div class="cards">{"".join(cards)}</div>'
    else:
        pad.widget.view = tab.view(found, dark)
        left = f'<div class="card canvas">{_html(pad)}</div>{"".join(cards[1:])}'
        body = f'<div class="both"><div class="column">{left}</div><div class="column">{side}{cards[0]}</div></div>'
    theme, name = "lab dark" if dark else "lab", tab.__name__.split(".")[-1]
    return mo.Html(f'<div class="{theme}" data-tab="{name}"><div class="idea">{_markdown(tab.IDEA)}</div>{body}</div>')


def _key(figure: Any) -> str:
    """The legend, as words that wrap where the picture is narrow."""
    rows = []
    for trace in figure.data:
        if not trace.showlegend:
            continue
        if trace.mode == "lines":
            dash = {"dash": "7 4", "dot": "2 3"}.get(trace.line.dash, "")
            shape = f'<line x1="0" x2="26" y1="6" y2="6" stroke-width="2.4" stroke-dasharray="{dash}"/>'
            color, fill = trace.line.color, "none"
        else:
            color, hollow = trace.marker.color, str(trace.marker.symbol).endswith("-open")
            square = str(trace.marker.symbol).startswith("square")
            form = '<rect x="9" y="2" width="8" height="8"' if square else '<circle cx="13" cy="6" r="4"'
            shape, fill = f'{form} stroke-width="2"/>', "none" if hollow else color
        rows.append(f'<li><svg stroke="{color}" fill="{fill}">{shape}</svg>{trace.name}</li>')
    return f'<ul class="key">{"".join(rows)}</ul>' if rows else ""


def _html(thing: Any) -> str:
    return mo.as_html(thing).text


def _markdown(text: str) -> str:
    return mo.md(text).text
