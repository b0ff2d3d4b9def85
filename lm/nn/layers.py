"""The layers that every architecture is made of, in Flax NNX.

Array names carry their axes: B batch, T query length, S key length, D model width, F feed-forward width, N heads,
K key-value heads, H head width, V vocabulary, L layers. Parameters are float32; each is cast to the compute dtype where
it is used. Norms and softmax run in float32.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from lm.core import plugins
from lm.nn import cross_entropy, remat
from lm.nn.attention import context_parallel
from lm.nn.attention.mask import Mask
from lm.nn.config import ModelConfig, TransformerConfig
from lm.parallel import mesh

ACTIVATIONS: dict[str, Callable] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
LANES = 128  # of a TPU's registers: where they divide the head width, heads in an axis of their own need no copies
GATED = {"swiglu": "silu", "geglu": "gelu_tanh"}


@dataclasses.dataclass(frozen=True)
class Scope:
    """Where a parameter lives. Its initial value depends on the seed, its path and its shape alone: not on the mesh, nor
    on which other parameters the model has. So models of one seed start from the same values wherever they share a path."""

    key: jax.Array
    path: str = ""

    def __truediv__(self, name: str) -> "Scope":
        return Scope(self.key, f"{self.path}/{name}")

    def layer(self, index: jax.Array) -> "Scope":
        return Scope(jax.random.fold_in(self.key, index), self.path)

    def param(
        self,
        name: str,
        shape: tuple[int, ...],
        axes: tuple[str | None, ...],
        std: float,
        mean: float = 0.0,
    ) -> nnx.Param:
        """A parameter drawn from N(mean, std²), constant if std is 0; `axes` are its logical axes (lm.parallel.mesh.RULES)."""
        value = jnp.full(shape, mean, jnp.float32)
        if std:
            key = jax.random.fold_in(self.key, zlib.crc32(f"{self.path}/{name}".encode()))
            value += std * jax.random.normal(key, shape, jnp.float32)
        return nnx.Param(value, axes=axes)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DropoutKeys:
    """The chance in a step, drawn row by row, so that the parts in which a batch is computed do not matter.

    Attributes:
      key: of the place in the model. rows_B: the number of each row in the whole batch.
    """

    key: jax.Array
    rows_B: Int[Array, "B"]

    def split(self, count: int = 2) -> list["DropoutKeys"]:
        """For `count` places."""
        return [DropoutKeys(key, self.rows_B) for key in jax.random.split(self.key, count)]


class Norm(nnx.Module):
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over the last axis, in float32."""

    def __init__(self, config: ModelConfig, scope: Scope):
        self.scale = scope.param("scale", (config.width,), (None,), std=0.0, mean=1.0)
        self.bias = (
            scope.param("bias", (config.width,), (None,), std=0.0)
            if config.norm == "layer" and config.norm_bias
            else None
        )
        self.centred = config.norm == "layer"
        self.epsilon = config.norm_epsilon

    def __call__(self, x_BTD: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        x = x_BTD.astype(jnp.float32)
        if self.centred:
            x = x - x.mean(-1, keepdims=True)
        y = (
            x
            * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
            * _wide(self.scale[...], x)
        )
        if self.bias is not None:
            y += _wide(self.bias[...], y)
        return y.astype(x_BTD.dtype)


class Attention(nnx.Module):
    """Multi-head attention with grouped key-value heads; self-attention, or cross-attention if given a source."""

    def __init__(self, config: TransformerConfig, scope: Scope, *, rotary: bool):
        D, N, K, H = config.width, config.heads, config.kv_heads, config.head_width
        std = config.kernel_std(D)
        # Without 1/√H in the logits (T5), the query's initial values carry it.
        self.query = scope.param(
            "query",
            (D, N, H),
            ("width", "heads", None),
            std * (1.0 if config.attention_scaled else H**-0.5),
        )
        # Initial values follow the name: under the query's, the key starts where the query does.
        key_name = "query" if config.query_key_start == "same" else "key"
        self.key = scope.param(key_name, (D, K, H), ("width", "kv_heads", None), std)
        self.value = scope.param("value", (D, K, H), ("width", "kv_heads", None), std)
        self.out = scope.param(
            "out",
            (N, H, D),
            ("heads", None, "width"),
            config.kernel_std(N * H) * config.residual_scale(),
        )
        if config.bias:
            self.query_bias = scope.param("query_bias", (N, H), ("heads", None), 0.0)
            self.key_bias = scope.param("key_bias", (K, H), ("kv_heads", None), 0.0)
            self.value_bias = scope.param("value_bias", (K, H), ("kv_heads", None), 0.0)
            self.out_bias = scope.param("out_bias", (D,), (None,), 0.0)
        self.biased = config.bias
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
        dtype = x_BTD.dtype
        # Rows are gathered here, and scattered again below: tensor splits heads in between, and the sequence elsewhere.
        x_BTD, source_BSD = (
            mesh.constrain(x, "batch", "length", None) for x in (x_BTD, source_BSD)
        )
        query, key, value = (
            kernel[...].astype(dtype) for kernel in (self.query, self.key, self.value)
        )
        if self.remat in remat.POLICIES and query.shape[-1] % LANES == 0:
            # Gathered by themselves, for both the product that is computed again and its gradient; the partitioner would gather for each.
            query = mesh.constrain(query, None, "heads", None)
            key, value = (mesh.constrain(kernel, None, "kv_heads", None) for kernel in (key, value))
        q_BTNH, k_BSKH, v_BSKH = (
            _to_heads(x_BTD, query),
            _to_heads(source_BSD, key),
            _to_heads(source_BSD, value),
        )
        if self.biased:
            q_BTNH += _wide(self.query_bias[...].astype(dtype), q_BTNH)
            k_BSKH += _wide(self.key_bias[...].astype(dtype), k_BSKH)
            v_BSKH += _wide(self.value_bias[...].astype(dtype), v_BSKH)
        if self.rotary_base:
            q_BTNH, k_BSKH = (rotate(x, positions_BT, self.rotary_base) for x in (q_BTNH, k_BSKH))
        q_BTNH = mesh.constrain(q_BTNH, "batch", "length", "heads", None)
        k_BSKH, v_BSKH = (
            mesh.constrain(x, "batch", "length", "kv_heads", None) for x in (k_BSKH, v_BSKH)
        )
        q_BTNH, k_BSKH, v_BSKH = map(
            checkpoint_name, (q_BTNH, k_BSKH, v_BSKH), ("query", "key", "value")
        )
        attend = context_parallel.split(plugins.find("nn.attention", self.kind).attend)
        attend = remat.attention(self.remat, functools.partial(attend, scale=self.scale))
        o_BTNH = mesh.constrain(
            attend(q_BTNH, k_BSKH, v_BSKH, mask, bias=bias), "batch", "length", "heads", None
        )
        o_BTNH = checkpoint_name(o_BTNH, "attended")
        y_BTD = _from_heads(o_BTNH, self.out[...].astype(dtype))
        if self.biased:
            y_BTD += _wide(self.out_bias[...].astype(dtype), y_BTD)
        return checkpoint_name(mesh.constrain(y_BTD, "batch", "sequence", None), "attention_out")


class FeedForward(nnx.Module):
    """Two matrices and a nonlinearity, or three with a gate (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig, scope: Scope):
        D, F = config.width, config.feedforward
        self.gated = config.activation in GATED
        self.activation = GATED.get(config.activation, config.activation)
        self.up = scope.param("up", (D, F), ("width", "feedforward"), config.kernel_std(D))
        if self.gated:
            self.gate = scope.param("gate", (D, F), ("width", "feedforward"), config.kernel_std(D))
        self.down = scope.param(
            "down", (F, D), ("feedforward", "width"), config.kernel_std(F) * config.residual_scale()
        )
        self.biased = config.bias
        if config.bias:
            self.up_bias = scope.param("up_bias", (F,), ("feedforward",), 0.0)
            self.down_bias = scope.param("down_bias", (D,), (None,), 0.0)

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        dtype = x_BTD.dtype
        x_BTD = mesh.constrain(x_BTD, "batch", "length", None)
        h_BTF = jnp.einsum("BTD,DF->BTF", x_BTD, self.up[...].astype(dtype))
        if self.biased:
            h_BTF += _wide(self.up_bias[...].astype(dtype), h_BTF)
        h_BTF = checkpoint_name(h_BTF, "up")
        if self.gated:
            gate_BTF = checkpoint_name(
                jnp.einsum("BTD,DF->BTF", x_BTD, self.gate[...].astype(dtype)), "gate"
            )
            h_BTF *= ACTIVATIONS[self.activation](gate_BTF)
        else:
            h_BTF = ACTIVATIONS[self.activation](h_BTF)
        h_BTF = mesh.constrain(h_BTF, "batch", "length", "feedforward")
        y_BTD = jnp.einsum("BTF,FD->BTD", h_BTF, self.down[...].astype(dtype))
        if self.biased:
            y_BTD += _wide(self.down_bias[...].astype(dtype), y_BTD)
        return checkpoint_name(mesh.constrain(y_BTD, "batch", "sequence", None), "feedforward_out")


class Embedding(nnx.Module):
    """Token, position and type embeddings, summed; and the tied or untied map back to the vocabulary."""

    def __init__(self, config: ModelConfig, scope: Scope):
        self.config = config
        D, V = config.width, config.vocab_size
        std = config.embedding_std
        self.tokens = scope.param("tokens", (V, D), ("vocabulary", "width"), std)
        if config.positions == "learned":
            self.positions = scope.param("positions", (config.max_length, D), (None, "width"), std)
        if config.types:
            self.types = scope.param("types", (config.types, D), (None, "width"), std)
        if config.embedding_norm:
            self.norm = Norm(config, scope / "norm")
        if not config.tied:
            self.unembed = scope.param(
                "unembed", (V, D), ("vocabulary", "width"), config.kernel_std(D)
            )

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        types_BT: Int[Array, "B T"] | None,
        dropout_keys: DropoutKeys | None,
    ) -> Float[Array, "B T D"]:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        x_BTD = self.tokens[...].astype(dtype)[tokens_BT]
        if config.embedding_scaled:
            x_BTD *= config.width**0.5
        if config.positions == "learned":
            x_BTD += self.positions[...].astype(dtype)[positions_BT]
        elif config.positions == "sinusoidal":
            x_BTD += sinusoids(config.max_length, config.width).astype(dtype)[positions_BT]
        if config.types:
            types_BT = jnp.zeros_like(tokens_BT) if types_BT is None else types_BT
            x_BTD += self.types[...].astype(dtype)[types_BT]
        if config.embedding_norm:
            x_BTD = self.norm(x_BTD)
        x_BTD = dropout(x_BTD, config.dropout, dropout_keys)
        return mesh.constrain(x_BTD, "batch", "sequence", None)

    def logits(self, h: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Scores over the vocabulary for each vector, in the vectors' dtype."""
        logits = jnp.einsum("...D,VD->...V", self._scaled(h), self._table(h.dtype))
        return mesh.constrain(logits, "batch", *["length"] * (logits.ndim - 2), "vocabulary")

    def cross_entropy(
        self,
        h_BTD: Float[Array, "B T D"],
        targets_BT: Int[Array, "B T"],
        weights_BT: Float[Array, "B T"],
        bias_V: Float[Array, "V"] | None = None,
        options: cross_entropy.LossOptions = cross_entropy.PLAIN,
    ) -> cross_entropy.Sums:
        """Weighted sums of loss, nll and hits of the scores of `logits` plus a bias, which are never held together (lm.nn.cross_entropy)."""
        chunks = min(self.config.head_chunks, h_BTD.shape[1])
        return cross_entropy.cross_entropy(
            self._scaled(h_BTD),
            self._table(h_BTD.dtype),
            targets_BT,
            weights_BT,
            chunks,
            bias_V,
            options,
        )

    def _scaled(self, h: Array) -> Array:
        return h * self.config.width**-0.5 if self.config.logits_scaled else h

    def _table(self, dtype: jnp.dtype) -> Array:
        return (self.tokens[...] if self.config.tied else self.unembed[...]).astype(dtype)


class RelativeBias(nnx.Module):
    """T5's bucketed relative position bias, one table for a whole stack (Raffel et al. 2020, section 2.1)."""

    def __init__(self, config: TransformerConfig, scope: Scope, *, bidirectional: bool):
        self.table = scope.param(
            "table",
            (config.relative_buckets, config.heads),
            (None, "heads"),
            config.kernel_std(config.width),
        )
        self.bidirectional, self.buckets, self.distance = (
            bidirectional,
            config.relative_buckets,
            config.relative_distance,
        )

    def __call__(self, T: int, S: int) -> Float[Array, "1 N T S"]:
        offset_TS = np.arange(S)[None, :] - np.arange(T)[:, None]
        buckets = self.buckets // 2 if self.bidirectional else self.buckets
        distance = np.abs(offset_TS) if self.bidirectional else np.maximum(-offset_TS, 0)
        exact = buckets // 2
        # float32 as in the original, so that bucket borders fall alike.
        ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.log(
            np.float32(self.distance) / exact
        )
        far = np.minimum(exact + (ratio * (buckets - exact)).astype(np.int32), buckets - 1)
        bucket_TS = np.where(distance < exact, distance, far) + (
            buckets * (offset_TS > 0) if self.bidirectional else 0
        )
        return jnp.transpose(self.table[...][bucket_TS], (2, 0, 1))[None]


def rotate(
    x_BTNH: Float[Array, "B T N H"], positions_BT: Int[Array, "B T"], base: float
) -> Float[Array, "B T N H"]:
    """Rotary position embedding (Su et al. 2021); dimension i is paired with i + H/2, as in Llama. In float32."""
    half = x_BTNH.shape[-1] // 2
    frequency_H = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_BT1H = (
        positions_BT[:, :, None, None].astype(jnp.float32) * frequency_H[None, None, None, :]
    )
    sin, cos = jnp.sin(angle_BT1H), jnp.cos(angle_BT1H)
    if x_BTNH.dtype == jnp.bfloat16 and x_BTNH.shape[-1] % LANES == 0:
        return _rotate_by_product(
            x_BTNH, jnp.concatenate([sin, sin], -1), jnp.concatenate([cos, cos], -1)
        )
    a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)


