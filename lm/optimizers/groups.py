"""Groups of parameters that an optimizer treats alike, by the last name on their path."""

import jax

from lm.core.protocols import Params

EMBEDDINGS = ("tokens", "positions", "types")
UNDECAYED = ("scale", "table")  # scales of norms; tables of relative positions

Path = tuple  # path of keys, as from jax.tree_util


def name(path: Path) -> str:
    """Returns the last name on a parameter's path: "query", "bias" …"""
    return str(getattr(path[-1], "key", path[-1]))


def is_vector(path: Path) -> bool:
    """Whether a parameter is never decayed: a norm scale, a bias, a table of relative positions."""
    return name(path) in UNDECAYED or name(path).endswith("bias")


def is_embedding(path: Path) -> bool:
    """Whether a parameter is a lookup table, whose gradient is sparse in rows."""
    return name(path) in EMBEDDINGS


def decayed(params: Params) -> Params:
    """Returns a tree of bool: whether weight decay applies to each parameter."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not is_vector(path), params)


def embeddings(params: Params) -> Params:
    """Returns a tree of bool: whether each parameter is an embedding."""
    return jax.tree_util.tree_map_with_path(lambda path, _: is_embedding(path), params)
