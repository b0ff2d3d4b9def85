"""Defaults of the attributes that every objective has (lm.core.protocols.Objective)."""

import types
from collections.abc import Mapping

from lm.core.protocols import Objective


class SingleObjective:
    """Base of objectives that are not composed of others.

    A subclass sets `masks`, `terms`, `scores`, `config`, `length`, `mask`, `positions` and
    `longest`.
    """

    masks: tuple[str, ...]
    composed: bool = False
    standard: bool = False
    terms: Mapping[str, float]
    scores: tuple[str, ...]
    members: Mapping[str, Objective] = types.MappingProxyType({})
    fractions: Mapping[str, float] = types.MappingProxyType({})
    mode_token: str = ""
    has_masked_head: bool = False
