"""Predicting tokens: the examples and the loss that all objectives share which ask for tokens at places.

Fields of an example (int32, weights float32), [T] unless said otherwise:

    tokens, segments, positions      what the model reads; segments from 1, 0 is padding
    types, prefix                    where there are any: segment types; 1 where all of the segment may look (a prefix mask)
    input_tokens, input_segments,    what an encoder reads, [S], where there is one
      input_positions
    targets, weights                 [P] ids, and what each counts: 0 for filling
    target_positions                 [P] where they are predicted; without it P = T and each stands at its place
"""

import jax
import jax.numpy as jnp

from lm.nn.cross_entropy import PLAIN, LossOptions, Sums

Terms = dict[str, tuple[jax.Array, jax.Array]]


def gathered(hidden_BTD, batch):
    """The states at which something is predicted: [B, P, D]."""
    if "target_positions" not in batch:
        return hidden_BTD
    return jnp.take_along_axis(hidden_BTD, batch["target_positions"][..., None], axis=1)


def sums(model, hidden_BTD, batch, options: LossOptions, head=None) -> Sums:
    """Loss and hits of the vocabulary head at the target positions only. `head` is a lm.nn.heads.MaskedHead, None for the bare vocabulary."""
    h_BPD = gathered(hidden_BTD, batch)
    bias_V = None
    if head is not None:
        h_BPD, bias_V = head.transform(h_BPD), head.output_bias[...]
    return model.cross_entropy(h_BPD, batch["targets"], batch["weights"], bias_V, options)


def loss(name: str, model, batch, dropout_keys, options: LossOptions) -> tuple[Terms, Terms]:
    """The whole of an objective that only predicts tokens: its term and its metrics, as (sum, weight)."""
    return measured(
        name, sums(model, model.states(batch, dropout_keys), batch, options), batch, options
    )


def measured(name: str, found: Sums, batch, options: LossOptions) -> tuple[Terms, Terms]:
    """A term of this name; its accuracy, and its nats where smoothing or z-loss make the term something else."""
    weight = batch["weights"].sum()
    metrics = {f"{name}_accuracy": (found.hits.sum(), weight)}
    if options.label_smoothing or options.z_loss:
        metrics[f"{name}_nll"] = (found.nll.sum(), weight)
    return {name: (found.loss, weight)}, metrics


def by_row(name: str, model, batch, head=None) -> Terms:
    """Nats and hits of each row, without smoothing or z-loss: {name, name_accuracy: (sums [B], weights [B])}."""
    found = sums(model, model.states(batch, None), batch, PLAIN, head)
    weight_B = batch["weights"].sum(-1)
    return {name: (found.nll, weight_B), f"{name}_accuracy": (found.hits, weight_B)}
