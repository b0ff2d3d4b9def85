"""Causal language modelling: predict each token from those before it (GPT-2, Radford et al. 2019).

Rows are packed; no document sees another. A document's first token is predicted from [BOS], its last predicts [EOS];
where a row cuts a document, the next row's piece starts from the token before the cut, so each token is predicted once.
"""

import dataclasses

import grain
import numpy as np

from lm.data import packing


@dataclasses.dataclass(frozen=True)
class Config:
    """No options."""


class Objective:
    models = ("decoder",)
    terms = ("clm",)
    scores = ("causal",)

    def __init__(self, config: Config, tokenizer, length: int):
        self.config, self.tokenizer, self.length = config, tokenizer, length

    def dataset(self, store, seed: int) -> grain.MapDataset:
        """One epoch of examples: tokens, targets, segments, positions int32 [T], weights float32 [T]."""
        plan = packing.pack(np.diff(store.document_offsets), self.length)
        rows = grain.MapDataset.range(len(plan)).seed(seed).shuffle()
        return rows.map(lambda row: self.example(store, plan, row))

    def example(self, store, plan: packing.Plan, row: int) -> dict[str, np.ndarray]:
        """Row `row` of the plan."""
        length = self.length
        names = ("tokens", "targets", "segments", "positions")
        example = {name: np.zeros(length, np.int32) for name in names} | {"weights": np.zeros(length, np.float32)}
        at = 0
        for segment, (document, start, stop) in enumerate(plan.pieces(row), 1):
            text = store.document(document)
            count = stop - start
            span = slice(at, at + count + 1)
            example["tokens"][at] = text[start - 1] if start else self.tokenizer.bos
            example["tokens"][at + 1 : at + count + 1] = text[start:stop]
            example["targets"][at : at + count] = text[start:stop]
            example["weights"][at : at + count] = 1.0
            if stop == len(text):
                example["targets"][at + count] = self.tokenizer.eos
                example["weights"][at + count] = 1.0
            example["segments"][span] = segment
            example["positions"][span] = np.arange(count + 1)
            at += count + packing.SPECIALS
        return example

    def heads(self, config, scope) -> dict:
        """Nothing beyond the model's vocabulary head."""
        return {}

    def head_positions(self) -> int:
        """Positions a row at which the vocabulary head runs."""
        return self.length

    def loss(self, model, batch, key):
        """Terms and metrics, each name: (sum, weight)."""
        hidden_BTD = model.hidden(batch["tokens"], segments_BT=batch["segments"], positions_BT=batch["positions"], key=key)
        nll, hits = model.embedding.cross_entropy(hidden_BTD, batch["targets"], batch["weights"])
        weight = batch["weights"].sum()
        return {"clm": (nll, weight)}, {"clm_accuracy": (hits, weight)}
