"""Does next-sentence prediction teach sentence order, and does sentence order teach next sentence?

  python -m lm.compare --config=experiments/nsp_sop.py:tiny --workdir=runs/nsp_sop

ALBERT's table 5 (Lan et al. 2020).

tiny: NSP, SOP and MLM + SOP × 3 seeds, 2 CPU cores, 17 minutes; results in nsp_sop/README.md. Rows
have 512 tokens: 128 tokens hardly show the order of two segments (experiments/LOG.md).
small (one GPU, or four TPU chips) and base (a slice): experiments/_common.py; not run yet.
"""

from ml_collections import ConfigDict

from experiments import _common
from experiments._common import hypothesis

TOKENS = {"tiny": 3_000_000, "small": 500_000_000, "base": 10_000_000_000}


def get_config(size: str = "tiny") -> ConfigDict:
    tokens = _common.at_size(size, TOKENS)
    arms = {
        "nsp": _common.arm("nsp", size, "NSP", "does segment B follow segment A?"),
        "sop": _common.arm("sop", size, "SOP", "are two consecutive segments in their order?"),
        "mlm_sop": _common.arm("albert", size, "MLM + SOP", "ALBERT's sum of both losses"),
    }
    if size == "tiny":
        for arm in arms.values():
            arm["run"].data.length = 512
            arm["run"].training.update(batch_size=4, evaluate_tokens=65_536)
    return _common.experiment(
        "nsp_sop",
        size,
        "Does next-sentence prediction teach sentence order, and does sentence-order prediction"
        " teach next sentence?",
        arms,
        ("tokens", tokens),
        ("next_sentence", "sentence_order", "probe"),
        HYPOTHESES,
        reference="nsp",
        tuned=size != "tiny",
    )


HYPOTHESES = (
    hypothesis(
        "NSP reaches 75 % on next sentence", "nsp", "next_sentence", "accuracy", "above", 0.75
    ),
    hypothesis(
        "NSP stays above 45 % on sentence order", "nsp", "sentence_order", "accuracy", "above", 0.45
    ),
    hypothesis(
        "NSP stays below 55 % on sentence order", "nsp", "sentence_order", "accuracy", "below", 0.55
    ),
    hypothesis(
        "SOP reaches 80 % on sentence order", "sop", "sentence_order", "accuracy", "above", 0.8
    ),
    hypothesis(
        "SOP is above chance level on sentence order",
        "sop",
        "sentence_order",
        "accuracy",
        "above",
        0.5,
    ),
    hypothesis(
        "MLM + SOP is above chance level on sentence order",
        "mlm_sop",
        "sentence_order",
        "accuracy",
        "above",
        0.5,
    ),
)
