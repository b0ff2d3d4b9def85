"""Two phases: one objective for the first part of a run, another for the rest.

The optimizer's state is kept between the phases. For CLM followed by MLM see Gisserot-Boukhlef et
al. 2025, "Should we still pretrain encoders with masked language modeling?".

    config.objective = {
        "name": "biphasic", "first": "clm", "second": "mlm", "share": 0.25,
        "second_options": {"rate": 0.4},
    }

All rows of a step belong to one phase, and only that phase is computed. Held-out text is scored by
the second phase.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.core import plugins
from lm.core.protocols import Batch, Example, Model, ModelClass, Sums, Tokenizer
from lm.data.store import Store
from lm.nn.config import ModelConfig
from lm.nn.layers import DropoutKeys
from lm.objectives import _members


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the two phases.

    Attributes:
      first: name of the first phase's objective.
      second: name of the second phase's objective.
      share: fraction of the run's steps that belong to the first phase.
      first_options: options of the first objective.
      second_options: options of the second objective.
    """

    first: str = "clm"
    second: str = "mlm"
    share: float = 0.25
    first_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    second_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for phase in ("first", "second"):
            plugins.find("objectives", getattr(self, phase))
        if self.first == self.second:
            raise ValueError(f"first and second are both {self.first!r}; name two objectives")
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share={self.share} must be between 0 and 1")


class Objective(_members.ComposedObjective):
    """One objective after another."""

    def __init__(self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "prefix"):
        sections = {
            config.first: ("config.objective.first_options", config.first_options),
            config.second: ("config.objective.second_options", config.second_options),
        }
        super().__init__(sections, tokenizer, length, mask)
        self.config = config
        # A loss term of the same name in both phases is one term.
        self.terms = {
            term: factor
            for member in self.members.values()
            for term, factor in member.terms.items()
        }
        self.fractions = {config.first: config.share, config.second: 1.0 - config.share}
        self.positions = round(
            sum(self.fractions[name] * member.positions for name, member in self.members.items())
        )

    def plan(self, store: Store) -> _members.MemberPlans:
        """Returns the rows of both phases, as many as the phase with more rows has."""
        plans, empty = self.plans(store)
        lengths = [len(plan) for plan in plans.values()]
        return _members.MemberPlans(plans, empty, max(lengths) if all(lengths) else 0)

    def example(
        self,
        store: Store,
        plan: _members.MemberPlans,
        row: int,
        rng: np.random.Generator,
        progress: float,
    ) -> Example:
        """Makes the arrays of one row.

        Returns:
          The fields of both phases under "objective/field", filled for the row's phase and zero for
          the other phase.
          tokens, segments: int32 [T], of the row's phase.
          phase: int32 [], 0 or 1.
        """
        phase = int(progress >= self.config.share)
        name = list(self.members)[phase]
        example = self.member_example(name, store, plan, row, rng, progress)
        return _members.merge(name, example, plan) | {"phase": np.array(phase, np.int32)}

    def flops(self, model: ModelClass, config: ModelConfig) -> int:
        """Returns the FLOPs of a forward pass of one row, on average over the run."""
        first, second = (member.flops(model, config) for member in self.members.values())
        return round(self.config.share * first + (1 - self.config.share) * second)

    def loss(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> tuple[Sums, Sums]:
        """Returns loss terms and metrics of the batch's phase, and zeros for the other phase."""

        def compute(name: str) -> tuple[Sums, Sums]:
            return self.members[name].loss(model, _members.member_batch(name, batch), dropout_keys)

        terms, metrics = self._of_phase(compute, batch)
        return terms, metrics

    def by_row(self, model: Model, batch: Batch) -> Sums:
        """Returns terms and metrics of the batch's phase for each row, and zeros for the other."""

        def compute(name: str) -> tuple[Sums]:
            return (self.members[name].by_row(model, _members.member_batch(name, batch)),)

        return self._of_phase(compute, batch)[0]

    def _of_phase(
        self, compute: Callable[[str], tuple[Sums, ...]], batch: Batch
    ) -> tuple[Sums, ...]:
        """Computes the objective of the batch's phase, with zeros for the other's own terms."""
        names = list(self.members)
        shapes = [jax.eval_shape(lambda name=name: compute(name)) for name in names]
        zeros = tuple(
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), first | second)
            for first, second in zip(*shapes, strict=True)
        )

        def branch(name: str) -> Callable[[], tuple[Sums, ...]]:
            return lambda: tuple(
                zero | sums for zero, sums in zip(zeros, compute(name), strict=True)
            )

        return jax.lax.cond(batch["phase"][0] == 0, branch(names[0]), branch(names[1]))
