"""Clipping strategies as optax transformations, with one treatment of non-finite gradients and one telemetry.

| strategy | rule | keeps the direction | memory |
| --- | --- | --- | --- |
| `clip` | entry by entry | no | none |
| `clip_by_global_norm` | norm of the whole gradient | yes | none |
| `clip_by_block_rms` | root mean square per array | no | none |
| `adaptive_grad_clip` | per unit, relative to its weights (AGC) | no | none |
| `clip_by_leaf_norm` | norm per array | no | none |
| `clip_by_group_norm` | norm per layer or any group | no | none |
| `soft_clip_by_global_norm` | g / (1 + norm / max_norm) | yes | none |
| `clip_by_ema_norm` | multiple of the norm's moving average | yes | 1 number |
| `clip_by_norm_quantile` | quantile of past norms (AutoClip) | yes | buffer |
| `clip_by_quantile_tracker` | limit that follows a quantile of the norms | yes | 1 number |
| `clip_by_zscore` | outliers of the norm (ZClip) | yes | 2 numbers |
| `clip_by_ema_leaf_norm` | per array, multiple of its moving average (AdaGC) | no | 1 number per array |
| `clip_spikes` | entry by entry, against its second moment (SPAM) | no | 1 number per entry |
| `clip_by_ema_max` | entry by entry, against the average largest entry (AdaClip) | no | 2 numbers per array |
| `adaptive_grad_norm` | steady norm per array (AdaGN) | no | 4 numbers per array |
| `clip_by_group_band` | band around the average norm of a group (AGGC) | no | 2 numbers per group |
| `clip_update_rms` | root mean square of the update per array (StableAdamW) | no | 1 number per entry |
| `clip_with_error_feedback` | difference to an estimate of the gradient (Clip21) | no | 1 or 2 numbers per entry |
| `clip_by_spectral_norm` | singular values of each matrix (SPECTRA) | no | none, or 2 numbers per array |
| `clip_or_shrink` | norm; shrinks the recurrent matrix when broken (2013 code) | yes | none |
| `spectral_normalize` | largest singular value of the matrix, after the update | - | basis |
| `project_spectral_radius` | spectral radius of the matrix, after the update | - | basis |

`STRATEGIES` is this table as data. `clip`, `clip_by_global_norm`, `clip_by_block_rms` and `adaptive_grad_clip` are
optax's rules with norms that neither overflow nor underflow. Re-exported unchanged from optax:
`normalize_by_update_norm` (every gradient to one norm), the guards `apply_if_finite`, `skip_not_finite` and
`skip_large_updates` (the latter two for `optax.MultiSteps(..., should_skip_update_fn=...)`), and the functions
`per_example_global_norm_clip` and `per_example_layer_norm_clip`, which clip before the mean over examples (as a
transformation: `optax.contrib.differentially_private_aggregate`). `with_telemetry` takes every transformation among
them as it is.

Recipes, each run by the tests:

- *Loss scaling*: divide by the loss scale before clipping, or the threshold means something else at every scale:
  `chain(scale(1 / loss_scale), clip_by_global_norm(1.0, nonfinite="skip"), sgd(lr))`.
- *Accumulation*: clip the accumulated gradient, not its parts, so the clip goes inside:
  `MultiSteps(chain(clip_by_global_norm(1.0), sgd(lr)), k)`. Outside of `MultiSteps` it would bound each part, and the
  mean of clipped parts has another direction.
- *Noise* (Neelakantan et al. 2015): after the clip, so that the clip does not cut it:
  `chain(clip_by_global_norm(10.0), optax.add_noise(eta=0.3, gamma=0.55, key=jax.random.key(0)), sgd(lr))`.

A transformer run, with AdamW (the clip comes first, since Adam normalises what follows):

>>> import jax, jax.numpy as jnp, optax
>>> from cliffs.clipping import clip_by_zscore, read_telemetry, with_telemetry
>>> optimizer = optax.chain(
...     with_telemetry(clip_by_zscore(z_threshold=2.5, max_norm=1.0, nonfinite="skip")),
...     optax.adamw(3e-4, weight_decay=0.1),
... )
>>> params = {"attention": {"kernel": jnp.ones((4, 4))}, "mlp": {"kernel": jnp.ones((4, 8))}}
>>> def loss(params, tokens):
...     return jnp.mean(jax.nn.gelu(tokens @ params["attention"]["kernel"] @ params["mlp"]["kernel"]) ** 2)
>>> @jax.jit
... def train_step(params, state, tokens):
...     value, grads = jax.value_and_grad(loss)(params, tokens)
...     updates, state = optimizer.update(grads, state, params)
...     return optax.apply_updates(params, updates), state, value
>>> state = optimizer.init(params)
>>> for step in range(3):
...     params, state, value = train_step(params, state, jnp.ones((2, 4)))
>>> log = read_telemetry(state)  # a flat dict of floats for any logger
>>> sorted(log)
['clip_count', 'clip_fraction', 'clipped', 'compared_count', 'cosine', 'nonfinite_count', 'norm_after', 'norm_before',
 'step']
>>> log["norm_after"] <= 1.0001, log["clip_count"], log["nonfinite_count"]
(True, 3.0, 0.0)
"""

