"""Figures, one function per kind of result. Needs matplotlib (the `experiments` extra)."""

from cliffs.plotting._style import COLORS as COLORS
from cliffs.plotting._style import figure as figure
