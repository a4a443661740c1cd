"""Hundreds of training runs as one compiled program: grids, lanes, devices."""

from cliffs.sweeps._devices import use_all_cores as use_all_cores
from cliffs.sweeps._grid import product_grid as product_grid
from cliffs.sweeps._result import SweepResult as SweepResult
from cliffs.sweeps._result import SweepRun as SweepRun
from cliffs.sweeps._result import load_sweep as load_sweep
from cliffs.sweeps._schedule import sweep as sweep