from optax import apply_if_finite as apply_if_finite
from optax import normalize_by_update_norm as normalize_by_update_norm
from optax import per_example_global_norm_clip as per_example_global_norm_clip
from optax import per_example_layer_norm_clip as per_example_layer_norm_clip
from optax import skip_large_updates as skip_large_updates
from optax import skip_not_finite as skip_not_finite

from cliffs.clipping._adaptive import clip_by_ema_norm as clip_by_ema_norm
from cliffs.clipping._adaptive import clip_by_norm_quantile as clip_by_norm_quantile
from cliffs.clipping._adaptive import clip_by_quantile_tracker as clip_by_quantile_tracker
from cliffs.clipping._adaptive import clip_by_zscore as clip_by_zscore
from cliffs.clipping._entries import clip as clip
from cliffs.clipping._entries import clip_spikes as clip_spikes
from cliffs.clipping._error_feedback import clip_with_error_feedback as clip_with_error_feedback
from cliffs.clipping._from_optax import safely as safely
from cliffs.clipping._group_band import clip_by_group_band as clip_by_group_band
from cliffs.clipping._leaf_averages import clip_by_ema_leaf_norm as clip_by_ema_leaf_norm
from cliffs.clipping._norms import clip_by_block_rms as clip_by_block_rms
from cliffs.clipping._norms import clip_by_global_norm as clip_by_global_norm
from cliffs.clipping._norms import clip_by_group_norm as clip_by_group_norm
from cliffs.clipping._norms import clip_by_leaf_norm as clip_by_leaf_norm
from cliffs.clipping._norms import soft_clip_by_global_norm as soft_clip_by_global_norm
from cliffs.clipping._recurrent_matrix import clip_or_shrink as clip_or_shrink
from cliffs.clipping._registry import STRATEGIES as STRATEGIES
from cliffs.clipping._registry import StrategyInfo as StrategyInfo
from cliffs.clipping._registry import strategies_table as strategies_table
from cliffs.clipping._safe_norm import tree_norm as tree_norm
from cliffs.clipping._skip_outliers import SkipOutliersState as SkipOutliersState
from cliffs.clipping._skip_outliers import skip_outliers as skip_outliers
from cliffs.clipping._spectral import project_spectral_radius as project_spectral_radius
from cliffs.clipping._spectral import spectral_normalize as spectral_normalize
from cliffs.clipping._spectral_clip import clip_by_spectral_norm as clip_by_spectral_norm
from cliffs.clipping._spectral_limits import EmaLimit as EmaLimit
from cliffs.clipping._spectral_limits import QuantileLimit as QuantileLimit
from cliffs.clipping._stable_spam import adaptive_grad_norm as adaptive_grad_norm
from cliffs.clipping._stable_spam import clip_by_ema_max as clip_by_ema_max
from cliffs.clipping._strategy import NonFinite as NonFinite
from cliffs.clipping._telemetry import TelemetryState as TelemetryState
from cliffs.clipping._telemetry import read_telemetry as read_telemetry
from cliffs.clipping._telemetry import with_telemetry as with_telemetry
from cliffs.clipping._units import adaptive_grad_clip as adaptive_grad_clip
from cliffs.clipping._update_rms import clip_update_rms as clip_update_rms
