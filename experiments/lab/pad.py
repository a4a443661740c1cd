"""The one canvas of the lab: a picture with axes and a handle that is dragged, clicked or moved by the arrow keys.

`view` is what a tab's `view(...)` returns, `point` where the handle is. Paths with `replay` are played in the browser.
The file needs anywidget, so only the app imports it.
"""

import pathlib
from typing import Any

import anywidget
import traitlets

HERE = pathlib.Path(__file__).parent


class Pad(anywidget.AnyWidget):
    """A canvas in axes; `point` is `[x, y]` in the picture's coordinates."""

    _esm = (HERE / "pad.js").read_text()
    _css = (HERE / "pad.css").read_text()
    view: Any = traitlets.Dict({}).tag(sync=True)
    point: Any = traitlets.List([0.0, 0.0]).tag(sync=True)


class Theme(anywidget.AnyWidget):
    """Whether the page is dark, as the browser shows it; None until it has said so."""

    _esm = """
    function render({ model, el }) {
      el.style.display = "none";
      const tell = () => {
        const dark = document.body.classList.contains("dark") || document.documentElement.classList.contains("dark");
        if (model.get("dark") !== dark) { model.set("dark", dark); model.save_changes(); }
      };
      const watch = new MutationObserver(tell);
      for (const node of [document.body, document.documentElement])
        watch.observe(node, { attributes: true, attributeFilter: ["class"] });
      tell();
      return () => watch.disconnect();
    }
    export default { render };
    """
    dark: Any = traitlets.Bool(None, allow_none=True).tag(sync=True)
