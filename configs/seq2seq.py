"""Sequence to sequence: a document's first paragraph is the input, the others are the target.

  python -m lm.train --config=configs/seq2seq.py:tiny --workdir=runs/seq2seq

With pairs of your own, as {"pair": ["source", "target"]} a line: --config.data.source=jsonl --config.data.path=pairs.jsonl
--config.data.field=pair
On a decoder by --config.model.name=decoder. tiny: ours, for two CPU cores. small, base, large: T5's shapes.
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {
        "name": "seq2seq",
        "reverse": False,
        "target_length": 0,
        **presets.PACKED,
        "packing": "best_fit",
    }
    if size == "tiny":
        return presets.laptop_run("encoder_decoder", objective, learning_rate=0.03)
    return presets.t5_run(size, objective)
