"""A stack of gated recurrent units (Cho et al. 2014): an architecture in one file."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from lm.core.protocols import Batch
from lm.nn.config import ModelConfig
from lm.nn.layers import DropoutKeys, Scope
from lm.nn.token_model import TokenModel


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig):
    """A stack's shape.

    Attributes:
      state: width of the recurrent state; 0 for D.
    """

    state: int = 0


class Layer(nnx.Module):
    """A GRU over time in a residual branch; its state starts at zero in every document."""

    def __init__(self, config: Config, scope: Scope):
        D, H = config.width, config.state or config.width
        self.inputs = scope.param("inputs", (D, 3 * H), ("width", None), config.kernel_std(D))
        self.recurrent = scope.param("recurrent", (H, 3 * H), (None, None), config.kernel_std(H))
        self.bias = scope.param("bias", (3 * H,), (None,), 0.0)
        self.out = scope.param("out", (H, D), (None, "width"), config.kernel_std(H))

    def __call__(
        self, x_BTD: Float[Array, "B T D"], starts_BT: Bool[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        recurrent = self.recurrent[...]
        gates_BTG = jnp.einsum("BTD,DG->BTG", x_BTD, self.inputs[...]) + self.bias[...][None, None]

        def step(h_BH, at):
            gates_BG, starts_B = at
            h_BH = jnp.where(starts_B[:, None], 0.0, h_BH)
            update, reset, new = jnp.split(gates_BG, 3, axis=-1)
            of_update, of_reset, of_new = jnp.split(h_BH @ recurrent, 3, axis=-1)
            update = jax.nn.sigmoid(update + of_update)
            new = jnp.tanh(new + jax.nn.sigmoid(reset + of_reset) * of_new)
            h_BH = update * h_BH + (1 - update) * new
            return h_BH, h_BH

        h_BH = jnp.zeros((len(x_BTD), recurrent.shape[0]))
        _, h_TBH = jax.lax.scan(step, h_BH, (jnp.moveaxis(gates_BTG, 1, 0), starts_BT.T))
        return x_BTD + jnp.einsum("TBH,HD->BTD", h_TBH, self.out[...])


class Model(TokenModel):
    """tokens → recurrent layers → scores over the vocabulary."""

    Config = Config
    masks = ("causal",)

    def __init__(self, config: Config, scope: Scope):
        super().__init__(config, scope)
        self.layers = nnx.List(
            [Layer(config, scope / f"layer{index}") for index in range(config.layers)]
        )

    @staticmethod
    def flops(config: Config, length: int, inputs: int = 0) -> int:
        """Operations of a forward pass of one row, without the vocabulary head."""
        D, H = config.width, config.state or config.width
        return config.layers * length * 2 * (3 * D * H + 3 * H * H + H * D)

    def states(
        self, batch: Batch, dropout_keys: DropoutKeys | None = None
    ) -> Float[Array, "B T D"]:
        """Hidden states after the last layer."""
        x_BTD = self.embed(batch, dropout_keys)
        for layer in self.layers:
            x_BTD = layer(x_BTD, batch["positions"] == 0)
        return x_BTD
