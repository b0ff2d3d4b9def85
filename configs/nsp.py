"""Next-sentence prediction alone.

  python -m lm.train --config=configs/nsp.py:tiny --workdir=runs/nsp

tiny: ours, for two CPU cores; it compares the two segments' means. small, base, large: BERT's shapes and pooling.
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {"name": "nsp", "pooling": "first", "format": "segment_pair"}
    if size == "tiny":
        return presets.laptop_run(
            "encoder", objective | {"pooling": "segments"}, learning_rate=0.005
        )
    return presets.bert_run(size, objective)
