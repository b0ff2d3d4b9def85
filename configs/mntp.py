"""Masked next-token prediction (MNTP, BehnamGhader et al. 2024): MLM with a decoder's head.

  python -m lm.train --config=configs/mntp.py:tiny --workdir=runs/mntp

The decoder attends in both directions and predicts masked token k + 1 from position k.
tiny: 1.2 M token positions of Python's documentation on one CPU core. At 0.8 M positions a run took
39 seconds and reached 4.20 [4.12, 4.29] nats per masked token
(experiments/objectives/all/report.md).
small, base, large: GPT-2's shapes, 100,000 steps of 512 rows of 1,024 tokens. base is 124 M
parameters and fits v5e-16 with --config.model.remat=full (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("mntp", head="plain")
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.gpt2_run(size, objective)
