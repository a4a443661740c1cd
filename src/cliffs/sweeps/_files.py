"""Pytrees on disk: arrays in an npz file, the tree in JSON. Nothing is pickled, nothing is run when it is read."""

import collections
import io
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import PyTree

from cliffs.sweeps._grid import is_key


def pack(tree: PyTree, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Put the leaves of `tree` into `arrays` and return the tree as JSON can hold it.

    The name of an array is its number and, for a reader, its path; a path alone could be that of two (`a/b` and b in
    a), or be changed by the file's format.
    Dicts, lists, tuples, NamedTuples and None come back as they are; other nodes (a dataclass, a FrozenDict) come back
    as dicts from names to children.
    """
    if tree is None:
        return {"kind": "none"}
    if isinstance(tree, np.ma.MaskedArray):
        return {**pack(tree.data, prefix, arrays), "mask": pack(np.ma.getmaskarray(tree), f"{prefix}.mask", arrays)}
    if is_key(tree):
        words = pack(np.asarray(jax.random.key_data(tree)), prefix, arrays)
        return {"kind": "key", "impl": str(jax.random.key_impl(tree)), "words": words}
    if jax.tree_util.all_leaves([tree]):
        array = np.asarray(tree)
        name = f"{len(arrays)} {ascii(prefix)[1:-1]}"
        arrays[name] = array.view(f"u{array.dtype.itemsize}") if _foreign(array.dtype) else array
        return {"kind": "array", "name": name, "dtype": str(array.dtype)}
    children, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)
    names = [jax.tree_util.keystr(path, simple=True) for path, _ in children]
    inner = [pack(child, f"{prefix}/{name}", arrays) for name, (_, child) in zip(names, children)]
    node: dict[str, Any] = {"kind": "dict", "names": names, "children": inner}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        node |= {"kind": "namedtuple", "module": type(tree).__module__, "class": type(tree).__qualname__}
    elif type(tree) in (tuple, list):
        node["kind"] = type(tree).__name__
    elif type(tree) is dict and not all(isinstance(key, str) for key in tree):
        node["keys"] = [key if isinstance(key, (int, str)) else str(key) for key in sorted(tree)]
    elif type(tree) is not dict:
        node["class"] = type(tree).__qualname__
    return node


def unpack(node: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """The reverse of `pack`. A NamedTuple whose class is not loaded becomes one of the same name and fields."""
    kind = node["kind"]
    if kind == "none":
        return None
    if kind == "key":
        return jax.random.wrap_key_data(jnp.asarray(unpack(node["words"], arrays)), impl=node["impl"])
    if kind == "array":
        array = arrays[node["name"]]
        dtype = np.dtype(getattr(ml_dtypes, node["dtype"], node["dtype"]))
        array = array if array.dtype == dtype else array.view(dtype)
        return np.ma.MaskedArray(array, unpack(node["mask"], arrays)) if "mask" in node else array
    children = [unpack(child, arrays) for child in node["children"]]
    if kind == "namedtuple":
        return _class(node)(*children)
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(children)
    return dict(zip(node.get("keys", node["names"]), children))


def jsonable(value: Any) -> Any:
    """`value` as strict JSON can hold it: arrays become lists, numbers that are not finite become strings."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> memoryview:
    """The content of an npz file, not compressed."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getbuffer()


def read_npz(file: BinaryIO) -> dict[str, np.ndarray]:
    """All arrays of an open npz file.

    **Raises** `ValueError` that names the file when it is none, or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # numpy and zipfile have many, which speak of pickles and of zip files
        raise ValueError(f"{file.name} is no npz file, or a damaged one") from error


def write_file(path: pathlib.Path, content: Any) -> None:
    """Write a whole file, on the disk when this returns."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: pathlib.Path, content: Any) -> None:
    """Write a file beside `path` and rename it into place: there is the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write_file(pathlib.Path(name), content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def _foreign(dtype: np.dtype) -> bool:
    """Whether numpy's file format does not know the dtype (bfloat16, float8)."""
    return dtype.kind == "V" or (dtype.isbuiltin == 2)


def _class(node: Mapping[str, Any]) -> Any:
    """The NamedTuple class of a node: only what is loaded already is looked at."""
    found: Any = sys.modules.get(node["module"])
    for part in node["class"].split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and list(getattr(found, "_fields", ())) == node["names"]:
        return found
    return collections.namedtuple(node["class"].rsplit(".", 1)[-1], node["names"])
