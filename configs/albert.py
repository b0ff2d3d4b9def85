"""ALBERT's objective: MLM and sentence-order prediction on the same pairs (Lan et al. 2020).

  python -m lm.train --config=configs/albert.py:tiny --workdir=runs/albert

ALBERT's sharing of parameters between layers is not implemented.
tiny: 1.2 M token positions of Python's documentation on one CPU core. At 0.8 M positions a run took
39 seconds and reached 5.45 [5.27, 5.62] nats per masked token and 55.4 % [52.8, 58.0] accuracy on
sentence order (experiments/objectives/all/report.md).
small, base, large: BERT's shapes, 1,000,000 steps of 256 rows of 512 tokens. base fits v5e-16
without rematerialization (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("mlm_sop")
    if size == "tiny":
        objective |= {"head": "plain", "pooling": "segments"}
        return presets.laptop_run("encoder", objective, learning_rate=0.01)
    return presets.bert_run(size, objective)
