"""The line that says how far a sweep is."""

from typing import Any


class _Silent:
    def update(self, n): ...
    def set_postfix_str(self, text, refresh=True): ...
    def close(self): ...


def progress_bar(total: int, wanted: bool) -> Any:
    if not wanted:
        return _Silent()
    try:
        from tqdm import tqdm
    except ImportError:
        return _Silent()
    return tqdm(total=total, unit="step", mininterval=0.5)
