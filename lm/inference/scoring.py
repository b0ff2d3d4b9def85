"""Log-probabilities of sentences and of continuations, for models of any objective.

The methods that score a sentence:

    causal     Σ log p(token | tokens before it), from [BOS] on. An encoder-decoder decodes the
               sentence from an empty input: `[BOS] [EOS]` if it was trained on prefixes of text,
               `[EOS]` if it was trained on other pairs.
    pll        pseudo-log-likelihood (Salazar et al. 2020): Σ log p(token | all other tokens), with
               one token masked at a time
    pll_word   PLL-word-l2r (Kauf and Ivanova 2023): like pll, but later pieces of the same word are
               also masked, so that the end of a word does not give away its beginning
    infill     Σ over words of log p(pieces, end | all other words), for T5's span corruption and
               UL2. A sentinel replaces one word of the input, and the target spells the word out.
               The final [EOS] is counted; without it, a word that is the beginning of another
               would score too high.

A sentence is laid out as a document, as in training: `[CLS] … [SEP]` for models trained by MLM,
`[BOS] … [EOS]` for MNTP, which predicts token k + 1 at position k. Special tokens are not counted.
The [EOS] after a sentence is not counted in causal scores by default, as in published scores: in
training, [EOS] ends documents, so it measures whether a text of one sentence would end here. If it
is counted (`end`), the probabilities of all strings add up to 1.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int32, Integer

from lm.core.protocols import Objective, Params, Tokenizer
from lm.data import text
from lm.inference.queries import Query, QueryEngine
from lm.training.program import Program

TokenIds = Integer[np.ndarray, "_"]

# Scoring methods by entry of an objective's `scores`, the usual one first.
_METHODS = {
    "causal": ("causal",),
    "suffix": ("causal",),
    "transduction": ("causal",),
    "masked": ("pll", "pll_word"),
    "masked_next": ("pll", "pll_word"),
    "denoising": ("infill",),
}
METHODS = tuple(dict.fromkeys(method for methods in _METHODS.values() for method in methods))
# Maximum number of special tokens in addition to a sentence in any layout: mode, sentinel and [EOS]
# in the input, [BOS] and sentinel in the target.
SPECIALS = 5


def methods(objective: Objective) -> tuple[str, ...]:
    """Scoring methods that a model of this objective supports; empty if it predicts no tokens.

    The first is the usual method: the one for the last entry of the objective's `scores` that has a
    method.
    """
    supported = (
        method for score in reversed(objective.scores) for method in _METHODS.get(score, ())
    )
    return tuple(dict.fromkeys(supported))


class Scorer:
    """Log-probabilities of sentences by one method, and of continuations.

    Attributes:
      method: name of the method that scores sentences.
      score: entry of the objective's `scores` that the layout of queries follows.
      end: whether a causal score counts the [EOS] after a sentence.
      tokenizer: tokenizer of the program.
      mask: attention mask of the objective.
      mode: ids before a denoiser's input: one mode token, or none.
      engine: answers the queries.
    """

    def __init__(self, program: Program, tokenizer: Tokenizer, method: str, end: bool = False):
        """Selects the layout of queries; nothing is compiled yet.

        Args:
          program: program of the models.
          tokenizer: tokenizer of the program.
          method: one of `methods(program.objective)`, or "" to score continuations only, in the
            way that the model was trained to continue texts.
          end: whether a causal score counts the [EOS] after a sentence.

        Raises:
          ValueError: the objective does not support the method.
        """
        objective = program.objective
        scores = [
            score
            for score in objective.scores
            if score in _METHODS and (method in _METHODS[score] or not method)
        ]
        if not scores:
            raise ValueError(
                f"{method!r} is not one of {', '.join(methods(objective))}, which suit this"
                " objective"
            )
        # A model trained on prefixes continues texts from prefixes, although it can also score
        # texts plainly from left to right.
        self.score = "suffix" if not method and "suffix" in scores else scores[-1]
        members = list(objective.members.values()) if objective.composed else [objective]
        scored = [member for member in members if self.score in member.scores][-1]
        self.method, self.end, self.tokenizer, self.mask = method, end, tokenizer, objective.mask
        self.mode = [tokenizer.modes[scored.mode_token]] if scored.mode_token else []
        masked_head = self.score.startswith("masked") and scored.has_masked_head
        self.engine = QueryEngine(program, tokenizer.pad, masked_head)

    def sentences(self, params: Params, sentences: Sequence[TokenIds]) -> Float64[np.ndarray, "N"]:
        """log p of each sentence in nats, [N].

        Args:
          params: parameters of the model.
          sentences: ids of N sentences, none empty.
        """
        queries = (
            (item, query)
            for item, ids in enumerate(sentences)
            for query in self.sentence_queries(ids)
        )
        return -self.engine(params, queries, len(sentences))[0]

    def continuations(
        self, params: Params, texts: Sequence[tuple[TokenIds, TokenIds]]
    ) -> tuple[Float64[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
        """Scores how N contexts continue.

        Args:
          params: parameters of the model.
          texts: (context, continuation) of each item, as ids.

        Returns:
          log p of each continuation in nats, [N]; and whether every id of the continuation has the
          highest logit in the vocabulary, given the ids before it, [N]. Masked models predict all
          ids of a continuation at once and see how many there are.
        """
        queries = (
            (item, self.continuation_query(context, continuation))
            for item, (context, continuation) in enumerate(texts)
        )
        nll_N, hits_N = self.engine(params, queries, len(texts))
        lengths_N = np.array([len(continuation) for _, continuation in texts])
        return -nll_N, hits_N > lengths_N - 1e-6

    def sentence_queries(self, ids: TokenIds) -> Iterator[Query]:
        """Queries whose log-probabilities add up to the score of a sentence."""
        t = self.tokenizer
        if self.method == "causal":
            target = [*ids, t.eos] if self.end else ids
            if self.score == "causal":
                yield self._one_stream([t.bos], target)
            else:
                yield self._input_and_target([t.bos] * (self.score == "suffix") + [t.eos], target)
            return
        starts = np.flatnonzero(word_starts(t, ids))
        ends = np.append(starts[1:], len(ids))
        if self.method == "infill":
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                inputs = [*self.mode, *ids[:start], t.sentinels[0], *ids[end:], t.eos]
                target = [t.sentinels[0], *ids[start:end], t.eos]
                yield self._input_and_target(inputs, target, skip=1)
            return
        following = np.arange(1, len(ids) + 1)
        stops = np.repeat(ends, ends - starts) if self.method == "pll_word" else following
        for start, stop in enumerate(stops.tolist()):
            yield self.masked_query(ids, np.arange(start, stop), 1)

    def continuation_query(self, context: TokenIds, continuation: TokenIds) -> Query:
        """Returns the query that scores how a context continues.

        Args:
          context: ids of the text before the continuation.
          continuation: ids to score.
        """
        t = self.tokenizer
        if self.score.startswith("masked"):
            masked = len(context) + np.arange(len(continuation))
            return self.masked_query(np.concatenate([context, continuation]), masked)
        if self.score == "denoising":
            inputs = [*self.mode, *context, t.sentinels[0], t.eos]
            return self._input_and_target(inputs, [t.sentinels[0], *continuation], skip=1)
        if self.score == "transduction" or self.mask == "cross":
            inputs = [t.bos] * (self.score == "suffix") + [*context, t.eos]
            return self._input_and_target(inputs, continuation)
        return self._one_stream([t.bos, *context], continuation, prefix=self.score == "suffix")

    def masked_query(self, ids: TokenIds, positions: TokenIds, count: int | None = None) -> Query:
        """The query that scores masked tokens, for a method that masks.

        Args:
          ids: ids of a text.
          positions: positions of the tokens to mask.
          count: number of leading positions to score; None scores all positions.
        """
        t, shift = self.tokenizer, int(self.score == "masked_next")
        first, last = (t.bos, t.eos) if shift else (t.cls, t.sep)
        row = _int32([first, *ids, last])
        row[positions + 1] = t.mask
        scored = positions[:count]
        return Query(row, scored + 1 - shift, ids[scored], len(row))

    def _one_stream(
        self,
        context: Sequence[int] | TokenIds,
        target: Sequence[int] | TokenIds,
        prefix: bool = False,
    ) -> Query:
        """The target after its context; with `prefix`, all positions see the context."""
        positions = np.arange(len(target)) + len(context) - 1
        tokens = _int32([*context, *target[:-1]])
        return Query(tokens, positions, _int32(target), len(context) if prefix else 0)

    def _input_and_target(
        self,
        inputs: Sequence[int] | TokenIds,
        target: Sequence[int] | TokenIds,
        skip: int = 0,
    ) -> Query:
        """Input and target as in lm/data/sequences.py; the first `skip` ids are not scored."""
        positions, scored = np.arange(skip, len(target)), _int32(target[skip:])
        read = (self.tokenizer.bos, *target[:-1])
        if self.mask == "cross":
            return Query(_int32(read), positions, scored, inputs=_int32(inputs))
        return Query(_int32([*inputs, *read]), positions + len(inputs), scored, len(inputs))


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Int32[np.ndarray, "_"]]:
    """Returns the ids of each text, normalized like text of the sources, with spaces for line
    breaks.

    Args:
      tokenizer: the tokenizer.
      texts: N texts.

    Returns:
      N arrays of ids, without special tokens.
    """
    lines = [" ".join(text.normalize(item).split()) for item in texts]
    ids_N, lengths = tokenizer.encode_flat(lines)
    return np.split(ids_N, np.cumsum(lengths)[:-1])


def word_starts(tokenizer: Tokenizer, ids: Integer[np.ndarray, "N"]) -> Bool[np.ndarray, "N"]:
    """Returns where words begin: after a space, and before and after punctuation.

    Punctuation is therefore a word of its own, as in BERT, which splits text at punctuation before
    it makes pieces.

    Args:
      tokenizer: the tokenizer of the ids.
      ids: ids of a text, [N].

    Returns:
      Whether each id begins a word, [N].
    """
    punctuation = np.array([is_punctuation(tokenizer, int(piece)) for piece in ids], bool)
    starts = tokenizer.is_word_start[ids] | punctuation
    starts[1:] |= punctuation[:-1]
    starts[:1] = True
    return starts


def is_punctuation(tokenizer: Tokenizer, piece: int) -> bool:
    """Whether a piece has neither letter nor digit, such as "." and "▁(".

    Args:
      tokenizer: the vocabulary.
      piece: id of the piece.
    """
    return not any(map(str.isalnum, tokenizer.name(piece)))


def _int32(ids: Sequence[int] | TokenIds) -> Int32[np.ndarray, "_"]:
    return np.array(ids, np.int32)
