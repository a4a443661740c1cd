"""cliffs: exploding and vanishing gradients in JAX. See them, measure them exactly, tame them.

Three doors: `cliffs.clipping` for optax chains, `cliffs.sweep` for hundreds of runs at once, and the dynamical system
of a `step(params, state, inputs) -> state` (`cliffs.dynamics`, `cliffs.spectra`, `cliffs.landscape`,
`cliffs.curvature`). The names here are the verbs of the three doors and the rooms; all else has its address in a room.
"""

from cliffs import clipping as clipping
from cliffs import curvature as curvature
from cliffs import data as data
from cliffs import diagnosis as diagnosis
from cliffs import dynamics as dynamics
from cliffs import landscape as landscape
from cliffs import penalties as penalties
from cliffs import records as records
from cliffs import recurrent as recurrent
from cliffs import spectra as spectra
from cliffs import stats as stats
from cliffs import sweeps as sweeps
from cliffs import tasks as tasks
from cliffs import training as training
from cliffs import typing as typing
from cliffs.clipping import clip_by_global_norm as clip_by_global_norm
from cliffs.clipping import clip_by_leaf_norm as clip_by_leaf_norm
from cliffs.clipping import clip_by_norm_quantile as clip_by_norm_quantile
from cliffs.clipping import clip_by_zscore as clip_by_zscore
from cliffs.clipping import read_telemetry as read_telemetry
from cliffs.clipping import with_telemetry as with_telemetry
from cliffs.diagnosis import diagnose as diagnose
from cliffs.diagnosis import suggest_threshold as suggest_threshold
from cliffs.dynamics import bifurcation_diagram as bifurcation_diagram
from cliffs.dynamics import find_fixed_points as find_fixed_points
from cliffs.landscape import cliff_profile as cliff_profile
from cliffs.landscape import find_walls as find_walls
from cliffs.landscape import surface as surface
from cliffs.recurrent import rnn_step as rnn_step
from cliffs.recurrent import unroll as unroll
from cliffs.spectra import lyapunov_exponents as lyapunov_exponents
from cliffs.sweeps import sweep as sweep

__version__ = "0.2.0"
