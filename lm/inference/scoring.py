"""How likely a model holds a sentence to be, whatever it was trained on.

    causal     Σ log p(token | those before it), from [BOS] on. An encoder-decoder decodes the sentence from an empty input: `[BOS] [EOS]`
               if it was trained on prefixes of text, `[EOS]` if on other pairs.
    pll        pseudo-log-likelihood (Salazar et al. 2020): Σ log p(token | all others), each token masked by itself
    pll_word   PLL-word-l2r (Kauf and Ivanova 2023): as pll, but the later pieces of the same word are masked as well, so that a word's
               end does not give away its beginning
    infill     Σ over words of log p(pieces, end | all other words): one word gives way to a sentinel in the input, the target spells it
               out (for T5's span corruption and UL2). The end, [EOS], is counted, since a word that begins another would else be likelier

A sentence is laid out as a document of its own, as in training: `[CLS] … [SEP]` for what was trained by MLM, `[BOS] … [EOS]` by MNTP, which
predicts the token k + 1 at k. What the special tokens cost is not counted. Nor is, by default, the [EOS] after a sentence that is scored
causally: in training it ends documents, not sentences, so it says whether a text of one sentence would end here; published scores leave
it out as well. With it (`end`) the probabilities of all strings add up to 1.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lm.data import text
from lm.inference.queries import Query, QueryEngine

# What a model trained by an objective with these `scores` can be asked, the usual one first.
WAYS = {
    "causal": ("causal",),
    "suffix": ("causal",),
    "transduction": ("causal",),
    "masked": ("pll", "pll_word"),
    "masked_next": ("pll", "pll_word"),
    "denoising": ("infill",),
}
METHODS = tuple(dict.fromkeys(method for found in WAYS.values() for method in found))
SPECIALS = 5  # the most special tokens that stand beside a sentence, in any layout: mode, sentinel, [EOS]; [BOS], sentinel


def methods(objective: Any) -> tuple[str, ...]:
    """What a model of this objective can be asked; first its usual scoring: that of what it was trained on, of several the last named."""
    found = (method for score in reversed(objective.scores) for method in WAYS.get(score, ()))
    return tuple(dict.fromkeys(found))


class Scorer:
    """Log-probabilities of sentences, and of their last words, by one method.

    Args:
      program: the program. tokenizer: its own. method: one of `methods(program.objective)`, or "" for how it continues a text (`endings`).
      end: whether a causal score counts the [EOS] after the sentence.
    """

    def __init__(self, program: Any, tokenizer: Any, method: str, end: bool = False):
        objective = program.objective
        scores = [
            score
            for score in objective.scores
            if score in WAYS and (method in WAYS[score] or not method)
        ]
        if not scores:
            raise ValueError(
                f"{method!r} is not one of {', '.join(methods(objective))}, which suit this objective"
            )
        # A text is continued from a given beginning where that was trained, even if plain left to right would do.
        self.score = "suffix" if not method and "suffix" in scores else scores[-1]
        members = list(objective.members.values()) if objective.composed else [objective]
        scored = [member for member in members if self.score in member.scores][-1]
        self.method, self.end, self.tokenizer, self.mask = method, end, tokenizer, objective.mask
        self.mode = [tokenizer.modes[scored.mode_token]] if scored.mode_token else []
        self.engine = QueryEngine(
            program,
            tokenizer.pad,
            self.score.startswith("masked") and scored.has_masked_head,
        )

    def sentences(self, params: Any, sentences: Sequence[np.ndarray]) -> np.ndarray:
        """log p of each sentence in nats, float64 [N]; `sentences`: ids, none empty."""
        queries = (
            (owner, query) for owner, ids in enumerate(sentences) for query in self.queries(ids)
        )
        return -self.engine(params, queries, len(sentences))[0]

    def endings(
        self, params: Any, texts: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of each (ids that are given, ids that follow): log p of what follows in nats, float64 [N]; whether each of its ids is likelier
        than all other words, given those before it (masked: all of them hidden, and told how many), bool [N]."""
        queries = ((owner, self.ending(*pair)) for owner, pair in enumerate(texts))
        nll, hits = self.engine(params, queries, len(texts))
        return -nll, hits > np.array([len(last) for _, last in texts]) - 1e-6

    def queries(self, ids: np.ndarray) -> Iterator[Query]:
        """What is asked for a sentence."""
        t = self.tokenizer
        if self.method == "causal":
            target = [*ids, t.eos] if self.end else ids
            if self.score == "causal":
                yield self._continued([t.bos], target)
            else:
                yield self._written([t.bos] * (self.score == "suffix") + [t.eos], target)
            return
        starts = np.flatnonzero(words(t, ids))
        ends = np.append(starts[1:], len(ids))
        if self.method == "infill":
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                inputs = [*self.mode, *ids[:start], t.sentinels[0], *ids[end:], t.eos]
                yield self._written(inputs, [t.sentinels[0], *ids[start:end], t.eos], skip=1)
            return
        alone = np.arange(1, len(ids) + 1)
        stops = np.repeat(ends, ends - starts) if self.method == "pll_word" else alone
        for place, stop in enumerate(stops.tolist()):
            yield self.hidden(ids, np.arange(place, stop), 1)

    def ending(self, given: np.ndarray, last: np.ndarray) -> Query:
        """What is asked for a text whose last ids are to be found."""
        t = self.tokenizer
        if self.score.startswith("masked"):
            return self.hidden(np.concatenate([given, last]), len(given) + np.arange(len(last)))
        if self.score == "denoising":
            return self._written(
                [*self.mode, *given, t.sentinels[0], t.eos], [t.sentinels[0], *last], skip=1
            )
        if self.score == "transduction" or self.mask == "cross":
            return self._written([t.bos] * (self.score == "suffix") + [*given, t.eos], last)
        return self._continued([t.bos, *given], last, prefix=self.score == "suffix")

    def _continued(self, given: Any, target: Any, prefix: bool = False) -> Query:
        """The target after what is given, in one stream."""
        places = np.arange(len(target)) + len(given) - 1
        return Query(_ids(*given, *target[:-1]), places, _ids(*target), len(given) if prefix else 0)

    def _written(self, inputs: Any, target: Any, skip: int = 0) -> Query:
        """The target, but for its first `skip` ids, as lm/data/sequences.py lays out input and target."""
        places, asked = np.arange(skip, len(target)), _ids(*target[skip:])
        read = (self.tokenizer.bos, *target[:-1])
        if self.mask == "cross":
            return Query(_ids(*read), places, asked, inputs=_ids(*inputs))
        return Query(_ids(*inputs, *read), places + len(inputs), asked, len(inputs))

    def hidden(self, ids: np.ndarray, places: np.ndarray, count: int | None = None) -> Query:
        """The first `count` ids of those at these places, or all, with all of them masked; of a method that masks."""
        t, shift = self.tokenizer, int(self.score == "masked_next")
        first, last = (t.bos, t.eos) if shift else (t.cls, t.sep)
        row = _ids(first, *ids, last)
        row[places + 1] = t.mask
        asked = places[:count]
        return Query(row, asked + 1 - shift, ids[asked], len(row))


def encode(tokenizer: Any, texts: Sequence[str]) -> list[np.ndarray]:
    """The ids of each text, cleaned as the sources clean theirs, on one line; int32."""
    lines = [" ".join(text.normalise(each).split()) for each in texts]
    ids_N, lengths = tokenizer.encode_flat(lines)
    return np.split(ids_N, np.cumsum(lengths)[:-1])


def words(tokenizer: Any, ids: np.ndarray) -> np.ndarray:
    """Where words begin, bool [N]: after a space; and punctuation is a word of its own, as BERT splits text before it makes pieces."""
    marks = np.array([is_mark(tokenizer, int(each)) for each in ids], bool)
    begins = tokenizer.is_word_start[ids] | marks
    begins[1:] |= marks[:-1]
    begins[:1] = True
    return begins


def is_mark(tokenizer: Any, piece: int) -> bool:
    """Whether a piece has neither letter nor digit, as "." and "▁(" do."""
    return not any(map(str.isalnum, tokenizer.name(piece)))


def _ids(*ids: Any) -> np.ndarray:
    return np.array(ids, np.int32)
