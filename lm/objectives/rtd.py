"""Replaced-token detection: which tokens of this text did a small generator put there? (ELECTRA, Clark et al. 2020).

A generator, trained by MLM, fills hidden places by sampling; no gradient flows through the samples. The model, the discriminator, judges
every token: a sample that equals the original counts as original. loss = MLM + 50 · RTD. The embeddings are shared, and trained by both.
As in ELECTRA's code, places are drawn with replacement: of n draws at 15 % about 93 % fall on different places, and one that is drawn twice
counts twice for the generator.

`variant` has the ablations of the paper's section 3.4:

    rtd              ELECTRA
    electra_15       the judgement counts at the hidden places only
    replace_mlm      the model predicts the hidden tokens, reading samples instead of [MASK]
    all_tokens_mlm   the model predicts every token, with a gate that copies the input: p = g · [input] + (1 - g) · softmax
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lm.core import plugins
from lm.core.plugins import UserError
from lm.core.protocols import Model
from lm.nn import flops, heads
from lm.nn.config import ModelConfig, TransformerConfig
from lm.nn.generator import Generator
from lm.objectives import _masked
from lm.tokenizers.sentencepiece import MODES

VARIANTS = ("rtd", "electra_15", "replace_mlm", "all_tokens_mlm")


@dataclasses.dataclass(frozen=True)
class Config(_masked.Config):
    """Options of masking and format (lm/objectives/_masked.py); by default, as in ELECTRA's code, 85 % of the hidden places become [MASK].

    Attributes:
      variant: see above. generator: its width as a share of the model's, 1/4 to 1/3 in the paper; it has all the layers.
      weight: factor on the model's own loss, 50 for a judgement; 0 takes 50 for the first two variants and 1 for the others.
      mode_token: "[NLU]", "[NLG]" or "[S2S]" to stand where [CLS] does; "" for [CLS].
    """

    mask_share: float = 0.85
    random_share: float = 0.0
    variant: str = "rtd"
    generator: float = 0.25
    weight: float = 0.0
    mode_token: str = ""

    def __post_init__(self):
        super().__post_init__()
        plugins.choice("variant", self.variant, VARIANTS)
        if self.mode_token:
            plugins.choice("mode_token", self.mode_token, MODES)
        if not 0.0 < self.generator <= 1.0:
            raise ValueError(
                f"generator={self.generator} must be a share of the model's width, above 0 and up to 1"
            )
        if self.weight < 0.0:
            raise ValueError(f"weight={self.weight} must not be negative (0: the paper's)")
        if self.label_smoothing or self.z_loss:
            raise ValueError(
                "label_smoothing and z_loss are not for rtd: its generator must stay a probability to sample from"
            )


class Objective:
    masks = ("bidirectional",)
    composed = False
    scores = ("replaced",)
    standard = False

    def __init__(self, config: Config, tokenizer, length: int, mask: str = "bidirectional"):
        self.config, self.tokenizer, self.length, self.mask = config, tokenizer, length, mask
        first = tokenizer.modes[config.mode_token] if config.mode_token else tokenizer.cls
        self.form = plugins.find("data.formats", config.format).Format(
            tokenizer, length, ends=(first, tokenizer.sep)
        )
        self.masked = _masked.Masked(
            "mlm", config, tokenizer, self.form, length, mask, replacement=True
        )
        self.judges = config.variant in ("rtd", "electra_15")
        self.terms = {"mlm": 1.0, config.variant: config.weight or (50.0 if self.judges else 1.0)}
        self.positions = length

    def plan(self, store):
        """The format's rows."""
        return self.form.plan(store)

    def example(
        self, store, plan, row: int, rng: np.random.Generator, progress: float
    ) -> dict[str, np.ndarray]:
        """Fields of mlm; token_weights float32 [T], what the judgement of each token counts; `noise` int32 []: the seed of the generator's
        samples in this row, so that they depend on nothing else."""
        example = self.masked.example(store, plan, row, rng, progress)
        weights = (example["segments"] > 0).astype(np.float32)
        if self.config.variant == "electra_15":
            weights[:] = 0.0
            weights[example["target_positions"][example["weights"] > 0]] = 1.0
        return example | {
            "token_weights": weights,
            "noise": np.array(rng.integers(2**31 - 1), np.int32),
        }

    def heads(self, config, scope) -> dict:
        """The generator, and the discriminator's head or, for the ablations, a masked-language head.

        Raises:
          UserError: the model is no Transformer, of which the generator could be a narrow one.
        """
        if not isinstance(config, TransformerConfig):
            raise UserError("objective 'rtd' needs a Transformer: its generator is a narrow one")
        made = {"generator": Generator(config, scope / "generator", self.config.generator)}
        if self.judges:
            return made | {"replaced": heads.ReplacedHead(config, scope / "replaced")}
        made |= self.masked.heads(config, scope)
        return made | (
            {"copied": heads.ReplacedHead(config, scope / "copied")}
            if self.config.variant == "all_tokens_mlm"
            else {}
        )

    def flops(self, model: type[Model], config: ModelConfig) -> int:
        """Operations of a forward pass of one row, generator included."""
        places, T, D = self.config.budget(self.length), self.length, config.width
        assert isinstance(config, TransformerConfig)
        total = Generator.flops(config, self.config.generator, T, places) + model.flops(config, T)
        if self.judges or self.config.variant == "all_tokens_mlm":
            total += 2 * D * D * T
        if not self.judges:
            total += flops.head(
                config,
                T if self.config.variant == "all_tokens_mlm" else places,
                self.config.head == "transform",
            )
        return total

    def loss(self, model, batch, dropout_keys):
        """Terms and metrics, each name: (sum, weight)."""
        split_keys = (None, None) if dropout_keys is None else dropout_keys.split()
        generator = model.heads["generator"]
        logits_BPV = generator(model, batch, split_keys[0])
        mlm, mlm_hits = heads.classify(logits_BPV, batch["targets"], batch["weights"])
        samples_BP = _sample(jax.lax.stop_gradient(logits_BPV), batch["noise"])
        original_BT = _put(
            batch["tokens"], batch["target_positions"], batch["targets"], batch["weights"]
        )
        corrupted_BT = _put(
            batch["tokens"], batch["target_positions"], samples_BP, batch["weights"]
        )
        hidden_BTD = model.states({**batch, "tokens": corrupted_BT}, split_keys[1])
        own, metrics = self._own(model, hidden_BTD, original_BT, corrupted_BT, batch)
        return {"mlm": mlm, self.config.variant: own}, {"mlm_accuracy": mlm_hits} | metrics

    def _own(self, model, hidden_BTD, original_BT, corrupted_BT, batch):
        """The model's own loss, and metrics."""
        variant, weights_BT = self.config.variant, batch["token_weights"]
        weight = weights_BT.sum()
        if self.judges:
            replaced_BT = (original_BT != corrupted_BT).astype(jnp.float32)
            scores_BT = model.heads["replaced"](hidden_BTD)
            nll_BT = optax.losses.sigmoid_binary_cross_entropy(scores_BT, replaced_BT)
            hits_BT = ((scores_BT > 0) == (replaced_BT > 0)).astype(jnp.float32)
            found = replaced_BT * weights_BT
            metrics = {
                f"{variant}_accuracy": ((hits_BT * weights_BT).sum(), weight),
                "replaced_share": (found.sum(), weight),
            }
            return ((nll_BT * weights_BT).sum(), weight), metrics | {
                "replaced_recall": ((hits_BT * found).sum(), found.sum())
            }
        if variant == "replace_mlm":
            terms, metrics = self.masked.measured(model, hidden_BTD, batch)
            return terms["mlm"], {f"{variant}_accuracy": metrics["mlm_accuracy"]}
        head = model.heads["masked"] if "masked" in model.heads else None
        hidden_BTD = hidden_BTD.astype(jnp.float32)
        logits_BTV = head(model, hidden_BTD) if head is not None else model.logits(hidden_BTD)
        log_p_BTV = jax.nn.log_softmax(logits_BTV)
        log_p_BT = jnp.take_along_axis(log_p_BTV, original_BT[..., None], axis=-1)[..., 0]
        gate_BT = model.heads["copied"](hidden_BTD)
        copied, invented = jax.nn.log_sigmoid(gate_BT), jax.nn.log_sigmoid(-gate_BT) + log_p_BT
        log_p_BT = jnp.where(original_BT == corrupted_BT, jnp.logaddexp(copied, invented), invented)
        return (-(log_p_BT * weights_BT).sum(), weight), {
            "copied_share": ((jax.nn.sigmoid(gate_BT) * weights_BT).sum(), weight)
        }


def _sample(logits_BPV, seeds_B):
    """A token for each place from softmax(logits), by Gumbel noise from the row's own seed: [B, P]."""

    def row(logits_PV, seed):
        noise_PV = jax.random.gumbel(jax.random.key(seed), logits_PV.shape, jnp.float32)
        return (logits_PV.astype(jnp.float32) + noise_PV).argmax(-1).astype(jnp.int32)

    return jax.vmap(row)(logits_BPV, seeds_B)


def _put(tokens_BT, positions_BP, values_BP, weights_BP):
    """The tokens with `values` at `positions`; filling (weight 0) is put nowhere."""
    positions_BP = jnp.where(weights_BP > 0, positions_BP, tokens_BT.shape[1])
    return jax.vmap(lambda tokens, at, values: tokens.at[at].set(values, mode="drop"))(
        tokens_BT, positions_BP, values_BP
    )
