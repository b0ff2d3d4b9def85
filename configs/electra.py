"""ELECTRA: a small generator fills masked positions; the model detects replaced tokens.

  python -m lm.train --config=configs/electra.py:tiny --workdir=runs/electra

Clark et al. 2020. The paper's ablations: --config.objective.variant=electra_15, replace_mlm or
all_tokens_mlm. ELECTRA-small's narrower embeddings are not implemented.
tiny: 1.2 M token positions of Python's documentation on one CPU core. At 0.8 M positions a run took
58 seconds and the linear probe reached 25.7 % [16.0, 35.4] balanced accuracy, no better than
the untrained encoder (experiments/objectives/all/report.md).
small, base, large: BERT's shapes with ELECTRA's generators (1/4, 1/3 and 1/4 of the width) and a
mask rate of 0.25 for large; 1,000,000 steps of 256 rows of 512 tokens. base fits v5e-16 without
rematerialization (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("rtd")
    if size == "tiny":
        return presets.laptop_run("encoder", objective | {"generator": 0.5}, learning_rate=0.03)
    if size == "base":
        objective["generator"] = 1 / 3
    if size == "large":
        objective["rate"] = 0.25
    return presets.bert_run(size, objective)
