"""Hundreds of training runs as one compiled program: grids, lanes, devices."""

from cliffs.sweeps._sweep import SweepResult as SweepResult
from cliffs.sweeps._sweep import product_grid as product_grid
from cliffs.sweeps._sweep import sweep as sweep
from cliffs.sweeps._sweep import use_all_cores as use_all_cores
