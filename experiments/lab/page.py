"""How a tab is laid out: the idea, the picture with its controls, what the numbers say, more pictures. Needs marimo."""

import pathlib
from collections.abc import Sequence
from typing import Any

import marimo as mo

CSS = (pathlib.Path(__file__).parent / "page.css").read_text()


def page(tab: Any, found: Any, controls: Sequence[Any], dark: bool, pad: Any = None) -> Any:
    """One tab: `tab` is its module, `found` what it has computed, `pad` the canvas that shows its `view`."""
    if pad is not None:
        pad.widget.view = tab.view(found, dark)
    picture = "" if pad is None else f'<div class="card">{_html(pad)}</div>'
    names = ", ".join(f"<code>cliffs.{name}</code>" for name in tab.BEHIND)
    side = (
        f'<div class="card side"><div class="controls">{"".join(map(_html, controls))}</div>'
        f'<div class="told" aria-live="polite">{_markdown(tab.told(found))}</div>'
        f'<p class="behind">Computed by {names}.</p></div>'
    )
    cards = "".join(
        f'<figure class="card"><figcaption>{title}</figcaption>{_html(figure)}</figure>'
        for title, figure in tab.figures(found, dark).items()
    )
    idea = f'<div class="idea">{_markdown(tab.IDEA)}</div>'
    main = f'<div class="main{" single" if pad is None else ""}">{picture}{side}</div>'
    theme = "lab dark" if dark else "lab"
    name = tab.__name__.split(".")[-1]
    return mo.Html(
        f'<style>{CSS}</style><div class="{theme}" data-tab="{name}">{idea}{main}<div class="cards">{cards}</div></div>'
    )


def _html(thing: Any) -> str:
    return mo.as_html(thing).text


def _markdown(text: str) -> str:
    return mo.md(text).text
