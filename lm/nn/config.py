"""Shapes of models: the options of every architecture, and those that a Transformer adds."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from lm.core import plugins


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The options of a model's shape that embeddings, norms, heads and the loss read.

    Attributes:
      vocab_size: V, number of rows of the embedding; 0 for the tokenizer's size.
      width: D, width of hidden states.
      layers: L, number of layers of each stack.
      max_length: maximum length of a sequence in tokens, and number of learned or sinusoidal
        positions; 0 for the data's length.
      positions: kind of position information: "none", or a kind that the model supports.
      types: number of segment types, each with an embedding (BERT has 2); 0 for none.
      embedding_scaled: whether to multiply embeddings by √D.
      embedding_norm: whether to normalize the sum of embeddings (BERT).
      logits_scaled: whether to multiply hidden states by 1/√D before a tied vocabulary head (T5).
      tied: whether the embedding and the vocabulary head use one matrix.
      norm: kind of norm, "layer" or "rms".
      norm_epsilon: constant added to the variance.
      norm_bias: whether LayerNorm has a bias.
      activation: nonlinearity of feed-forward layers and heads.
      dropout: dropout rate of embeddings and of each sublayer's output; attention weights have no
        dropout.
      init_std: standard deviation of initial kernels; 0 for 1/√fan-in.
      embedding_std: standard deviation of initial embeddings.
      dtype: dtype of activations; parameters, norms, softmax and losses stay float32.
      head_chunks: number of parts of a row in which the loss over the vocabulary is computed
        (lm/nn/cross_entropy.py); more parts take less memory.
    """

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "positions": ("none", "sinusoidal", "learned"),
        "norm": ("layer", "rms"),
        "activation": ("gelu", "gelu_tanh", "relu", "silu", "swiglu", "geglu"),
        "dtype": ("float32", "bfloat16"),
    }

    vocab_size: int = 0
    width: int = 128
    layers: int = 2
    max_length: int = 0
    positions: str = "none"
    types: int = 0
    embedding_scaled: bool = False
    embedding_norm: bool = False
    logits_scaled: bool = False
    tied: bool = True
    norm: str = "layer"
    norm_epsilon: float = 1e-6
    norm_bias: bool = True
    activation: str = "gelu"
    dropout: float = 0.0
    init_std: float = 0.02
    embedding_std: float = 0.02
    dtype: str = "float32"
    head_chunks: int = 1

    def __post_init__(self) -> None:
        for field, valid in self.CHOICES.items():
            if getattr(self, field) not in valid:
                raise ValueError(
                    f"{field}={getattr(self, field)!r} is not one of {', '.join(valid)}"
                )
        self._at_least(1, "width", "layers", "head_chunks")
        self._at_least(0, "vocab_size", "max_length", "types", "init_std", "embedding_std")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout={self.dropout} must be in [0, 1)")
        if not self.norm_epsilon > 0.0:
            raise ValueError(f"norm_epsilon={self.norm_epsilon} must be above 0")

    def _at_least(self, least: int, *fields: str) -> None:
        for field in fields:
            if getattr(self, field) < least:
                limit = f"be at least {least}" if least else "not be negative"
                raise ValueError(f"{field}={getattr(self, field)} must {limit}")

    def kernel_std(self, fan_in: int) -> float:
        """Returns the standard deviation of the initial values of a kernel with this fan-in."""
        return self.init_std or fan_in**-0.5


@dataclasses.dataclass(frozen=True)
class TransformerConfig(ModelConfig):
    """A Transformer's shape: encoder, decoder or both.

    Attributes:
      heads: N, number of query heads.
      kv_heads: K, number of key-value heads; 0 for N.
      head_width: H, width of a head; 0 for D / N.
      feedforward: F, width of the feed-forward layer; 0 for 4 D.
      positions: kind of position information: "sinusoidal", "learned", "rotary" or "relative" (T5).
      rotary_base: base of the rotary wavelengths.
      relative_buckets: number of buckets of T5's relative positions.
      relative_distance: distance in tokens from which all positions share the last bucket.
      norm_place: place of the norms: "pre", before each sublayer and after the last one, or "post",
        after each residual sum (BERT).
      bias: whether attention and feed-forward layers have biases.
      attention_scaled: whether to multiply attention logits by 1/√H (T5 does not).
      residual_scaled: whether to scale the initial standard deviation of kernels that write into
        the residual stream by 1/√(2L) (GPT-2).
      query_key_start: initial values of W_k; "same" initializes W_k as W_q, so that tokens
        initially attend to similar tokens, and requires K = N.
      scan: whether to run the layers by lax.scan (compile time independent of depth; faster on TPU)
        or unrolled (faster on CPU).
      remat: values that the backward pass recomputes (lm/nn/remat.py), from nothing to everything:
        "none"; "attention": attention scores and softmax; "minimal": all but matmuls with
        parameters and attention's results; "dots": all but matmuls with parameters; "full":
        whole blocks; "offload": whole blocks, from block inputs kept in host memory.
      attention: name of a plug-in of lm/nn/attention.
    """

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **ModelConfig.CHOICES,
        "positions": ("sinusoidal", "learned", "rotary", "relative"),
        "norm_place": ("pre", "post"),
        "query_key_start": ("independent", "same"),
        "remat": ("none", "attention", "minimal", "dots", "full", "offload"),
    }

    heads: int = 2
    kv_heads: int = 0
    head_width: int = 0
    feedforward: int = 0
    positions: str = "learned"
    rotary_base: float = 10000.0
    relative_buckets: int = 32
    relative_distance: int = 128
    norm_place: str = "pre"
    bias: bool = True
    attention_scaled: bool = True
    residual_scaled: bool = False
    query_key_start: str = "independent"
    scan: bool = True
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self) -> None:
        super().__post_init__()
        plugins.find("nn.attention", self.attention)
        self._at_least(1, "heads")
        self._at_least(0, "kv_heads", "head_width", "feedforward")
        if not self.head_width and self.width % self.heads:
            raise ValueError(
                f"width={self.width} is not a multiple of heads={self.heads}; choose such a size,"
                " or set head_width"
            )
        for field, value in (
            ("kv_heads", self.kv_heads or self.heads),
            ("head_width", self.head_width or self.width // self.heads),
            ("feedforward", self.feedforward or 4 * self.width),
        ):
            object.__setattr__(self, field, value)
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.query_key_start == "same" and self.kv_heads != self.heads:
            raise ValueError(
                f"query_key_start='same' needs kv_heads={self.heads}, as many as heads, not"
                f" {self.kv_heads}; or set 'independent'"
            )
        if self.positions == "rotary" and not self.rotary_base > 1.0:
            raise ValueError(f"rotary_base={self.rotary_base} must be above 1")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need an even head_width, not {self.head_width}")
        if self.positions == "relative" and (
            self.relative_buckets < 4 or self.relative_distance <= self.relative_buckets // 2
        ):
            raise ValueError(
                "relative positions need relative_buckets ≥ 4 and relative_distance >"
                " relative_buckets / 2"
            )

    def residual_scale(self) -> float:
        """Factor on the initial values of kernels that write into the residual stream."""
        return (2 * self.layers) ** -0.5 if self.residual_scaled else 1.0
