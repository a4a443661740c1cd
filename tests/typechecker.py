"""The check of annotated types and shapes that the tests run under; floats may be given as integers."""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
