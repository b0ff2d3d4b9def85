"""A mixture of objectives by weight: each sequence is drawn for one of them. Here causal and masked next-token prediction, half and half.

  python -m lm.train --config=configs/mixture.py:tiny --workdir=runs/mixture --config.objective.members.clm.weight=3.0

tiny: ours, for two CPU cores. small, base, large: GPT-2's shapes. For other members, edit the mapping: any objectives that suit one model.
"""

from lm import presets


def get_config(size: str = "tiny"):
    masked = presets.MASKED | {"head": "plain"}
    members = {"clm": {"weight": 1.0, "packing": "greedy"}, "mntp": {"weight": 1.0, **masked}}
    objective = {"name": "mixture", "members": members, **presets.LOSS}
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.gpt2_run(size, objective)