@jax.custom_vjp
def _rotate_by_product(x_BTNH: Array, sin_BT1H: Array, cos_BT1H: Array) -> Array:
    """The same with halves exchanged by a product with a permutation, which is exact in bfloat16: a TPU is slow at cutting rows of its full
    width into halves and joining them. The gradient is rotated back by the same angles."""
    half = x_BTNH.shape[-1] // 2
    exchange_HJ = np.roll(np.eye(2 * half), half, axis=1)
    exchange_HJ[half:] *= -1  # [a, b] → [-b, a]
    exchanged_BTNH = jnp.einsum("BTNH,HJ->BTNJ", x_BTNH, jnp.asarray(exchange_HJ, x_BTNH.dtype))
    return (
        x_BTNH.astype(jnp.float32) * cos_BT1H + exchanged_BTNH.astype(jnp.float32) * sin_BT1H
    ).astype(x_BTNH.dtype)


_rotate_by_product.defvjp(
    lambda x, sin, cos: (_rotate_by_product(x, sin, cos), (sin, cos)),
    lambda kept, d: (_rotate_by_product(d, -kept[0], kept[1]), None, None),
)


def sinusoids(length: int, width: int) -> Float[Array, "T D"]:
    """Fixed sine and cosine positions (Vaswani et al. 2017, section 3.5); sines in the first half, cosines in the second."""
    half = (width + 1) // 2
    angle = np.arange(length)[:, None] * 10000.0 ** (-np.arange(half) / half)
    return jnp.asarray(
        np.concatenate([np.sin(angle), np.cos(angle)], axis=1)[:, :width], jnp.float32
    )


