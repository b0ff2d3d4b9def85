"""Prefix language modeling: read the first part of a text, predict the rest.

  python -m lm.train --config=configs/prefix_lm.py:tiny --workdir=runs/prefix_lm

Raffel et al. 2020. Runs on an encoder-decoder; on a decoder with --config.model.name=decoder.
tiny: 1.2 M token positions of Python's documentation on one CPU core. At 0.8 M positions a run took
1 min 03 s and reached 4.84 [4.77, 4.91] nats per token of the second half of a text
(experiments/objectives/all/report.md).
small, base, large: T5's shapes, 2^19 steps of 128 rows of 512 tokens. base is 223 M parameters
and fits v5e-16 without rematerialization (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("prefix_lm")
    if size == "tiny":
        return presets.laptop_run("encoder_decoder", objective, learning_rate=0.03)
    return presets.t5_run(size, objective)
