"""ELECTRA: a generator fills hidden places, the model finds what it put there (Clark et al. 2020).

  python -m lm.train --config=configs/electra.py:tiny --workdir=runs/electra

tiny: ours, for two CPU cores. small, base, large: BERT's shapes with ELECTRA's generators, 1/4, 1/3 and 1/4 of the width,
and a mask rate of 0.25 for large. ELECTRA-small's narrower embeddings are not there. The paper's ablations:
--config.objective.variant=electra_15, replace_mlm or all_tokens_mlm.
"""

from lm import presets


def get_config(size: str = "tiny"):
    masked = presets.MASKED | {"mask_share": 0.85, "random_share": 0.0}
    objective = {
        "name": "rtd",
        **masked,
        "variant": "rtd",
        "generator": 0.25,
        "weight": 0.0,
        "mode_token": "",
    }
    if size == "tiny":
        return presets.laptop_run("encoder", objective | {"generator": 0.5}, learning_rate=0.03)
    if size == "base":
        objective["generator"] = 1 / 3
    if size == "large":
        objective["rate"] = 0.25
    return presets.bert_run(size, objective)
