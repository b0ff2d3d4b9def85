"""Prefix language modeling: continues a text whose beginning is given.

T5 (Raffel et al. 2020). The given part has bidirectional attention; the rest is predicted from left
to right. The split is uniform over the positions that leave a token on either side. A decoder reads
both parts in one row under a prefix mask, laid out as in CLM. An encoder-decoder encodes
`[BOS] prefix [EOS]` and decodes the rest.
"""

import dataclasses

import numpy as np

from lm.core.protocols import Example, Tokenizer
from lm.data import packing, sequences
from lm.data.store import Store
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _causal, _sequences


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """Options of prefix LM. Extends `LossOptions` (label smoothing, z-loss).

    Attributes:
      split: fraction of each text that is given; 0 to draw the fraction at random.
      packing: method of packing documents into rows, "greedy" or "best_fit" (lm/data/packing.py).
    """

    split: float = 0.0
    packing: str = "greedy"

    def __post_init__(self) -> None:
        LossOptions.__post_init__(self)
        if not 0.0 <= self.split < 1.0:
            raise ValueError(
                f"split={self.split} must be a fraction in [0, 1) (0: drawn at random)"
            )
        packing.check(self.packing)


class Objective(_sequences.SequenceObjective):
    """Prefix language modeling."""

    name, terms = "prefix_lm", {"prefix_lm": 1.0}

    def __init__(self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "cross"):
        super().__init__(config, tokenizer, sequences.Layout(tokenizer, mask, length, length))
        self.scores = ("suffix", "causal") if mask == "prefix" else ("suffix",)

    def plan(self, store: Store) -> packing.Plan:
        """Packs documents into rows; the rows are the same for all models.

        Pieces of one token are dropped, because they cannot be split.
        """
        return packing.pack(
            np.diff(store.document_offsets), self.length, self.config.packing
        ).without(2, "texts of one token")

    def example(
        self, store: Store, plan: packing.Plan, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """Makes the arrays of one row, named as in lm/nn/token_loss.py.

        Returns:
          Arrays [S] for the encoder and [T] for the decoder of an encoder-decoder, S = T; on a
          decoder, arrays [T], including `prefix`.
        """
        pieces = plan.pieces(row)
        splits = [self._split(stop - start, rng) for _, start, stop in pieces]
        if self.mask == "cross":
            return self._encoded(store, pieces, splits)
        example = _causal.row(store, plan, row, self.length, self.tokenizer)
        prefix, at = np.zeros(self.length, np.int32), 0
        for (_, start, stop), split in zip(pieces, splits, strict=True):
            prefix[at : at + split + 1] = 1
            example["weights"][at : at + split] = 0.0
            at += stop - start + packing.SPECIALS
        example["targets"][example["weights"] == 0] = 0
        return example | {"prefix": prefix}

    def _encoded(
        self, store: Store, pieces: list[tuple[int, int, int]], splits: list[int]
    ) -> Example:
        """The row of an encoder-decoder."""
        bos, eos = self.tokenizer.bos, self.tokenizer.eos
        inputs_targets = []
        for (document, start, stop), split in zip(pieces, splits, strict=True):
            text = store.document(document)
            inputs = [text[start - 1] if start else bos, *text[start : start + split], eos]
            end = np.array([eos] * (stop == len(text)), np.int32)
            targets = np.append(text[start + split : stop], end)
            inputs_targets.append((np.array(inputs), targets))
        return self.layout.row(inputs_targets)

    def _split(self, count: int, rng: np.random.Generator) -> int:
        """Returns how many of `count` tokens are given: at least one, but not all."""
        if self.config.split:
            return min(max(1, round(self.config.split * count)), count - 1)
        return int(rng.integers(1, count))
