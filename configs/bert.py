"""BERT: masked language model and next-sentence prediction on the same pairs (Devlin et al. 2019).

  python -m lm.train --config=configs/bert.py:tiny --workdir=runs/bert

tiny: ours, for two CPU cores. small, base, large: BERT's shapes (base has BertForPreTraining's parameters: 110,106,428).
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {"name": "mlm_nsp", **presets.MASKED, "pooling": "first", "format": "segment_pair"}
    if size == "tiny":
        return presets.laptop_run(
            "encoder", objective | {"head": "plain", "pooling": "segments"}, learning_rate=0.01
        )
    return presets.bert_run(size, objective)
