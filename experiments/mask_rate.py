"""Should one mask 15 %? Mask rates from 15 to 80 %, with BERT's 80/10/10 and with [MASK] only.

  python -m lm.compare --config=experiments/mask_rate.py:tiny --workdir=runs/mask_rate

Wettig et al. 2023. Every arm is evaluated on the same masked 15 % of the tokens in two ways:
`masked` uses 80/10/10, and `masked_pure` uses [MASK] only, the input that arms trained with [MASK]
only have seen.

tiny: eight arms × 3 seeds, 2 CPU cores, 15 minutes; results in mask_rate/README.md.
small (one GPU, or four TPU chips) and base (a slice): experiments/_common.py; not run yet.
Published, MNLI with BERT-large: 15 % 84.2, 40 % 84.5, 80 % 80.8; [MASK] only is at least as good as
80/10/10.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments import _common
from experiments._common import hypothesis

TOKENS = {"tiny": 800_000, "small": 500_000_000, "base": 10_000_000_000}
RATES = (15, 30, 40, 80)
TASKS: dict[str, dict[str, Any]] = {
    "masked": {},
    "masked_pure": {"task": "masked", "mask_share": 1.0, "random_share": 0.0},
    "classification": {},
    "probe": {},
}


def get_config(size: str = "tiny") -> ConfigDict:
    tokens = _common.at_size(size, TOKENS)
    arms = {}
    for rate in RATES:
        arms[f"mlm_{rate}"] = _common.arm(
            "mlm", size, f"{rate} %", f"{rate} % masked, 80/10/10", rate=rate / 100
        )
        arms[f"pure_{rate}"] = _common.arm(
            "mlm",
            size,
            f"{rate} % pure",
            f"{rate} % masked, [MASK] only",
            rate=rate / 100,
            mask_share=1.0,
            random_share=0.0,
        )
    return _common.experiment(
        "mask_rate",
        size,
        "How many tokens should a masked language model mask, and should [MASK] replace them all?",
        arms,
        ("tokens", tokens),
        TASKS,
        HYPOTHESES,
        reference="mlm_15",
    )


HYPOTHESES = (
    hypothesis(
        "40 % is no worse than 15 %: at most 2 points less on classification",
        "mlm_40",
        "classification",
        "accuracy",
        "above",
        -0.02,
        "mlm_15",
    ),
    hypothesis(
        "80 % is worse than 15 % on classification",
        "mlm_80",
        "classification",
        "accuracy",
        "below",
        0.0,
        "mlm_15",
    ),
    hypothesis(
        "At 40 %, [MASK] only is no worse than 80/10/10: at most 2 points less on classification",
        "pure_40",
        "classification",
        "accuracy",
        "above",
        -0.02,
        "mlm_40",
    ),
    hypothesis(
        "At 40 %, training with [MASK] only predicts [MASK] tokens better than 80/10/10",
        "pure_40",
        "masked_pure",
        "ce",
        "below",
        0.0,
        "mlm_40",
    ),
    hypothesis(
        "40 % learns faster than 15 % at a small budget: lower cross-entropy on the same masked"
        " tokens",
        "mlm_40",
        "masked",
        "ce",
        "below",
        0.0,
        "mlm_15",
    ),
)
