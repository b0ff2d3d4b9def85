"""GPT-BERT: causal and masked sequences in one model, in a ratio (Charpentier and Samuel 2024).

  python -m lm.train --config=configs/hybrid.py:tiny --workdir=runs/hybrid --config.objective.causal=1 --config.objective.masked=7

tiny: ours, for two CPU cores. small, base, large: GPT-2's shapes.
"""

from lm import presets


def get_config(size: str = "tiny"):
    masked = presets.MASKED | {
        "rate": 0.3,
        "final_rate": 0.15,
        "unit": "token_span",
        "span_p": 0.0,
        "span_most": 3,
    }
    masked = {name: value for name, value in masked.items() if name not in ("head", "format")}
    objective = {"name": "hybrid", **masked, "causal": 1.0, "masked": 1.0, "packing": "greedy"}
    if size == "tiny":
        return presets.laptop_run("decoder", objective, learning_rate=0.03)
    return presets.gpt2_run(size, objective)
