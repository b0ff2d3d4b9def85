"""Shared by objectives on pairs of segments: rows and a classifier, alone or together with MLM."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float

from lm.core import plugins
from lm.core.protocols import Batch, Example, Model, ModelClass, Plan, Sums, Tokenizer
from lm.data.store import Store
from lm.nn import heads
from lm.nn.config import ModelConfig
from lm.nn.heads import MaskedHead, PairHead
from lm.nn.layers import DropoutKeys, Scope
from lm.objectives import _masked, _objective


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the rows of pairs and of the classifier.

    Attributes:
      pooling: the classifier's input (lm.nn.heads.PairHead): the "first" token (BERT), the "mean"
        of all tokens, or a comparison of both "segments".
      format: format of the rows: "segment_pair" (BERT: segments of several sentences that fill a
        row) or "sentence_pair" (single sentences, several pairs per row).
    """

    pooling: str = "first"
    format: str = "segment_pair"

    def __post_init__(self) -> None:
        _check(self.pooling, self.format)


@dataclasses.dataclass(frozen=True)
class MaskedConfig(_masked.Config):
    """Options of MLM on pairs. Extends `_masked.Config` (masking, head, format, loss).

    Attributes:
      format: format of the rows, as in `Config`.
      pooling: the classifier's input, as in `Config`.
    """

    format: str = "segment_pair"
    pooling: str = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.pooling, self.format)


def _check(pooling: str, row_format: str) -> None:
    plugins.choice("pooling", pooling, heads.POOLINGS)
    if not plugins.find("data.formats", row_format).PAIRS:
        formats = [
            name
            for name in plugins.names("data.formats")
            if plugins.find("data.formats", name).PAIRS
        ]
        raise ValueError(
            f"format={row_format!r} has no pairs to classify;"
            f" formats of pairs: {', '.join(formats)}"
        )


class Pairs:
    """Lays out pairs of segments, and classifies them: a component of objectives.

    Attributes:
      relation: relation of the segments, one of lm.data.pairs.RELATIONS.
      pooling: the classifier's input, one of lm.nn.heads.POOLINGS.
      row_format: format that lays out rows.
    """

    def __init__(
        self,
        name: str,
        relation: str,
        config: Config | MaskedConfig,
        tokenizer: Tokenizer,
        length: int,
    ):
        """Makes the format of the rows.

        Args:
          name: name of the loss term.
          relation: relation of the segments, one of lm.data.pairs.RELATIONS.
          config: options, including the pooling and the format.
          tokenizer: tokenizer with the special ids.
          length: T, number of positions of a row.
        """
        self.name, self.relation, self.pooling = name, relation, config.pooling
        self.row_format = plugins.find("data.formats", config.format).Format(
            tokenizer, length, relation
        )

    def heads(self, config: ModelConfig, scope: Scope) -> dict[str, PairHead]:
        """Returns the classifier."""
        return {"pair": PairHead(config, scope / "pair", self.pooling)}

    def loss(
        self, model: Model, hidden_BTD: Float[Array, "B T D"], batch: Batch
    ) -> tuple[Sums, Sums]:
        """Returns the loss term and its accuracy."""
        logits_BP2 = self._logits(model, hidden_BTD, batch)
        nll, hits = heads.classify(logits_BP2, batch["labels"], batch["label_weights"])
        return {self.name: nll}, {f"{self.name}_accuracy": hits}

    def by_row(self, model: Model, hidden_BTD: Float[Array, "B T D"], batch: Batch) -> Sums:
        """Returns the loss term and its accuracy for each row."""
        logits_BP2 = self._logits(model, hidden_BTD, batch)
        nll, hits = jax.vmap(heads.classify)(logits_BP2, batch["labels"], batch["label_weights"])
        return {self.name: nll, f"{self.name}_accuracy": hits}

    def _logits(
        self, model: Model, hidden_BTD: Float[Array, "B T D"], batch: Batch
    ) -> Float[Array, "B P 2"]:
        slots = batch["labels"].shape[1]
        return model.heads["pair"](hidden_BTD, batch["segments"], batch["types"], slots)


