"""Causal language model.

  python -m lm.train --config=configs/clm.py:tiny --workdir=runs/clm

tiny: ours, for two CPU cores. small, base, large: GPT-2's shapes (lm/presets.py).
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {"name": "clm", **presets.PACKED}
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.gpt2_run(size, objective)
