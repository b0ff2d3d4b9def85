"""A stack of Transformer blocks, scanned or unrolled, and the base of models with one stack.

Parameters of the blocks are stacked along a leading layer axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lm.core.protocols import Batch
from lm.nn import flops, remat
from lm.nn.attention.mask import Mask
from lm.nn.config import TransformerConfig
from lm.nn.embedding import RelativeBias
from lm.nn.layers import Attention, DropoutKeys, FeedForward, Norm, Scope, dropout
from lm.nn.token_model import TokenModel
from lm.parallel import pipeline

_Layers = tuple["Block", Key[Array, "L"] | None]  # stacked blocks, and one dropout key per block


class _Rows(NamedTuple):
    """Arrays of a batch that every block reads in addition to x; fields as in `Stack.__call__`."""

    positions_BT: Int[Array, "B T"]
    mask: Mask
    memory_BSD: Float[Array, "B S D"] | None
    cross_mask: Mask | None
    rows_B: Int[Array, "B"] | None


class Block(nnx.Module):
    """Self-attention, cross-attention if `cross`, and feed-forward, each in a residual branch."""

    def __init__(self, config: TransformerConfig, scope: Scope, *, cross: bool) -> None:
        self.attention = Attention(config, scope / "attention", rotary=config.positions == "rotary")
        self.attention_norm = Norm(config, scope / "attention_norm")
        self.feedforward = FeedForward(config, scope / "feedforward")
        self.feedforward_norm = Norm(config, scope / "feedforward_norm")
        if cross:
            self.cross = Attention(config, scope / "cross", rotary=False)
            self.cross_norm = Norm(config, scope / "cross_norm")
        self.has_cross, self.pre, self.dropout = cross, config.norm_place == "pre", config.dropout

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        positions_BT: Int[Array, "B T"],
        mask: Mask,
        bias: Float[Array, "1 N T T"] | None,
        memory_BSD: Float[Array, "B S D"] | None,
        cross_mask: Mask | None,
        dropout_keys: DropoutKeys | None,
    ) -> Float[Array, "B T D"]:
        """Runs the block; arguments as in `Stack.__call__`.

        Args:
          bias: bias on the logits of self-attention.
        """
        split_keys = [None] * 3 if dropout_keys is None else dropout_keys.split(3)

        def residual(
            x: Float[Array, "B T D"],
            norm: Norm,
            sublayer: Callable[[Array], Array],
            dropout_keys: DropoutKeys | None,
        ) -> Float[Array, "B T D"]:
            if self.pre:
                return x + dropout(sublayer(norm(x)), self.dropout, dropout_keys)
            return norm(x + dropout(sublayer(x), self.dropout, dropout_keys))

        x_BTD = residual(
            x_BTD,
            self.attention_norm,
            lambda x: self.attention(x, x, positions_BT, mask, bias),
            split_keys[0],
        )
        if self.has_cross:
            assert memory_BSD is not None and cross_mask is not None
            x_BTD = residual(
                x_BTD,
                self.cross_norm,
                lambda x: self.cross(x, memory_BSD, positions_BT, cross_mask),
                split_keys[1],
            )
        return residual(x_BTD, self.feedforward_norm, self.feedforward, split_keys[2])


class Stack(nnx.Module):
    """L blocks; under pre-norm, a norm follows the last block."""

    def __init__(
        self, config: TransformerConfig, scope: Scope, *, bidirectional: bool, cross: bool = False
    ) -> None:
        self.config = config
        blocks = scope / "blocks"
        self.blocks = jax.vmap(lambda layer: Block(config, blocks.layer(layer), cross=cross))(
            jnp.arange(config.layers)
        )
        self.norm = Norm(config, scope / "norm") if config.norm_place == "pre" else None
        self.relative = (
            RelativeBias(config, scope / "relative", bidirectional=bidirectional)
            if config.positions == "relative"
            else None
        )

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        positions_BT: Int[Array, "B T"],
        mask: Mask,
        dropout_keys: DropoutKeys | None = None,
        memory_BSD: Float[Array, "B S D"] | None = None,
        cross_mask: Mask | None = None,
    ) -> Float[Array, "B T D"]:
        """Runs the stack.

        Args:
          x_BTD: embedded tokens.
          positions_BT: position of each token in its document.
          mask: mask of self-attention.
          dropout_keys: dropout keys of the rows; None turns dropout off.
          memory_BSD: the encoder's output, which cross-attention reads; None without
            cross-attention.
          cross_mask: mask of cross-attention; None without cross-attention.
        """
        T = x_BTD.shape[1]
        bias = self.relative(T, T) if self.relative is not None else None
        keys_L = rows_B = None
        if dropout_keys is not None:
            keys_L = jax.random.split(dropout_keys.key, self.config.layers)
            rows_B = dropout_keys.rows_B
        layers = (self.blocks, keys_L)
        rows = _Rows(positions_BT, mask, memory_BSD, cross_mask, rows_B)
        if pipeline.num_microbatches(len(x_BTD)):
            x_BTD = pipeline.run(
                lambda group, x, rows: self._layers(group, x, rows, bias), layers, x_BTD, rows
            )
        else:
            x_BTD = self._layers(layers, x_BTD, rows, bias)
        return self.norm(x_BTD) if self.norm is not None else x_BTD

    def _layers(
        self,
        layers: _Layers,
        x_BTD: Float[Array, "B T D"],
        rows: _Rows,
        bias: Float[Array, "1 N T T"] | None,
    ) -> Float[Array, "B T D"]:
        """Runs consecutive blocks on rows of a batch."""
        positions_BT, mask, memory_BSD, cross_mask, rows_B = rows

        def body(
            x_BTD: Float[Array, "B T D"], layer: tuple[Block, Key[Array, ""] | None]
        ) -> tuple[Float[Array, "B T D"], None]:
            block, key = layer
            dropout_keys = None
            if key is not None:
                assert rows_B is not None
                dropout_keys = DropoutKeys(key, rows_B)
            x_BTD = remat.tag(x_BTD, remat.BLOCK_INPUT)
            return block(
                x_BTD, positions_BT, mask, bias, memory_BSD, cross_mask, dropout_keys
            ), None

        run = remat.block(self.config.remat, body)
        if self.config.scan:
            return jax.lax.scan(run, x_BTD, layers)[0]
        blocks, keys_L = layers
        # One split instead of L slices: its gradient is one concatenation, not L padded sums.
        leaves, treedef = jax.tree.flatten(blocks)
        L = len(leaves[0])
        parts = [[part[0] for part in jax.lax.split(leaf, (1,) * L)] for leaf in leaves]
        for index in range(L):
            block = jax.tree.unflatten(treedef, [leaf[index] for leaf in parts])
            x_BTD, _ = run(x_BTD, (block, None if keys_L is None else keys_L[index]))
        return x_BTD


class SingleStack(TokenModel):
    """Embedding, one stack, vocabulary head: an encoder or a decoder.

    The default mask is bidirectional or causal. A batch with a field `prefix` gets a prefix mask.
    """

    Config = TransformerConfig
    pipelined = True

    def __init__(self, config: TransformerConfig, scope: Scope, *, bidirectional: bool) -> None:
        super().__init__(config, scope)
        self.stack = Stack(config, scope / "stack", bidirectional=bidirectional)
        self.mask = "bidirectional" if bidirectional else "causal"

    @staticmethod
    def flops(config: TransformerConfig, length: int, inputs: int = 0) -> int:
        """FLOPs of a forward pass of one row of `length` positions, without the head."""
        assert not inputs, "only an encoder-decoder reads inputs"
        return flops.stack(config, length)

    def states(
        self, batch: Batch, dropout_keys: DropoutKeys | None = None
    ) -> Float[Array, "B T D"]:
        """Returns hidden states after the last layer; batch fields as in lm/nn/token_loss.py."""
        embedding_keys, stack_keys = (None, None) if dropout_keys is None else dropout_keys.split()
        x_BTD = self.embed(batch, embedding_keys)
        segments_BT = batch["segments"]
        if (prefix_BT := batch.get("prefix")) is None:
            mask = Mask(segments_BT, segments_BT, kind=self.mask)
        else:
            mask = Mask(segments_BT, segments_BT, prefix_BT > 0, "prefix")
        return self.stack(x_BTD, batch["positions"], mask, stack_keys)

    def hidden(
        self,
        tokens_BT: Int[Array, "B T"],
        *,
        segments_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        types_BT: Int[Array, "B T"] | None = None,
        prefix_BT: Int[Array, "B T"] | None = None,
        dropout_keys: DropoutKeys | None = None,
    ) -> Float[Array, "B T D"]:
        """Returns the same hidden states as `states`, given the batch fields as separate arrays.

        Args:
          tokens_BT: token ids.
          segments_BT: number of each token's document in the row, from 1; 0 is padding.
          positions_BT: position of each token in its document.
          types_BT: segment type (0 or 1) of each token, if the model has types; None for type 0.
          prefix_BT: 1 at prefix positions, which the whole segment attends to, 0 elsewhere; None
            for the model's default mask.
          dropout_keys: dropout keys of the rows; None turns dropout off.
        """
        batch = {
            "tokens": tokens_BT,
            "segments": segments_BT,
            "positions": positions_BT,
            "types": types_BT,
            "prefix": prefix_BT,
        }
        return self.states(batch, dropout_keys)
