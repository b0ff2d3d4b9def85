"""Span corruption: write out the spans that sentinels stand for (T5, Raffel et al. 2020; lm/data/spans.py has the arithmetic).

An encoder-decoder reads the corrupted text and decodes the spans: 568 tokens in an input of 512 positions and a target of 114. A decoder
reads both in one row under a prefix mask.
"""

import dataclasses

import numpy as np

from lm.core import plugins
from lm.data import packing, sequences, spans
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _sequences
from lm.tokenizers.sentencepiece import MODES


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """density: share of tokens that is lost. mean_span: of a span, in tokens. mode_token: "[NLU]", "[NLG]" or "[S2S]" to begin the input
    with; "" for none. packing: of texts into rows (lm/data/packing.py); label smoothing and z-loss."""

    density: float = 0.15
    mean_span: float = 3.0
    mode_token: str = ""
    packing: str = "greedy"

    def __post_init__(self):
        LossOptions.__post_init__(self)
        if not 0.0 < self.density < 1.0:
            raise ValueError(f"density={self.density} must lie between 0 and 1")
        if self.mean_span < 1.0:
            raise ValueError(f"mean_span={self.mean_span} must be at least 1 token")
        if self.mode_token:
            plugins.choice("mode_token", self.mode_token, MODES)
        packing.check(self.packing)


class Objective(_sequences.SequenceObjective):
    name, terms = "span_corruption", {"span_corruption": 1.0}
    scores = ("denoising",)

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "cross"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        noise = (config.density, config.mean_span)
        self.mode = [tokenizer.modes[config.mode_token]] if config.mode_token else []
        most = spans.raw_length(length - len(self.mode), *noise)
        inputs, targets = spans.sizes(most, *noise)
        self.layout = sequences.Layout(tokenizer, mask, length, int(targets[most]))
        self.needs = self.layout.needs(inputs + len(self.mode), targets)
        longest = min(
            int(np.searchsorted(need, room, side="right")) - 1
            for need, room in zip(self.needs, self.layout.rooms, strict=True)
        )
        spans.check_sentinels(spans.counts(max(2, longest), *noise)[1], tokenizer, length)
        self.sentinels = np.array(tokenizer.sentinels, np.int32)
        self.positions, self.longest = self.layout.positions, max(self.layout.rooms)

    def plan(self, store) -> packing.Plan:
        """Documents into rows; a text of one token, which cannot be corrupted, is left out and counted."""
        lengths = np.diff(store.document_offsets)
        return packing.pack(lengths, self.layout.rooms, self.config.packing, self.needs).without(
            2, "texts of one token"
        )

    def example(
        self, store, plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """Fields of lm/nn/token_loss.py: on an encoder-decoder [S] and [T], on a decoder [T] with `prefix`."""
        pieces = []
        for document, start, stop in plan.pieces(row):
            noise = spans.noise_spans(stop - start, self.config.density, self.config.mean_span, rng)
            inputs, targets = spans.replace(
                store.document(document)[start:stop], *noise, self.sentinels, self.tokenizer.eos
            )
            pieces.append((np.concatenate([self.mode, inputs]) if self.mode else inputs, targets))
        return self.layout.row(pieces)
