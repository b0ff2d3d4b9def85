"""What a Transformer's shape is: one frozen dataclass for encoders, decoders and encoder-decoders."""

import dataclasses

CHOICES = {
    "positions": ("sinusoidal", "learned", "rotary", "relative"),
    "norm": ("layer", "rms"),
    "norm_place": ("pre", "post"),
    "activation": ("gelu", "gelu_tanh", "relu", "silu", "swiglu", "geglu"),
    "query_key_start": ("independent", "same"),
    "dtype": ("float32", "bfloat16"),
    "remat": ("none", "attention", "minimal", "dots", "full", "offload"),
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """A Transformer's shape.

    Attributes:
      vocab_size: rows of the embedding; 0 takes the tokenizer's size.
      width: D. layers: L (of each stack). heads: N. kv_heads: K, 0 for N. head_width: H, 0 for D / N. feedforward: F, 0 for 4 D.
      max_length: the longest sequence; learned and sinusoidal positions have this many rows; 0 takes the data's length.
      positions: how order is told.
      norm_place: norm before each sublayer (and one after the last), or after each residual sum (BERT).
      types: segment types with an embedding of their own (BERT has 2), 0 for none.
      embedding_scaled: embeddings times √D. embedding_norm: a norm after the sum of embeddings (BERT).
      logits_scaled: hidden states times 1/√D before a tied vocabulary head (T5).
      attention_scaled: logits of attention times 1/√H (T5 leaves it out).
      tied: one matrix for embedding and vocabulary head.
      bias: biases in attention and feed-forward. norm_bias: a bias in LayerNorm.
      dropout: on embeddings and on each sublayer's output (not on attention weights).
      init_std: standard deviation of kernels at the start; 0 takes 1/√fan-in. embedding_std: of embeddings.
      residual_scaled: kernels that write into the residual stream start 1/√(2L) smaller (GPT-2).
      query_key_start: "same" starts W_k at W_q, so that attention starts by content; needs K = N.
      scan: run the layers by lax.scan (compile time independent of depth; faster on TPU) or unrolled (faster on CPU).
      remat: what the backward pass computes again, from nothing to everything (lm/nn/remat.py): "none"; "attention", its scores and softmax;
        "minimal", all but products with parameters and attention's results; "dots", all but products with parameters; "full",
        everything in a block; "offload", everything, from block inputs that wait in the host's memory.
      dtype: of activations; parameters, norms, softmax and losses stay float32.
      attention: a plug-in of lm/nn/attention.
      head_chunks: parts that a row is cut into for the loss over the vocabulary (lm/nn/cross_entropy.py); more take less memory.
    """

    vocab_size: int = 0
    width: int = 128
    layers: int = 2
    heads: int = 2
    kv_heads: int = 0
    head_width: int = 0
    feedforward: int = 0
    max_length: int = 0
    positions: str = "learned"
    rotary_base: float = 10000.0
    relative_buckets: int = 32
    relative_distance: int = 128
    norm: str = "layer"
    norm_epsilon: float = 1e-6
    norm_bias: bool = True
    norm_place: str = "pre"
    activation: str = "gelu"
    bias: bool = True
    types: int = 0
    embedding_scaled: bool = False
    embedding_norm: bool = False
    logits_scaled: bool = False
    attention_scaled: bool = True
    tied: bool = True
    dropout: float = 0.0
    init_std: float = 0.02
    embedding_std: float = 0.02
    residual_scaled: bool = False
    query_key_start: str = "independent"
    scan: bool = True
    remat: str = "none"
    dtype: str = "float32"
    attention: str = "xla"
    head_chunks: int = 1

    def __post_init__(self):
        for field, valid in CHOICES.items():
            if getattr(self, field) not in valid:
                raise ValueError(
                    f"{field}={getattr(self, field)!r} is not one of {', '.join(valid)}"
                )
        for field in ("width", "layers", "heads", "head_chunks"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 1")
        for field in (
            "vocab_size",
            "kv_heads",
            "head_width",
            "feedforward",
            "max_length",
            "types",
            "init_std",
            "embedding_std",
        ):
            if getattr(self, field) < 0:
                raise ValueError(f"{field}={getattr(self, field)} must not be negative")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout={self.dropout} must lie in [0, 1)")
        if not self.norm_epsilon > 0.0:
            raise ValueError(f"norm_epsilon={self.norm_epsilon} must be above 0")
        if not self.head_width and self.width % self.heads:
            raise ValueError(
                f"width={self.width} is not a multiple of heads={self.heads}; choose such a size, or set head_width"
            )
        for name, value in (
            ("kv_heads", self.kv_heads or self.heads),
            ("head_width", self.head_width or self.width // self.heads),
            ("feedforward", self.feedforward or 4 * self.width),
        ):
            object.__setattr__(self, name, value)
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.query_key_start == "same" and self.kv_heads != self.heads:
            raise ValueError(
                f"query_key_start='same' needs kv_heads={self.heads}, as many as heads, not {self.kv_heads}; or set 'independent'"
            )
        if self.positions == "rotary" and not self.rotary_base > 1.0:
            raise ValueError(f"rotary_base={self.rotary_base} must be above 1")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need an even head_width, not {self.head_width}")
        if self.positions == "relative" and (
            self.relative_buckets < 4 or self.relative_distance <= self.relative_buckets // 2
        ):
            raise ValueError(
                "relative positions need relative_buckets ≥ 4 and relative_distance > relative_buckets / 2"
            )

    def kernel_std(self, fan_in: int) -> float:
        """Standard deviation of a kernel's initial values."""
        return self.init_std or fan_in**-0.5

    def residual_scale(self) -> float:
        """Factor on the initial values of kernels that write into the residual stream."""
        return (2 * self.layers) ** -0.5 if self.residual_scaled else 1.0
