"""BERT's objective: masked tokens and next-sentence prediction on the same pairs (Devlin et al. 2019); the losses add up."""

import dataclasses

import grain
import jax.numpy as jnp
import numpy as np

from lm import heads
from lm.data import masking, pairs


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of mlm and nsp together."""

    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    max_predictions: int = 0
    head: str = "transform"
    pooling: str = "first"

    def __post_init__(self):
        masking.check(self.rate, self.mask_share, self.random_share, self.max_predictions)
        if self.head not in ("transform", "plain"):
            raise ValueError(f"head={self.head!r} is not one of transform, plain")
        if self.pooling not in heads.POOLINGS:
            raise ValueError(f"pooling={self.pooling!r} is not one of {', '.join(heads.POOLINGS)}")


class Objective:
    models = ("encoder",)
    terms = ("mlm", "nsp")
    scores = ("masked", "next_sentence")

    def __init__(self, config: Config, tokenizer, length: int):
        self.config, self.tokenizer, self.length = config, tokenizer, length

    def dataset(self, store, seed: int) -> grain.MapDataset:
        """One epoch of examples: tokens, segments, positions, types int32 [T], label int32 [] (0: B follows),
        masked_positions, masked_targets int32 [P], masked_weights float32 [P]."""
        chunks = pairs.chunk(store, self.length)
        rows = grain.MapDataset.range(len(chunks)).seed(seed).shuffle()
        return rows.random_map(lambda row, rng: self.example(store, chunks, row, rng))

    def example(self, store, chunks: pairs.Chunks, row: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The pair and the masks that `rng` draws from chunk `row`."""
        pair, config = pairs.draw(store, chunks, row, self.length, rng), self.config
        example = masking.corrupt(
            pairs.lay_out(pair, self.tokenizer, self.length), self.tokenizer, rng, rate=config.rate,
            max_predictions=config.max_predictions, mask_share=config.mask_share, random_share=config.random_share,
        )  # fmt: skip
        return example | {"label": np.asarray(pair.label, np.int32)}

    def heads(self, config, scope) -> dict:
        """BERT's two heads."""
        masked = {"masked": heads.MaskedHead(config, scope / "masked")} if self.config.head == "transform" else {}
        return masked | {"pair": heads.PairHead(config, scope / "pair", self.config.pooling)}

    def head_positions(self) -> int:
        """Positions a row at which the vocabulary head runs."""
        return masking.budget(self.length, self.config.rate, self.config.max_predictions)

    def loss(self, model, batch, key):
        """Terms and metrics, each name: (sum, weight)."""
        hidden_BTD = model.hidden(
            batch["tokens"], segments_BT=batch["segments"], positions_BT=batch["positions"], types_BT=batch["types"], key=key
        )
        gathered_BPD = jnp.take_along_axis(hidden_BTD, batch["masked_positions"][..., None], axis=1)
        logits_BPV = model.heads["masked"](model, gathered_BPD) if "masked" in model.heads else model.logits(gathered_BPD)
        mlm, mlm_hits = heads.classify(logits_BPV, batch["masked_targets"], batch["masked_weights"])
        logits_B2 = model.heads["pair"](hidden_BTD, batch["segments"], batch["types"])
        nsp, nsp_hits = heads.classify(logits_B2, batch["label"], jnp.ones(len(batch["label"]), jnp.float32))
        return {"mlm": mlm, "nsp": nsp}, {"mlm_accuracy": mlm_hits, "nsp_accuracy": nsp_hits}
