"""A weighted mixture of objectives, one drawn for each sequence. Here CLM and MNTP.

  python -m lm.train --config=configs/mixture.py:tiny --workdir=runs/mixture \\
      --config.objective.members.clm.weight=3.0

For other members edit the mapping: any objectives that run on one model.
tiny: 1.2 M token positions of Python's documentation on one CPU core. At equal weights and 0.8 M
positions a run took 44 seconds and reached 4.735 [4.729, 4.742] nats per next token and
4.21 [4.17, 4.26] per masked token (experiments/objectives/all/report.md).
small, base, large: GPT-2's shapes, 100,000 steps of 512 rows of 1,024 tokens. base is 124 M
parameters and fits v5e-16 with --config.model.remat=full (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    members = {
        "clm": {"weight": 1.0, "packing": "greedy"},
        "mntp": {"weight": 1.0, **presets.masking(head="plain")},
    }
    objective = presets.objective("mixture", members=members)
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.gpt2_run(size, objective)
