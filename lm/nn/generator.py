"""ELECTRA's generator: a narrow encoder that predicts masked tokens.

It shares the model's embeddings.

Source: Clark et al. 2020.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lm.core.protocols import Batch, Model
from lm.nn import flops, token_loss
from lm.nn.attention.mask import Mask
from lm.nn.config import TransformerConfig
from lm.nn.layers import ACTIVATIONS, GATED, DropoutKeys, Norm, Scope
from lm.nn.stack import Stack


def narrow(config: TransformerConfig, fraction: float) -> TransformerConfig:
    """Returns a shape with all layers, but a fraction of the width, heads and feed-forward width.

    Args:
      config: the model's shape.
      fraction: fraction to keep, in (0, 1].
    """
    heads = max(1, round(config.heads * fraction))
    head_width = max(2, round(config.width * fraction / heads / 2) * 2)
    return dataclasses.replace(
        config, width=heads * head_width, heads=heads, kv_heads=heads, head_width=head_width,
        feedforward=max(1, round(config.feedforward * fraction)),
    )  # fmt: skip


class Generator(nnx.Module):
    """The model's embeddings → narrow stack → model's width → the model's vocabulary matrix."""

    def __init__(self, config: TransformerConfig, scope: Scope, fraction: float) -> None:
        small = narrow(config, fraction)
        D, G = config.width, small.width
        self.project = scope.param("project", (D, G), ("width", None), config.kernel_std(D))
        self.stack = Stack(small, scope / "stack", bidirectional=True)
        self.kernel = scope.param("kernel", (G, D), (None, "width"), config.kernel_std(G))
        self.bias = scope.param("bias", (D,), (None,), 0.0)
        self.norm = Norm(config, scope / "norm")
        self.output_bias = scope.param("output_bias", (config.vocab_size,), ("vocabulary",), 0.0)
        self.activation = GATED.get(config.activation, config.activation)

    def __call__(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> Float[Array, "B P V"]:
        """Returns logits at the target positions, in float32.

        Args:
          model: model with the embeddings and the vocabulary matrix.
          batch: arrays by field name, as in lm/nn/token_loss.py.
          dropout_keys: dropout keys of the rows; None turns dropout off.
        """
        segments_BT, positions_BT = batch["segments"], batch["positions"]
        x_BTD = model.embed(batch, dropout_keys)
        dtype = x_BTD.dtype
        x_BTG = jnp.einsum("BTD,DG->BTG", x_BTD, self.project[...].astype(dtype))
        h_BTG = self.stack(x_BTG, positions_BT, Mask(segments_BT, segments_BT), dropout_keys)
        h_BPG = token_loss.gather_targets(h_BTG, batch)
        h_BPD = (
            jnp.einsum("BPG,GD->BPD", h_BPG, self.kernel[...].astype(dtype))
            + self.bias[...].astype(dtype)[None, None]
        )
        h_BPD = self.norm(ACTIVATIONS[self.activation](h_BPD))
        # In float32, whatever the compute dtype, because tokens are sampled from these logits.
        return model.logits(h_BPD.astype(jnp.float32)) + self.output_bias[...][None, None]

    @staticmethod
    def flops(config: TransformerConfig, fraction: float, length: int, positions: int) -> int:
        """FLOPs of a forward pass of one row.

        Args:
          config: the model's shape.
          fraction: the generator's width as a fraction of the model's.
          length: number of positions of the row.
          positions: number of predicted positions.
        """
        small = narrow(config, fraction)
        D, G = config.width, small.width
        return (
            2 * D * G * (length + positions)
            + flops.stack(small, length)
            + flops.head(config, positions)
        )
