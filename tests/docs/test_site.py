"""The site: every page is in the navigation, no link is dead, every room has its page, tables are those of records."""

import os
import pathlib
import re

import pytest
from experiments.figures import validation
from test_architecture import public_modules, public_names

from cliffs.records import load_record

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CONFIG = (ROOT / "mkdocs.yml").read_text()
PAGES = sorted(DOCS.rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s#]*)(#[^)\s]*)?\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.M | re.S)
MADE_BY_THE_SITE = {"gallery.html", "reproduction.md", "changelog.md"}


def test_documented_every_page_is_in_the_navigation_and_the_navigation_has_no_other():
    listed = re.findall(r"(?:: |- )([\w/-]+\.(?:md|html))$", CONFIG, re.M)
    files = {path.relative_to(DOCS).as_posix() for path in [*PAGES, *DOCS.rglob("*.html")]}
    assert set(listed) == files | MADE_BY_THE_SITE
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_documented_no_link_is_dead(page):
    for target, anchor in LINK.findall(CODE.sub("", page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        # Pages that the site makes lie at the top of docs/.
        path = pathlib.Path(os.path.normpath(page.parent / target)) if target else page
        made = path.parent == DOCS and path.name in MADE_BY_THE_SITE
        assert made or path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor[1:] in anchors(path.read_text()), f"{page.name}: {target}{anchor}"


def anchors(text: str) -> set[str]:
    """Of the headings, as the site makes them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub(lambda m: m[0] if m[0][:3] != "```" else "", text), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in headings}


def test_documented_every_room_has_a_page_of_its_own():
    named = {m for page in DOCS.glob("api/*.md") for m in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)}
    assert named == set(public_modules())


@pytest.mark.filterwarnings("default")
def test_documented_the_site_builds_strictly(tmp_path):
    """A warning is an error: a link to nowhere, a page that is not there, a name that is not documented."""
    build = pytest.importorskip("mkdocs.commands.build", reason="mkdocs is not installed: pip install '.[docs]'")
    from mkdocs.config import load_config

    build.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    for module in public_modules():
        page = (tmp_path / "api" / module.split(".")[1] / "index.html").read_text()
        assert "<blockquote>" not in page, "an example was taken for a quotation"
        for name, thing in public_names(module).items():
            if callable(thing) and getattr(thing, "__module__", "").startswith("cliffs."):
                assert f'id="{module}.{name}"' in page
    for path in [*tmp_path.rglob("*.html")]:
        assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?|png)"', path.read_text()), path


def test_documented_the_table_of_validation_is_that_of_the_record():
    record = load_record(ROOT / "results" / "figures" / "validation")
    cells = [re.split(r" \| ", line.strip("| ")) for line in (DOCS / "validation.md").read_text().splitlines()]
    shown = {row[0]: row[1:] for row in cells if len(row) == 3}
    for entry in record.metrics["table"]:
        quantity, here, known = validation.printed(validation.Row(**{k: entry[k] for k in validation.Row._fields}))
        assert shown[quantity] == [here, known], quantity
    assert len(shown) == len(record.metrics["table"]) + 2, "the head and the line below it"
