"""Prefix language modelling: the first part of a text is seen as a whole, the rest predicted from left to right (T5, Raffel et al. 2020).

The split is uniform over the places that leave a token on either side. A decoder reads both parts in one row under a prefix mask, as CLM
would; an encoder-decoder encodes `[BOS] prefix [EOS]` and decodes the rest.
"""

import dataclasses

import numpy as np

from lm.data import packing, sequences
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _causal, _sequences


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """split: share of each text that is given; 0 draws it. packing: of texts into rows (lm/data/packing.py); label smoothing, z-loss."""

    split: float = 0.0
    packing: str = "greedy"

    def __post_init__(self):
        LossOptions.__post_init__(self)
        if not 0.0 <= self.split < 1.0:
            raise ValueError(f"split={self.split} must be a share below 1 (0: drawn at random)")
        packing.check(self.packing)


class Objective(_sequences.SequenceObjective):
    name, terms = "prefix_lm", {"prefix_lm": 1.0}

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "cross"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.scores = ("suffix", "causal") if mask == "prefix" else ("suffix",)
        self.layout = sequences.Layout(tokenizer, mask, length, length)
        self.positions, self.longest = self.layout.positions, max(self.layout.rooms)

    def plan(self, store) -> packing.Plan:
        """Documents into rows, the same on any model; a text of one token, which cannot be split, is left out and counted."""
        return packing.pack(
            np.diff(store.document_offsets), self.length, self.config.packing
        ).without(2, "texts of one token")

    def example(
        self, store, plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """Fields of lm/nn/token_loss.py: on a decoder [T] with `prefix`, on an encoder-decoder [S] and [T], both `length`."""
        pieces = plan.pieces(row)
        splits = [self._split(stop - start, rng) for _, start, stop in pieces]
        if self.mask == "cross":
            parts = []
            for (document, start, stop), split in zip(pieces, splits, strict=True):
                text = store.document(document)
                given = [
                    text[start - 1] if start else self.tokenizer.bos,
                    *text[start : start + split],
                    self.tokenizer.eos,
                ]
                parts.append(
                    (
                        np.array(given),
                        np.append(
                            text[start + split : stop], np.array([self.tokenizer.eos] * (stop == len(text)), np.int64)
                        ),
                    )
                )
            return self.layout.row(parts)
        example = _causal.row(store, plan, row, self.length, self.tokenizer)
        prefix, at = np.zeros(self.length, np.int32), 0
        for (_, start, stop), split in zip(pieces, splits, strict=True):
            prefix[at : at + split + 1] = 1
            example["weights"][at : at + split] = 0.0
            at += stop - start + packing.SPECIALS
        example["targets"][example["weights"] == 0] = 0
        return example | {"prefix": prefix}

    def _split(self, count: int, rng: np.random.Generator) -> int:
        """How many of a text's tokens are given: at least one, and not all."""
        return (
            min(max(1, round(self.config.split * count)), count - 1)
            if self.config.split
            else int(rng.integers(1, count))
        )
