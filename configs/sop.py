"""Sentence-order prediction alone (ALBERT's question).

  python -m lm.train --config=configs/sop.py:tiny --workdir=runs/sop

tiny: ours, for two CPU cores; it compares the two segments' means. small, base, large: BERT's shapes and pooling.
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {"name": "sop", "pooling": "first", "format": "segment_pair"}
    if size == "tiny":
        return presets.laptop_run(
            "encoder", objective | {"pooling": "segments"}, learning_rate=0.005
        )
    return presets.bert_run(size, objective)
