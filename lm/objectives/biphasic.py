"""One objective for the first part of the run, another for the rest; the optimiser's state goes on (CLM, then MLM: Gisserot-Boukhlef et al.
2025, "Should we still pretrain encoders with masked language modeling?").

    config.objective = {"name": "biphasic", "first": "clm", "second": "mlm", "share": 0.25, "second_options": {"rate": 0.4}}

A step is all of one phase, and computes that phase alone. Held-out text is asked what the second phase asks.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.core import plugins
from lm.core.protocols import Model
from lm.nn.config import ModelConfig
from lm.objectives import _members


@dataclasses.dataclass(frozen=True)
class Config:
    """first, second: objectives, with first_options and second_options. share: of the steps that go to the first."""

    first: str = "clm"
    second: str = "mlm"
    share: float = 0.25
    first_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    second_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for phase in ("first", "second"):
            plugins.find("objectives", getattr(self, phase))
        if self.first == self.second:
            raise ValueError(f"first and second are both {self.first!r}; name two objectives")
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share={self.share} must lie between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Both plans, with an empty example of each. As many rows as the longer one has."""

    plans: dict[str, Any]
    templates: dict[str, dict[str, np.ndarray]]

    def __len__(self) -> int:
        return max(map(len, self.plans.values())) if all(map(len, self.plans.values())) else 0

    @property
    def note(self) -> str:
        return "; ".join(f"{name}: {plan.note}" for name, plan in self.plans.items() if plan.note)


class Objective:
    masks = ("prefix", "cross", "bidirectional")
    composed = True
    standard = False

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "prefix"):
        self.config, self.length, self.mask = config, length, mask
        named = {
            config.first: ("config.objective.first_options", config.first_options),
            config.second: ("config.objective.second_options", config.second_options),
        }
        self.members = _members.make(named, tokenizer, length, mask)
        _members.check_heads(self.members)
        # A term keeps its name; one that both phases have is one term.
        self.terms = {
            term: factor
            for member in self.members.values()
            for term, factor in member.terms.items()
        }
        self.scores = tuple(
            dict.fromkeys(score for member in self.members.values() for score in member.scores)
        )
        self.shares = (config.share, 1.0 - config.share)
        self.positions = round(
            sum(
                share * member.positions
                for share, member in zip(self.shares, self.members.values(), strict=True)
            )
        )
        self.longest = _members.longest(self.members)

    def plan(self, store) -> Plan:
        """The rows of both phases."""
        plans = {name: member.plan(store) for name, member in self.members.items()}
        return Plan(
            plans,
            {
                name: _members.template(self.members[name], store, plan)
                for name, plan in plans.items()
            },
        )

    def example(
        self, store, plan: Plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """The fields of both phases under "name/", those of one phase filled; `phase` int32 []."""
        phase = int(progress >= self.config.share)
        name = list(self.members)[phase]
        theirs = plan.plans[name]
        at = (
            row
            if len(theirs) == len(plan)
            else min(len(theirs) - 1, int((row + rng.random()) * len(theirs) / len(plan)))
        )
        example = self.members[name].example(store, theirs, at, rng, progress)
        fields = {
            key: value
            for other, empty in plan.templates.items()
            for key, value in _members.prefixed(other, empty).items()
        }
        fields |= _members.prefixed(name, example) | {"phase": np.array(phase, np.int32)}
        return fields | _members.shown(example, plan.templates)

    def heads(self, config, scope) -> dict:
        """Those of both phases."""
        return {
            key: head
            for member in self.members.values()
            for key, head in member.heads(config, scope).items()
        }

    def flops(self, model: type[Model], config: ModelConfig) -> int:
        """Operations of a forward pass of one row, on average over the run."""
        first, second = (member.flops(model, config) for member in self.members.values())
        return round(self.config.share * first + (1 - self.config.share) * second)

    def loss(self, model, batch, dropout_keys):
        """Terms and metrics of the phase that the batch belongs to; those of the other are zeros."""
        names = list(self.members)

        def compute(name):
            return self.members[name].loss(model, _members.part(name, batch), dropout_keys)

        shapes = [jax.eval_shape(lambda name=name: compute(name)) for name in names]
        zero = jnp.zeros((), jnp.float32)
        empty = tuple(
            {key: (zero, zero) for shape in shapes for key in shape[side]} for side in (0, 1)
        )

        def branch(name):
            return lambda: tuple(
                blank | found for blank, found in zip(empty, compute(name), strict=True)
            )

        return jax.lax.cond(batch["phase"][0] == 0, branch(names[0]), branch(names[1]))
