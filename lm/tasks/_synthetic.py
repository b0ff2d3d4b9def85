"""Shared by tasks on synthetic corpora: source options, words as ids, evaluation of a model."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int64, Integer

from lm.core.plugins import NotApplicable
from lm.core.protocols import Batch, Model, Params, Tokenizer
from lm.data import loader, rows
from lm.data.corpus import Corpus
from lm.data.store import Store
from lm.data.synthetic.grammar import END
from lm.nn import token_loss
from lm.parallel import sharding
from lm.tasks import _text
from lm.training.program import Program

BATCH = 32

NumpyBatch = dict[str, np.ndarray]  # name → array whose first axis is B
PerTarget = dict[str, np.ndarray]  # name → values at the targets of rows, float64 [B, P]


def source_options(corpus: Corpus, source: str) -> dict[str, Any]:
    """The options of the corpus's source.

    Args:
      corpus: the corpus.
      source: name of the source that is required.

    Raises:
      NotApplicable: the corpus is from another source.
    """
    actual = getattr(corpus, "source", "")
    if actual != source:
        raise NotApplicable(
            f"the task needs a corpus of the source {source!r}, whose true answers are available;"
            f" this one is of {actual!r}: set --config.data.source={source} and"
            " --config.tokenizer.kind=word"
        )
    return dict(corpus.options)


class Words:
    """The words of a synthetic corpus as ids of its tokenizer.

    Attributes:
      words: all W words that texts can contain, including END if texts have an end.
      ids: id of each word; the id of END is that of [EOS].
    """

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer):
        """Encodes the words.

        Raises:
          NotApplicable: a word is not exactly one id.
        """
        self.words = tuple(words)
        encoded = _text.encode(tokenizer, [word for word in words if word != END])
        if not all(len(ids) == 1 and ids[0] != tokenizer.unk for ids in encoded):
            raise NotApplicable(
                "this vocabulary does not have each symbol of the corpus as one id; set"
                " --config.tokenizer.kind=word (no tokenizer.path), and enough data.documents for"
                " every symbol to occur in the training split"
            )
        single = iter(encoded)
        self.ids = np.array(
            [tokenizer.eos if word == END else next(single)[0] for word in words], np.int64
        )
        self._word = dict(zip(self.ids.tolist(), words, strict=True))

    def text(self, ids: Integer[np.ndarray, "n"]) -> list[str]:
        """The words of ids."""
        return [self._word[i] for i in np.asarray(ids).tolist()]

    def over_vocabulary(
        self, table_SW: Float[np.ndarray, "*S W"], size: int
    ) -> Float64[np.ndarray, "*S V"]:
        """Probabilities of words as probabilities of ids.

        Args:
          table_SW: probabilities of the words, [..., W].
          size: V, the number of ids.
        """
        table_SV = np.zeros((*table_SW.shape[:-1], size))
        table_SV[..., self.ids] = table_SW
        return table_SV


def causal_rows(texts: Sequence[np.ndarray], tokenizer: Tokenizer, length: int) -> NumpyBatch:
    """Lays out rows for a causal model: [BOS] text, with each next token and [EOS] as targets.

    A row holds one text, cut where the row is full. The place of the cut does not depend on the
    text after it, so means over the targets stay unbiased.

    Args:
      texts: ids of one text per row.
      tokenizer: supplies the special tokens.
      length: T, positions of a row.

    Returns:
      tokens, targets, segments, positions: int32 [B, T]; weights: float32 [B, T].
    """
    laid_out = []
    for text in texts:
        row = rows.Row(length, tokenizer.pad, ("targets", "weights"))
        targets = np.append(text, tokenizer.eos)[:length]
        row.add(rows.shift(tokenizer.bos, targets), targets=targets, weights=1.0)
        laid_out.append(row)
    return rows.stack(laid_out)


def masked_rows(
    texts: Sequence[np.ndarray],
    places: Iterable[np.ndarray],
    tokenizer: Tokenizer,
    length: int,
    kind: str,
    mask: str,
) -> NumpyBatch:
    """Lays out rows for a masked model: [CLS] text [SEP] or [BOS] text [EOS], with [MASK]s.

    Args:
      texts: ids of one text per row, at most length - 2 ids each.
      places: indices of the tokens to mask in each text.
      tokenizer: supplies the special tokens.
      length: T, positions of a row.
      kind: "masked", or "masked_next" if position k predicts token k + 1.
      mask: attention mask of the model.

    Returns:
      tokens, segments, positions, types, and prefix under a prefix mask: int32 [B, T].
    """
    first, last = (
        (tokenizer.cls, tokenizer.sep) if kind == "masked" else (tokenizer.bos, tokenizer.eos)
    )
    laid_out = []
    for text, masked in zip(texts, places, strict=True):
        row = rows.Row(length, tokenizer.pad, ("types",))
        row.add(rows.wrap(first, text, last))
        row.arrays["tokens"][masked + 1] = tokenizer.mask
        laid_out.append(row)
    batch = rows.stack(laid_out)
    return batch | ({"prefix": batch["segments"]} if mask == "prefix" else {})


@dataclasses.dataclass(frozen=True)
class Truth:
    """The true distributions of the targets of rows.

    Attributes:
      table_SV: distribution of a target in each state, [S, V].
      closing_V: tokens that the metric "closing" distinguishes; None if there is no such metric.
    """

    table_SV: Float64[np.ndarray, "S V"]
    closing_V: Bool[np.ndarray, "V"] | None = None


def evaluate(
    program: Program,
    params: Params,
    batch: Mapping[str, np.ndarray],
    truth: Truth | None = None,
    masked: bool = False,
) -> PerTarget:
    """Evaluates a model at each of P targets of B rows.

    Args:
      program: the model's program.
      params: the model's parameters.
      batch: fields of lm/nn/token_loss.py; with a `truth`, also `states`, int32 [B, P].
      truth: the true distributions.
      masked: whether to predict with the head for masked tokens, if the model has one.

    Returns:
      Values by name, float64 [B, P], 0 where the weight is 0:
        nll: -log q(target) in nats.
        hits: 1 where the target has the highest logit, divided by the number of ties.
        kl: with a truth, Σ p log(p / q) over the vocabulary, in nats.
        legal: with a truth, the mass of q where p > 0.
        closing: with `closing_V`, hits among the closing tokens alone.
    """
    head = "masked" if masked and "masked" in program.shapes["params"].get("heads", {}) else ""

    def compute(model: Model, part: Batch) -> dict[str, jax.Array]:
        h_BPD = token_loss.gather_targets(model.states(part, None), part)
        logits_BPV = (model.heads[head](model, h_BPD) if head else model.logits(h_BPD)).astype(
            jnp.float32
        )
        log_q_BPV = jax.nn.log_softmax(logits_BPV, axis=-1)
        target_BPV = jax.nn.one_hot(part["targets"], logits_BPV.shape[-1], dtype=jnp.float32)

        def hits(scores_BPV: Float[Array, "B P V"]) -> Float[Array, "B P"]:
            best_BPV = (scores_BPV >= scores_BPV.max(-1, keepdims=True)).astype(jnp.float32)
            return (best_BPV * target_BPV).sum(-1) / best_BPV.sum(-1)

        values = {
            "nll": -jnp.take_along_axis(log_q_BPV, part["targets"][..., None], axis=-1)[..., 0],
            "hits": hits(log_q_BPV),
        }
        if truth is not None:
            p_BPV = jnp.asarray(truth.table_SV, jnp.float32)[part["states"]]
            log_p_BPV = jnp.log(jnp.where(p_BPV > 0, p_BPV, 1.0))
            values["kl"] = (p_BPV * (log_p_BPV - log_q_BPV)).sum(-1)
            values["legal"] = (jnp.exp(log_q_BPV) * (p_BPV > 0)).sum(-1)
            if truth.closing_V is not None:
                values["closing"] = hits(
                    jnp.where(jnp.asarray(truth.closing_V)[None, None], log_q_BPV, -jnp.inf)
                )
        return {name: value * (part["weights"] > 0) for name, value in values.items()}

    run = program.jit(compute)
    parts = sharding.parts("batch", program.mesh)
    size = -(-BATCH // parts) * parts
    count = len(batch["targets"])
    local = sharding.local_rows(program.batch_sharding, size)
    results: list[PerTarget] = []
    for start in range(0, count, size):
        part = {
            name: _filled(values[start : start + size], size)[local]
            for name, values in batch.items()
        }
        placed = loader.place(part, program.batch_sharding, size)
        results.append(jax.device_get(run(params, placed)))
    return {
        name: np.concatenate([result[name] for result in results])[:count].astype(np.float64)
        for name in results[0]
    }


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    """Appends copies of the first row, whose results are dropped, up to `size` rows."""
    return np.concatenate([values, np.repeat(values[:1], size - len(values), axis=0)])


def first_documents(store: Store, tokens: int, length: int) -> list[Int64[np.ndarray, "_"]]:
    """The first documents of a split, for rows of one document each.

    Args:
      store: the documents.
      tokens: maximum total number of positions of the rows; there is always at least one row.
      length: positions of a row.
    """
    return [
        np.asarray(store.document(i), np.int64)
        for i in range(min(len(store), max(1, tokens // length)))
    ]
