"""GPT-BERT's hybrid: causal and masked sequences in one decoder (Charpentier and Samuel 2024).

  python -m lm.train --config=configs/hybrid.py:tiny --workdir=runs/hybrid \\
      --config.objective.causal=1 --config.objective.masked=7

tiny: 1.2 M token positions of Python's documentation on one CPU core. At 1:1 and 0.8 M positions a
run took 1 min 16 s and reached 4.69 [4.67, 4.70] nats per next token and 4.36 [4.28, 4.45] per
masked token (experiments/objectives/all/report.md).
small, base, large: GPT-2's shapes, 100,000 steps of 512 rows of 1,024 tokens. base is 124 M
parameters and fits v5e-16 with --config.model.remat=full (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("hybrid")
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.gpt2_run(size, objective)
