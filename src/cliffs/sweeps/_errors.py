"""Errors from inside a compiled program, as the user's own function raised them."""

import builtins
import contextlib
import importlib
import logging
import re
from collections.abc import Iterator

import jax

_LAST_LINE = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*): (?P<text>.*)$")


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """An exception of a callback (such as `nonfinite="raise"`) leaves the sweep as itself, and is printed once."""
    logger = logging.getLogger("jax._src.debugging")
    logger.addFilter(_no_callback_report)
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        found = callback_error(str(error))
        if found is None:
            raise
        with contextlib.suppress(Exception):
            # Else JAX prints it once more when Python ends.
            importlib.import_module("jax._src.dispatch").runtime_tokens.clear()
        raise found from None
    finally:
        logger.removeFilter(_no_callback_report)


def callback_error(text: str) -> Exception | None:
    """The exception that a callback raised, from JAX's report of it; None when the report is of something else.

    >>> callback_error("INTERNAL: CpuCallback error calling callback: Traceback ...\\nFloatingPointError: at update 3")
    FloatingPointError('at update 3 (raised inside a run of the sweep)')
    """
    if "callback" not in text:
        return None
    matches = [m for m in map(_LAST_LINE.match, text.splitlines()[1:]) if m]
    if not matches:
        return None
    kind = getattr(builtins, matches[-1]["kind"], None)
    text = f"{matches[-1]['text']} (raised inside a run of the sweep)"
    if isinstance(kind, type) and issubclass(kind, Exception):
        return kind(text)
    return RuntimeError(f"{matches[-1]['kind']}: {text}")


def _no_callback_report(record: logging.LogRecord) -> bool:
    return "callback failed" not in record.getMessage()
