"""Prefix language model: the first part of a text is seen as a whole, the rest is written (Raffel et al. 2020).

  python -m lm.train --config=configs/prefix_lm.py:tiny --workdir=runs/prefix_lm

On an encoder-decoder; on a decoder by --config.model.name=decoder. tiny: ours, for two CPU cores. small, base, large: T5's shapes.
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {"name": "prefix_lm", "split": 0.0, **presets.PACKED}
    if size == "tiny":
        return presets.laptop_run("encoder_decoder", objective, learning_rate=0.03)
    return presets.t5_run(size, objective)
