"""The batch fields and the loss of objectives that predict tokens with the vocabulary head.

Fields of an example, int32 (weights float32), [T] unless noted:

    tokens, segments, positions      inputs of the model; segments are numbered from 1, and
                                     0 is padding
    types                            if present: segment types
    prefix                           if present (a prefix mask): 1 at positions that their whole
                                     segment attends to, 0 elsewhere
    input_tokens, input_segments,    inputs of the encoder, [S], if the model has one
      input_positions
    targets, weights                 [P] target ids, and the weight of each target: 0 for padding
    target_positions                 [P] positions at which the targets are predicted; without this
                                     field P = T, and target t is predicted at position t
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.core.protocols import Batch, Model
from lm.nn.cross_entropy import PLAIN, LossOptions, Sums
from lm.nn.heads import MaskedHead
from lm.nn.layers import DropoutKeys

Terms = dict[str, tuple[Array, Array]]  # name → (sum, weight)


def gather_targets(hidden_BTD: Float[Array, "B T D"], batch: Batch) -> Float[Array, "B P D"]:
    """Returns the hidden states at the target positions.

    Args:
      hidden_BTD: hidden states.
      batch: arrays by field name, as listed in the module.

    Returns:
      Hidden states, [B, P, D]; without the field `target_positions`, those of all positions.
    """
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
    """Returns loss and hits of the vocabulary head, computed at the target positions only.

    Args:
      model: model with the vocabulary matrix.
      hidden_BTD: hidden states.
      batch: arrays by field name, as listed in the module.
      options: label smoothing and z-loss.
      head: BERT's head for masked tokens; None for the vocabulary matrix alone.
    """
    h_BPD, bias_V = _head_inputs(hidden_BTD, batch, head)
    return model.cross_entropy(h_BPD, batch["targets"], batch["weights"], bias_V, options)


def loss(
    name: str, model: Model, batch: Batch, dropout_keys: DropoutKeys | None, options: LossOptions
) -> tuple[Terms, Terms]:
    """Computes the full loss of an objective that only predicts tokens.

    Args:
      name: name of the loss term.
      model: the model.
      batch: arrays by field name, as listed in the module.
      dropout_keys: dropout keys of the rows; None turns dropout off.
      options: label smoothing and z-loss.

    Returns:
      The loss term and the metrics, each as name → (sum, weight).
    """
    return terms_and_metrics(
        name, sums(model, model.states(batch, dropout_keys), batch, options), batch, options
    )


def terms_and_metrics(
    name: str, totals: Sums, batch: Batch, options: LossOptions
) -> tuple[Terms, Terms]:
    """Returns a loss term and its metrics, each as name → (sum, weight).

    The metrics are the accuracy, and the plain NLL in nats if smoothing or z-loss is on.

    Args:
      name: name of the loss term.
      totals: the result of `sums`.
      batch: arrays by field name, as listed in the module.
      options: label smoothing and z-loss.
    """
    weight = batch["weights"].sum()
    metrics = {f"{name}_accuracy": (totals.hits.sum(), weight)}
    if options.label_smoothing or options.z_loss:
        metrics[f"{name}_nll"] = (totals.nll.sum(), weight)
    return {name: (totals.loss, weight)}, metrics


def by_row(name: str, model: Model, batch: Batch, head: MaskedHead | None = None) -> Terms:
    """Returns NLL in nats and accuracy of each row, without dropout, smoothing or z-loss.

    Args:
      name: name of the loss term.
      model: the model.
      batch: arrays by field name, as listed in the module.
      head: BERT's head for masked tokens; None for the vocabulary matrix alone.

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
    """Returns Σ weight · log p(target) of each row in nats; each row has its own gradient.

    Losses that are not a sum over rows, such as preference losses, need these log-likelihoods of
    sequences.

    Args:
      model: the model.
      batch: arrays by field name, as listed in the module.
      head: BERT's head for masked tokens; None for the vocabulary matrix alone.
      dropout_keys: dropout keys of the rows; None turns dropout off.
    """
    h_BPD, bias_V = _head_inputs(model.states(batch, dropout_keys), batch, head)
    return model.row_log_probs(h_BPD, batch["targets"], batch["weights"], bias_V)


def _head_inputs(
    hidden_BTD: Float[Array, "B T D"], batch: Batch, head: MaskedHead | None
) -> tuple[Float[Array, "B P D"], Float[Array, "V"] | None]:
    """The hidden states that are multiplied by the vocabulary matrix, and the logits' bias."""
    h_BPD = gather_targets(hidden_BTD, batch)
    return (h_BPD, None) if head is None else (head.transform(h_BPD), head.output_bias[...])
