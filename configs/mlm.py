"""Masked language modeling (MLM) on an encoder: predict the masked 15 % of the tokens.

  python -m lm.train --config=configs/mlm.py:tiny --workdir=runs/mlm

tiny: 1.2 M token positions of Python's documentation on one CPU core. Expected: about 45 seconds,
4.15 [3.69, 4.60] nats per masked token on held-out documents (experiments/objectives/README.md).
small, base, large: BERT's shapes, 1,000,000 steps of 256 rows of 512 tokens. base fits v5e-16
without rematerialization (tpu/README.md). No result yet.
base has exactly BERT-base's parameters: 109,514,298.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("mlm")
    if size == "tiny":
        return presets.laptop_run("encoder", objective | {"head": "plain"}, learning_rate=0.03)
    return presets.bert_run(size, objective)
