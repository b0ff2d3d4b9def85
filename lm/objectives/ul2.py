"""UL2's mixture of denoisers: a denoiser drawn at random corrupts each text.

Tay et al. 2022, table 1:

    denoiser   corruption                                              mode token
    R          mean span 3 or 8 tokens at rate 0.15, as T5             [NLU]
    X          mean span 3 or 8 at 0.5, or 64 at 0.15 or 0.5           [NLG]
    S          the last quarter of the text: the model continues it    [S2S]

S gets a fraction `s_share` of the texts; the six others get equal fractions of the rest. The mode
token is the first token of the input.
"""

import dataclasses

import numpy as np
from jaxtyping import Int, Integer

from lm.core.protocols import Example, Tokenizer
from lm.data import packing, sequences, spans
from lm.data.store import Store
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _sequences
from lm.tokenizers.sentencepiece import MODES

# R and X: (mean span in tokens, rate, mode token)
DENOISERS = (
    (3.0, 0.15, MODES[0]),
    (8.0, 0.15, MODES[0]),
    (3.0, 0.5, MODES[1]),
    (8.0, 0.5, MODES[1]),
    (64.0, 0.15, MODES[1]),
    (64.0, 0.5, MODES[1]),
)


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """Options of UL2. Extends `LossOptions` (label smoothing, z-loss).

    Attributes:
      s_share: fraction of texts that the S-denoiser corrupts.
      s_rate: fraction of a text that the S-denoiser replaces; 0.25 in UL2.
      mode_tokens: whether the input begins with the denoiser's mode token.
      packing: method of packing documents into rows, "greedy" or "best_fit" (lm/data/packing.py).
    """

    s_share: float = 0.2
    s_rate: float = 0.25
    mode_tokens: bool = True
    packing: str = "greedy"

    def __post_init__(self) -> None:
        LossOptions.__post_init__(self)
        if not 0.0 <= self.s_share <= 1.0:
            raise ValueError(f"s_share={self.s_share} must be in [0, 1]")
        if not 0.0 < self.s_rate < 1.0:
            raise ValueError(f"s_rate={self.s_rate} must be between 0 and 1")
        packing.check(self.packing)


class Objective(_sequences.SequenceObjective):
    """UL2's mixture of denoisers.

    Attributes:
      needs: for each stream, an array whose entry n is the maximum number of positions that a
        piece of n tokens takes.
    """

    name, terms = "ul2", {"ul2": 1.0}
    scores = ("denoising",)

    def __init__(self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "cross"):
        def sizes(rate: float, span: float) -> tuple[np.ndarray, np.ndarray]:
            inputs, targets = spans.sizes(2 * length, rate, span)
            return inputs + config.mode_tokens, targets

        self.mode_token = MODES[0] if config.mode_tokens else ""
        by_denoiser = [sizes(rate, span) for span, rate, _ in DENOISERS]
        by_denoiser.append(sizes(config.s_rate, float(2 * length)))
        # A text must fit into a row whichever denoiser is drawn.
        inputs, targets = (
            np.maximum.accumulate(np.max(side, 0)) for side in zip(*by_denoiser, strict=True)
        )
        longest = int(np.searchsorted(inputs, length, side="right")) - 1
        layout = sequences.Layout(tokenizer, mask, length, int(targets[longest]))
        super().__init__(config, tokenizer, layout)
        both = np.maximum.accumulate(np.max([source + target for source, target in by_denoiser], 0))
        self.needs = (
            (inputs[: longest + 1], targets[: longest + 1])
            if mask == "cross"
            else (both[: longest + 1],)
        )
        longest = max(2, _sequences.longest_piece(self.needs, layout.stream_lengths))
        spans.check_sentinels(
            max(spans.counts(longest, rate, span)[1] for span, rate, _ in DENOISERS),
            tokenizer,
            length,
        )
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
        return self.layout.row(
            [
                self.corrupt(store.document(document)[start:stop], rng)
                for document, start, stop in plan.pieces(row)
            ]
        )

    def corrupt(
        self, text: Integer[np.ndarray, "n"], rng: np.random.Generator
    ) -> tuple[Int[np.ndarray, "inputs"], Int[np.ndarray, "targets"]]:
        """Corrupts a text by a denoiser drawn at random.

        Returns:
          Ids of the input and of the target.
        """
        n = len(text)
        if rng.random() < self.config.s_share:
            replaced, _ = spans.counts(n, self.config.s_rate, float(n))
            mode, starts, stops = MODES[2], np.array([n - replaced]), np.array([n])
        else:
            span, rate, mode = DENOISERS[int(rng.integers(len(DENOISERS)))]
            starts, stops = spans.noise_spans(n, rate, span, rng)
        inputs, targets = spans.replace(text, starts, stops, self.sentinels, self.tokenizer.eos)
        if self.config.mode_tokens:
            inputs = np.append(np.int32(self.tokenizer.modes[mode]), inputs)
        return inputs, targets
