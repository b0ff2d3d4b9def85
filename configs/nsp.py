"""Next-sentence prediction (NSP) alone, on an encoder: does segment B follow segment A?

  python -m lm.train --config=configs/nsp.py:tiny --workdir=runs/nsp

tiny: 1.2 M token positions of Python's documentation on one CPU core; compares the means of the two
segments. Expected: about 40 seconds of training, 71.0 % [69.4, 72.6] accuracy on held-out documents
(experiments/objectives/README.md).
small, base, large: BERT's shapes, 1,000,000 steps of 256 rows of 512 tokens. base fits v5e-16
without rematerialization (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("nsp")
    if size == "tiny":
        objective |= {"pooling": "segments"}
        return presets.laptop_run("encoder", objective, learning_rate=0.005)
    return presets.bert_run(size, objective)
