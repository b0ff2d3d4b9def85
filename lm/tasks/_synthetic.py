"""What tasks on synthetic corpora have in common: the source's options, words as ids, and a model's answers place by place."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.core.plugins import NotApplicable
from lm.data import loader, rows
from lm.data.synthetic.grammar import END
from lm.nn import token_loss
from lm.parallel import mesh as meshes

BATCH = 32


def options(corpus: Any, source: str) -> dict[str, Any]:
    """The options of the corpus' source.

    Raises:
      UserError: the corpus is of another source.
    """
    found = getattr(corpus, "source", "")
    if found != source:
        raise NotApplicable(
            f"the task {source!r} knows the right answers of its own source alone; this corpus is of {found!r}: set"
            f" --config.data.source={source} and --config.tokenizer.kind=word"
        )
    return dict(corpus.options)


class Words:
    """The words of a corpus as ids.

    Args:
      words: all that texts may have. tokenizer: of the corpus.

    Attributes:
      ids: int64, of each word; END is [EOS].

    Raises:
      UserError: a word is not exactly one id.
    """

    def __init__(self, words: Sequence[str], tokenizer: Any):
        self.words = tuple(words)
        parts = tokenizer.encode_batch([word for word in words if word != END])
        if not all(len(part) == 1 and part[0] != tokenizer.unk for part in parts):
            raise NotApplicable(
                "this vocabulary does not have each symbol of the corpus as one id; set --config.tokenizer.kind=word (no"
                " tokenizer.path), and enough data.documents for every symbol to occur in the training split"
            )
        given = iter(parts)
        self.ids = np.array(
            [tokenizer.eos if word == END else next(given)[0] for word in words], np.int64
        )
        self._word = dict(zip(self.ids.tolist(), words, strict=True))

    def text(self, ids: np.ndarray) -> list[str]:
        """The words of some ids; those of this corpus."""
        return [self._word[i] for i in np.asarray(ids).tolist()]

    def spread(self, table_SW: np.ndarray, size: int) -> np.ndarray:
        """Probabilities over the words as ones over the vocabulary: [..., W] → [..., V]."""
        found = np.zeros((*table_SW.shape[:-1], size))
        found[..., self.ids] = table_SW
        return found


def left_to_right(
    texts: Sequence[np.ndarray], tokenizer: Any, length: int
) -> dict[str, np.ndarray]:
    """Rows of one text each, as a causal model reads them: [BOS] text, the next token and [EOS] asked, cut where the row is full.

    A text is cut at a place that does not depend on what comes after it, so that a mean over what is asked stays without bias.
    """
    names = ("tokens", "targets", "segments", "positions")
    batch = {name: np.zeros((len(texts), length), np.int32) for name in names} | {
        "weights": np.zeros((len(texts), length), np.float32)
    }
    batch["tokens"][:] = tokenizer.pad
    for row, text in enumerate(texts):
        asked = np.append(text, tokenizer.eos)[:length]
        span = slice(0, len(asked))
        batch["tokens"][row, span] = np.insert(text, 0, tokenizer.bos)[:length]
        batch["targets"][row, span] = asked
        batch["weights"][row, span] = batch["segments"][row, span] = 1
        batch["positions"][row, span] = np.arange(len(asked))
    return batch


def hidden(
    texts: Sequence[np.ndarray],
    places: Iterable[np.ndarray],
    tokenizer: Any,
    length: int,
    kind: str,
    mask: str,
) -> dict[str, np.ndarray]:
    """Rows of one text each, with [MASK] at its places, as a masked model reads them: [CLS] text [SEP], or [BOS] text [EOS].

    Args:
      texts: of at most length - 2 tokens. kind: "masked", or "masked_next" where k + 1 is predicted at k. mask: of the model.
    """
    names = ("tokens", "segments", "positions", "types")
    batch = {name: np.zeros((len(texts), length), np.int32) for name in names}
    batch["tokens"][:] = tokenizer.pad
    first, last = (
        (tokenizer.cls, tokenizer.sep) if kind == "masked" else (tokenizer.bos, tokenizer.eos)
    )
    for row, (text, at) in enumerate(zip(texts, places, strict=True)):
        count = len(text) + 2
        batch["tokens"][row, :count] = rows.wrap(first, text, last)
        batch["tokens"][row, at + 1] = tokenizer.mask
        batch["segments"][row, :count] = 1
        batch["positions"][row, :count] = np.arange(count)
    return batch | ({"prefix": batch["segments"]} if mask == "prefix" else {})


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is known of the targets of rows.

    Attributes:
      table_SV: float64, the true distribution of a target in each state.
      closing_V: bool, words of which one must be told from the others; None for no such question.
    """

    table_SV: np.ndarray
    closing_V: np.ndarray | None = None


