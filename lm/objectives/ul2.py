"""UL2's mixture of denoisers (Tay et al. 2022, table 1): each text is corrupted by one of them, drawn at random.

    R   mean span 3 or 8 tokens at a rate of 0.15: as T5                                        mode token [NLU]
    X   mean span 3 or 8 at 0.5, 64 at 0.15 or 0.5: extreme                                     mode token [NLG]
    S   the last quarter of the text is one span: the beginning is given, the rest is written   mode token [S2S]

S takes a share `s_share` of the texts, the six others share the rest equally. The mode token comes first in the input.
"""

import dataclasses

import numpy as np

from lm.data import packing, sequences, spans
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _sequences
from lm.tokenizers.sentencepiece import MODES

# (mean span, rate, mode token)
DENOISERS = (
    (3.0, 0.15, MODES[0]), (8.0, 0.15, MODES[0]), (3.0, 0.5, MODES[1]), (8.0, 0.5, MODES[1]), (64.0, 0.15, MODES[1]), (64.0, 0.5, MODES[1]),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """s_share: of texts that go to the S-denoiser. s_rate: share of a text that S takes away. mode_tokens: whether the input begins with
    one. packing: of texts into rows (lm/data/packing.py); label smoothing and z-loss."""

    s_share: float = 0.2
    s_rate: float = 0.25
    mode_tokens: bool = True
    packing: str = "greedy"

    def __post_init__(self):
        LossOptions.__post_init__(self)
        if not 0.0 <= self.s_share <= 1.0:
            raise ValueError(f"s_share={self.s_share} must lie in [0, 1]")
        if not 0.0 < self.s_rate < 1.0:
            raise ValueError(f"s_rate={self.s_rate} must lie between 0 and 1")
        packing.check(self.packing)


class Objective(_sequences.SequenceObjective):
    name, terms = "ul2", {"ul2": 1.0}
    scores = ("denoising",)

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "cross"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        sizes = [self._sizes(rate, span, 2 * length) for span, rate, _ in DENOISERS]
        sizes.append(self._sizes(config.s_rate, float(2 * length), 2 * length))
        # A text must fit whichever denoiser is drawn.
        inputs, targets = (
            np.maximum.accumulate(np.max(side, 0)) for side in zip(*sizes, strict=True)
        )
        longest = int(np.searchsorted(inputs, length, side="right")) - 1
        self.layout = sequences.Layout(tokenizer, mask, length, int(targets[longest]))
        both = np.maximum.accumulate(np.max([source + target for source, target in sizes], 0))
        self.needs = (
            (inputs[: longest + 1], targets[: longest + 1])
            if mask == "cross"
            else (both[: longest + 1],)
        )
        longest = min(
            int(np.searchsorted(need, room, side="right")) - 1
            for need, room in zip(self.needs, self.layout.rooms, strict=True)
        )
        spans.check_sentinels(
            max(spans.counts(max(2, longest), rate, span)[1] for span, rate, _ in DENOISERS),
            tokenizer,
            length,
        )
        self.sentinels = np.array(tokenizer.sentinels, np.int32)
        self.positions, self.longest = self.layout.positions, max(self.layout.rooms)

    def _sizes(self, rate: float, span: float, most: int) -> tuple[np.ndarray, np.ndarray]:
        inputs, targets = spans.sizes(most, rate, span)
        return inputs + self.config.mode_tokens, targets

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
        return self.layout.row(
            [
                self.corrupt(store.document(piece)[start:stop], rng)
                for piece, start, stop in plan.pieces(row)
            ]
        )

    def corrupt(self, text: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(input, target) of a text by a denoiser drawn at random."""
        n = len(text)
        if rng.random() < self.config.s_share:
            dropout_keys, _ = spans.counts(n, self.config.s_rate, float(n))
            mode, starts, stops = MODES[2], np.array([n - dropout_keys]), np.array([n])
        else:
            span, rate, mode = DENOISERS[int(rng.integers(len(DENOISERS)))]
            starts, stops = spans.noise_spans(n, rate, span, rng)
        inputs, targets = spans.replace(text, starts, stops, self.sentinels, self.tokenizer.eos)
        return (
            (np.append(np.int32(self.tokenizer.modes[mode]), inputs), targets)
            if self.config.mode_tokens
            else (inputs, targets)
        )
