"""Shared by objectives that mask tokens: corrupted rows, and a loss at the masked positions."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float

from lm.core import plugins
from lm.core.protocols import Batch, Example, Format, Model, ModelClass, Plan, Sums, Tokenizer
from lm.data import masking
from lm.data.store import Store
from lm.nn import flops, token_loss
from lm.nn.config import ModelConfig
from lm.nn.cross_entropy import PLAIN, LossOptions
from lm.nn.heads import MaskedHead
from lm.nn.layers import DropoutKeys, Scope
from lm.objectives import _objective


@dataclasses.dataclass(frozen=True)
class Config(masking.Options, LossOptions):
    """Options of objectives that mask tokens.

    Extends `masking.Options` (lm/data/masking.py) and `LossOptions` (label smoothing, z-loss).

    Attributes:
      head: kind of head: "transform" (BERT's dense layer, activation and norm before the vocabulary
        matrix) or "plain" (the vocabulary matrix alone).
      format: name of the plug-in of lm/data/formats that turns text into rows.
    """

    head: str = "transform"
    format: str = "packed"

    def __post_init__(self) -> None:
        masking.Options.__post_init__(self)
        LossOptions.__post_init__(self)
        if self.head not in ("transform", "plain"):
            raise ValueError(f"head={self.head!r} is not one of transform, plain")
        plugins.find("data.formats", self.format)


class MaskedTokens:
    """A component of objectives that masks tokens of a format's rows and predicts them."""

    def __init__(
        self,
        name: str,
        config: Config,
        tokenizer: Tokenizer,
        row_format: Format,
        length: int,
        mask: str,
        shift: int = 0,
        replacement: bool = False,
    ):
        """Stores the options.

        Args:
          name: name of the loss term.
          config: options of masking, head and loss.
          tokenizer: tokenizer with [MASK] and the ids for random replacement.
          row_format: format that lays out rows.
          length: T, number of positions of a row.
          mask: attention mask: "bidirectional", or "prefix" on a decoder, with the whole row as the
            prefix.
          shift: number of positions by which prediction precedes the masked token: the token at
            position k is predicted at k - shift.
          replacement: whether positions are drawn with replacement.
        """
        self.name, self.config, self.tokenizer, self.row_format = (
            name,
            config,
            tokenizer,
            row_format,
        )
        self.length, self.mask, self.shift, self.replacement = length, mask, shift, replacement

    def example(
        self, store: Store, plan: Plan, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """Makes the format's row with masked tokens; under a prefix mask, all of it is prefix."""
        example = self.row_format.row(store, plan, row, rng)
        example = masking.corrupt(
            example, self.tokenizer, rng, self.config, progress, replacement=self.replacement
        )
        if self.shift:
            example["target_positions"] = np.maximum(0, example["target_positions"] - self.shift)
        if self.mask == "prefix":
            example = example | {"prefix": (example["segments"] > 0).astype(np.int32)}
        return example

    @property
    def has_head(self) -> bool:
        """Whether the model gets BERT's head for masked tokens."""
        return self.config.head == "transform"

    def heads(self, config: ModelConfig, scope: Scope) -> dict[str, MaskedHead]:
        """Returns BERT's head for masked tokens, or no head."""
        return {"masked": MaskedHead(config, scope / "masked")} if self.has_head else {}

    def head_flops(self, config: ModelConfig) -> int:
        """Returns the FLOPs of the vocabulary head on one row."""
        return flops.head(config, self.config.budget(self.length), self.has_head)

    def loss(
        self, model: Model, hidden_BTD: Float[Array, "B T D"], batch: Batch
    ) -> tuple[Sums, Sums]:
        """Returns the loss term and its metrics."""
        sums = token_loss.sums(model, hidden_BTD, batch, self.config, self._head(model))
        return token_loss.terms_and_metrics(self.name, sums, batch, self.config)

    def by_row(self, model: Model, hidden_BTD: Float[Array, "B T D"], batch: Batch) -> Sums:
        """Returns the loss term and its accuracy for each row, without smoothing or z-loss."""
        sums = token_loss.sums(model, hidden_BTD, batch, PLAIN, self._head(model))
        weight_B = batch["weights"].sum(-1)
        return {self.name: (sums.nll, weight_B), f"{self.name}_accuracy": (sums.hits, weight_B)}

    def _head(self, model: Model) -> MaskedHead | None:
        return model.heads["masked"] if self.has_head else None


class MaskedObjective(_objective.SingleObjective):
    """Base of objectives whose only loss is on masked tokens.

    A subclass sets `masks`, `terms` and `scores`. Its constructor passes a `MaskedTokens` to
    the constructor of this class.

    Attributes:
      masked: component that masks and predicts tokens.
      row_format: format that lays out rows.
    """

    def __init__(self, masked: MaskedTokens):
        self.masked, self.row_format, self.tokenizer = masked, masked.row_format, masked.tokenizer
        self.config, self.length, self.mask = masked.config, masked.length, masked.mask
        self.positions = self.longest = masked.length
        self.has_masked_head, self.standard = masked.has_head, not masked.has_head

    def plan(self, store: Store) -> Plan:
        """Returns the format's rows of an epoch."""
        return self.row_format.plan(store)

    def example(
        self, store: Store, plan: Plan, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """Makes the arrays of one row.

        Returns:
          tokens, segments, positions, types: int32 [T].
          target_positions, targets: int32 [P].
          weights: float32 [P].
        """
        return self.masked.example(store, plan, row, rng, progress)

    def heads(self, config: ModelConfig, scope: Scope) -> dict[str, MaskedHead]:
        """Returns BERT's head for masked tokens, or no head."""
        return self.masked.heads(config, scope)

    def flops(self, model: ModelClass, config: ModelConfig) -> int:
        """Returns the FLOPs of a forward pass of one row."""
        return model.flops(config, self.length) + self.masked.head_flops(config)

    def loss(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> tuple[Sums, Sums]:
        """Returns the loss term and its metrics."""
        return self.masked.loss(model, model.states(batch, dropout_keys), batch)

    def by_row(self, model: Model, batch: Batch) -> Sums:
        """Returns the loss term and its accuracy for each row."""
        return self.masked.by_row(model, model.states(batch, None), batch)
