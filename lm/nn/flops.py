"""FLOPs of matmuls, by formula. A multiplication and an addition count as two FLOPs.

These are model FLOPs: they exclude recomputation. A backward pass costs twice a forward pass.
Attention counts all T · T scores, even if causal, like kernels that do not skip blocks.
"""

from lm.nn.config import ModelConfig, TransformerConfig


def stack(config: TransformerConfig, length: int, memory: int = 0) -> int:
    """Returns the FLOPs of a forward pass of one row through one stack of Transformer blocks.

    Args:
      config: the stack's shape.
      length: number of positions of the row.
      memory: number of positions that cross-attention reads; 0 without cross-attention.
    """
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


def head(config: ModelConfig, positions: int, transform: bool = False) -> int:
    """Returns the FLOPs of a forward pass of the vocabulary head on one row.

    Args:
      config: the model's shape.
      positions: number of predicted positions.
      transform: whether a dense D × D layer precedes the vocabulary matrix.
    """
    D = config.width
    return 2 * D * config.vocab_size * positions + (2 * D * D * positions if transform else 0)


def training(forward: int) -> int:
    """Returns the FLOPs of a forward and a backward pass, given those of the forward pass."""
    return 3 * forward
