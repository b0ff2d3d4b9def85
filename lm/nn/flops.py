"""Floating-point operations of a training step by formula: matrix products only, a multiplication and an addition each.

Counts what the model needs, not what a compiler recomputes (so remat does not raise it). Full attention, causal too, is
counted as T·T, as kernels without block skipping compute it. The backward pass is twice the forward.
"""

from lm.nn.config import TransformerConfig


def stack(config: TransformerConfig, length: int, memory: int = 0) -> int:
    """Operations of one row of `length` tokens through one stack; with cross-attention to `memory` tokens, if any."""
    D, F, N, K, H = (
        config.width,
        config.feedforward,
        config.heads,
        config.kv_heads,
        config.head_width,
    )
    matrices = 3 if config.activation in ("swiglu", "geglu") else 2
    queries, keys = 2 * (2 * D * N * H), 2 * (2 * D * K * H)
    layer = (queries + keys + 2 * matrices * D * F) * length + 2 * 2 * length * length * N * H
    if memory:
        layer += queries * length + keys * memory + 2 * 2 * length * memory * N * H
    return config.layers * layer


def head(config: TransformerConfig, positions: int, transform: bool = False) -> int:
    """Operations of the vocabulary head at so many positions; `transform`: with a dense D × D layer before it."""
    D = config.width
    return 2 * D * config.vocab_size * positions + (2 * D * D * positions if transform else 0)


def training(forward: int) -> int:
    """Forward and backward."""
    return 3 * forward
