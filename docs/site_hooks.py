"""What the site needs beyond mkdocs.yml: files of results/, the gallery, and docstrings as this library writes them."""

import pathlib
import re
import sys

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parents[1]
AT_THE_TOP = ("REPRODUCTION.md", "CHANGELOG.md")
SHOWN = {".png", ".html", ".json"}
RESULTS_LINK = re.compile(r"\((?:\.\./)((?:\.\./)*results/)")
DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside of docs/: results/, two pages at the top of the repository, and the gallery."""
    sys.path.insert(0, str(ROOT))
    from experiments import gallery

    folder = ROOT / "results"
    for path in sorted(folder.rglob("*")):
        if path.suffix in SHOWN and "local" not in path.parts:
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    for name in AT_THE_TOP:
        files.append(File.generated(config, name.lower(), abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "gallery.html", content=gallery.page(folder)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to what lies outside of docs/ in the repository; on the site it lies inside."""
    for name in AT_THE_TOP:
        markdown = markdown.replace(f"../{name})", f"{name.lower()})")
    return RESULTS_LINK.sub(r"(\1", markdown)


class Docstrings(griffe.Extension):
    """Examples become blocks of code, and what a room's `__init__` imports is what the room is."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Fence the doctests: markdown takes `>>>` for a quotation."""
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """`from cliffs.room._file import name as name` makes a name public."""
        for room in [pkg, *pkg.modules.values()]:
            if room.is_init_module:
                room.exports = [name for name, member in room.members.items() if _belongs(member)]


def _belongs(member: griffe.Object | griffe.Alias) -> bool:
    """Whether a name of a room is imported from a file of the library, and not a module or another package's."""
    if not member.is_alias or member.name.startswith("_"):
        return False
    try:
        return not member.final_target.is_module
    except (griffe.AliasResolutionError, griffe.CyclicAliasError):
        return False
