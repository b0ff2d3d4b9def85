"""How few sequences of the other objective does one model need to work in both modes?

  python -m lm.compare --config=experiments/hybrid_ratio.py:tiny --workdir=runs/hybrid_ratio

Sequences from all causal to all masked (GPT-BERT, Charpentier and Samuel 2024).

tiny: seven arms × 3 seeds, 2 CPU cores, 19 minutes; results in hybrid_ratio/README.md.
small (one GPU, or four TPU chips) and base (a slice): experiments/_common.py; not run yet.
Published, BLiMP after 10 M words: causal only 74.6, 1:7 84.8, masked only 84.3; one sequence in
sixteen is enough for the other mode.
"""

from ml_collections import ConfigDict

from experiments import _common
from experiments._common import hypothesis

TOKENS = {"tiny": 900_000, "small": 500_000_000, "base": 10_000_000_000}
RATIOS = ((1, 0), (15, 1), (7, 1), (1, 1), (1, 7), (1, 15), (0, 1))


def get_config(size: str = "tiny") -> ConfigDict:
    tokens = _common.at_size(size, TOKENS)
    arms = {
        f"c{causal}_m{masked}": _common.arm(
            "hybrid",
            size,
            f"{causal}:{masked}",
            f"{causal} causal to {masked} masked sequences",
            causal=1.0 * causal,
            masked=1.0 * masked,
        )
        for causal, masked in RATIOS
    }
    return _common.experiment(
        "hybrid_ratio",
        size,
        "How few sequences of the other objective does one model need to work in both modes?",
        arms,
        ("tokens", tokens),
        ("causal", "masked", "last_word", "classification", "probe"),
        HYPOTHESES,
        reference="c1_m1",
    )


HYPOTHESES = (
    # An arm is not evaluated in a mode that it was never trained in, so the other mode is compared
    # with the unigram baseline.
    hypothesis(
        "One masked sequence in sixteen enables masked prediction: below the unigram baseline",
        "c15_m1",
        "masked",
        "ce",
        "ratio_below",
        1.0,
        "unigram",
    ),
    hypothesis(
        "One causal sequence in sixteen enables causal prediction: below the unigram baseline",
        "c1_m15",
        "causal",
        "nll",
        "ratio_below",
        1.0,
        "unigram",
    ),
    hypothesis(
        "One masked sequence in sixteen costs causal prediction little: at most .1 nats per token",
        "c15_m1",
        "causal",
        "nll",
        "below",
        0.1,
        "c1_m0",
    ),
    hypothesis(
        "1:1 classifies no worse than causal sequences alone: at most 2 points less",
        "c1_m1",
        "classification",
        "accuracy",
        "above",
        -0.02,
        "c1_m0",
    ),
)
