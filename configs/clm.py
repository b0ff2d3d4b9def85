"""Causal language modeling (CLM) on a decoder: predict each token from those before it.

  python -m lm.train --config=configs/clm.py:tiny --workdir=runs/clm

tiny: 1.2 M token positions of Python's documentation on one CPU core. Expected: about 1 minute,
4.14 [4.11, 4.17] nats per next token on held-out documents (experiments/objectives/README.md).
small, base, large: GPT-2's shapes, 100,000 steps of 512 rows of 1,024 tokens. base is 124 M
parameters and fits v5e-16 with --config.model.remat=full (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("clm")
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.gpt2_run(size, objective)
