"""Every script of examples/ runs and says something."""

import pathlib
import runpy

import jax
import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def test_documented_there_are_at_least_ten_examples_of_20_to_60_lines():
    assert len(SCRIPTS) >= 10
    for script in SCRIPTS:
        assert 20 <= len(script.read_text().splitlines()) <= 60, script.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")
def test_integration_the_example_runs(script, capsys):
    if "equinox" in script.read_text():
        pytest.importorskip("equinox", reason="equinox is not installed")
    with jax.enable_x64(False):
        runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.strip()
    assert "nan" not in printed.lower()
