"""Penalties against exploding and vanishing gradients: each a function added to a loss, or to its gradient.

| penalty | what it asks for | gradient |
| --- | --- | --- |
| `omega` | the error's gradient keeps its length from step to step | immediate, of the recurrent matrix alone |
| `unroll_with_omega` | the same, added in the backward pass of the unroll | the same, at the cost of one product |
| `exact_omega` | the same, eq. 9 | full, second order |
| `finite_difference_omega` | neighbouring gradients of equal length | full, by differences of first gradients |
| `jacobian_norm` | small Jacobians of the steps | full |
| `l1`, `l2` | small weights | of the weights |
| `spectral_penalty` | spectral radius or norm below a limit | of the matrix |
| `cliffs.spectra.gradient_flossing` | Lyapunov exponents near 0 | full; lives with the exponents |

`add_penalty` joins one to a loss. Weights are plain scalars and may be traced, so one sweep runs a grid of them, and a
schedule is its value at the present step. `cliffs.clipping.spectral_normalize` and `project_spectral_radius` change the
matrix itself, after the update.
"""

from cliffs.penalties._add import add_penalty as add_penalty
from cliffs.penalties._finite_difference_omega import finite_difference_omega as finite_difference_omega
from cliffs.penalties._jacobian_norm import jacobian_norm as jacobian_norm
from cliffs.penalties._omega import AUTHORS as AUTHORS
from cliffs.penalties._omega import EQUATION_9 as EQUATION_9
from cliffs.penalties._omega import OmegaForm as OmegaForm
from cliffs.penalties._omega import exact_omega as exact_omega
from cliffs.penalties._omega import omega as omega
from cliffs.penalties._state_gradients import state_gradients as state_gradients
from cliffs.penalties._unroll_with_omega import unroll_with_omega as unroll_with_omega
from cliffs.penalties._weights import l1 as l1
from cliffs.penalties._weights import l2 as l2
from cliffs.penalties._weights import spectral_penalty as spectral_penalty
