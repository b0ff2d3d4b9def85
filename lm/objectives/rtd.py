"""Replaced-token detection: which tokens of a text were replaced by a small generator?

ELECTRA (Clark et al. 2020). A generator, trained by MLM, samples tokens for masked positions; no
gradient flows through the samples. The model is the discriminator: it classifies every token as
original or replaced. A sample that equals the original counts as original. The loss is
MLM + 50 · RTD. Both networks share the embeddings and train them. As in ELECTRA's code, positions
are drawn with replacement: of n draws at 15 %, about 93 % fall on different positions, and a
position drawn twice counts twice in the generator's loss.

`variant` has the ablations of the paper's section 3.4:

    rtd              ELECTRA
    electra_15       only masked positions count in the discriminator's loss
    replace_mlm      the model predicts the masked tokens, reading samples in place of [MASK]
    all_tokens_mlm   the model predicts every token, with a gate g that copies the input:
                     p = g · [input] + (1 - g) · softmax
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from lm.core import plugins
from lm.core.plugins import UserError
from lm.core.protocols import Batch, Example, Model, ModelClass, Plan, Sums, Tokenizer
from lm.data.store import Store
from lm.nn import flops, heads
from lm.nn.config import ModelConfig, TransformerConfig
from lm.nn.generator import Generator
from lm.nn.layers import DropoutKeys, Scope
from lm.objectives import _masked, _objective
from lm.tokenizers.sentencepiece import MODES

VARIANTS = ("rtd", "electra_15", "replace_mlm", "all_tokens_mlm")


@dataclasses.dataclass(frozen=True)
class Config(_masked.Config):
    """Options of RTD. Extends `_masked.Config` (masking, head, format, loss).

    By default 85 % of the masked positions become [MASK] and the rest keep their token, as in
    ELECTRA's code.

    Attributes:
      variant: "rtd", or an ablation of it (see the module).
      generator: the generator's width as a fraction of the model's; 1/4 to 1/3 in the paper. The
        generator has as many layers as the model.
      weight: factor on the model's own loss; 0 for the default, which is 50, as in the paper, for
        rtd and electra_15, and 1 for the other variants.
      mode_token: token in place of [CLS]: "[NLU]", "[NLG]" or "[S2S]"; "" keeps [CLS].
    """

    mask_share: float = 0.85
    random_share: float = 0.0
    variant: str = "rtd"
    generator: float = 0.25
    weight: float = 0.0
    mode_token: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        plugins.choice("variant", self.variant, VARIANTS)
        if self.mode_token:
            plugins.choice("mode_token", self.mode_token, MODES)
        if not 0.0 < self.generator <= 1.0:
            raise ValueError(
                f"generator={self.generator} is a fraction of the model's width:"
                " it must be in (0, 1]"
            )
        if self.weight < 0.0:
            raise ValueError(f"weight={self.weight} must not be negative (0: the paper's)")
        if self.label_smoothing or self.z_loss:
            raise ValueError(
                "rtd does not take label_smoothing or z_loss: its generator must stay a"
                " distribution to sample from"
            )


class Objective(_objective.SingleObjective):
    """Replaced-token detection.

    Attributes:
      is_discriminator: whether the model classifies tokens instead of predicting them.
    """

    masks = ("bidirectional",)
    scores = ("replaced",)

    def __init__(
        self, config: Config, tokenizer: Tokenizer, length: int, mask: str = "bidirectional"
    ):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        first = tokenizer.modes[config.mode_token] if config.mode_token else tokenizer.cls
        self.row_format = plugins.find("data.formats", config.format).Format(
            tokenizer, length, ends=(first, tokenizer.sep)
        )
        self.masked = _masked.MaskedTokens(
            "mlm", config, tokenizer, self.row_format, length, mask, replacement=True
        )
        self.is_discriminator = config.variant in ("rtd", "electra_15")
        weight = config.weight or (50.0 if self.is_discriminator else 1.0)
        self.terms = {"mlm": 1.0, config.variant: weight}
        self.positions = self.longest = length
        self.mode_token = config.mode_token
        self.has_masked_head = not self.is_discriminator and self.masked.has_head

    def plan(self, store: Store) -> Plan:
        """Returns the format's rows of an epoch."""
        return self.row_format.plan(store)

    def example(
        self, store: Store, plan: Plan, row: int, rng: np.random.Generator, progress: float
    ) -> Example:
        """Makes the arrays of one row.

        Returns:
          The fields of mlm.
          token_weights: float32 [T], weights of the tokens in the model's own loss.
          noise: int32 [], seed of the generator's samples in this row, their only source of
            randomness.
        """
        example = self.masked.example(store, plan, row, rng, progress)
        weights = (example["segments"] > 0).astype(np.float32)
        if self.config.variant == "electra_15":
            weights[:] = 0.0
            weights[example["target_positions"][example["weights"] > 0]] = 1.0
        return example | {
            "token_weights": weights,
            "noise": np.array(rng.integers(2**31 - 1), np.int32),
        }

    def heads(self, config: ModelConfig, scope: Scope) -> dict:
        """Returns the generator, and the discriminator's head or, for ablations, MLM's heads.

        Raises:
          UserError: the model is not a Transformer. The generator narrows a Transformer's shape.
        """
        if not isinstance(config, TransformerConfig):
            raise UserError("objective 'rtd' needs a Transformer: its generator is a narrow one")
        modules: dict = {"generator": Generator(config, scope / "generator", self.config.generator)}
        if self.is_discriminator:
            return modules | {"replaced": heads.ReplacedHead(config, scope / "replaced")}
        modules |= self.masked.heads(config, scope)
        if self.config.variant == "all_tokens_mlm":
            modules |= {"copied": heads.ReplacedHead(config, scope / "copied")}
        return modules

    def flops(self, model: ModelClass, config: ModelConfig) -> int:
        """Returns the FLOPs of a forward pass of one row, including the generator."""
        masked, T, D = self.config.budget(self.length), self.length, config.width
        assert isinstance(config, TransformerConfig)
        total = Generator.flops(config, self.config.generator, T, masked) + model.flops(config, T)
        if self.is_discriminator or self.config.variant == "all_tokens_mlm":
            total += 2 * D * D * T
        if not self.is_discriminator:
            targets = T if self.config.variant == "all_tokens_mlm" else masked
            total += flops.head(config, targets, self.masked.has_head)
        return total

    def loss(
        self, model: Model, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> tuple[Sums, Sums]:
        """Returns the loss terms of the generator and the model, and their metrics."""
        split_keys = (None, None) if dropout_keys is None else dropout_keys.split()
        logits_BPV = model.heads["generator"](model, batch, split_keys[0])
        mlm, mlm_hits = heads.classify(logits_BPV, batch["targets"], batch["weights"])
        original_BT, corrupted_BT = _read(logits_BPV, batch)
        hidden_BTD = model.states({**batch, "tokens": corrupted_BT}, split_keys[1])
        metrics: Sums = {"mlm_accuracy": mlm_hits}
        if self.config.variant == "replace_mlm":
            terms, own = self.masked.loss(model, hidden_BTD, batch)
            metrics["replace_mlm_accuracy"] = own["mlm_accuracy"]
            return {"mlm": mlm, "replace_mlm": terms["mlm"]}, metrics
        by_token = self._by_token(model, hidden_BTD, original_BT, corrupted_BT, batch)
        for name, (values_BT, weights_BT) in by_token.items():
            metrics[name] = ((values_BT * weights_BT).sum(), weights_BT.sum())
        return {"mlm": mlm, self.config.variant: metrics.pop(self.config.variant)}, metrics

    def by_row(self, model: Model, batch: Batch) -> Sums:
        """Returns loss terms of the generator and the model, and their metrics, for each row."""
        logits_BPV = model.heads["generator"](model, batch, None)
        mlm, mlm_hits = jax.vmap(heads.classify)(logits_BPV, batch["targets"], batch["weights"])
        original_BT, corrupted_BT = _read(logits_BPV, batch)
        hidden_BTD = model.states({**batch, "tokens": corrupted_BT}, None)
        rows: Sums = {"mlm": mlm, "mlm_accuracy": mlm_hits}
        if self.config.variant == "replace_mlm":
            own = self.masked.by_row(model, hidden_BTD, batch)
            return rows | {
                "replace_mlm": own["mlm"],
                "replace_mlm_accuracy": own["mlm_accuracy"],
            }
        by_token = self._by_token(model, hidden_BTD, original_BT, corrupted_BT, batch)
        for name, (values_BT, weights_BT) in by_token.items():
            rows[name] = ((values_BT * weights_BT).sum(-1), weights_BT.sum(-1))
        return rows

    def _by_token(
        self,
        model: Model,
        hidden_BTD: Float[Array, "B T D"],
        original_BT: Int[Array, "B T"],
        corrupted_BT: Int[Array, "B T"],
        batch: Batch,
    ) -> dict[str, tuple[Float[Array, "B T"], Float[Array, "B T"]]]:
        """The model's own term, named as the variant, and metrics: values and weights."""
        variant, weights_BT = self.config.variant, batch["token_weights"]
        if self.is_discriminator:
            replaced_BT = (original_BT != corrupted_BT).astype(jnp.float32)
            logits_BT = model.heads["replaced"](hidden_BTD)
            nll_BT = optax.losses.sigmoid_binary_cross_entropy(logits_BT, replaced_BT)
            hits_BT = ((logits_BT > 0) == (replaced_BT > 0)).astype(jnp.float32)
            return {
                variant: (nll_BT, weights_BT),
                f"{variant}_accuracy": (hits_BT, weights_BT),
                "replaced_share": (replaced_BT, weights_BT),
                "replaced_recall": (hits_BT, replaced_BT * weights_BT),
            }
        head = model.heads["masked"] if "masked" in model.heads else None
        hidden_BTD = hidden_BTD.astype(jnp.float32)
        logits_BTV = head(model, hidden_BTD) if head is not None else model.logits(hidden_BTD)
        gate_BT = model.heads["copied"](hidden_BTD)
        log_p_BT = _copy_or_predict(logits_BTV, gate_BT, original_BT, corrupted_BT)
        return {
            variant: (-log_p_BT, weights_BT),
            "copied_share": (jax.nn.sigmoid(gate_BT), weights_BT),
        }


def _copy_or_predict(
    logits_BTV: Float[Array, "B T V"],
    gate_BT: Float[Array, "B T"],
    targets_BT: Int[Array, "B T"],
    inputs_BT: Int[Array, "B T"],
) -> Float[Array, "B T"]:
    """log p of the targets, where p = g · [input] + (1 - g) · softmax(logits) and g = σ(gate)."""
    log_p_BTV = jax.nn.log_softmax(logits_BTV)
    log_p_BT = jnp.take_along_axis(log_p_BTV, targets_BT[..., None], axis=-1)[..., 0]
    copied_BT = jax.nn.log_sigmoid(gate_BT)
    predicted_BT = jax.nn.log_sigmoid(-gate_BT) + log_p_BT
    return jnp.where(targets_BT == inputs_BT, jnp.logaddexp(copied_BT, predicted_BT), predicted_BT)


def _read(
    logits_BPV: Float[Array, "B P V"], batch: Batch
) -> tuple[Int[Array, "B T"], Int[Array, "B T"]]:
    """The original tokens, and those that the model reads, with the generator's samples."""
    samples_BP = _sample(jax.lax.stop_gradient(logits_BPV), batch["noise"])
    tokens_BT, positions_BP = batch["tokens"], batch["target_positions"]
    original_BT = _put(tokens_BT, positions_BP, batch["targets"], batch["weights"])
    return original_BT, _put(tokens_BT, positions_BP, samples_BP, batch["weights"])


def _sample(logits_BPV: Float[Array, "B P V"], seeds_B: Int[Array, "B"]) -> Int[Array, "B P"]:
    """Draws a token for each position from softmax(logits), by Gumbel noise from the row's seed."""

    def row(logits_PV: Float[Array, "P V"], seed: Int[Array, ""]) -> Int[Array, "P"]:
        gumbel_PV = jax.random.gumbel(jax.random.key(seed), logits_PV.shape, jnp.float32)
        return (logits_PV.astype(jnp.float32) + gumbel_PV).argmax(-1).astype(jnp.int32)

    return jax.vmap(row)(logits_BPV, seeds_B)


def _put(
    tokens_BT: Int[Array, "B T"],
    positions_BP: Int[Array, "B P"],
    values_BP: Int[Array, "B P"],
    weights_BP: Float[Array, "B P"],
) -> Int[Array, "B T"]:
    """The tokens with `values` at `positions`; unused targets (weight 0) are put nowhere."""
    positions_BP = jnp.where(weights_BP > 0, positions_BP, tokens_BT.shape[1])
    return jax.vmap(lambda tokens, at, values: tokens.at[at].set(values, mode="drop"))(
        tokens_BT, positions_BP, values_BP
    )
