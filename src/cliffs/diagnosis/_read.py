"""Logs on disk: the trainer's state of Hugging Face, CSV, JSON lines, TensorBoard's event files."""

import codecs
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from cliffs.diagnosis._history import History, from_rows

Rows = Sequence[Mapping[str, object]]


def read_history(path: str | PathLike[str], norm: str | None = None, loss: str | None = None) -> History:
    """The gradient norms, losses and steps in a log, ready for `diagnose`.

    | file | what is read |
    | --- | --- |
    | `.json` | Hugging Face's `trainer_state.json` (its `log_history`), a list of rows, or a table of columns |
    | `.jsonl`, `.ndjson` | one row a line; a last line that was cut off is left out, with a note |
    | `.csv`, `.tsv`, `.txt` | a table with a header; comma, semicolon or tab |
    | `events.out.tfevents.*` | TensorBoard's scalars, where the package `tensorboard` is installed |
    | a folder | the `trainer_state.json` in it or in its latest `checkpoint-*`, else its event files |

    Rows without a norm (evaluations) are left out; rows of one step, one with the loss and one with the norm, are read
    together. Text is UTF-8, or UTF-16 with a byte order mark, as `>` writes it in Windows PowerShell.

    **Arguments**

    - `path`: the log.
    - `norm`: the column of norms, before clipping; the usual names (`grad_norm`, `train/grad_norm`, `norm_before`,
      ...) are found without it.
    - `loss`: the column of losses; `loss`, `train_loss`, `train/loss` and the like are found without it.

    **Returns** a `History`: steps, norms, losses, notes.

    **Raises** `ValueError` for a file of another kind or form, naming file and line; for a column that is not there,
    naming those that are; and where no column, or more than one, could be meant. `FileNotFoundError` where there is
    no file, `ImportError` for event files without their reader.

    Source: the form of `trainer_state.json` is that of `transformers.TrainerState.save_to_json`.

    >>> import tempfile
    >>> log = Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = log.write_text("step,loss,grad_norm\\n10,2.0,0.5\\n20,1.5,0.25\\n")
    >>> read_history(log).norms.tolist()
    [0.5, 0.25]
    """
    path = _file(Path(path))
    read = _events if _is_events(path) or path.is_dir() else READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"path must end in {', '.join(READERS)} or be a TensorBoard event file, got {path.name}")
    rows, notes = read(path)
    if not rows:
        raise ValueError(f"{path} holds no rows")
    try:
        history = from_rows(rows, norm, loss)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not len(history.norms):
        raise ValueError(f"{path.name}: no row has a norm")
    return history._replace(notes=(*history.notes, *notes))


def _file(path: Path) -> Path:
    """The file that is meant where a folder is named."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_dir():
        return path
    checkpoints = [p for p in path.glob("checkpoint-*/trainer_state.json") if p.parent.name[11:].isdigit()]
    latest = sorted(checkpoints, key=lambda p: int(p.parent.name[11:]))[-1:]
    for found in (path / "trainer_state.json", *latest):
        if found.exists():
            return found
    if any(_is_events(p) for p in path.iterdir()):
        return path
    raise ValueError(f"path must hold trainer_state.json, checkpoint-*/ or TensorBoard's event files, {path} does not")


def _is_events(path: Path) -> bool:
    return "tfevents" in path.name


def _text(path: Path) -> str:
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} must be text in UTF-8, or in UTF-16 with a byte order mark: {error}") from None
    if "\0" in text[:4]:  # UTF-16 without its mark
        raise ValueError(f"{path.name} must be text in UTF-8, or in UTF-16 with a byte order mark, got a zero byte")
    return text


def _json(path: Path) -> tuple[Rows, list[str]]:
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        try:
            return _json_lines(path)
        except ValueError:
            raise ValueError(f"{path.name} is not JSON: {error}") from None
    if isinstance(content, dict) and "log_history" in content:
        content = content["log_history"]
    if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
        if len({len(column) for column in content.values()}) > 1:
            raise ValueError(f"{path.name}: the columns must have one length")
        content = [dict(zip(content, values)) for values in zip(*content.values())]
    if isinstance(content, dict):
        content = [content]  # JSON lines with one line
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError(f"{path.name} must hold log_history, a list of rows (objects), or columns (lists)")
    return content, []


def _json_lines(path: Path) -> tuple[Rows, list[str]]:
    lines = [(i, line) for i, line in enumerate(_text(path).splitlines(), 1) if line.strip()]
    rows: list[Mapping[str, object]] = []
    for i, line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if i == lines[-1][0] and rows:
                return rows, [f"the last line of {path.name} was cut off and is left out"]
            raise ValueError(f"{path.name}, line {i} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path.name}, line {i} must be an object, got {line[:40]!r}")
        rows.append(row)
    return rows, []


def _csv(path: Path) -> tuple[Rows, list[str]]:
    lines = [line for line in _text(path).splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return [], []
    separator = max(",;\t", key=lines[0].count)
    table = csv.reader(lines, delimiter=separator)
    names = [name.strip() for name in next(table)]
    if all(_is_number(name) for name in names):
        raise ValueError(f"{path.name}: the first line must name the columns, such as step,loss,grad_norm, got {names}")
    if len(set(names)) < len(names):
        raise ValueError(f"{path.name}: a column's name is there twice in {names}")
    rows, notes = [], []
    for i, cells in enumerate(table, 2):
        if len(cells) > len(names) or (len(cells) < len(names) and i <= len(lines) - 1):
            raise ValueError(f"{path.name}, row {i} has {len(cells)} cells, the header has {len(names)}")
        if len(cells) < len(names):
            notes.append(f"the last row of {path.name} was cut off and is left out")
        else:
            rows.append({name: _cell(cell.strip(), separator) for name, cell in zip(names, cells)})
    return rows, notes


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _cell(cell: str, separator: str) -> str:
    """With semicolons between the cells a comma is the decimal point."""
    return cell.replace(",", ".") if separator == ";" and cell.count(",") == 1 else cell


def _events(path: Path) -> tuple[Rows, list[str]]:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise ImportError(
            f"{path.name} is a log of TensorBoard; its reader is not installed: pip install tensorboard"
        ) from None
    log = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    by_step: dict[int, dict[str, object]] = {}
    for name in log.Tags()["scalars"]:
        for event in log.Scalars(name):
            by_step.setdefault(event.step, {"step": event.step})[name] = event.value
    # TensorFlow 2 writes scalars as tensors.
    for name in log.Tags()["tensors"]:
        from tensorboard.util.tensor_util import make_ndarray

        for event in log.Tensors(name):
            value = make_ndarray(event.tensor_proto)
            if value.ndim == 0 and value.dtype.kind in "fiu":
                by_step.setdefault(event.step, {"step": event.step})[name] = float(value)
    return [by_step[step] for step in sorted(by_step)], []


READERS: dict[str, Callable[[Path], tuple[Rows, list[str]]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _csv,
}
