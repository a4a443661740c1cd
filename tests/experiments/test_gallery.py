"""The page of all results: complete, and in need of no other file."""

import json
import re

from experiments import gallery, runner

from cliffs.records import save_record


def test_property_every_folder_of_results_has_a_section_and_every_figure_is_in_it():
    names = gallery.records(runner.RESULTS)
    folders = {p.parent for p in runner.RESULTS.glob("*/*/*") if p.parents[1].name in runner.KINDS}
    assert set(names) == {folder.relative_to(runner.RESULTS).as_posix() for folder in folders}
    page = gallery.page(runner.RESULTS)
    assert re.findall(r'<section id="([^"]+)">', page) == names
    for name in names:
        assert f'href="#{name}"' in page
        assert f"python -m experiments {name}<" in page
    assert page.count("<img ") == sum(len(list(folder.glob("*.png"))) for folder in folders)
    # No address but the name of SVG's elements, nothing that is loaded.
    assert set(re.findall(r"https?://[\w./]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r'src=(?!"data:)|<link[^>]*stylesheet|@import|url\(', page)


def test_property_a_section_shows_the_numbers_of_its_record(tmp_path):
    numbers = {"a": {"b": [1, 2, 3], "c": 0.1234567}, "rows": [{"x": 1}, {"x": "<y>"}], "long": list(range(100))}
    save_record(tmp_path / "figures" / "mine", metrics=numbers, settings={"seed": 5}, seconds=2.0)
    (tmp_path / "figures" / "mine" / "plot.png").write_bytes(b"not looked into")
    page = gallery.page(tmp_path)
    rows = dict(re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", page))
    assert rows == {
        "a / b": "1, 2, 3",
        "a / c": "0.123457",
        "rows [0] / x": "1",
        "rows [1] / x": "&lt;y&gt;",
        "long": "100 values from 0 to 99",
        "seed": "5",
    }
    assert 'alt="figures/mine (plot)"' in page
    assert json.loads((tmp_path / "figures" / "mine" / "metrics.json").read_text())["seconds"] == 2.0
