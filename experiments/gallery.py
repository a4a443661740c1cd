"""All of results/ as one page that needs no other file: figures, what they show, numbers, and the command for each.

python -m experiments.gallery [FILE]        # results/local/gallery.html by default

The site of the docs has it as gallery.html. With its figures inside it is too large to be kept in the repository.
"""

import ast
import base64
import html
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from experiments import runner

MOST_ROWS = 40
"""Of one table; a reader who wants all of them opens metrics.json."""
MOST_NUMBERS = 6
"""Of a list in a cell; longer ones are told by their length and range."""


def main(arguments: list[str]) -> None:
    """Write the page."""
    target = pathlib.Path(arguments[0]) if arguments else runner.RESULTS / "local" / "gallery.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(runner.RESULTS), encoding="utf-8")
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


def page(results: pathlib.Path) -> str:
    """The whole page: a list of contents, then a section for each record below `results`."""
    names = records(results)
    known = runner.experiments()
    titles = {name: _words(known[name])[0] if name in known else name for name in names}
    contents = "".join(f'<li><a href="#{name}">{name}</a> {_inline(titles[name])}</li>' for name in names)
    sections = "".join(section(results / name, name, known.get(name)) for name in names)
    return TEMPLATE.replace("CONTENTS", contents).replace("SECTIONS", sections)


def records(results: pathlib.Path) -> list[str]:
    """`kind/name` of every folder with a record, in the order of the kinds."""
    return [
        path.parent.relative_to(results).as_posix()
        for kind in runner.KINDS
        for path in sorted((results / kind).glob("*/metrics.json"))
    ]


def section(folder: pathlib.Path, name: str, script: pathlib.Path | None) -> str:
    """One result: what was asked, the command, the figures, the numbers."""
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    title, *more = _words(script) if script else [name]
    machine = record["machine"]
    told = (
        f"{record['seconds']:,.0f} s on {machine['device']}, {machine['cores']} cores, "
        f"jax {machine['jax']}; written {record['written'][:10]}"
    )
    return (
        f'<section id="{name}"><h2>{_inline(title)}</h2>'
        + "".join(_paragraph(text) for text in more)
        + f"<p><code>python -m experiments {name}</code> <small>{html.escape(told)}</small></p>"
        + "".join(_figure(path, title) for path in sorted(folder.glob("*.png")))
        + "".join(_frame(path) for path in sorted(folder.glob("*.html")))
        + _table("Numbers", record["metrics"])
        + _table("Settings", record["settings"])
        + "</section>\n"
    )


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Rows `(path, text)` of nested metrics; a list of numbers is one row."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{path} / {key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for i, inner in enumerate(value):
            yield from flat(inner, f"{path} [{i}]")
    elif isinstance(value, list):
        yield path, _list(value)
    else:
        yield path, _number(value)


def _list(values: list[Any]) -> str:
    if len(values) <= MOST_NUMBERS:
        return ", ".join(map(_number, values))
    numbers = [x for x in values if isinstance(x, int | float)]
    span = f" from {_number(min(numbers))} to {_number(max(numbers))}" if numbers else ""
    return f"{len(values)} values{span}"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(name: str, values: Any) -> str:
    rows = list(flat(values))
    cells = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in rows[:MOST_ROWS])
    rest = len(rows) - MOST_ROWS
    more = f"<p><small>and {rest} more rows in metrics.json</small></p>" if rest > 0 else ""
    return f"<details><summary>{name}: {len(rows)}</summary><table>{cells}</table>{more}</details>"


def _figure(path: pathlib.Path, title: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    caption = html.escape(path.stem.replace("_", " "))
    alt = html.escape(f"{title} ({path.stem})", quote=True)
    return (
        f'<figure><img loading="lazy" alt="{alt}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _frame(path: pathlib.Path) -> str:
    """A page of a result's own, such as the surface that a reader turns by hand."""
    text = html.escape(path.read_text(encoding="utf-8"), quote=True)
    return f'<figure><iframe title="{path.stem}" srcdoc="{text}"></iframe><figcaption>{path.stem}</figcaption></figure>'


def _words(script: pathlib.Path) -> list[str]:
    """The paragraphs of a script's docstring."""
    return (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or script.stem).split("\n\n")


def _paragraph(text: str) -> str:
    if text.startswith("- "):
        return (
            "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in re.split(r"^- ", text, flags=re.M)[1:]) + "</ul>"
        )
    return f"<p>{_inline(text)}</p>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cliffs: all results</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #14181d; --soft: #4d5763; --line: #d5dae0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0e1116; --card: #171b22; --ink: #eef1f5; --soft: #a8b2be; --line: #39424d; }
}
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 20px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 6px 20px 16px; }
section { margin: 20px 0; }
h1 { font-size: 24px; } h2 { font-size: 18px; margin: 12px 0 6px; }
a { color: inherit; } small, figcaption { color: var(--soft); font-size: 13px; }
p { margin: 6px 0; max-width: 90ch; }
code { font: 13px ui-monospace, monospace; background: var(--page); border-radius: 4px; padding: 1px 5px; }
figure { margin: 14px 0; }
img { max-width: 100%; background: #fff; border-radius: 6px; }
iframe { width: 100%; height: 560px; border: 1px solid var(--line); border-radius: 6px; }
summary { cursor: pointer; margin-top: 8px; }
table { border-collapse: collapse; font-size: 13px; }
td { border-top: 1px solid var(--line); padding: 2px 14px 2px 0; vertical-align: top; overflow-wrap: anywhere; }
</style>
</head>
<body><main>
<h1>All results</h1>
<p>Each section is one experiment: what it asks, the command that makes it, its figures and its numbers. All was
computed by the scripts in <code>experiments/</code> and lies in <code>results/</code>.</p>
<ul>CONTENTS</ul>
SECTIONS</main></body>
</html>
"""

if __name__ == "__main__":
    main(sys.argv[1:])
