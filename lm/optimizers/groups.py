"""Which parameters an optimiser treats alike, by their names."""

from typing import Any

import jax

EMBEDDINGS = ("tokens", "positions", "types")
VECTORS = ("scale", "table")


def name(path: tuple) -> str:
    """A parameter's last name: "query", "bias" …"""
    return str(getattr(path[-1], "key", path[-1]))


def is_vector(path: tuple) -> bool:
    """Norm scales, biases and relative-position tables: never decayed."""
    return name(path) in VECTORS or name(path).endswith("bias")


def is_embedding(path: tuple) -> bool:
    """Lookup tables: their gradients are sparse in rows."""
    return name(path) in EMBEDDINGS


def decayed(params: Any) -> Any:
    """Tree of bool: weight decay applies."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not is_vector(path), params)


def embeddings(params: Any) -> Any:
    """Tree of bool: an embedding."""
    return jax.tree_util.tree_map_with_path(lambda path, _: is_embedding(path), params)
