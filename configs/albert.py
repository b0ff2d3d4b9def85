"""ALBERT's objective: masked language model and sentence-order prediction on the same pairs (Lan et al. 2020); no shared layers.

  python -m lm.train --config=configs/albert.py:tiny --workdir=runs/albert

tiny: ours, for two CPU cores. small, base, large: BERT's shapes.
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {"name": "mlm_sop", **presets.MASKED, "pooling": "first", "format": "segment_pair"}
    if size == "tiny":
        return presets.laptop_run(
            "encoder", objective | {"head": "plain", "pooling": "segments"}, learning_rate=0.01
        )
    return presets.bert_run(size, objective)
