"""Order of the tests: all of one strategy after another, so that they find each other's compiled programs."""


def pytest_collection_modifyitems(items):
    """Sort the tests of each file that go through the strategies by strategy; the others stay in front."""

    def place(item):
        call = getattr(item, "callspec", None)
        name = call.params.get("name") if call is not None else None
        return name if isinstance(name, str) else ""

    by_file = {}
    for item in items:
        by_file.setdefault(item.path, []).append(item)
    items[:] = [
        item
        for path, mine in by_file.items()
        for item in (sorted(mine, key=place) if path.parent.name == "clipping" else mine)
    ]
