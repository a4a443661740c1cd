"""Which metrics a sweep keeps, and how those of several updates become one number."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

REDUCTIONS: dict[str, Callable[[Array], Array]] = {
    "last": lambda x: x[-1],
    "mean": lambda x: x.mean(0),
    "max": lambda x: x.max(0),
    "min": lambda x: x.min(0),
}

Record = Sequence[str] | Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Recording:
    """Keep the metrics `names` (all when None), reduced over every `every` updates; `names` maps to a reduction."""

    every: int = 1
    names: tuple[tuple[str, str], ...] | None = None

    def reduce(self, metrics: PyTree) -> Any:
        """Metrics `[every, ...]` as what is kept of them; `None` in the place of what is not."""

        def keep(path, leaf):
            name = self._rule(path)
            return None if name is None else REDUCTIONS[name](leaf)

        return jax.tree_util.tree_map_with_path(keep, metrics)

    def _rule(self, path: Any) -> str | None:
        if self.names is None:
            return "last"
        name = metric_name(path)
        fitting = [rule for start, rule in self.names if name == start or name.startswith(start + "/")]
        return fitting[-1] if fitting else None


def make_recording(record: Record | None, every: int, metrics: PyTree) -> Recording:
    """The recording asked for; `metrics` are those of one update, as shapes.

    **Raises** `ValueError` for a name that is no metric, or an unknown reduction.
    """
    if record is None:
        return Recording(every)
    if isinstance(record, str) or not isinstance(record, (Mapping, Sequence)):
        raise ValueError(f"record must be names of metrics or a dict from names to reductions, got {record!r}")
    known = [metric_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(metrics)[0]]
    pairs = list(record.items()) if isinstance(record, Mapping) else [(name, "last") for name in record]
    for name, rule in pairs:
        if not isinstance(name, str) or not any(k == name or k.startswith(f"{name}/") for k in known):
            raise ValueError(f"record names {name!r}, the metrics of update are {known}")
        if not isinstance(rule, str) or rule not in REDUCTIONS:
            raise ValueError(f"record asks for {rule!r} of {name!r}, the reductions are {sorted(REDUCTIONS)}")
    return Recording(every, tuple(dict(pairs).items()))


def metric_name(path: Any) -> str:
    """`"aux/cosine"` from the path of a leaf of the metrics."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def reduced_shapes(recording: Recording, metrics: PyTree) -> Any:
    """Shapes and dtypes of what is kept of these metrics, for one run and one record."""
    several = jax.tree.map(lambda x: jax.ShapeDtypeStruct((recording.every, *x.shape), x.dtype), metrics)
    return jax.eval_shape(recording.reduce, several)


def bytes_per_run(shapes: PyTree, count: int) -> int:
    """Bytes that `count` records of these shapes take."""
    return count * sum(jnp.dtype(x.dtype).itemsize * x.size for x in jax.tree.leaves(shapes))
