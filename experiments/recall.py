"""Associative recall (MQAR, Arora et al. 2023): how many layers, which positions and which objective does attention need to look up a pair?

  python -m lm.compare --config=experiments/recall.py:tiny --workdir=runs/recall

tiny: six arms × 3 seeds, each also at three learning rates for half the tokens; recall/README.md says how long they took. Expected: two
layers answer more than nine of ten queries from left to right, one layer no more than one in three of the first queries; a value of the
document picked at random is right in one of four. Later queries are easier from left to right, since no value comes twice: who leaves out
what was answered is right in 52 % of all four without any look-up, so all but the first two lines are of the first answer alone.

The document is 4 pairs of a key and a value (16 of each), then 6 slots, in 4 of which a key is asked again and its value follows. What a
lookup takes: the first layer writes each token's predecessor beside it, the second finds the place whose predecessor is the key
(induction heads, Olsson et al. 2022). One layer of attention cannot; it can at best prefer the values that the document has.

The setting was found by pilots on another corpus and another seed (data.seed=12345, seed=1001), none of which is used here. Muon at 0.01,
1.5M tokens, answers on held-out documents: two layers with rotary positions .94 (nll 0.12), of 1.2M tokens one layer .21 (nll 1.86). AdamW
at 0.003 had learnt nothing in 1.5M tokens (.11). With 8 pairs, 32 keys and noise in two of three slots, Muon at 0.03 had not after 1.2M.
A first run of this experiment judged all six by all four answers; how chance differs there was found afterwards (experiments/LOG.md).
An LSTM's arm follows once there is one. small (one GPU, or four TPU chips): 32 pairs, 96 slots, width 256. base (a slice): 128 pairs, 384
slots, width 512; both with four layers beside one and two, for which no pilot was made.
"""

from experiments import _common
from experiments._common import hypothesis
from lm import presets

TOKENS = {"tiny": 1_500_000, "small": 200_000_000, "base": 2_000_000_000}
DATA = {
    "tiny": {
        "documents": 60_000,
        "pairs": 4,
        "queries": 4,
        "slots": 6,
        "keys": 16,
        "values": 16,
        "noise": 8,
    },
    "small": {
        "documents": 400_000,
        "pairs": 32,
        "queries": 32,
        "slots": 96,
        "keys": 512,
        "values": 512,
        "noise": 64,
    },
    "base": {
        "documents": 1_000_000,
        "pairs": 128,
        "queries": 128,
        "slots": 384,
        "keys": 2048,
        "values": 2048,
        "noise": 256,
    },
}
SHAPES = {
    "tiny": {},
    "small": {"width": 256, "heads": 4, "feedforward": 1024, "scan": True, "dtype": "bfloat16"},
    "base": {"width": 512, "heads": 8, "feedforward": 2048, "scan": True, "dtype": "bfloat16"},
}
BATCH = {"tiny": 64, "small": 256, "base": 512}


def get_config(size: str = "tiny"):
    tokens = _common.sized(size, TOKENS)
    arms = {
        "rotary_1": _arm(size, "CLM, 1 layer", "rotary positions", "clm", layers=1),
        "rotary_2": _arm(size, "CLM, 2 layers", "rotary positions", "clm"),
        "learned_1": _arm(
            size, "CLM, 1 layer, learned", "learned positions", "clm", layers=1, positions="learned"
        ),
        "learned_2": _arm(
            size, "CLM, 2 layers, learned", "learned positions", "clm", positions="learned"
        ),
        "mlm_2": _arm(
            size, "MLM, 2 layers", "encoder, 15 % hidden; asked with all answers hidden", "mlm"
        ),
        "mntp_2": _arm(
            size,
            "MNTP, 2 layers",
            "decoder that sees both sides, hidden token k + 1 read off k",
            "mntp",
        ),
    }
    if size != "tiny":
        arms["rotary_4"] = _arm(size, "CLM, 4 layers", "rotary positions", "clm", layers=4)
    return _common.experiment(
        "recall", size, "What does attention need to look up which value belongs to a key: depth, kind of positions, objective?", arms,
        ("tokens", tokens), ("recall",), HYPOTHESES, reference="rotary_2",
    )  # fmt: skip


HYPOTHESES = tuple(
    hypothesis(text, arm, "recall", metric, op, value, compare)
    for text, arm, compare, metric, op, value in (
        ("Two layers look up: more than nine of ten answers are right", "rotary_2", "", "accuracy", "above", 0.9),
        ("Two layers look up with learned positions too", "learned_2", "", "accuracy", "above", 0.9),
        ("One layer does not look up: less than one of two first answers is right", "rotary_1", "", "accuracy_first", "below", 0.5),
        ("One layer does not look up with learned positions either", "learned_1", "", "accuracy_first", "below", 0.5),
        ("Two layers are right more often than one on the first answer, intervals apart", "rotary_2", "rotary_1", "accuracy_first",
         "intervals_apart_above", 0.0),
        ("MLM, with a sixth of the questions, is behind CLM at the same tokens on the first answer", "rotary_2", "mlm_2", "accuracy_first",
         "intervals_apart_above", 0.0),
    )
)  # fmt: skip


def _arm(
    size: str, label: str, describe: str, objective: str, layers: int = 2, positions: str = "rotary"
) -> dict:
    options = {
        "clm": {"name": "clm", **presets.PACKED},
        "mlm": {"name": "mlm", **presets.MASKED, "head": "plain"},
        "mntp": {"name": "mntp", **presets.MASKED, "head": "plain"},
    }
    data = DATA[size]
    run = presets.laptop_run(
        "encoder" if objective == "mlm" else "decoder", options[objective], learning_rate=0.01
    )
    run.model.update(layers=layers, positions=positions, **SHAPES[size])
    # A document, [BOS] and [EOS]: a row each.
    run.data.update(source="recall", seed=0, **data, length=2 * (data["pairs"] + data["slots"]) + 2)
    run.tokenizer.update(kind="word", sentinels=0, vocab_size=max(2048, 4 * data["keys"]))
    run.training.update(batch_size=BATCH[size], tokens=TOKENS[size], evaluate_tokens=16_384, keep=1)
    return {"label": label, "describe": describe, "series": "", "run": run}
