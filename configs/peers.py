"""Causal language modeling at the shapes of another codebase's compiled train step.

  python -m benchmarks.peers        # compares the compiled steps; needs libtpu but no TPU
  python -m lm.train --config=configs/peers.py:small --workdir=runs/peers

A Llama-style decoder without grouped-query attention.
small: 12 layers of width 768, 110 M parameters. 1b (also base): 16 layers of width 2048, 1.2 B.
tiny (for a CPU) and large have no counterpart there.
Results of the comparison: tpu/README.md. No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    return presets.peers_run(size, presets.objective("clm"))
