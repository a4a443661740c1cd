"""Real data sets: readers, checked downloads."""

from cliffs.data._download import CACHE_DIR_VARIABLE as CACHE_DIR_VARIABLE
from cliffs.data._download import DATA_DIR_VARIABLE as DATA_DIR_VARIABLE
from cliffs.data._download import DataError as DataError
from cliffs.data._download import Source as Source
from cliffs.data._download import cache_dir as cache_dir
from cliffs.data._download import download as download
from cliffs.data._download import locate as locate
from cliffs.data._penn_treebank import CharacterCorpus as CharacterCorpus
from cliffs.data._penn_treebank import characters_of as characters_of
from cliffs.data._penn_treebank import encode as encode
from cliffs.data._penn_treebank import load_penn_treebank as load_penn_treebank
from cliffs.data._polyphonic import MusicSet as MusicSet
from cliffs.data._polyphonic import load_polyphonic as load_polyphonic
from cliffs.data._polyphonic import read_mat as read_mat
from cliffs.data._polyphonic import read_pickle as read_pickle
