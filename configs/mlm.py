"""Masked language model.

  python -m lm.train --config=configs/mlm.py:tiny --workdir=runs/mlm

tiny: ours, for two CPU cores. small, base, large: BERT's shapes (base has BERT-base's parameters exactly: 109,514,298).
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {"name": "mlm", "question": "next", **presets.MASKED}
    if size == "tiny":
        return presets.laptop_run("encoder", objective | {"head": "plain"}, learning_rate=0.03)
    return presets.bert_run(size, objective)
