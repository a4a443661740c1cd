"""Real data sets: readers, checked downloads."""

from cliffs.data.download import DataError as DataError
from cliffs.data.penn_treebank import CharacterCorpus as CharacterCorpus
from cliffs.data.penn_treebank import load_penn_treebank as load_penn_treebank
from cliffs.data.polyphonic import MusicSet as MusicSet
from cliffs.data.polyphonic import load_polyphonic as load_polyphonic
from cliffs.data.polyphonic import read_mat as read_mat
from cliffs.data.polyphonic import read_pickle as read_pickle
