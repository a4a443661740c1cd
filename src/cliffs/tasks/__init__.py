"""Training tasks, one module each."""

from cliffs.tasks._temporal_order import SequenceBatch as SequenceBatch
from cliffs.tasks._temporal_order import temporal_order as temporal_order
