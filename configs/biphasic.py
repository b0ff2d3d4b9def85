"""CLM for the first quarter of the run, then MLM, with one optimizer state.

  python -m lm.train --config=configs/biphasic.py:tiny --workdir=runs/biphasic \\
      --config.objective.share=0.5

Gisserot-Boukhlef et al. 2025. `share` is the fraction of the run in the first phase.
tiny: 1.2 M token positions of Python's documentation on one CPU core. At 0.8 M positions a run took
40 seconds and reached 3.97 [3.97, 3.98] nats per masked token
(experiments/objectives/all/report.md).
small, base, large: GPT-2's shapes, 100,000 steps of 512 rows of 1,024 tokens. base is 124 M
parameters and fits v5e-16 with --config.model.remat=full (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective(
        "biphasic",
        first_options={"packing": "greedy"},
        second_options=presets.masking(head="plain"),
    )
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.gpt2_run(size, objective)
