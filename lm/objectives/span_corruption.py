"""Span corruption: writes out the spans of text that sentinels replace in the input.

T5 (Raffel et al. 2020); lm/data/spans.py has the arithmetic. An encoder-decoder reads the corrupted
text and decodes the spans: 568 tokens give an input of 512 positions and a target of 114. A decoder
reads both in one row under a prefix mask.
"""

import dataclasses

import numpy as np

from lm.core import plugins
from lm.core.protocols import Example, Tokenizer
from lm.data import packing, sequences, spans
from lm.data.store import Store
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _sequences
from lm.tokenizers.sentencepiece import MODES


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """Options of span corruption. Extends `LossOptions` (label smoothing, z-loss).

    Attributes:
      density: fraction of tokens that are replaced; 0.15 in T5.
      mean_span: mean length of a span in tokens; 3 in T5.
      mode_token: token before the input: "[NLU]", "[NLG]" or "[S2S]"; "" for none.
      packing: method of packing documents into rows, "greedy" or "best_fit" (lm/data/packing.py).
    """

    density: float = 0.15
    mean_span: float = 3.0
    mode_token: str = ""
    packing: str = "greedy"

    def __post_init__(self) -> None:
        LossOptions.__post_init__(self)
        if not 0.0 < self.density < 1.0:
            raise ValueError(f"density={self.density} must be between 0 and 1")
        if self.mean_span < 1.0:
            raise ValueError(f"mean_span={self.mean_span} must be at least 1 token")
        if self.mode_token:
            plugins.choice("mode_token", self.mode_token, MODES)
        packing.check(self.packing)


class Objective(_sequences.SequenceObjective):
    """Span corruption.

    Attributes:
      needs: for each stream, an array whose entry n is the number of positions that a piece of n
        tokens takes.
    """

    name, terms = "span_corruption", {"span_corruption": 1.0}
    scores = ("denoising",)

    def __init__(self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "cross"):
        corruption = (config.density, config.mean_span)
        self.mode_token = config.mode_token
        self.mode = [tokenizer.modes[config.mode_token]] if config.mode_token else []
        most = spans.raw_length(length - len(self.mode), *corruption)
        inputs, targets = spans.sizes(most, *corruption)
        layout = sequences.Layout(tokenizer, mask, length, int(targets[most]))
        super().__init__(config, tokenizer, layout)
        self.needs = layout.needs(inputs + len(self.mode), targets)
        longest = _sequences.longest_piece(self.needs, layout.stream_lengths)
        spans.check_sentinels(spans.counts(max(2, longest), *corruption)[1], tokenizer, length)
        self.sentinels = np.array(tokenizer.sentinels, np.int32)

    def plan(self, store: Store) -> packing.Plan:
        """Packs documents into rows; drops pieces of one token, which cannot be corrupted."""
        lengths = np.diff(store.document_offsets)
        return packing.pack(
            lengths, self.layout.stream_lengths, self.config.packing, self.needs
        ).without(2, "texts of one token")

    def example(
        self, store: Store, plan: packing.Plan, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """Makes the arrays of one row, named as in lm/nn/token_loss.py.

        Returns:
          Arrays [S] for the encoder and [T] for the decoder of an encoder-decoder; on a decoder,
          arrays [T], including `prefix`.
        """
        pieces = []
        for document, start, stop in plan.pieces(row):
            starts_stops = spans.noise_spans(
                stop - start, self.config.density, self.config.mean_span, rng
            )
            inputs, targets = spans.replace(
                store.document(document)[start:stop],
                *starts_stops,
                self.sentinels,
                self.tokenizer.eos,
            )
            pieces.append((np.concatenate([self.mode, inputs]) if self.mode else inputs, targets))
        return self.layout.row(pieces)