class ObjectiveOnPairs(_objective.SingleObjective):
    """Base of objectives with a loss on pairs.

    Attributes:
      name: name of the loss term on pairs; set by a subclass.
      relation: relation of the segments; set by a subclass.
      pairs: component that lays out and classifies pairs.
    """

    masks = ("bidirectional",)
    name: str
    relation: str
    pairs: Pairs

    def plan(self, store: Store) -> Plan:
        """Returns the format's rows of an epoch."""
        return self.pairs.row_format.plan(store)


class PairObjective(ObjectiveOnPairs):
    """Base of objectives whose only loss is on pairs."""

    scores = ("pair",)

    def __init__(
        self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "bidirectional"
    ):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.pairs = Pairs(self.name, self.relation, config, tokenizer, length)
        self.positions = self.longest = length

    def example(
        self, store: Store, plan: Plan, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """Makes the arrays of one row.

        Returns:
          tokens, segments, positions, types: int32 [T].
          labels: int32 [slots]; 0 for pairs that are as in the text, 1 for others.
          label_weights: float32 [slots].
        """
        return self.pairs.row_format.row(store, plan, row, rng)

    def heads(self, config: ModelConfig, scope: Scope) -> dict[str, PairHead]:
        """Returns the classifier."""
        return self.pairs.heads(config, scope)

    def flops(self, model: ModelClass, config: ModelConfig) -> int:
        """Returns the FLOPs of a forward pass of one row, without the (negligible) classifier."""
        return model.flops(config, self.length)

    def loss(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> tuple[Sums, Sums]:
        """Returns the loss term and its accuracy."""
        return self.pairs.loss(model, model.states(batch, dropout_keys), batch)

    def by_row(self, model: Model, batch: Batch) -> Sums:
        """Returns the loss term and its accuracy for each row."""
        return self.pairs.by_row(model, model.states(batch, None), batch)


class MaskedPairObjective(ObjectiveOnPairs):
    """Base of objectives on masked tokens and pairs in the same rows; the two losses are added."""

    scores = ("masked", "pair")

    def __init__(
        self, config: MaskedConfig, tokenizer: Tokenizer, length: int, mask: str = "bidirectional"
    ):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.pairs = Pairs(self.name, self.relation, config, tokenizer, length)
        self.masked = _masked.MaskedTokens(
            "mlm", config, tokenizer, self.pairs.row_format, length, mask
        )
        self.positions = self.longest = length
        self.has_masked_head = self.masked.has_head

    def example(
        self, store: Store, plan: Plan, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """Makes the arrays of one row: the fields of both mlm and nsp."""
        return self.masked.example(store, plan, row, rng, progress)

    def heads(self, config: ModelConfig, scope: Scope) -> dict[str, MaskedHead | PairHead]:
        """Returns BERT's two heads."""
        return self.masked.heads(config, scope) | self.pairs.heads(config, scope)

    def flops(self, model: ModelClass, config: ModelConfig) -> int:
        """Returns the FLOPs of a forward pass of one row."""
        return model.flops(config, self.length) + self.masked.head_flops(config)

    def loss(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> tuple[Sums, Sums]:
        """Returns both loss terms and their metrics."""
        hidden_BTD = model.states(batch, dropout_keys)
        tokens = self.masked.loss(model, hidden_BTD, batch)
        pairs = self.pairs.loss(model, hidden_BTD, batch)
        return tokens[0] | pairs[0], tokens[1] | pairs[1]

    def by_row(self, model: Model, batch: Batch) -> Sums:
        """Returns both loss terms and their accuracies for each row."""
        hidden_BTD = model.states(batch, None)
        tokens = self.masked.by_row(model, hidden_BTD, batch)
        return tokens | self.pairs.by_row(model, hidden_BTD, batch)
