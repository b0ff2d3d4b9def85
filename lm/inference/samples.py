"""Samples of what a model writes, for people to read: continued texts or filled-in masked words.

Decoding is greedy. A model that predicts masked tokens gets a text in which one word in six is
masked, and fills in all of them at once. Any other model gets the beginning of a text and continues
it token by token. Samples are illustrations, not measurements.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Int, Int32, Integer

from lm.core.protocols import Batch, Model, Params, Tokenizer
from lm.data import loader
from lm.data.store import Store
from lm.inference.queries import Query, QueryEngine
from lm.inference.scoring import Scorer, TokenIds, methods, word_starts
from lm.nn import token_loss
from lm.parallel import sharding
from lm.training.program import Program

PROMPT = 24  # maximum number of tokens of a prompt
CONTINUATION = 24  # maximum number of tokens of a continuation
MASK_EVERY = 6  # one in this many words is masked


def draw(
    program: Program, params: Params, tokenizer: Tokenizer, store: Store, count: int = 3
) -> list[dict[str, str]]:
    """Samples on the first documents of a split that are long enough.

    Args:
      program: program of the model.
      params: parameters of the model.
      tokenizer: tokenizer of the program.
      store: token store of the split.
      count: number of documents.

    Returns:
      {"prompt", "text"} for each document; empty if the objective does not predict tokens.
    """
    if not methods(program.objective):
        return []
    prompts = _beginnings(store, min(PROMPT, program.length // 4), count)
    scorer = Scorer(program, tokenizer, "")
    greedy = _Greedy(program, scorer.engine)
    if scorer.score.startswith("masked"):
        return [_filled(scorer, greedy, params, ids) for ids in prompts]
    limit = min(CONTINUATION, program.length // 4)
    return [_continued(scorer, greedy, params, ids, limit) for ids in prompts]


class _Greedy:
    """The most probable token at each target position of a query."""

    def __init__(self, program: Program, engine: QueryEngine):
        self.engine, self.sharding = engine, program.batch_sharding
        self.rows = sharding.parts("batch", program.mesh)

        def best(model: Model, batch: Batch) -> Int[Array, "B P"]:
            hidden_BPD = token_loss.gather_targets(model.states(batch, None), batch)
            head = model.heads["masked"] if engine.masked_head else None
            logits_BPV = model.logits(hidden_BPD) if head is None else head(model, hidden_BPD)
            return logits_BPV.argmax(-1)

        self._best = program.jit(best)

    def __call__(self, params: Params, query: Query) -> Integer[np.ndarray, "P"]:
        batch = loader.place(self.engine.single(query, self.rows), self.sharding, self.rows)
        best_BP = jax.device_get(self._best(params, batch))
        return np.asarray(best_BP[0][: len(query.positions)])


def _beginnings(store: Store, length: int, count: int) -> list[Int32[np.ndarray, "_"]]:
    """The first ids of each document that is at least twice as long."""
    offsets = np.asarray(store.document_offsets)
    documents = np.flatnonzero(np.diff(offsets) >= 2 * length)[:count]
    starts = offsets[documents].tolist()
    return [np.asarray(store.tokens[start : start + length], np.int32) for start in starts]


def _continued(
    scorer: Scorer, greedy: _Greedy, params: Params, prompt: TokenIds, limit: int
) -> dict[str, str]:
    """A text and its continuation, up to the end of the text or `limit` tokens."""
    t, written = scorer.tokenizer, list[int]()
    while len(written) < limit:
        # The last id of this query is arbitrary: only its prediction is used. One target, so that
        # few shapes are compiled.
        query = scorer.continuation_query(prompt, np.array([*written, t.unk], np.int32))
        last = query._replace(positions=query.positions[-1:], targets=query.targets[-1:])
        token = int(greedy(params, last)[0])
        if token in (t.eos, *t.sentinels):
            break
        written.append(token)
    return {"prompt": t.decode(prompt.tolist()), "text": t.decode(written)}


def _filled(
    scorer: Scorer, greedy: _Greedy, params: Params, ids: Int32[np.ndarray, "T"]
) -> dict[str, str]:
    """A text with marked words, and the text with the model's words in their place."""
    word = np.cumsum(word_starts(scorer.tokenizer, ids)) - 1
    positions = np.flatnonzero(word % MASK_EVERY == MASK_EVERY - 1)
    if not len(positions):  # a text of few words
        positions = np.array([len(ids) - 1])
    filled = ids.copy()
    filled[positions] = greedy(params, scorer.masked_query(ids, positions))
    return {
        "prompt": _marked(scorer.tokenizer, ids, positions.tolist()),
        "text": _marked(scorer.tokenizer, filled, positions.tolist()),
    }


def _marked(tokenizer: Tokenizer, ids: Int32[np.ndarray, "T"], positions: Sequence[int]) -> str:
    """The text, with «» around the ids at these positions; adjacent ones share a pair."""
    is_marked = [*np.isin(np.arange(len(ids)), positions).tolist(), False]
    text = previous = ""
    for at, marked in enumerate(is_marked):
        was_marked = at > 0 and is_marked[at - 1]
        decoded = tokenizer.decode(ids[: at + 1].tolist())
        # The text that this id adds. A character of several bytes appears with its last byte.
        is_longer = at < len(ids) and decoded.startswith(previous)
        piece = decoded[len(previous) :] if is_longer else ""
        text += "»" * (was_marked and not marked)
        space = piece[: len(piece) - len(piece.lstrip())]
        text += space + "«" * (marked and not was_marked) + piece[len(space) :]
        previous = decoded
    return text
