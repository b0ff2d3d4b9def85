"""Sequence to sequence: predict a document's other paragraphs from its first.

  python -m lm.train --config=configs/seq2seq.py:tiny --workdir=runs/seq2seq

With your own pairs, one {"pair": ["source", "target"]} per line, add
--config.data.source=jsonl --config.data.path=pairs.jsonl --config.data.field=pair
Runs on an encoder-decoder; on a decoder with --config.model.name=decoder.
tiny: 1.2 M token positions of Python's documentation on one CPU core. At 0.8 M positions a run took
53 seconds and the linear probe reached 37.5 % [34.3, 40.8] balanced accuracy
(experiments/objectives/all/report.md).
small, base, large: T5's shapes, 2^19 steps of 128 rows of 512 tokens. base is 223 M parameters
and fits v5e-16 without rematerialization (tpu/README.md). No result yet.
"""

from ml_collections import ConfigDict

from lm import presets


def get_config(size: str = "tiny") -> ConfigDict:
    objective = presets.objective("seq2seq")
    if size == "tiny":
        return presets.laptop_run("encoder_decoder", objective, learning_rate=0.03)
    return presets.t5_run(size, objective)
