"""Objectives made of others: their members, and one example with the fields of all."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lm.core import compatibility, plugins
from lm.core.plugins import UserError


def make(
    given: Mapping[str, tuple[str, Mapping[str, Any]]], tokenizer, length: int, mask: str
) -> dict[str, Any]:
    """The member objectives, by name.

    Args:
      given: for each objective by name, where its options stand in the config, and the options.

    Raises:
      UserError: there is no such objective, it cannot be a member, or not under this mask.
    """
    members = {}
    for name, (where, options) in given.items():
        if plugins.find("objectives", name).Objective.composed:
            raise UserError(
                f"{where}: {name!r} is made of other objectives and cannot be a member itself; name its members instead"
            )
        members[name] = compatibility.build(
            {**options, "name": name}, tokenizer, length, mask, where
        )
    return members


def check_heads(members: Mapping[str, Any]) -> None:
    """Refuses members that would put different heads, or different questions to one head, under one name."""
    for what, found in (
        (
            "poolings",
            {
                member.config.pooling
                for member in members.values()
                if hasattr(member.config, "pooling")
            },
        ),
        (
            "relations",
            {member.relation for member in members.values() if hasattr(member, "relation")},
        ),
    ):
        if len(found) > 1:
            raise UserError(
                f"the members judge pairs with one head, but their {what} are {', '.join(sorted(found))}; choose one"
            )


def longest(members: Mapping[str, Any]) -> int:
    """Positions of the longest stream of any member."""
    return max(getattr(member, "longest", member.length) for member in members.values())


def shown(
    example: Mapping[str, np.ndarray], templates: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """`tokens` and `segments` of the member's example, in one size for all members."""
    size = max(len(empty["tokens"]) for empty in templates.values())
    return {key: padded(example[key], size) for key in ("tokens", "segments")}


def padded(values: np.ndarray, size: int) -> np.ndarray:
    """The values with zeros up to `size`."""
    return values if len(values) == size else np.pad(values, (0, size - len(values)))


def prefixed(name: str, example: Mapping[str, Any]) -> dict[str, Any]:
    """The fields under the member's name."""
    return {f"{name}/{key}": value for key, value in example.items()}


def part(name: str, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a member, under their own names."""
    return {
        key.removeprefix(f"{name}/"): value
        for key, value in batch.items()
        if key.startswith(f"{name}/")
    }


def template(member, store, plan) -> dict[str, np.ndarray]:
    """An example of the member with nothing in it."""
    if not len(plan):
        return {}
    return {
        key: np.zeros_like(value)
        for key, value in member.example(store, plan, 0, np.random.default_rng(0), 1.0).items()
    }
