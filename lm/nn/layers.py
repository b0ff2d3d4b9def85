"""The layers that all architectures consist of, in Flax NNX.

Array names carry their axes: B batch, T query length, S key length, D model width, F feed-forward
width, N heads, K key-value heads, H head width, V vocabulary, L layers. Parameters are float32;
each is cast to the compute dtype where it is used. Norms and softmax run in float32.

Three concerns have modules of their own: placement.py (how arrays are split over devices),
tpu_layouts.py (matmuls in forms that suit the hardware) and remat.py (which values the backward
pass keeps).
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lm.core import plugins
from lm.nn import placement, remat, tpu_layouts
from lm.nn.attention import context_parallel
from lm.nn.attention.mask import Mask
from lm.nn.config import ModelConfig, TransformerConfig
from lm.nn.positions import rotate

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
# Name of each gated feed-forward layer → name of the gate's activation.
GATED = {"swiglu": "silu", "geglu": "gelu_tanh"}


@dataclasses.dataclass(frozen=True)
class Scope:
    """The path under which a module's parameters are drawn.

    A parameter's initial value depends only on the seed, its path and its shape, not on the mesh or
    the model's other parameters. Models with the same seed have the same initial values wherever
    they share a path and a shape.

    Attributes:
      key: random key made from the seed.
      path: names of the modules from the root, each preceded by "/".
    """

    key: Key[Array, ""]
    path: str = ""

    def __truediv__(self, name: str) -> "Scope":
        """Returns the scope of a child module."""
        return Scope(self.key, f"{self.path}/{name}")

    def layer(self, index: Int[Array, ""]) -> "Scope":
        """Returns the scope of one of several layers that share a path."""
        return Scope(jax.random.fold_in(self.key, index), self.path)

    def param(
        self,
        name: str,
        shape: tuple[int, ...],
        axes: tuple[str | None, ...],
        std: float,
        mean: float = 0.0,
    ) -> nnx.Param:
        """Makes a float32 parameter, drawn from N(mean, std²).

        Args:
          name: name of the parameter below this scope.
          shape: shape of the parameter.
          axes: logical axis of each dimension (RULES in lm/parallel/sharding.py); None if the
            dimension is never split.
          std: standard deviation of the initial values; 0 makes them all `mean`.
          mean: mean of the initial values.
        """
        value = jnp.full(shape, mean, jnp.float32)
        if std:
            key = jax.random.fold_in(self.key, zlib.crc32(f"{self.path}/{name}".encode()))
            value += std * jax.random.normal(key, shape, jnp.float32)
        return nnx.Param(value, axes=axes)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DropoutKeys:
    """Per-row dropout keys, so results do not depend on microbatching.

    Attributes:
      key: random key of one place in the model.
      rows_B: index of each row in the full batch.
    """

    key: Key[Array, ""]
    rows_B: Int[Array, "B"]

    def split(self, count: int = 2) -> list["DropoutKeys"]:
        """Returns keys for `count` places in the model."""
        return [DropoutKeys(key, self.rows_B) for key in jax.random.split(self.key, count)]


class Norm(nnx.Module):
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019), in float32."""

    def __init__(self, config: ModelConfig, scope: Scope) -> None:
        self.scale = scope.param("scale", (config.width,), (None,), std=0.0, mean=1.0)
        self.bias = (
            scope.param("bias", (config.width,), (None,), std=0.0)
            if config.norm == "layer" and config.norm_bias
            else None
        )
        self.centered = config.norm == "layer"
        self.epsilon = config.norm_epsilon

    def __call__(self, x_BTD: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalizes over the last axis."""
        x = x_BTD.astype(jnp.float32)
        if self.centered:
            x = x - x.mean(-1, keepdims=True)
        y = (
            x
            * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
            * _expand(self.scale[...], x)
        )
        return _add(y, self.bias).astype(x_BTD.dtype)


class Attention(nnx.Module):
    """Multi-head attention with grouped key-value heads (Ainslie et al. 2023).

    Self-attention if the source is x itself, cross-attention otherwise.
    """

    def __init__(self, config: TransformerConfig, scope: Scope, *, rotary: bool) -> None:
        D, N, K, H = config.width, config.heads, config.kv_heads, config.head_width
        std = config.kernel_std(D)
        # Without the factor 1/√H on the logits (T5), the initial query kernel contains it.
        self.query = scope.param(
            "query",
            (D, N, H),
            ("width", "heads", None),
            std * (1.0 if config.attention_scaled else H**-0.5),
        )
        # Initial values depend on the name: a key kernel named "query" starts as the query kernel.
        key_name = "query" if config.query_key_start == "same" else "key"
        self.key = scope.param(key_name, (D, K, H), ("width", "kv_heads", None), std)
        self.value = scope.param("value", (D, K, H), ("width", "kv_heads", None), std)
        self.out = scope.param(
            "out",
            (N, H, D),
            ("heads", None, "width"),
            config.kernel_std(N * H) * config.residual_scale(),
        )
        bias = functools.partial(_bias, config, scope)
        self.query_bias = bias("query_bias", (N, H), ("heads", None))
        self.key_bias = bias("key_bias", (K, H), ("kv_heads", None))
        self.value_bias = bias("value_bias", (K, H), ("kv_heads", None))
        self.out_bias = bias("out_bias", (D,), (None,))
        self.rotary_base = config.rotary_base if rotary else 0.0
        self.scale = H**-0.5 if config.attention_scaled else 1.0
        self.kind, self.remat = config.attention, config.remat

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        source_BSD: Float[Array, "B S D"],
        positions_BT: Int[Array, "B T"],
        mask: Mask,
        bias: Float[Array, "1 N T S"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Lets queries made from x attend to keys and values made from the source.

        Args:
          x_BTD: activations that the queries are made from.
          source_BSD: activations that the keys and values are made from.
          positions_BT: position of each token in its document, for rotary positions.
          mask: which query may attend to which key.
          bias: bias added to the attention logits, or None.
        """
        q_BTNH, k_BSKH, v_BSKH = self._project(x_BTD, source_BSD)
        if self.rotary_base:
            q_BTNH = rotate(q_BTNH, positions_BT, self.rotary_base)
            k_BSKH = rotate(k_BSKH, positions_BT, self.rotary_base)
        o_BTNH = self._attend(q_BTNH, k_BSKH, v_BSKH, mask, bias)
        return self._output(o_BTNH)

    def _project(
        self, x_BTD: Float[Array, "B T D"], source_BSD: Float[Array, "B S D"]
    ) -> tuple[Float[Array, "B T N H"], Float[Array, "B S K H"], Float[Array, "B S K H"]]:
        """Queries of x; keys and values of the source."""
        dtype = x_BTD.dtype
        x_BTD = placement.gather_sequence(x_BTD)
        source_BSD = placement.gather_sequence(source_BSD)
        query, key, value = placement.gather_projections(
            self.query[...].astype(dtype),
            self.key[...].astype(dtype),
            self.value[...].astype(dtype),
            self.remat,
        )
        q_BTNH = tpu_layouts.to_heads(x_BTD, query)
        k_BSKH = tpu_layouts.to_heads(source_BSD, key)
        v_BSKH = tpu_layouts.to_heads(source_BSD, value)
        return (
            _add(q_BTNH, self.query_bias),
            _add(k_BSKH, self.key_bias),
            _add(v_BSKH, self.value_bias),
        )

    def _attend(
        self,
        q_BTNH: Float[Array, "B T N H"],
        k_BSKH: Float[Array, "B S K H"],
        v_BSKH: Float[Array, "B S K H"],
        mask: Mask,
        bias: Float[Array, "1 N T S"] | None,
    ) -> Float[Array, "B T N H"]:
        """softmax(scale · q kᵀ + bias) v, by the config's kind of attention."""
        q_BTNH = placement.split_heads(q_BTNH)
        k_BSKH = placement.split_kv_heads(k_BSKH)
        v_BSKH = placement.split_kv_heads(v_BSKH)
        q_BTNH = remat.tag(q_BTNH, "query")
        k_BSKH = remat.tag(k_BSKH, "key")
        v_BSKH = remat.tag(v_BSKH, "value")
        kind = plugins.find("nn.attention", self.kind)
        attend = functools.partial(context_parallel.split(kind.attend), scale=self.scale)
        o_BTNH = remat.attention(self.remat, attend)(q_BTNH, k_BSKH, v_BSKH, mask, bias=bias)
        return remat.tag(placement.split_heads(o_BTNH), "attended")

    def _output(self, o_BTNH: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        """Projects the heads back to the model's width."""
        y_BTD = tpu_layouts.from_heads(o_BTNH, self.out[...].astype(o_BTNH.dtype))
        y_BTD = _add(y_BTD, self.out_bias)
        return remat.tag(placement.scatter_sequence(y_BTD), "attention_out")


class FeedForward(nnx.Module):
    """Two matrices and a nonlinearity, or three with a gate (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig, scope: Scope) -> None:
        D, F = config.width, config.feedforward
        self.activation = GATED.get(config.activation, config.activation)
        self.up = scope.param("up", (D, F), ("width", "feedforward"), config.kernel_std(D))
        self.gate = (
            scope.param("gate", (D, F), ("width", "feedforward"), config.kernel_std(D))
            if config.activation in GATED
            else None
        )
        self.down = scope.param(
            "down", (F, D), ("feedforward", "width"), config.kernel_std(F) * config.residual_scale()
        )
        self.up_bias = _bias(config, scope, "up_bias", (F,), ("feedforward",))
        self.down_bias = _bias(config, scope, "down_bias", (D,), (None,))

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the layer at each position."""
        dtype, activation = x_BTD.dtype, ACTIVATIONS[self.activation]
        x_BTD = placement.gather_sequence(x_BTD)
        h_BTF = _add(jnp.einsum("BTD,DF->BTF", x_BTD, self.up[...].astype(dtype)), self.up_bias)
        h_BTF = remat.tag(h_BTF, "up")
        if self.gate is None:
            h_BTF = activation(h_BTF)
        else:
            gate_BTF = jnp.einsum("BTD,DF->BTF", x_BTD, self.gate[...].astype(dtype))
            h_BTF *= activation(remat.tag(gate_BTF, "gate"))
        h_BTF = placement.split_feedforward(h_BTF)
        y_BTD = jnp.einsum("BTF,FD->BTD", h_BTF, self.down[...].astype(dtype))
        y_BTD = _add(y_BTD, self.down_bias)
        return remat.tag(placement.scatter_sequence(y_BTD), "feedforward_out")


def dropout(
    x: Float[Array, "B *T"], rate: float, dropout_keys: DropoutKeys | None
) -> Float[Array, "B *T"]:
    """Zeroes a fraction `rate` of the elements and scales up the others.

    Args:
      x: activations.
      rate: probability that an element is dropped.
      dropout_keys: dropout keys of the rows; None (evaluation) leaves `x` unchanged.
    """
    if dropout_keys is None or rate == 0.0:
        return x
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(dropout_keys.key, dropout_keys.rows_B)
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys_B)
    # Otherwise every fusion that reads the mask would draw it again, which takes 2.5 times as long
    # to compile on a TPU.
    keep = tpu_layouts.compute_once(keep)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


def _bias(
    config: TransformerConfig,
    scope: Scope,
    name: str,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
) -> nnx.Param | None:
    """A bias that starts at zero, if the config has biases."""
    return scope.param(name, shape, axes, 0.0) if config.bias else None


def _add(x: Float[Array, "*B D"], bias: nnx.Param | None) -> Float[Array, "*B D"]:
    """x + bias in x's dtype; x itself without a bias."""
    return x if bias is None else x + _expand(bias[...].astype(x.dtype), x)


def _expand(vector: Float[Array, "*D"], like: Array) -> Array:
    """Adds leading axes of 1 up to the rank of `like`; tests forbid implicit rank promotion."""
    return vector.reshape((1,) * (like.ndim - vector.ndim) + vector.shape)
