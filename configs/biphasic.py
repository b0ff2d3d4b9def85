"""CLM for the first quarter of the run, MLM for the rest, one optimiser state (Gisserot-Boukhlef et al. 2025).

  python -m lm.train --config=configs/biphasic.py:tiny --workdir=runs/biphasic --config.objective.share=0.5

tiny: ours, for two CPU cores. small, base, large: GPT-2's shapes.
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {
        "name": "biphasic", "first": "clm", "second": "mlm", "share": 0.25, "first_options": {"packing": "greedy"},
        "second_options": presets.MASKED | {"head": "plain"},
    }  # fmt: skip
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.gpt2_run(size, objective)
