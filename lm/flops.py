"""Floating-point operations of a training step by formula: matrix products only, a multiplication and an addition each.

Counts what the model needs, not what a compiler recomputes (so remat does not raise it). Full attention, causal too, is
counted as T·T, as kernels without block skipping compute it. The backward pass is twice the forward.
"""

from lm.transformer import TransformerConfig


def forward_per_row(config: TransformerConfig, length: int, head_positions: int, transform: bool) -> int:
    """Operations of one row of `length` tokens through one stack and the vocabulary head.

    Args:
      config: the model. length: T. head_positions: positions at which the vocabulary head runs.
      transform: whether a dense D × D layer comes before the vocabulary head.
    """
    D, F, N, K, H = config.width, config.feedforward, config.heads, config.kv_heads, config.head_width
    matrices = 3 if config.activation in ("swiglu", "geglu") else 2
    per_token = 2 * (D * N * H + 2 * D * K * H + N * H * D + matrices * D * F)
    attention = 2 * 2 * length * length * N * H
    head = 2 * D * config.vocab_size * head_positions + (2 * D * D * head_positions if transform else 0)
    return config.layers * (per_token * length + attention) + head


def training_per_row(config: TransformerConfig, length: int, head_positions: int, transform: bool) -> int:
    """Forward and backward."""
    return 3 * forward_per_row(config, length, head_positions, transform)
