"""What a model makes of held-out text, for people to read: it goes on with a text, or fills in what is hidden.

Greedy: the likeliest word each time. A model that predicts hidden words is given a text in which one word in six is hidden, and fills all
places at once; any other goes on from a text's beginning, word by word. Samples are no measure.
"""

from typing import Any

import jax
import numpy as np

from lm.data import loader
from lm.inference.queries import Query, QueryEngine
from lm.inference.scoring import Scorer, methods, words
from lm.nn import token_loss
from lm.parallel import mesh as meshes

GIVEN, WRITTEN, HIDDEN = (
    24,
    24,
    6,
)  # tokens that are given and written; one word in so many is hidden


def draw(
    program: Any, params: Any, tokenizer: Any, store: Any, count: int = 3
) -> list[dict[str, str]]:
    """Samples on the first documents of a split that are long enough.

    Args:
      program, params: a trained program. store: of the split.

    Returns:
      {"prompt", "text"} of each; empty where the objective predicts no words.
    """
    if not methods(program.objective):
        return []
    given = _beginnings(store, min(GIVEN, program.length // 4), count)
    scorer = Scorer(program, tokenizer, "")
    best = _Best(program, scorer.engine)
    if scorer.score.startswith("masked"):
        return [_filled(scorer, best, params, ids) for ids in given]
    return [
        _continued(scorer, best, params, ids, min(WRITTEN, program.length // 4)) for ids in given
    ]


class _Best:
    """The likeliest word at each place that a question asks."""

    def __init__(self, program: Any, engine: QueryEngine):
        self.engine, self.sharding, self.rows = (
            engine,
            program.batch_sharding,
            meshes.parts("batch", program.mesh),
        )

        def best(model, batch):
            hidden_BPD = token_loss.gathered(token_loss.states(model, batch, None), batch)
            head = model.heads["masked"] if engine.head else None
            return (
                head(model, hidden_BPD) if head is not None else model.logits(hidden_BPD)
            ).argmax(-1)

        self._best = program.jit(best)

    def __call__(self, params: Any, query: Query) -> np.ndarray:
        batch = self.engine.alone(query, self.rows)
        found = jax.device_get(self._best(params, loader.place(batch, self.sharding, self.rows)))
        return np.asarray(found[0][: len(query.at)])


def _beginnings(store: Any, length: int, count: int) -> list[np.ndarray]:
    """The first ids of documents that have twice as many."""
    offsets = np.asarray(store.document_offsets)
    found = np.flatnonzero(np.diff(offsets) >= 2 * length)[:count]
    return [np.asarray(store.tokens[offsets[at] : offsets[at] + length], np.int32) for at in found]


def _continued(
    scorer: Scorer, best: _Best, params: Any, given: np.ndarray, most: int
) -> dict[str, str]:
    """A text and what the model writes after it, up to its end."""
    t, written = scorer.tokenizer, list[int]()
    while len(written) < most:
        # A question whose last id, any, is to be found after those that were; of that place alone, so that few shapes are compiled.
        query = scorer.ending(given, np.array([*written, t.unk], np.int32))
        word = int(best(params, query._replace(at=query.at[-1:], targets=query.targets[-1:]))[0])
        if word in (t.eos, *t.sentinels):
            break
        written.append(word)
    return {"prompt": t.decode(given.tolist()), "text": t.decode(written)}


def _filled(scorer: Scorer, best: _Best, params: Any, ids: np.ndarray) -> dict[str, str]:
    """A text with hidden words, and with what the model puts there."""
    number = np.cumsum(words(scorer.tokenizer, ids)) - 1
    places = np.flatnonzero(number % HIDDEN == HIDDEN - 1)
    if not len(places):  # a text of few words
        places = np.array([len(ids) - 1])
    filled = ids.copy()
    filled[places] = best(params, scorer.hidden(ids, places))
    return {
        "prompt": _marked(scorer.tokenizer, ids, places),
        "text": _marked(scorer.tokenizer, filled, places),
    }


def _marked(tokenizer: Any, ids: np.ndarray, places: np.ndarray) -> str:
    """The text with «» around runs of ids at these places."""
    inside, text, before = set(places.tolist()), "", ""
    for at, is_in in enumerate([at in inside for at in range(len(ids))] + [False]):
        was_in = at - 1 in inside
        whole = tokenizer.decode(ids[: at + 1].tolist())
        # What this id adds; a character of several bytes is there once its last one is.
        piece = whole[len(before) :] if at < len(ids) and whole.startswith(before) else ""
        text += "»" * (was_in and not is_in)
        space = piece[: len(piece) - len(piece.lstrip())]
        text += space + "«" * (is_in and not was_in) + piece[len(space) :]
        before = whole
    return text
