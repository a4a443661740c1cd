"""The site: every page is in the navigation, no link is dead, every public name has a place on an API page."""

import os
import pathlib
import re

import pytest
from test_architecture import SOURCE, public_modules

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CONFIG = (ROOT / "mkdocs.yml").read_text()
PAGES = sorted(DOCS.rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s#]*)(#[^)\s]*)?\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.M | re.S)
MADE_BY_THE_SITE = {"gallery.html"}


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
    rooms = {name for name in public_modules() if (SOURCE / name.removeprefix("cliffs.").replace(".", "/")).exists()}
    assert named == set(public_modules()), rooms


@pytest.mark.filterwarnings("default")
def test_documented_the_site_builds_strictly(tmp_path):
    """A warning is an error: a link to nowhere, a page that is not there, a name that is not documented."""
    build = pytest.importorskip("mkdocs.commands.build", reason="mkdocs is not installed: pip install '.[docs]'")
    from mkdocs.config import load_config

    build.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    page = (tmp_path / "api" / "clipping" / "index.html").read_text()
    assert 'id="cliffs.clipping.clip_by_global_norm"' in page
    assert "<blockquote>" not in page, "an example was taken for a quotation"
    for path in [*tmp_path.rglob("*.html")]:
        assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?|png)"', path.read_text()), path
