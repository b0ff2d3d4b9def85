"""Shared by composed objectives: the members, and examples with the fields of all members."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lm.core import compatibility, plugins
from lm.core.plugins import UserError
from lm.core.protocols import Batch, Example, Objective, Plan, Tokenizer
from lm.data.store import Store
from lm.nn.config import ModelConfig
from lm.nn.layers import Scope
from lm.objectives import _pairs


@dataclasses.dataclass(frozen=True)
class MemberPlans:
    """The rows of an epoch of an objective composed of others.

    Attributes:
      plans: member name → the member's plan.
      empty: member name → an example of zeros; without fields if the member has no rows.
      rows: number of rows of the composed epoch.
    """

    plans: dict[str, Plan]
    empty: dict[str, Example]
    rows: int

    def __len__(self) -> int:
        return self.rows

    @property
    def note(self) -> str:
        """Description of the text that the members' plans omit, or ""."""
        return "; ".join(f"{name}: {plan.note}" for name, plan in self.plans.items() if plan.note)


class ComposedObjective:
    """Base of objectives composed of others.

    A subclass defines `plan`, `example`, `flops`, `loss` and `by_row`. It sets `terms`, `config`,
    `positions` and `fractions`.
    """

    masks: tuple[str, ...] = ("prefix", "cross", "bidirectional")
    composed: bool = True
    standard: bool = False
    terms: Mapping[str, float]
    config: Any
    positions: int
    members: dict[str, Objective]
    fractions: dict[str, float]

    def __init__(
        self,
        sections: Mapping[str, tuple[str, Mapping[str, Any]]],
        tokenizer: Tokenizer,
        length: int,
        mask: str,
    ):
        """Makes the members.

        Args:
          sections: member name → (path of the member's options in the config, the options).
          tokenizer: tokenizer of the data.
          length: number of tokens in a row of data.
          mask: attention mask of all members.

        Raises:
          UserError: an objective does not exist, cannot be a member or does not train under this
            mask, or two members need different heads of the same name.
        """
        self.length, self.mask = length, mask
        self.members = {}
        for name, (where, options) in sections.items():
            if plugins.find("objectives", name).Objective.composed:
                raise UserError(
                    f"{where}: {name!r} is composed of other objectives and cannot be a member;"
                    " name its members instead"
                )
            self.members[name] = compatibility.build(
                {**options, "name": name}, tokenizer, length, mask, where
            )
        _check_heads(self.members)
        members = self.members.values()
        self.scores = tuple(dict.fromkeys(score for member in members for score in member.scores))
        self.longest = max(member.longest for member in members)
        self.mode_token = next((member.mode_token for member in members if member.mode_token), "")
        self.has_masked_head = any(member.has_masked_head for member in members)

    def heads(self, config: ModelConfig, scope: Scope) -> dict[str, Any]:
        """Returns the heads of all members; members share heads of the same name."""
        return {
            name: head
            for member in self.members.values()
            for name, head in member.heads(config, scope).items()
        }

    def plans(self, store: Store) -> tuple[dict[str, Plan], dict[str, Example]]:
        """Returns the members' plans and empty examples, each by member name."""
        plans = {name: member.plan(store) for name, member in self.members.items()}
        empty = {
            name: _empty_example(self.members[name], store, plan) for name, plan in plans.items()
        }
        return plans, empty

    def member_example(
        self,
        name: str,
        store: Store,
        plan: MemberPlans,
        row: int,
        rng: np.random.Generator,
        progress: float,
    ) -> Example:
        """Makes an example of a member, under the member's own field names.

        `row` is an index into the composed epoch. If a member has another number of rows, an
        index becomes an interval of the member's rows, and a row is drawn from this interval.
        """
        member_plan = plan.plans[name]
        if len(member_plan) != len(plan):
            at = int((row + rng.random()) * len(member_plan) / len(plan))
            row = min(len(member_plan) - 1, at)
        return self.members[name].example(store, member_plan, row, rng, progress)


def merge(name: str, example: Example, plan: MemberPlans) -> Example:
    """Returns the fields of all members, filled for one member and zero for the others.

    Args:
      name: name of the example's member.
      example: arrays under the member's own field names.
      plan: plan with the other members' empty examples.

    Returns:
      Arrays under "member/field", and the example's `tokens` and `segments`, padded to the maximum
      length over all members.
    """
    fields: Example = {}
    for member, empty in plan.empty.items():
        fields |= {f"{member}/{key}": value for key, value in empty.items()}
    fields |= {f"{name}/{key}": value for key, value in example.items()}
    size = max(len(empty["tokens"]) for empty in plan.empty.values())
    return fields | {key: pad(example[key], size) for key in ("tokens", "segments")}


def member_batch(name: str, batch: Batch) -> dict[str, Any]:
    """Returns a member's fields of a batch of merged examples, under the member's own field names.

    Args:
      name: name of the member.
      batch: arrays of merged examples, stacked along a leading axis B.
    """
    return {
        key.removeprefix(f"{name}/"): value
        for key, value in batch.items()
        if key.startswith(f"{name}/")
    }


def pad(values: Shaped[np.ndarray, "n"], size: int) -> Shaped[np.ndarray, "{size}"]:
    """Pads values with zeros up to `size`.

    Args:
      values: array of at most `size` values.
      size: length of the result.
    """
    return values if len(values) == size else np.pad(values, (0, size - len(values)))


def _check_heads(members: Mapping[str, Objective]) -> None:
    """Raises UserError if members share the pair classifier but differ in pooling or labels."""
    pairs = [
        member.pairs for member in members.values() if isinstance(member, _pairs.ObjectiveOnPairs)
    ]
    for what, values in (
        ("poolings", {component.pooling for component in pairs}),
        ("relations", {component.relation for component in pairs}),
    ):
        if len(values) > 1:
            raise UserError(
                f"the members classify pairs with one head, but their {what} are"
                f" {', '.join(sorted(values))}; choose one"
            )


def _empty_example(member: Objective, store: Store, plan: Plan) -> Example:
    if not len(plan):
        return {}
    example = member.example(store, plan, 0, np.random.default_rng(0), 1.0)
    return {key: np.zeros_like(value) for key, value in example.items()}
