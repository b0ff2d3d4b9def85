"""Groups of parameters that an optimizer treats alike, by the last name on their path."""

import jax

from lm.core.protocols import Params

EMBEDDINGS = ("tokens", "positions", "types")
UNDECAYED = ("scale", "table")  # of norms; of relative positions

Path = tuple  # of keys, as jax.tree_util gives it


def name(path: Path) -> str:
    """A parameter's last name: "query", "bias" …"""
    return str(getattr(path[-1], "key", path[-1]))


def is_vector(path: Path) -> bool:
    """Whether a parameter is never decayed: a norm scale, a bias, a table of relative positions."""
    return name(path) in UNDECAYED or name(path).endswith("bias")


def is_embedding(path: Path) -> bool:
    """Whether a parameter is a lookup table, whose gradient is sparse in rows."""
    return name(path) in EMBEDDINGS


def decayed(params: Params) -> Params:
    """Tree of bool: whether weight decay applies."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not is_vector(path), params)


def embeddings(params: Params) -> Params:
    """Tree of bool: whether a parameter is an embedding."""
    return jax.tree_util.tree_map_with_path(lambda path, _: is_embedding(path), params)
