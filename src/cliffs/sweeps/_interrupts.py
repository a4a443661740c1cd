"""Ctrl-C during a sweep: the first ends it in order after the present block, the second at once."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """While this context is open, SIGINT sets `asked` instead of raising; a second one raises `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.asked = False
        self._former: Any = None

    def __enter__(self) -> "Interrupts":
        # Only the main thread may set handlers, and only the main thread is interrupted.
        # A program that ignores SIGINT (one in the background) goes on ignoring it.
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
            self._former = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
