"""Causal language model.

  python -m lm.train --config=configs/clm.py:tiny --workdir=runs/clm

tiny: ours, for two CPU cores. small, base, large: GPT-2's shapes (lm/presets.py).
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {"name": "clm"}
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.run(
        presets.gpt2(size), objective, data={"length": 1024}, tokenizer={"kind": "bpe", "vocab_size": 50257},
        optimizer={"learning_rate": 6e-4, "b2": 0.95, "weight_decay": 0.1, "warmup": 0.01, "final": 0.1},
        training={"batch_size": 512, "steps": 100_000},
    )  # fmt: skip
