"""UL2: a mixture of seven denoisers with mode tokens, on an encoder-decoder (Tay et al. 2022).

  python -m lm.train --config=configs/ul2.py:tiny --workdir=runs/ul2

On a decoder by --config.model.name=decoder. tiny: ours, for two CPU cores. small, base, large: T5's shapes.
"""

from lm import presets


def get_config(size: str = "tiny"):
    objective = {
        "name": "ul2",
        "s_share": 0.2,
        "s_rate": 0.25,
        "mode_tokens": True,
        **presets.PACKED,
    }
    if size == "tiny":
        return presets.laptop_run("encoder_decoder", objective, learning_rate=0.03)
    return presets.t5_run(size, objective)
