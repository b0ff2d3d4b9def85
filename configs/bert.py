"""BERT's objective: MLM and next-sentence prediction on the same pairs (Devlin et al. 2019).

  python -m lm.train --config=configs/bert.py:tiny --workdir=runs/bert

tiny: 1.2 M token positions of Python's documentation on one CPU core. Expected: about 45 seconds,
5.07 [4.99, 5.14] nats per masked token and 67.2 % [63.6, 70.7] accuracy on next sentence, on
held-out documents (experiments/objectives/README.md).
small, base, large: BERT's shapes, 1,000,000 steps of 256 rows of 512 tokens. base fits v5e-16
without rematerialization (tpu/README.md). No result yet.
base has exactly the parameters of BertForPreTraining: 110,106,428.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("mlm_nsp")
    if size == "tiny":
        objective |= {"head": "plain", "pooling": "segments"}
        return presets.laptop_run("encoder", objective, learning_rate=0.01)
    return presets.bert_run(size, objective)
