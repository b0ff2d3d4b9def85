"""Next-sentence prediction: does segment B follow segment A? (BERT, Devlin et al. 2019; lm/data/pairs.py has the data)."""

import dataclasses

import grain
import jax.numpy as jnp
import numpy as np

from lm import heads
from lm.data import pairs


@dataclasses.dataclass(frozen=True)
class Config:
    """What the pair is judged by: "first" token (BERT), "mean" of all, or both "segments" compared (lm.heads.PairHead)."""

    pooling: str = "first"

    def __post_init__(self):
        if self.pooling not in heads.POOLINGS:
            raise ValueError(f"pooling={self.pooling!r} is not one of {', '.join(heads.POOLINGS)}")


class Objective:
    models = ("encoder",)
    terms = ("nsp",)
    scores = ("next_sentence",)

    def __init__(self, config: Config, tokenizer, length: int):
        self.config, self.tokenizer, self.length = config, tokenizer, length

    def dataset(self, store, seed: int) -> grain.MapDataset:
        """One epoch of examples: tokens, segments, positions, types int32 [T], label int32 [] (0: B follows)."""
        chunks = pairs.chunk(store, self.length)
        rows = grain.MapDataset.range(len(chunks)).seed(seed).shuffle()
        return rows.random_map(lambda row, rng: self.example(store, chunks, row, rng))

    def example(self, store, chunks: pairs.Chunks, row: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The pair that `rng` draws from chunk `row`."""
        pair = pairs.draw(store, chunks, row, self.length, rng)
        return pairs.lay_out(pair, self.tokenizer, self.length) | {"label": np.asarray(pair.label, np.int32)}

    def heads(self, config, scope) -> dict:
        """The pair classifier."""
        return {"pair": heads.PairHead(config, scope / "pair", self.config.pooling)}

    def head_positions(self) -> int:
        """The vocabulary head never runs."""
        return 0

    def loss(self, model, batch, key):
        """Terms and metrics, each name: (sum, weight)."""
        hidden_BTD = model.hidden(
            batch["tokens"], segments_BT=batch["segments"], positions_BT=batch["positions"], types_BT=batch["types"], key=key
        )
        logits_B2 = model.heads["pair"](hidden_BTD, batch["segments"], batch["types"])
        nll, hits = heads.classify(logits_B2, batch["label"], jnp.ones(len(batch["label"]), jnp.float32))
        return {"nsp": nll}, {"nsp_accuracy": hits}
