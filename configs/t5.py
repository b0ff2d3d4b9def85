"""T5: span corruption on an encoder-decoder (Raffel et al. 2020). 568 tokens become an input of 512 and a target of 114.

  python -m lm.train --config=configs/t5.py:tiny --workdir=runs/t5

On a decoder by --config.model.name=decoder. tiny: ours, for two CPU cores. small, base, large: T5's shapes.
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {
        "name": "span_corruption",
        "density": 0.15,
        "mean_span": 3.0,
        "mode_token": "",
        **presets.PACKED,
    }
    if size == "tiny":
        return presets.laptop_run("encoder_decoder", objective, learning_rate=0.03)
    return presets.t5_run(size, objective)
