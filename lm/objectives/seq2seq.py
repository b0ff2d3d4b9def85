"""Sequence to sequence: a document's first paragraph is the input, the others are the target.

For translations, summaries, questions with answers: give them as documents of two paragraphs (`data.source=jsonl` reads a list of texts as
paragraphs). On plain documentation it asks for the body given the summary line, and with `reverse` for the summary.
"""

import dataclasses

import numpy as np

from lm.core.plugins import UserError
from lm.data import packing, sequences
from lm.nn.cross_entropy import LossOptions
from lm.objectives import _sequences


@dataclasses.dataclass(frozen=True)
class Config(LossOptions):
    """reverse: the first paragraph is the target. target_length: positions of the decoder's stream on an encoder-decoder; 0: the data's
    length. packing: "best_fit" or "greedy"; label smoothing and z-loss."""

    reverse: bool = False
    target_length: int = 0
    packing: str = "best_fit"

    def __post_init__(self):
        LossOptions.__post_init__(self)
        if self.target_length < 0 or 0 < self.target_length < 4:
            raise ValueError(f"target_length={self.target_length} must be 0 or at least 4")
        packing.check(self.packing)


class Objective(_sequences.SequenceObjective):
    name, terms = "seq2seq", {"seq2seq": 1.0}
    scores = ("transduction",)

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "cross"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        self.layout = sequences.Layout(tokenizer, mask, length, config.target_length or length)
        self.positions, self.longest = self.layout.positions, max(self.layout.rooms)

    def plan(self, store) -> packing.Plan:
        """Documents into rows: pieces (document, where the first paragraph ends, where the document ends), whole ones.

        Raises:
          UserError: no document has two paragraphs.
        """
        offsets, borders = np.asarray(store.sentence_offsets), np.asarray(store.document_sentences)
        starts = np.flatnonzero(store.paragraph_starts)
        second = np.searchsorted(
            starts, borders[:-1], side="right"
        )  # the paragraph after a document's first
        has = (second < len(starts)) & (np.append(starts, borders[-1])[second] < borders[1:])
        begin = np.asarray(store.document_offsets[:-1])
        split = np.where(has, offsets[np.append(starts, borders[-1])[second]] - begin, 0)
        stop = np.asarray(store.document_offsets[1:]) - begin
        kept = np.flatnonzero(has & (split > 0) & (stop > split))
        if not len(kept):
            raise UserError(
                f"seq2seq needs documents of two paragraphs, input and target, but none of the {len(store)} documents has two"
            )
        sizes = np.array(
            [
                self._sizes(*pair)
                for pair in zip(split[kept].tolist(), stop[kept].tolist(), strict=True)
            ]
        )
        needs = [np.asarray(need) for need in self.layout.needs(*(sizes + 1).T)]
        order = (
            packing.best_fit(needs, self.layout.rooms)
            if self.config.packing == "best_fit"
            else packing.in_order(needs, self.layout.rooms)
        )
        cut = int((sizes.sum(1) < stop[kept]).sum())
        notes = [f"left out: {len(store) - len(kept):,} documents of one paragraph"] * (
            len(kept) < len(store)
        )
        notes += [f"cut to fit: {cut:,} documents"] * bool(cut)
        notes += [f"{sizes.sum() / max(1, int(stop.sum())):.0%} of the tokens are used"] * bool(
            notes
        )
        rows = [
            [(int(kept[at]), int(split[kept[at]]), int(stop[kept[at]])) for at in row]
            for row in order
        ]
        return dataclasses.replace(packing.plan(rows), note="; ".join(notes))

    def _sizes(self, split: int, stop: int) -> tuple[int, int]:
        """Tokens of input and target that are kept, without [EOS]."""
        source, target = (stop - split, split) if self.config.reverse else (split, stop - split)
        if self.mask == "cross":
            return min(source, self.layout.rooms[0] - 1), min(target, self.layout.rooms[-1] - 1)
        room = self.length - 2
        source = min(source, max(room // 2, room - target))
        return source, min(target, room - source)

    def example(
        self, store, plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """Fields of lm/nn/token_loss.py: on an encoder-decoder [S] and [T], on a decoder [T] with `prefix`."""
        pieces = []
        for document, split, stop in plan.pieces(row):
            text, eos = store.document(document), np.int32(self.tokenizer.eos)
            parts = (
                (text[split:stop], text[:split])
                if self.config.reverse
                else (text[:split], text[split:stop])
            )
            source, target = self._sizes(split, stop)
            pieces.append((np.append(parts[0][:source], eos), np.append(parts[1][:target], eos)))
        return self.layout.row(pieces)
