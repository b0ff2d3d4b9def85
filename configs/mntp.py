"""Masked next-token prediction: an encoder's task on a decoder, whose vocabulary head keeps its meaning (BehnamGhader et al. 2024).

  python -m lm.train --config=configs/mntp.py:tiny --workdir=runs/mntp

tiny: ours, for two CPU cores. small, base, large: GPT-2's shapes.
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {"name": "mntp", **presets.MASKED, "head": "plain"}
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.gpt2_run(size, objective)
