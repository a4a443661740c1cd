"""Every block of Python in the docs runs, page by page, and prints what the page says.

A block is run when its fence is ```python and nothing else: one with a title (another library's code, a script for many
machines) is only read. The blocks of a page are one program. A ```text block right after a block is what it prints.
"""

import contextlib
import doctest
import io
import pathlib
import re
from typing import NamedTuple

import jax
import pytest

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$\n*(?:^```text\n(?P<printed>.*?)^```$)?", re.M | re.S)
LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    code: str
    line: int
    printed: str | None


def blocks(text: str) -> list[Block]:
    found = [m for m in FENCE.finditer(text) if m["info"].strip() == "python"]
    return [Block(m["code"], text[: m.start("code")].count("\n"), m["printed"]) for m in found]


PAGES = {path.relative_to(DOCS).as_posix(): blocks(path.read_text()) for path in sorted(DOCS.rglob("*.md"))}
PAGES = {name: found for name, found in PAGES.items() if found}


@pytest.fixture
def as_at_the_start():
    """A page may switch float64 on for the whole program."""
    former = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", former)


@pytest.mark.usefixtures("as_at_the_start")
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("default")
def test_documented_the_blocks_of_a_page_run_and_print_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace = {"__name__": "__main__"}
    for block in PAGES[page]:
        # The lines of a traceback are those of the page.
        code = compile("\n" * block.line + block.code, page, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, namespace)
        if block.printed is not None:
            same = doctest.OutputChecker().check_output(block.printed, out.getvalue(), LOOSE)
            assert same, f"{page}, line {block.line}: prints\n{out.getvalue()}\nand the page says\n{block.printed}"


def test_documented_every_tutorial_is_run_and_shows_what_it_prints():
    for name in ("clipping-in-optax", "sweeps", "dynamics"):
        found = PAGES[f"tutorials/{name}.md"]
        assert sum(block.printed is not None for block in found) >= 4, name


def test_property_blocks_are_told_apart_by_their_fences():
    text = (
        "```python\na\n```\n\n```text\nout\n```\n"
        '```python title="PyTorch"\nb\n```\n'
        "```bash\nc\n```\n"
        "```python\nd\n```\n"
    )
    assert blocks(text) == [Block("a\n", 1, "out\n"), Block("d\n", 14, None)]
