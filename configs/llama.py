"""Causal language modeling on a Llama-style decoder.

  python -m lm.train --config=configs/llama.py:tiny --workdir=runs/llama

Rotary positions, RMSNorm, SwiGLU, grouped-query attention, no biases.
tiny: 1.0 M token positions of Python's documentation, for a CPU.
small: SmolLM2 135M. base: Llama 3.2 1B. large: Llama 3 8B. 100,000 steps of 256 rows of 2,048
tokens. tpu/README.md lists the first slice of each TPU generation that holds base and large.
No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
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
    return presets.run(presets.llama(size), presets.objective("clm"), **sections)
