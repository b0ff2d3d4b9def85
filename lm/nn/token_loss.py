"""Predicting tokens at some positions: the batch schema and the loss that objectives share.

Fields of an example (int32, weights float32), [T] unless noted:

    tokens, segments, positions      what the model reads; segments from 1, 0 is padding
    types, prefix                    where present: segment types; 1 at positions that all of their
                                     segment may see (a prefix mask)
    input_tokens, input_segments,    what an encoder reads, [S], where there is one
      input_positions
    targets, weights                 [P] ids, and the weight of each: 0 for padding
    target_positions                 [P] where they are predicted; without it P = T, and each target
                                     is predicted at its own position
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.core.protocols import Batch, Model
from lm.nn.cross_entropy import PLAIN, LossOptions, Sums
from lm.nn.heads import MaskedHead
from lm.nn.layers import DropoutKeys

Terms = dict[str, tuple[Array, Array]]  # name → (sum, weight)


def gathered(hidden_BTD: Float[Array, "B T D"], batch: Batch) -> Float[Array, "B P D"]:
    """The hidden states at the target positions."""
    if "target_positions" not in batch:
        return hidden_BTD
    return jnp.take_along_axis(hidden_BTD, batch["target_positions"][..., None], axis=1)


def sums(
    model: Model,
    hidden_BTD: Float[Array, "B T D"],
    batch: Batch,
    options: LossOptions,
    head: MaskedHead | None = None,
) -> Sums:
    """Loss and hits of the vocabulary head, computed at the target positions only.

    Args:
      model: has the vocabulary matrix.
      hidden_BTD: hidden states.
      batch: fields as above.
      options: label smoothing and z-loss.
      head: BERT's head; None for the vocabulary matrix alone.
    """
    h_BPD, bias_V = _head_inputs(hidden_BTD, batch, head)
    return model.cross_entropy(h_BPD, batch["targets"], batch["weights"], bias_V, options)


def loss(
    name: str, model: Model, batch: Batch, dropout_keys: DropoutKeys | None, options: LossOptions
) -> tuple[Terms, Terms]:
    """The full loss of an objective that only predicts tokens.

    Args:
      name: of the loss term.
      model: the model.
      batch: fields as above.
      dropout_keys: None turns dropout off.
      options: label smoothing and z-loss.

    Returns:
      Its term and its metrics, as (sum, weight).
    """
    return measured(
        name, sums(model, model.states(batch, dropout_keys), batch, options), batch, options
    )


def measured(name: str, totals: Sums, batch: Batch, options: LossOptions) -> tuple[Terms, Terms]:
    """A loss term and its metrics, as (sum, weight).

    The metrics are the accuracy and, where smoothing or z-loss make the term something else, nats.

    Args:
      name: of the term.
      totals: what `sums` returned.
      batch: fields as above.
      options: label smoothing and z-loss.
    """
    weight = batch["weights"].sum()
    metrics = {f"{name}_accuracy": (totals.hits.sum(), weight)}
    if options.label_smoothing or options.z_loss:
        metrics[f"{name}_nll"] = (totals.nll.sum(), weight)
    return {name: (totals.loss, weight)}, metrics


def by_row(name: str, model: Model, batch: Batch, head: MaskedHead | None = None) -> Terms:
    """Nats and hits of each row, without dropout, smoothing or z-loss.

    Args:
      name: of the loss term.
      model: the model.
      batch: fields as above.
      head: BERT's head; None for the vocabulary matrix alone.

    Returns:
      {name, name_accuracy: (sums [B], weights [B])}.
    """
    totals = sums(model, model.states(batch, None), batch, PLAIN, head)
    weight_B = batch["weights"].sum(-1)
    return {name: (totals.nll, weight_B), f"{name}_accuracy": (totals.hits, weight_B)}


def row_log_probs(
    model: Model,
    batch: Batch,
    head: MaskedHead | None = None,
    dropout_keys: DropoutKeys | None = None,
) -> Float[Array, "B"]:
    """Σ weight · log p(target) of each row, each with a gradient of its own.

    The likelihood of sequences for losses that are no sum over rows, as those on preferences.

    Args:
      model: the model.
      batch: fields as above.
      head: BERT's head; None for the vocabulary matrix alone.
      dropout_keys: None turns dropout off.
    """
    h_BPD, bias_V = _head_inputs(model.states(batch, dropout_keys), batch, head)
    return model.row_log_probs(h_BPD, batch["targets"], batch["weights"], bias_V)


def _head_inputs(
    hidden_BTD: Float[Array, "B T D"], batch: Batch, head: MaskedHead | None
) -> tuple[Float[Array, "B P D"], Float[Array, "V"] | None]:
    """The factor of the vocabulary matrix, and the bias on its scores."""
    h_BPD = gathered(hidden_BTD, batch)
    return (h_BPD, None) if head is None else (head.transform(h_BPD), head.output_bias[...])
