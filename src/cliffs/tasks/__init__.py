"""Training tasks: synthetic ones, drawn inside `jit` from a key, and the pieces of real sequences.

| task | inputs | outputs | read at | loss of `cliffs.training` | success |
| --- | --- | --- | --- | --- | --- |
| `temporal_order` | 6 | 4 | last step | `classification_loss` | `wrong_class` |
| `temporal_order(marks=3)` | 6 | 8 | last step | `classification_loss` | `wrong_class` |
| `addition`, `multiplication` | 2 | 1 | last step | `regression_loss` | `wrong_value` |
| `random_permutation` | 100 | 100 | last step | `classification_loss` | `wrong_class` |
| `memorisation` | values + 2 | values + 1 | every step | `sequence_classification_loss` | `wrong_sequence` |
| `delayed_copy`, `delayed_xor` | 1 | 2 | every step of the mask | `sequence_classification_loss` | `wrong_sequence` |

Each is `task(key, batch_size, length, *, max_length=None, ...) -> SequenceBatch` and can be vmapped over keys. With
`max_length` every batch has one length of its own, and the rest is padding: one compiled program for all lengths.
"""

from cliffs.tasks._adding import addition as addition
from cliffs.tasks._adding import multiplication as multiplication
from cliffs.tasks._batch import SequenceBatch as SequenceBatch
from cliffs.tasks._characters import CharacterPieces as CharacterPieces
from cliffs.tasks._characters import bits_per_character as bits_per_character
from cliffs.tasks._characters import character_nats as character_nats
from cliffs.tasks._characters import contiguous_pieces as contiguous_pieces
from cliffs.tasks._criteria import wrong_class as wrong_class
from cliffs.tasks._criteria import wrong_sequence as wrong_sequence
from cliffs.tasks._criteria import wrong_value as wrong_value
from cliffs.tasks._delayed import delayed_copy as delayed_copy
from cliffs.tasks._delayed import delayed_xor as delayed_xor
from cliffs.tasks._memorisation import memorisation as memorisation
from cliffs.tasks._music import MusicBatches as MusicBatches
from cliffs.tasks._music import MusicPieces as MusicPieces
from cliffs.tasks._music import music_nats as music_nats
from cliffs.tasks._music import nats_per_step as nats_per_step
from cliffs.tasks._music import song_batches as song_batches
from cliffs.tasks._music import song_pieces as song_pieces
from cliffs.tasks._random_permutation import random_permutation as random_permutation
from cliffs.tasks._temporal_order import temporal_order as temporal_order
