"""Causal language model on a Llama-style decoder: rotary positions, RMS norms, SwiGLU, grouped queries.

  python -m lm.train --config=configs/llama.py:tiny --workdir=runs/llama

tiny: ours, for a CPU. small: SmolLM2 135M. base: Llama 3.2 1B. large: Llama 3 8B (lm/presets.py).
"""

from lm import presets


def get_config(size: str = "tiny"):
    sections: dict = {"optimizer": {"learning_rate": 3e-3}, "training": {"tokens": 1_000_000}}
    if size != "tiny":
        sections = {
            "data": {"length": 2048},
            "tokenizer": {"kind": "bpe", "vocab_size": 32768},
            "optimizer": {
                "learning_rate": 6e-4,
                "b2": 0.95,
                "weight_decay": 0.1,
                "warmup": 0.01,
                "final": 0.1,
            },
            "training": {"batch_size": 256, "steps": 100_000},
        }
    return presets.run(presets.llama(size), {"name": "clm", **presets.PACKED}, **sections)
