"""A weighted mixture: each sequence is trained by one of several objectives, drawn at random.

All sequences have equal weight. A sequence's loss is that of its objective: the sum of the
objective's terms, each the mean over the sequence's own targets. Objectives that only predict
tokens with the bare vocabulary head run through the model in a single pass, at no extra cost.
Otherwise each objective takes a pass of its own, in which the sequences of the others have weight
0; a run's FLOPs count these passes.

    config.objective = {
        "name": "mixture",
        "members": {"clm": {"weight": 1.0}, "mntp": {"weight": 3.0, "rate": 0.3}},
    }
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.plugins import UserError
from lm.core.protocols import Batch, Example, Model, ModelClass, Sums, Tokenizer
from lm.data.store import Store
from lm.nn import cross_entropy, token_loss
from lm.nn.config import ModelConfig
from lm.nn.cross_entropy import LossOptions
from lm.nn.layers import DropoutKeys
from lm.objectives import _members

DEFAULT = {"clm": {"weight": 1.0}, "mntp": {"weight": 1.0}}
_WEIGHTS = ("weights", "label_weights", "token_weights")
_PADDED = ("tokens", "segments", "positions", "types", "prefix")


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """Options of the mixture. Extends `LossOptions` (label smoothing, z-loss).

    The loss options apply to members that run in a single pass.

    Attributes:
      members: objective name → the objective's options, and its `weight` in the mixture (default
        1).
    """

    members: Mapping[str, Any] = dataclasses.field(default_factory=lambda: DEFAULT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.members:
            raise ValueError(
                "members is empty; name at least one objective, as members={'clm': {'weight': 1.0}}"
            )
        for name, options in self.members.items():
            weight = options.get("weight", 1.0) if isinstance(options, Mapping) else None
            if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
                raise ValueError(
                    f"members.{name} needs options with a weight above 0, not {options!r}"
                )


class Objective(_members.ComposedObjective):
    """Several objectives by weight.

    Attributes:
      single_pass: whether the members run through the model together.
    """

    terms = {"mixture": 1.0}

    def __init__(self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "prefix"):
        sections = {
            name: (
                f"config.objective.members.{name}",
                {key: value for key, value in options.items() if key != "weight"},
            )
            for name, options in config.members.items()
        }
        super().__init__(sections, tokenizer, length, mask)
        self.config = config
        weights = np.array(
            [config.members[name].get("weight", 1.0) for name in self.members], float
        )
        fractions = (weights / weights.sum()).tolist()
        self.fractions = dict(zip(self.members, fractions, strict=True))
        self.single_pass = all(member.standard for member in self.members.values())
        self.positions = max(member.positions for member in self.members.values())
        self._check_loss_options()

    def _check_loss_options(self) -> None:
        """Raises UserError if loss options are set where they have no effect."""
        unused: list[Any] = [self.config]
        where = "its members, since each has a pass of its own"
        if self.single_pass:
            unused = [member.config for member in self.members.values()]
            where = "the mixture, since its members run in a single pass"
        for config in unused:
            if isinstance(config, LossOptions) and (config.label_smoothing or config.z_loss):
                raise UserError(
                    "config.objective: label_smoothing and z_loss have no effect where they are"
                    f" set; set them on {where}"
                )

    def plan(self, store: Store) -> _members.MemberPlans:
        """Returns the members' rows; their number is the members' average, by weight."""
        plans, empty = self.plans(store)
        rows = sum(self.fractions[name] * len(plan) for name, plan in plans.items())
        return _members.MemberPlans(
            plans, empty, round(rows) if all(map(len, plans.values())) else 0
        )

    def example(
        self,
        store: Store,
        plan: _members.MemberPlans,
        row: int,
        rng: np.random.Generator,
        progress: float,
    ) -> Example:
        """Makes the arrays of one row, which belongs to one member.

        Returns:
          In a single pass, the fields of lm/nn/token_loss.py. Otherwise the members' own fields
          under "objective/field", filled for the row's member and zero for others, and the row's
          tokens and segments, int32 [T].
          member: int32 [], index of the row's member.
          count: int32 [], number of targets.
        """
        bounds = np.cumsum(list(self.fractions.values()))[:-1]
        index = int(np.searchsorted(bounds, rng.random(), side="right"))
        name = list(self.members)[index]
        example = self.member_example(name, store, plan, row, rng, progress)
        count = sum(int((example[key] > 0).sum()) for key in _WEIGHTS if key in example)
        # All sequences have equal weight.
        for key in _WEIGHTS:
            if key in example:
                example[key] = example[key] / max(example[key].sum(), 1e-9)
        if self.single_pass:
            fields = _common(example, plan.empty)
        else:
            fields = _members.merge(name, example, plan)
        return fields | {"member": np.array(index, np.int32), "count": np.array(count, np.int32)}

    def flops(self, model: ModelClass, config: ModelConfig) -> int:
        """Returns the FLOPs of a forward pass of one row, or of one pass for each member."""
        if not self.single_pass:
            return sum(member.flops(model, config) for member in self.members.values())
        if self.mask == "cross":
            return max(member.flops(model, config) for member in self.members.values())
        heads = max(
            member.flops(model, config) - model.flops(config, self.length)
            for member in self.members.values()
        )
        return model.flops(config, self.length) + heads

    def loss(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> tuple[Sums, Sums]:
        """Returns the loss term, and metrics: targets, and each member's terms and metrics."""
        rows = jnp.asarray(len(batch["member"]), jnp.float32)
        of_member = self._of_member(batch)
        metrics = {"targets": (batch["count"].sum().astype(jnp.float32), rows)}
        if self.single_pass:
            sums = token_loss.sums(model, model.states(batch, dropout_keys), batch, self.config)
            for name, (values_B, weights_B) in self._by_member(sums, batch).items():
                metrics[name] = (values_B.sum(), weights_B.sum())
            return {"mixture": (sums.loss, rows)}, metrics
        total = jnp.zeros(())
        for name, member in self.members.items():
            terms, others = member.loss(model, _members.member_batch(name, batch), dropout_keys)
            for term, (value, _) in terms.items():
                total += member.terms[term] * value
                metrics[f"{name}_{term}_loss"] = (value, of_member[name].sum())
            metrics |= {f"{name}_{metric}": pair for metric, pair in others.items()}
        return {"mixture": (total, rows)}, metrics

    def by_row(self, model: Model, batch: Batch) -> Sums:
        """Returns the loss term, and terms and metrics of each member, for each row."""
        ones_B = jnp.ones(len(batch["member"]), jnp.float32)
        if self.single_pass:
            sums = token_loss.sums(model, model.states(batch, None), batch, cross_entropy.PLAIN)
            return {"mixture": (sums.nll, ones_B)} | self._by_member(sums, batch)
        of_member, total_B, metrics = self._of_member(batch), jnp.zeros_like(ones_B), {}
        for name, member in self.members.items():
            rows = member.by_row(model, _members.member_batch(name, batch))
            for metric, (values_B, weights_B) in rows.items():
                if metric in member.terms:
                    total_B += member.terms[metric] * values_B
                    metrics[f"{name}_{metric}_loss"] = (values_B, of_member[name])
                else:
                    metrics[f"{name}_{metric}"] = (values_B, weights_B)
        return {"mixture": (total_B, ones_B)} | metrics

    def _of_member(self, batch: Batch) -> dict[str, jax.Array]:
        """For each member by name, 1.0 in its rows and 0.0 in others: float32 [B]."""
        return {
            name: (batch["member"] == index).astype(jnp.float32)
            for index, name in enumerate(self.members)
        }

    def _by_member(self, sums: cross_entropy.Sums, batch: Batch) -> Sums:
        """Nats and accuracy of each row, under its member's name; 0 under other names."""
        by_member = {}
        for name, is_member_B in self._of_member(batch).items():
            by_member[f"{name}_nll"] = (sums.nll * is_member_B, is_member_B)
            by_member[f"{name}_accuracy"] = (sums.hits * is_member_B, is_member_B)
        return by_member


def _common(example: Example, empty: Mapping[str, Example]) -> Example:
    """The example in the fields and sizes that all members of a single pass share."""
    # Without target positions, targets are at all positions of a row.
    dense = any("target_positions" not in fields for fields in empty.values())
    T = max(len(fields["tokens"]) for fields in empty.values())
    common = {}
    for key in _PADDED:
        if any(key in fields for fields in empty.values()):
            common[key] = _members.pad(example[key], T) if key in example else np.zeros(T, np.int32)
    common |= {key: value for key, value in example.items() if key.startswith("input_")}
    if dense and "target_positions" in example:
        used = example["weights"] > 0
        at = example["target_positions"][used]
        targets, weights = np.zeros(T, np.int32), np.zeros(T, np.float32)
        targets[at], weights[at] = example["targets"][used], example["weights"][used]
        return common | {"targets": targets, "weights": weights}
    P = T if dense else max(len(fields["targets"]) for fields in empty.values())
    keys = ("targets", "weights") if dense else ("target_positions", "targets", "weights")
    return common | {key: _members.pad(example[key], P) for key in keys}
