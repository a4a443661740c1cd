"""The floors of the house: who may import whom, one address for each public name, an example in every docstring."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import cliffs

SOURCE = pathlib.Path(cliffs.__file__).parent

# From the ground up. A room imports from lower floors only, and from the files of its own.
FLOORS = (
    ("typing",),
    ("_paths", "_flatten", "_losses", "_precision", "_devices"),
    ("clipping", "curvature", "data", "diagnosis", "stats"),
    ("recurrent",),
    ("tasks", "penalties", "training", "dynamics"),
    ("spectra", "landscape", "sweeps"),
    ("plotting", "records"),
    ("_cli",),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
SLOW_TO_LOAD = ("flax", "matplotlib", "marimo", "tyro", "tqdm", "scipy", "orbax", "pandas", "xarray")


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: pathlib.Path) -> list[str]:
    """The modules that a file of the library imports, at its top or inside a function."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            found += [f"cliffs.{alias.name}" for alias in node.names] if module == "cliffs" else [module]
    return [name for name in found if name.split(".")[0] == "cliffs"]


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def test_invariance_every_room_has_its_floor():
    assert {room_of(path) for path in FILES} <= set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_invariance_a_room_imports_from_lower_floors_only(path):
    here = room_of(path)
    for name in imports(path):
        parts = name.split(".")[1:]
        assert parts, f"{here} imports the whole package"
        assert parts[0] in FLOOR, f"{here} imports {name}, which has no floor"
        assert parts[0] == here or FLOOR[parts[0]] < FLOOR[here], f"{here} must not import {name}"
        if parts[0] != here:
            assert not any(part.startswith("_") for part in parts[1:]), f"{here} reaches into {name}"


def public_modules() -> list[str]:
    found = pkgutil.walk_packages([str(SOURCE)], "cliffs.")
    return [module.name for module in found if not any(p.startswith("_") for p in module.name.split("."))]


def public_names(module: str) -> dict[str, object]:
    namespace = vars(importlib.import_module(module))
    given = {name: x for name, x in namespace.items() if not name.startswith("_") and not inspect.ismodule(x)}
    # What a module of the library made itself or a room exports; not what it uses of others.
    if pathlib.Path(namespace["__file__"]).name == "__init__.py":
        return given
    return {name: x for name, x in given.items() if getattr(x, "__module__", None) == module}


def test_invariance_each_public_name_has_one_address():
    seen: dict[int, str] = {}
    for module in public_modules():
        for name, thing in public_names(module).items():
            if inspect.isfunction(thing) or inspect.isclass(thing):
                other = seen.setdefault(id(thing), f"{module}.{name}")
                assert other == f"{module}.{name}", f"{other} is also {module}.{name}"


@pytest.mark.parametrize("module", public_modules())
def test_documented_every_public_function_has_an_example(module):
    functions = {n: f for n, f in public_names(module).items() if inspect.isfunction(f)}
    ours = {n: f for n, f in functions.items() if f.__module__.startswith("cliffs")}
    # A function that draws is shown by the experiments; its docstring says what it draws.
    missing = [n for n, f in ours.items() if ">>> " not in (f.__doc__ or "") and module != "cliffs.plotting"]
    assert not missing, f"{module}: no example in {missing}"
    assert all(f.__doc__ for f in ours.values())


def test_invariance_the_entrance_is_small():
    names = [name for name in vars(cliffs) if not name.startswith("_")]
    assert len(names) <= 34
    assert callable(cliffs.sweep)


def test_invariance_nothing_slow_loads_with_the_library():
    code = f"import sys, cliffs; print([m for m in {SLOW_TO_LOAD} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCE.parent, check=True)
    assert done.stdout.strip() == "[]"


KINDS = ("analytic", "parity", "property", "integration", "invariance", "wrong", "documented")


def test_documented_the_name_of_every_test_says_its_kind():
    for path in pathlib.Path(__file__).parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert node.name.split("_")[1] in KINDS, f"{path.name}: {node.name}"
