"""T5: span corruption on an encoder-decoder (Raffel et al. 2020).

  python -m lm.train --config=configs/t5.py:tiny --workdir=runs/t5

568 tokens of text become an input of 512 and a target of 114. On a decoder with
--config.model.name=decoder.
tiny: 1.2 M token positions of Python's documentation on one CPU core. At 0.8 M positions a run took
44 seconds and reached 5.92 [5.83, 6.01] nats per token behind sentinels
(experiments/objectives/all/report.md).
small, base, large: T5's shapes, 2^19 steps of 128 rows of 512 tokens. base is 223 M parameters
and fits v5e-16 without rematerialization (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("span_corruption")
    if size == "tiny":
        return presets.laptop_run("encoder_decoder", objective, learning_rate=0.03)
    return presets.t5_run(size, objective)
