"""UL2: a mixture of seven denoisers with mode tokens, on an encoder-decoder (Tay et al. 2022).

  python -m lm.train --config=configs/ul2.py:tiny --workdir=runs/ul2

On a decoder with --config.model.name=decoder.
tiny: 1.2 M token positions of Python's documentation on one CPU core. At 0.8 M positions a run took
40 seconds and reached 5.72 [5.65, 5.79] nats per token behind sentinels
(experiments/objectives/all/report.md).
small, base, large: T5's shapes, 2^19 steps of 128 rows of 512 tokens. base is 223 M parameters
and fits v5e-16 without rematerialization (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("ul2")
    if size == "tiny":
        return presets.laptop_run("encoder_decoder", objective, learning_rate=0.03)
    return presets.t5_run(size, objective)