def answers(
    program: Any,
    params: Any,
    batch: dict[str, np.ndarray],
    truth: Truth | None = None,
    masked: bool = False,
) -> dict[str, np.ndarray]:
    """What a model says at each target of rows, in float64 [rows, P], 0 where the weight is 0.

    Args:
      batch: fields of lm/nn/token_loss.py with rows of any number; with a `truth`, also `states`, int32 [rows, P].
      masked: read the targets off the head for masked tokens, where the model has one.

    Returns:
      nll: -log q(target) in nats; hits: 1 where the target has the highest score, shared among those that tie. With a `truth` also kl:
      Σ p log(p / q) over the vocabulary in nats; legal: the mass of q where p is not 0; closing: hits among the closing words alone.
    """
    head = "masked" if masked and "masked" in program.shapes["params"].get("heads", {}) else ""

    def compute(model, part):
        h_BPD = token_loss.gathered(model.states(part, None), part)
        logits_BPV = (model.heads[head](model, h_BPD) if head else model.logits(h_BPD)).astype(
            jnp.float32
        )
        log_q_BPV = jax.nn.log_softmax(logits_BPV, axis=-1)
        target_BPV = jax.nn.one_hot(part["targets"], logits_BPV.shape[-1], dtype=jnp.float32)

        def hits(scores_BPV):
            best_BPV = (scores_BPV >= scores_BPV.max(-1, keepdims=True)).astype(jnp.float32)
            return (best_BPV * target_BPV).sum(-1) / best_BPV.sum(-1)

        found = {
            "nll": -jnp.take_along_axis(log_q_BPV, part["targets"][..., None], axis=-1)[..., 0],
            "hits": hits(log_q_BPV),
        }
        if truth is not None:
            p_BPV = jnp.asarray(truth.table_SV, jnp.float32)[part["states"]]
            log_p_BPV = jnp.log(jnp.where(p_BPV > 0, p_BPV, 1.0))
            found["kl"] = (p_BPV * (log_p_BPV - log_q_BPV)).sum(-1)
            found["legal"] = (jnp.exp(log_q_BPV) * (p_BPV > 0)).sum(-1)
            if truth.closing_V is not None:
                found["closing"] = hits(
                    jnp.where(jnp.asarray(truth.closing_V)[None, None], log_q_BPV, -jnp.inf)
                )
        return {name: value * (part["weights"] > 0) for name, value in found.items()}

    run = program.jit(compute)
    parts = meshes.parts("batch", program.mesh)
    size = -(-BATCH // parts) * parts
    count = len(batch["targets"])
    mine = meshes.local_rows(program.batch_sharding, size)
    found: list[dict[str, np.ndarray]] = []
    for start in range(0, count, size):
        part = {
            name: _filled(values[start : start + size], size)[mine]
            for name, values in batch.items()
        }
        found.append(jax.device_get(run(params, loader.place(part, program.batch_sharding, size))))
    return {
        name: np.concatenate([each[name] for each in found])[:count].astype(np.float64)
        for name in found[0]
    }


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    """With copies of the first row at the end, which are thrown away."""
    return np.concatenate([values, np.repeat(values[:1], size - len(values), axis=0)])


def chosen(store: Any, tokens: int, each: int) -> list[np.ndarray]:
    """The first documents of a split, as many as rows of `each` positions fit `tokens`; at least one."""
    return [
        np.asarray(store.document(i), np.int64)
        for i in range(min(len(store), max(1, tokens // each)))
    ]
