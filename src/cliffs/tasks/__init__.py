"""Training tasks, one module each."""

from cliffs.tasks._characters import CharacterPieces as CharacterPieces
from cliffs.tasks._characters import bits_per_character as bits_per_character
from cliffs.tasks._characters import character_nats as character_nats
from cliffs.tasks._characters import contiguous_pieces as contiguous_pieces
from cliffs.tasks._music import MusicBatches as MusicBatches
from cliffs.tasks._music import MusicPieces as MusicPieces
from cliffs.tasks._music import music_nats as music_nats
from cliffs.tasks._music import nats_per_step as nats_per_step
from cliffs.tasks._music import song_batches as song_batches
from cliffs.tasks._music import song_pieces as song_pieces
from cliffs.tasks._temporal_order import SequenceBatch as SequenceBatch
from cliffs.tasks._temporal_order import temporal_order as temporal_order
