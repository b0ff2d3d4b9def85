"""Sequence to sequence: a document's first paragraph is the input, the rest is the target.

For translation, summarization or question answering, provide each pair as a document of two
paragraphs (`data.source=jsonl` reads a list of texts as paragraphs). On documentation the model
writes the body from the summary line or, with `reverse`, the summary line from the body.
"""

import dataclasses

import numpy as np
from jaxtyping import Integer

from lm.core.plugins import UserError
from lm.core.protocols import Example, Tokenizer
from lm.data import packing, sequences
from lm.data.store import Store
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _sequences


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """Options of seq2seq. Extends `LossOptions` (label smoothing, z-loss).

    Attributes:
      reverse: whether the first paragraph is the target instead of the input.
      target_length: number of positions of an encoder-decoder's target stream; 0 for the data's
        length.
      packing: method of packing documents into rows, "greedy" or "best_fit" (lm/data/packing.py).
    """

    reverse: bool = False
    target_length: int = 0
    packing: str = "best_fit"

    def __post_init__(self) -> None:
        LossOptions.__post_init__(self)
        if self.target_length < 0 or 0 < self.target_length < 4:
            raise ValueError(f"target_length={self.target_length} must be 0 or at least 4")
        packing.check(self.packing)


class Objective(_sequences.SequenceObjective):
    """Sequence to sequence."""

    name, terms = "seq2seq", {"seq2seq": 1.0}
    scores = ("transduction",)

    def __init__(self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "cross"):
        layout = sequences.Layout(tokenizer, mask, length, config.target_length or length)
        super().__init__(config, tokenizer, layout)

    def plan(self, store: Store) -> packing.Plan:
        """Packs whole documents into rows.

        Returns:
          Rows of pieces (document, end of the first paragraph, end of the document); the ends are
          numbers of tokens.

        Raises:
          UserError: no document has two paragraphs.
        """
        offsets, borders = np.asarray(store.sentence_offsets), np.asarray(store.document_sentences)
        starts = np.flatnonzero(store.paragraph_starts)
        # The paragraph after a document's first.
        second = np.searchsorted(starts, borders[:-1], side="right")
        has = (second < len(starts)) & (np.append(starts, borders[-1])[second] < borders[1:])
        begin = np.asarray(store.document_offsets[:-1])
        split = np.where(has, offsets[np.append(starts, borders[-1])[second]] - begin, 0)
        stop = np.asarray(store.document_offsets[1:]) - begin
        kept = np.flatnonzero(has & (split > 0) & (stop > split))
        if not len(kept):
            raise UserError(
                "seq2seq needs documents of two paragraphs, input and target, but none of the"
                f" {len(store)} documents has two"
            )
        sizes = np.array(
            [
                self._sizes(*pair)
                for pair in zip(split[kept].tolist(), stop[kept].tolist(), strict=True)
            ]
        )
        needs = [np.asarray(need) for need in self.layout.needs(*(sizes + 1).T)]
        pack = packing.best_fit if self.config.packing == "best_fit" else packing.in_order
        rows = [
            [(int(kept[at]), int(split[kept[at]]), int(stop[kept[at]])) for at in row]
            for row in pack(needs, self.layout.stream_lengths)
        ]
        note = self._note(len(store), len(kept), sizes, stop[kept], int(stop.sum()))
        return dataclasses.replace(packing.plan(rows), note=note)

    def _note(
        self,
        documents: int,
        kept: int,
        sizes: Integer[np.ndarray, "kept 2"],
        lengths: Integer[np.ndarray, "kept"],
        tokens: int,
    ) -> str:
        """Describes the text that the plan omits; "" if none."""
        notes = []
        if kept < documents:
            notes.append(f"left out: {documents - kept:,} documents of one paragraph")
        if cut := int((sizes.sum(1) < lengths).sum()):
            notes.append(f"cut to fit: {cut:,} documents")
        if notes:
            notes.append(f"{sizes.sum() / max(1, tokens):.0%} of the tokens are used")
        return "; ".join(notes)

    def _sizes(self, split: int, stop: int) -> tuple[int, int]:
        """Returns the numbers of input and target tokens that are kept, without [EOS]."""
        source, target = (stop - split, split) if self.config.reverse else (split, stop - split)
        if self.mask == "cross":
            return min(source, self.layout.stream_lengths[0] - 1), min(
                target, self.layout.stream_lengths[-1] - 1
            )
        room = self.length - 2
        source = min(source, max(room // 2, room - target))
        return source, min(target, room - source)

    def example(
        self, store: Store, plan: packing.Plan, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """Makes the arrays of one row, named as in lm/nn/token_loss.py.

        Returns:
          Arrays [S] for the encoder and [T] for the decoder of an encoder-decoder; on a decoder,
          arrays [T], including `prefix`.
        """
        pieces = []
        for document, split, stop in plan.pieces(row):
            text, eos = store.document(document), np.int32(self.tokenizer.eos)
            inputs, targets = text[:split], text[split:stop]
            if self.config.reverse:
                inputs, targets = targets, inputs
            source, target = self._sizes(split, stop)
            pieces.append((np.append(inputs[:source], eos), np.append(targets[:target], eos)))
        return self.layout.row(pieces)
