"""Causal language model at the shapes at which other codebases' train steps were compiled (benchmarks/peers.py).

  python -m benchmarks.peers                                           # our step beside theirs, by the TPU compiler; needs no TPU
  python -m lm.train --config=configs/peers.py:small --workdir=runs/peers

small: 12 layers of width 768, 110M parameters. 1b (also base): 16 layers of width 2048, 1.2B. tiny and large are ours.
"""

from lm import presets


def get_config(size: str = "tiny"):
    return presets.peers_run(size, {"name": "clm", **presets.PACKED})
