"""What objectives on pairs of segments have in common: the relation, the classifier, and the same beside masked tokens."""

import dataclasses

import jax
import numpy as np

from lm.core import plugins
from lm.core.protocols import Model
from lm.nn import heads
from lm.nn.config import ModelConfig
from lm.objectives import _masked


@dataclasses.dataclass(frozen=True)
class Config:
    """What a pair is, and what it is judged by.

    Attributes:
      pooling: "first" token (BERT), "mean" of all, or both "segments" compared (lm.nn.heads.PairHead).
      format: "segment_pair" (BERT: segments that fill a row) or "sentence_pair" (single sentences, several pairs a row).
    """

    pooling: str = "first"
    format: str = "segment_pair"

    def __post_init__(self):
        _check(self.pooling, self.format)


@dataclasses.dataclass(frozen=True)
class MaskedConfig(_masked.Config):
    """Options of masking, head and loss (lm/objectives/_masked.py), and the pair's `pooling` and `format` as in nsp."""

    format: str = "segment_pair"
    pooling: str = "first"

    def __post_init__(self):
        super().__post_init__()
        _check(self.pooling, self.format)


def _check(pooling: str, form: str) -> None:
    plugins.choice("pooling", pooling, heads.POOLINGS)
    if not plugins.find("data.formats", form).PAIRS:
        formats = [
            name
            for name in plugins.names("data.formats")
            if plugins.find("data.formats", name).PAIRS
        ]
        raise ValueError(
            f"format={form!r} has no pairs to judge; formats of pairs: {', '.join(formats)}"
        )


class Pairs:
    """The part of an objective that judges pairs. `name` is its term's; `relation` one of lm.data.pairs.RELATIONS."""

    def __init__(
        self, name: str, relation: str, config: Config | MaskedConfig, tokenizer, length: int
    ):
        self.name, self.config = name, config
        self.form = plugins.find("data.formats", config.format).Format(tokenizer, length, relation)

    def heads(self, config, scope) -> dict:
        """The pair classifier."""
        return {"pair": heads.PairHead(config, scope / "pair", self.config.pooling)}

    def measured(self, model, hidden_BTD, batch):
        """Terms and metrics, each name: (sum, weight)."""
        nll, hits = heads.classify(
            self._logits(model, hidden_BTD, batch), batch["labels"], batch["label_weights"]
        )
        return {self.name: nll}, {f"{self.name}_accuracy": hits}

    def by_row(self, model, hidden_BTD, batch):
        """Nats and hits of each row, each name: (sums [B], weights [B])."""
        asked = self._logits(model, hidden_BTD, batch), batch["labels"], batch["label_weights"]
        nll, hits = jax.vmap(heads.classify)(*asked)
        return {self.name: nll, f"{self.name}_accuracy": hits}

    def _logits(self, model, hidden_BTD, batch):
        return model.heads["pair"](
            hidden_BTD, batch["segments"], batch["types"], batch["labels"].shape[1]
        )


class PairObjective:
    """Pairs alone. A subclass names its term and its relation."""

    masks = ("bidirectional",)
    composed = False
    scores: tuple[str, ...] = ("pair",)
    standard = False
    name = relation = ""

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "bidirectional"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.pairs = Pairs(self.name, self.relation, config, tokenizer, length)
        self.positions = length

    def plan(self, store):
        """The format's rows."""
        return self.pairs.form.plan(store)

    def example(
        self, store, plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """tokens, segments, positions, types int32 [T], labels int32 [slots] (0: as in the text), label_weights float32 [slots]."""
        return self.pairs.form.row(store, plan, row, rng)

    def heads(self, config, scope) -> dict:
        """The pair classifier."""
        return self.pairs.heads(config, scope)

    def flops(self, model: type[Model], config: ModelConfig) -> int:
        """Operations of a forward pass of one row; those of the classifier are too few to count."""
        return model.flops(config, self.length)

    def loss(self, model, batch, dropout_keys):
        """Terms and metrics, each name: (sum, weight)."""
        return self.pairs.measured(model, model.states(batch, dropout_keys), batch)

    def by_row(self, model, batch):
        """Nats and hits of each row, each name: (sums [B], weights [B])."""
        return self.pairs.by_row(model, model.states(batch, None), batch)


class MaskedPairObjective:
    """Masked tokens and the relation of the same pairs; the losses add up. A subclass names its terms and its relation."""

    masks = ("bidirectional",)
    composed = False
    scores: tuple[str, ...] = ("masked", "pair")
    standard = False
    name = relation = ""

    def __init__(self, config: MaskedConfig, tokenizer, length: int, mask: str = "bidirectional"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.pairs = Pairs(self.name, self.relation, config, tokenizer, length)
        self.masked = _masked.Masked("mlm", config, tokenizer, self.pairs.form, length, mask)
        self.positions = length

    def plan(self, store):
        """The format's rows."""
        return self.pairs.form.plan(store)

    def example(
        self, store, plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """Fields of mlm and nsp together."""
        return self.masked.example(store, plan, row, rng, progress)

    def heads(self, config, scope) -> dict:
        """BERT's two heads."""
        return self.masked.heads(config, scope) | self.pairs.heads(config, scope)

    def flops(self, model: type[Model], config: ModelConfig) -> int:
        """Operations of a forward pass of one row."""
        return model.flops(config, self.length) + self.masked.head_flops(config)

    def loss(self, model, batch, dropout_keys):
        """Terms and metrics, each name: (sum, weight)."""
        hidden_BTD = model.states(batch, dropout_keys)
        tokens, pairs = (
            self.masked.measured(model, hidden_BTD, batch),
            self.pairs.measured(model, hidden_BTD, batch),
        )
        return tokens[0] | pairs[0], tokens[1] | pairs[1]
