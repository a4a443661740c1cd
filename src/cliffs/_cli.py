"""The command `cliffs`: `cliffs diagnose LOG` reads a log of gradient norms and says what it means.

What reads and draws is imported after the arguments, so that a wrong argument is reported without matplotlib.
"""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = """\
Read a log of gradient norms, say what is wrong with the run and what to do, suggest a clipping threshold,
and draw a picture. Logs: trainer_state.json of Hugging Face (or the run's folder), CSV, JSON lines,
TensorBoard's event files."""

EPILOG = """\
examples:
  cliffs diagnose runs/checkpoint-500/trainer_state.json
  cliffs diagnose metrics.csv --norm grad_norm --loss train_loss --out norms.svg"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or 2 where the log cannot be read.

    >>> main(["diagnose", "nowhere.csv"])
    2
    """
    options = _parser().parse_args(arguments)
    from cliffs.diagnosis import diagnose, read_history

    try:
        history = read_history(options.log, options.norm, options.loss)
        diagnosis = diagnose(history, options.max_norm)
    except (ValueError, OSError, ImportError) as error:
        print(f"cliffs: {error}", file=sys.stderr)
        return 2
    losses = "with losses" if history.losses is not None else "no losses"
    print(f"{options.log}: {len(history.norms)} norms, steps {history.steps[0]} to {history.steps[-1]}, {losses}\n")
    for line in str(diagnosis).splitlines():
        print(_wrapped(line))
    if options.no_picture:
        return 0
    try:
        from cliffs.plotting import figure, plot_diagnosis
    except ImportError:
        print("\nno picture: matplotlib is not installed; pip install 'cliffs[experiments]', or --no-picture")
        return 0
    picture, ax = figure(size=(9.0, 4.2))
    plot_diagnosis(history, diagnosis, ax, max_norm=options.max_norm)  # pyright: ignore[reportArgumentType]
    try:
        out = options.out if options.out.suffix else options.out.with_name(f"{options.out.name}.png")
        picture.savefig(out, dpi=150)
    except (ValueError, OSError) as error:  # a format or a folder that is not there
        print(f"cliffs: --out {options.out}: {error}", file=sys.stderr)
        return 2
    print(f"\npicture: {out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cliffs", description="Exploding and vanishing gradients: see and tame them.")
    commands = parser.add_subparsers(required=True, metavar="command")
    keep = argparse.RawDescriptionHelpFormatter
    brief = "what a log of gradient norms means"
    diagnose = commands.add_parser("diagnose", help=brief, description=DESCRIPTION, epilog=EPILOG, formatter_class=keep)
    diagnose.add_argument("log", metavar="LOG", help="file or folder of the log")
    diagnose.add_argument("--norm", metavar="COLUMN", help="column of norms before clipping (found by its usual names)")
    diagnose.add_argument("--loss", metavar="COLUMN", help="column of losses (found by its usual names)")
    diagnose.add_argument("--max-norm", type=float, metavar="X", help="clipping threshold of the run")
    where = "where the picture goes, .png, .svg or .pdf; .png without an ending (%(default)s)"
    diagnose.add_argument("--out", type=Path, default=Path("diagnosis.png"), metavar="PICTURE", help=where)
    diagnose.add_argument("--no-picture", action="store_true", help="print the findings only")
    return parser


def _wrapped(line: str) -> str:
    width = min(shutil.get_terminal_size().columns, 110)
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    sys.exit(main())
