"""Hundreds of training runs as one compiled program: grids, lanes, devices, checkpoints, results."""

from cliffs._devices import over_devices as over_devices
from cliffs.sweeps import prune as prune
from cliffs.sweeps._checkpoint import Checkpoint as Checkpoint
from cliffs.sweeps._devices import use_all_cores as use_all_cores
from cliffs.sweeps._grid import product_grid as product_grid
from cliffs.sweeps._plan import SweepPlan as SweepPlan
from cliffs.sweeps._plan import plan_sweep as plan_sweep
from cliffs.sweeps._progress import Progress as Progress
from cliffs.sweeps._result import SweepResult as SweepResult
from cliffs.sweeps._result import SweepRun as SweepRun
from cliffs.sweeps._result import load_sweep as load_sweep
from cliffs.sweeps._schedule import sweep as sweep
