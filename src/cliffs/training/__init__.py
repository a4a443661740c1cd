"""Training as a pure function: a loss, an optax transformation and a sampler become one scan."""

from cliffs._losses import at_batch as at_batch
from cliffs.training._losses import StatesError as StatesError
from cliffs.training._losses import every_step_nats as every_step_nats
from cliffs.training._losses import last_step_nats as last_step_nats
from cliffs.training._losses import last_step_squares as last_step_squares
from cliffs.training._losses import predictions as predictions
from cliffs.training._losses import readout_loss as readout_loss
from cliffs.training._losses import regression_loss as regression_loss
from cliffs.training._losses import sequence_classification_loss as sequence_classification_loss
from cliffs.training._losses import zero_state as zero_state
from cliffs.training._step import StepMetrics as StepMetrics
from cliffs.training._step import TrainState as TrainState
from cliffs.training._step import classification_loss as classification_loss
from cliffs.training._step import fit as fit
from cliffs.training._step import init_train_state as init_train_state
from cliffs.training._step import train_step as train_step
from cliffs.training._truncated import TruncatedState as TruncatedState
from cliffs.training._truncated import init_truncated as init_truncated
from cliffs.training._truncated import truncated_step as truncated_step
