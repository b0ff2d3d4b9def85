"""What objectives that hide tokens have in common: rows of a format, corrupted, and the vocabulary head at the hidden places only."""

import dataclasses
from typing import Any

import numpy as np

from lm.core import plugins
from lm.core.protocols import Model
from lm.data import masking
from lm.nn import flops, heads, token_loss
from lm.nn.config import ModelConfig
from lm.nn.cross_entropy import LossOptions


@dataclasses.dataclass(frozen=True)
class Config(masking.Options, LossOptions):
    """How tokens are hidden (lm/data/masking.py); label smoothing and z-loss.

    Attributes:
      head: "transform" (BERT's) or "plain" (the vocabulary matrix alone).
      format: how text becomes rows, a plug-in of lm/data/formats.
    """

    head: str = "transform"
    format: str = "packed"

    def __post_init__(self):
        masking.Options.__post_init__(self)
        LossOptions.__post_init__(self)
        if self.head not in ("transform", "plain"):
            raise ValueError(f"head={self.head!r} is not one of transform, plain")
        plugins.find("data.formats", self.format)


class Masked:
    """The part of an objective that hides tokens and asks for them.

    Args:
      name: of its term. form: the format that lays out rows. mask: "bidirectional", or "prefix" for a decoder that sees the whole row.
      shift: how far before a hidden token its prediction stands. replacement: whether places are drawn with replacement.
    """

    def __init__(
        self,
        name: str,
        config: Config,
        tokenizer,
        form,
        length: int,
        mask: str,
        shift: int = 0,
        replacement: bool = False,
    ):
        self.name, self.config, self.tokenizer, self.form = name, config, tokenizer, form
        self.length, self.mask, self.shift, self.replacement = length, mask, shift, replacement

    def example(
        self, store, plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """The format's row, corrupted; under a prefix mask all of it is prefix."""
        example = self.form.row(store, plan, row, rng)
        example = masking.corrupt(
            example, self.tokenizer, rng, self.config, progress, replacement=self.replacement
        )
        if self.shift:
            example["target_positions"] = np.maximum(0, example["target_positions"] - self.shift)
        return example | (
            {"prefix": (example["segments"] > 0).astype(np.int32)} if self.mask == "prefix" else {}
        )

    def heads(self, config, scope) -> dict:
        """BERT's masked-language head, or nothing."""
        return (
            {"masked": heads.MaskedHead(config, scope / "masked")}
            if self.config.head == "transform"
            else {}
        )

    def head(self, model):
        """The model's masked-language head, None where the vocabulary stands alone."""
        return model.heads["masked"] if self.config.head == "transform" else None

    def head_flops(self, config: ModelConfig) -> int:
        """Operations of the vocabulary head on one row."""
        return flops.head(config, self.config.budget(self.length), self.config.head == "transform")

    def measured(self, model, hidden_BTD, batch):
        """Terms and metrics, each name: (sum, weight)."""
        return token_loss.measured(
            self.name,
            token_loss.sums(model, hidden_BTD, batch, self.config, self.head(model)),
            batch,
            self.config,
        )


class MaskedObjective:
    """Hidden tokens alone. A subclass makes `form` and `masked`; it names its masks, terms and scores."""

    composed = False
    form: Any
    masked: Masked

    def plan(self, store):
        """The format's rows."""
        return self.form.plan(store)

    def example(
        self, store, plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """tokens, segments, positions, types int32 [T], target_positions, targets int32 [P], weights float32 [P]."""
        return self.masked.example(store, plan, row, rng, progress)

    def heads(self, config, scope) -> dict:
        """BERT's masked-language head, or nothing."""
        return self.masked.heads(config, scope)

    def flops(self, model: type[Model], config: ModelConfig) -> int:
        """Operations of a forward pass of one row."""
        return model.flops(config, self.masked.length) + self.masked.head_flops(config)

    def loss(self, model, batch, dropout_keys):
        """Terms and metrics, each name: (sum, weight)."""
        return self.masked.measured(model, model.states(batch, dropout_keys), batch)

    def by_row(self, model, batch):
        """Nats and hits of each row, each name: (sums [B], weights [B])."""
        return token_loss.by_row(self.masked.name, model, batch, self.masked.head(model))
