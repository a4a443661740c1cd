"""The recurrent model: steps of vanilla, gated and small hand-made maps, their initialisers, and the unroll in time.

A step is any function `step(params, state, inputs) -> state` on pytrees; nothing has to be registered.

| you look for | file |
| --- | --- |
| `unroll`, `unroll_method`: states over time, and which way is taken | `_unroll.py` |
| vanilla network `rnn_step`, read-out | `_vanilla.py` |
| flax cells as steps: `lstm_cell`, `gru_cell`, `simple_cell` | `_gated.py` |
| one-unit map, linear map, Hénon map | `_maps.py` |
| initial weights | `_initializers.py` |
| derivative rules: vanilla, LSTM and GRU, any step | `_fast_unroll.py`, `_gated_rules.py`, `_deferred.py` |
| what a step computes, sorted by what it depends on | `_step_plan.py` |
| blocks of time; recomputation (`remat`) | `_blocks.py`, `_recompute.py` |
| a sequence solved at once: `parallel_unroll` | `_parallel.py` |
| the kernel with the matrix on the chip | `_persistent.py` |
| a linear map with its own transpose | `_linear_map.py` |
"""

from cliffs.recurrent._fast_unroll import ACTIVATIONS as ACTIVATIONS
from cliffs.recurrent._fast_unroll import SLOPES as SLOPES
from cliffs.recurrent._gated import CellStep as CellStep
from cliffs.recurrent._gated import gru_cell as gru_cell
from cliffs.recurrent._gated import lstm_cell as lstm_cell
from cliffs.recurrent._gated import simple_cell as simple_cell
from cliffs.recurrent._initializers import gaussian as gaussian
from cliffs.recurrent._initializers import glorot as glorot
from cliffs.recurrent._initializers import identity_plus_noise as identity_plus_noise
from cliffs.recurrent._initializers import init_model as init_model
from cliffs.recurrent._initializers import orthogonal as orthogonal
from cliffs.recurrent._initializers import paper_init as paper_init
from cliffs.recurrent._initializers import scale_to_spectral_radius as scale_to_spectral_radius
from cliffs.recurrent._initializers import sparse_spectral as sparse_spectral
from cliffs.recurrent._initializers import spectral_radius as spectral_radius
from cliffs.recurrent._maps import HenonParams as HenonParams
from cliffs.recurrent._maps import OneUnitParams as OneUnitParams
from cliffs.recurrent._maps import OneUnitPoints as OneUnitPoints
from cliffs.recurrent._maps import henon_step as henon_step
from cliffs.recurrent._maps import linear_step as linear_step
from cliffs.recurrent._maps import one_unit_cost as one_unit_cost
from cliffs.recurrent._maps import one_unit_flips as one_unit_flips
from cliffs.recurrent._maps import one_unit_folds as one_unit_folds
from cliffs.recurrent._maps import one_unit_step as one_unit_step
from cliffs.recurrent._parallel import ParallelUnroll as ParallelUnroll
from cliffs.recurrent._parallel import parallel_unroll as parallel_unroll
from cliffs.recurrent._persistent import KernelCost as KernelCost
from cliffs.recurrent._persistent import persistent_cost as persistent_cost
from cliffs.recurrent._persistent import persistent_states as persistent_states
from cliffs.recurrent._piecewise_linear import PLRNNParams as PLRNNParams
from cliffs.recurrent._piecewise_linear import PLRNNStep as PLRNNStep
from cliffs.recurrent._piecewise_linear import ShallowPLRNNParams as ShallowPLRNNParams
from cliffs.recurrent._piecewise_linear import ShallowPLRNNStep as ShallowPLRNNStep
from cliffs.recurrent._piecewise_linear import plrnn_step as plrnn_step
from cliffs.recurrent._piecewise_linear import shplrnn_step as shplrnn_step
from cliffs.recurrent._unroll import Method as Method
from cliffs.recurrent._unroll import UnrollMethod as UnrollMethod
from cliffs.recurrent._unroll import unroll as unroll
from cliffs.recurrent._unroll import unroll_method as unroll_method
from cliffs.recurrent._vanilla import ModelParams as ModelParams
from cliffs.recurrent._vanilla import ReadoutParams as ReadoutParams
from cliffs.recurrent._vanilla import RNNParams as RNNParams
from cliffs.recurrent._vanilla import RNNStep as RNNStep
from cliffs.recurrent._vanilla import project_inputs as project_inputs
from cliffs.recurrent._vanilla import readout as readout
from cliffs.recurrent._vanilla import rnn_step as rnn_step
