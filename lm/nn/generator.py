"""ELECTRA's generator (Clark et al. 2020): a narrow encoder on the model's own embeddings that predicts hidden tokens."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lm.nn import flops, token_loss
from lm.nn.attention.mask import Mask
from lm.nn.config import TransformerConfig
from lm.nn.layers import ACTIVATIONS, GATED, Norm, Scope
from lm.nn.stack import Stack


def narrow(config: TransformerConfig, share: float) -> TransformerConfig:
    """The shape with `share` of the width, heads and feed-forward width, and all layers."""
    heads = max(1, round(config.heads * share))
    head_width = max(2, round(config.width * share / heads / 2) * 2)
    return dataclasses.replace(
        config, width=heads * head_width, heads=heads, kv_heads=heads, head_width=head_width,
        feedforward=max(1, round(config.feedforward * share)),
    )  # fmt: skip


class Generator(nnx.Module):
    """Model's embeddings → narrow stack → back to the embeddings' width → the model's vocabulary matrix."""

    def __init__(self, config: TransformerConfig, scope: Scope, share: float):
        small = narrow(config, share)
        D, G = config.width, small.width
        self.project = scope.param("project", (D, G), ("width", None), config.kernel_std(D))
        self.stack = Stack(small, scope / "stack", bidirectional=True)
        self.kernel = scope.param("kernel", (G, D), (None, "width"), config.kernel_std(G))
        self.bias = scope.param("bias", (D,), (None,), 0.0)
        self.norm = Norm(config, scope / "norm")
        self.output_bias = scope.param("output_bias", (config.vocab_size,), ("vocabulary",), 0.0)
        self.activation = GATED.get(config.activation, config.activation)

    def __call__(self, model, batch, dropout_keys) -> Float[Array, "B P V"]:
        """Scores at the target positions of the batch (lm/nn/token_loss.py)."""
        segments_BT, positions_BT = batch["segments"], batch["positions"]
        x_BTD = model.embed(batch, dropout_keys)
        dtype = x_BTD.dtype
        x_BTG = jnp.einsum("BTD,DG->BTG", x_BTD, self.project[...].astype(dtype))
        h_BTG = self.stack(x_BTG, positions_BT, Mask(segments_BT, segments_BT), dropout_keys)
        h_BPG = token_loss.gathered(h_BTG, batch)
        h_BPD = (
            jnp.einsum("BPG,GD->BPD", h_BPG, self.kernel[...].astype(dtype))
            + self.bias[...].astype(dtype)[None, None]
        )
        h_BPD = self.norm(ACTIVATIONS[self.activation](h_BPD))
        # In float32, whatever the compute dtype: these scores are sampled from.
        return model.logits(h_BPD.astype(jnp.float32)) + self.output_bias[...][None, None]

    @staticmethod
    def flops(config: TransformerConfig, share: float, length: int, positions: int) -> int:
        """Operations of a forward pass on one row of `length` tokens with predictions at `positions` of them."""
        small = narrow(config, share)
        D, G = config.width, small.width
        return (
            2 * D * G * (length + positions)
            + flops.stack(small, length)
            + flops.head(config, positions)
        )
