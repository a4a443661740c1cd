"""cliffs: exploding and vanishing gradients in JAX. See them, measure them exactly, tame them.

Three doors: `cliffs.clip_by_*` for optax chains, `cliffs.sweep.sweep` for hundreds of runs at once, and the dynamical
system of a `step(params, state, inputs) -> state` (`cliffs.dynamics`, `cliffs.jacobians`, `cliffs.lyapunov`,
`cliffs.landscape`, `cliffs.curvature`).
"""

from cliffs import cells as cells
from cliffs import cliff as cliff
from cliffs import cliff_scaling as cliff_scaling
from cliffs import clipping as clipping
from cliffs import curvature as curvature
from cliffs import data as data
from cliffs import descent as descent
from cliffs import directions as directions
from cliffs import dynamics as dynamics
from cliffs import growth as growth
from cliffs import initializers as initializers
from cliffs import jacobian_operators as jacobian_operators
from cliffs import jacobians as jacobians
from cliffs import landscape as landscape
from cliffs import lyapunov as lyapunov
from cliffs import maps as maps
from cliffs import mean_field as mean_field
from cliffs import refinement as refinement
from cliffs import rnn as rnn
from cliffs import smoothness as smoothness
from cliffs import spectrum as spectrum
from cliffs import sweep as sweep
from cliffs import tasks as tasks
from cliffs import training as training
from cliffs.cliff import cliff_profile as cliff_profile
from cliffs.cliff_scaling import cliff_law as cliff_law
from cliffs.clipping import adaptive_grad_clip as adaptive_grad_clip
from cliffs.clipping import clip as clip
from cliffs.clipping import clip_by_block_rms as clip_by_block_rms
from cliffs.clipping import clip_by_ema_leaf_norm as clip_by_ema_leaf_norm
from cliffs.clipping import clip_by_ema_norm as clip_by_ema_norm
from cliffs.clipping import clip_by_global_norm as clip_by_global_norm
from cliffs.clipping import clip_by_group_norm as clip_by_group_norm
from cliffs.clipping import clip_by_leaf_norm as clip_by_leaf_norm
from cliffs.clipping import clip_by_norm_quantile as clip_by_norm_quantile
from cliffs.clipping import clip_by_zscore as clip_by_zscore
from cliffs.clipping import clip_or_shrink as clip_or_shrink
from cliffs.clipping import clip_spikes as clip_spikes
from cliffs.clipping import project_spectral_radius as project_spectral_radius
from cliffs.clipping import read_telemetry as read_telemetry
from cliffs.clipping import safely as safely
from cliffs.clipping import soft_clip_by_global_norm as soft_clip_by_global_norm
from cliffs.clipping import spectral_normalize as spectral_normalize
from cliffs.clipping import with_telemetry as with_telemetry
from cliffs.diagnosis import diagnose as diagnose
from cliffs.diagnosis import suggest_threshold as suggest_threshold
from cliffs.landscape import surface as surface
from cliffs.refinement import find_walls as find_walls
from cliffs.rnn import ModelParams as ModelParams
from cliffs.rnn import ReadoutParams as ReadoutParams
from cliffs.rnn import RNNParams as RNNParams
from cliffs.rnn import readout as readout
from cliffs.rnn import rnn_step as rnn_step
from cliffs.rnn import unroll as unroll
from cliffs.training import classification_loss as classification_loss
from cliffs.training import fit as fit
from cliffs.training import init_train_state as init_train_state
from cliffs.training import train_step as train_step

__version__ = "0.1.0"
