"""Any objectives by weight: each sequence is drawn for one of them, and counts as much as any other.

The loss of a sequence is its member's: the sum of the member's terms, each the mean over the sequence's own targets. Members that only
predict tokens with the bare vocabulary head run through the model together, at no extra cost; the others each take a pass of their own,
in which the sequences of other members weigh nothing (the FLOPs that a run reports count these passes).

    config.objective = {"name": "mixture", "members": {"clm": {"weight": 1.0}, "mntp": {"weight": 3.0, "rate": 0.3}}}
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lm.core.plugins import UserError
from lm.core.protocols import Model
from lm.nn import token_loss
from lm.nn.config import ModelConfig
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _members

DEFAULT = {"clm": {"weight": 1.0}, "mntp": {"weight": 1.0}}
_WEIGHTS = ("weights", "label_weights", "token_weights")
_PADDED = ("tokens", "segments", "positions", "types", "prefix")


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """members: for each objective by name its `weight` and its options. Label smoothing and z-loss hold for members that run together."""

    members: Mapping[str, Any] = dataclasses.field(default_factory=lambda: DEFAULT)

    def __post_init__(self):
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


@dataclasses.dataclass(frozen=True)
class Plan:
    """The members' plans, and an empty example with the fields of all of them. As many rows as the members have on average, by weight."""

    plans: dict[str, Any]
    templates: dict[str, dict[str, np.ndarray]]
    rows: int

    def __len__(self) -> int:
        return self.rows

    @property
    def note(self) -> str:
        return "; ".join(f"{name}: {plan.note}" for name, plan in self.plans.items() if plan.note)


class Objective:
    masks = ("prefix", "cross", "bidirectional")
    composed = True
    terms = {"mixture": 1.0}
    standard = False

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "prefix"):
        self.config, self.length, self.mask = config, length, mask
        own = {
            name: (
                f"config.objective.members.{name}",
                {key: value for key, value in options.items() if key != "weight"},
            )
            for name, options in config.members.items()
        }
        self.members = _members.make(own, tokenizer, length, mask)
        _members.check_heads(self.members)
        weights = np.array(
            [config.members[name].get("weight", 1.0) for name in self.members], float
        )
        self.shares = weights / weights.sum()
        self.together = all(member.standard for member in self.members.values())
        self.scores = tuple(
            dict.fromkeys(score for member in self.members.values() for score in member.scores)
        )
        self.positions = max(member.positions for member in self.members.values())
        self.longest = _members.longest(self.members)
        options = [member.config for member in self.members.values()] if self.together else [config]
        if any(
            getattr(each, "label_smoothing", 0.0) or getattr(each, "z_loss", 0.0)
            for each in options
        ):
            where = (
                "the mixture, since its members run together"
                if self.together
                else "its members, since they run apart"
            )
            raise UserError(
                f"config.objective: label_smoothing and z_loss have no effect there; set them on {where}"
            )

    def plan(self, store) -> Plan:
        """The members' rows."""
        plans = {name: member.plan(store) for name, member in self.members.items()}
        templates = {
            name: _members.template(self.members[name], store, plan) for name, plan in plans.items()
        }
        rows = sum(
            share * len(plan) for share, plan in zip(self.shares, plans.values(), strict=True)
        )
        return Plan(plans, templates, round(rows) if all(map(len, plans.values())) else 0)

    def example(
        self, store, plan: Plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """Of one member: the fields of lm/nn/token_loss.py, or the members' own under "name/"; `member`, `count` int32 []."""
        names = list(self.members)
        chosen = int(np.searchsorted(np.cumsum(self.shares)[:-1], rng.random(), side="right"))
        name, theirs = names[chosen], plan.plans[names[chosen]]
        # Rows are numbered through the mixture's epoch; a member with more or fewer of them takes one near that place.
        at = (
            row
            if len(theirs) == len(plan)
            else min(len(theirs) - 1, int((row + rng.random()) * len(theirs) / len(plan)))
        )
        example = self.members[name].example(store, theirs, at, rng, progress)
        count = sum(int((example[key] > 0).sum()) for key in _WEIGHTS if key in example)
        facts = {"member": np.array(chosen, np.int32), "count": np.array(count, np.int32)}
        # Each sequence counts alike.
        for key in _WEIGHTS:
            if key in example:
                example[key] = example[key] / max(example[key].sum(), 1e-9)
        if self.together:
            return self._common(example, plan.templates) | facts
        fields = {
            key: value
            for other, empty in plan.templates.items()
            for key, value in _members.prefixed(other, empty).items()
        }
        return (
            fields
            | _members.prefixed(name, example)
            | facts
            | _members.shown(example, plan.templates)
        )

    def _common(
        self, example: Mapping[str, np.ndarray], templates: Mapping[str, Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """The example in the fields and sizes that all members share."""
        dense = any("target_positions" not in empty for empty in templates.values())
        T = max(len(empty["tokens"]) for empty in templates.values())
        common = {}
        for key in _PADDED:
            if any(key in empty for empty in templates.values()):
                common[key] = (
                    _members.padded(example[key], T) if key in example else np.zeros(T, np.int32)
                )
        common |= {key: value for key, value in example.items() if key.startswith("input_")}
        if dense and "target_positions" in example:
            real = example["weights"] > 0
            at = example["target_positions"][real]
            targets, weights = np.zeros(T, np.int32), np.zeros(T, np.float32)
            targets[at], weights[at] = example["targets"][real], example["weights"][real]
            return common | {"targets": targets, "weights": weights}
        P = T if dense else max(len(empty["targets"]) for empty in templates.values())
        keys = ("targets", "weights") if dense else ("target_positions", "targets", "weights")
        return common | {key: _members.padded(example[key], P) for key in keys}

    def heads(self, config, scope) -> dict:
        """Those of all members; members that name a head alike share it."""
        return {
            key: head
            for member in self.members.values()
            for key, head in member.heads(config, scope).items()
        }

    def flops(self, model: type[Model], config: ModelConfig) -> int:
        """Operations of a forward pass of one row: members that run together take one pass, others one each."""
        if not self.together:
            return sum(member.flops(model, config) for member in self.members.values())
        if self.mask == "cross":
            return max(member.flops(model, config) for member in self.members.values())
        heads = max(
            member.flops(model, config) - model.flops(config, self.length)
            for member in self.members.values()
        )
        return model.flops(config, self.length) + heads

    def loss(self, model, batch, dropout_keys):
        """Terms and metrics, each name: (sum, weight); "targets" counts them."""
        rows = jnp.asarray(len(batch["member"]), jnp.float32)
        mine = {
            name: (batch["member"] == index).astype(jnp.float32)
            for index, name in enumerate(self.members)
        }
        metrics = {"targets": (batch["count"].sum().astype(jnp.float32), rows)}
        if self.together:
            found = token_loss.sums(model, model.states(batch, dropout_keys), batch, self.config)
            for name, mine_B in mine.items():
                metrics[f"{name}_nll"] = ((found.nll * mine_B).sum(), mine_B.sum())
                metrics[f"{name}_accuracy"] = ((found.hits * mine_B).sum(), mine_B.sum())
            return {"mixture": (found.loss, rows)}, metrics
        total = jnp.zeros(())
        for name, member in self.members.items():
            terms, more = member.loss(model, _members.part(name, batch), dropout_keys)
            for term, (value, _) in terms.items():
                total += member.terms[term] * value
                metrics[f"{name}_{term}_loss"] = (value, mine[name].sum())
            metrics |= {f"{name}_{metric}": pair for metric, pair in more.items()}
        return {"mixture": (total, rows)}, metrics
