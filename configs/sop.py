"""Sentence-order prediction (SOP) alone, on an encoder: are two segments in the original order?

  python -m lm.train --config=configs/sop.py:tiny --workdir=runs/sop

tiny: 1.2 M token positions of Python's documentation on one CPU core; compares the means of the two
segments. At 0.8 M positions a run took 26 seconds and reached 55.6 % [51.5, 59.7] accuracy
(experiments/objectives/all/report.md).
Rows of 512 tokens do better (experiments/nsp_sop/README.md).
small, base, large: BERT's shapes, 1,000,000 steps of 256 rows of 512 tokens. base fits v5e-16
without rematerialization (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("sop")
    if size == "tiny":
        objective |= {"pooling": "segments"}
        return presets.laptop_run("encoder", objective, learning_rate=0.005)
    return presets.bert_run(size, objective)