def dropout(x_BTD: Array, rate: float, dropout_keys: DropoutKeys | None) -> Array:
    """Zeroes a share `rate` of the elements and scales the rest; the identity without noise (evaluation)."""
    if dropout_keys is None or rate == 0.0:
        return x_BTD
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(dropout_keys.key, dropout_keys.rows_B)
    keep_BTD = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x_BTD.shape[1:]))(keys_B)
    # Drawn once: without the barrier the TPU compiler draws it anew in every fusion that reads it, and takes 2.5 times as long itself.
    keep_BTD = jax.lax.optimization_barrier(keep_BTD)
    return jnp.where(keep_BTD, x_BTD / (1.0 - rate), 0).astype(x_BTD.dtype)


def _to_heads(x_BTD: Array, kernel_DNH: Array) -> Array:
    D, N, H = kernel_DNH.shape
    if H % LANES == 0:
        return jnp.einsum("BTD,DNH->BTNH", x_BTD, kernel_DNH)
    return jnp.einsum("BTD,DF->BTF", x_BTD, _matrix(kernel_DNH, (D, N * H))).reshape(
        *x_BTD.shape[:2], N, H
    )


def _from_heads(x_BTNH: Array, kernel_NHD: Array) -> Array:
    N, H, D = kernel_NHD.shape
    if H % LANES == 0:
        return jnp.einsum("BTNH,NHD->BTD", x_BTNH, kernel_NHD)
    return jnp.einsum(
        "BTF,FD->BTD", x_BTNH.reshape(*x_BTNH.shape[:2], N * H), _matrix(kernel_NHD, (N * H, D))
    )


def _matrix(kernel: Array, shape: tuple[int, int]) -> Array:
    """The kernel with heads in one axis. Where devices hold parts of it, the TPU compiler scatters a matrix's gradient while it sums it up,
    but not one of rank 3 with heads of 64 (twice the bytes on the wire); the barrier keeps it from seeing through to the rank."""
    matrix = kernel.reshape(shape)
    return jax.lax.optimization_barrier(matrix) if mesh.parts("width") > 1 else matrix


def _wide(vector: Array, like: Array) -> Array:
    """The vector with leading axes of 1, so that its rank is that of `like` (implicit rank promotion is an error in tests)."""
    return vector.reshape((1,) * (like.ndim - vector.ndim) + vector.shape)
