"""How much of the other objective unlocks the other mode? Sequences from all causal to all masked (Charpentier and Samuel 2024).

  python -m lm.compare --config=experiments/hybrid_ratio.py:tiny --workdir=runs/hybrid_ratio

tiny: seven arms × 3 seeds, for 2 CPU cores; hybrid_ratio/README.md says how long they took. small and base: experiments/_common.py.
Published, BLiMP after 10 M words: causal only 74.6, 1:7 84.8, masked only 84.3; one part in sixteen is enough for the other mode.
"""

from experiments import _common
from experiments._common import hypothesis

TOKENS = {"tiny": 900_000, "small": 500_000_000, "base": 10_000_000_000}
RATIOS = ((1, 0), (15, 1), (7, 1), (1, 1), (1, 7), (1, 15), (0, 1))


def get_config(size: str = "tiny"):
    tokens = _common.sized(size, TOKENS)
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
        "hybrid_ratio", size, "How few sequences of the other objective does one model need to work in both modes?", arms,
        ("tokens", tokens), ("causal", "masked", "last_word", "classification", "probe"), HYPOTHESES, reference="c1_m1",
    )  # fmt: skip


HYPOTHESES = (
    # An arm is not asked in a mode that it never trained, so the other mode is held against the unigram baseline.
    hypothesis("One masked sequence in sixteen unlocks masked prediction: below the unigram baseline", "c15_m1", "masked", "ce",
               "ratio_below", 1.0, "unigram"),
    hypothesis("One causal sequence in sixteen unlocks causal prediction: below the unigram baseline", "c1_m15", "causal", "nll",
               "ratio_below", 1.0, "unigram"),
    hypothesis("One part in sixteen costs the main mode little: at most .1 nats of the causal likelihood", "c15_m1", "causal", "nll",
               "below", 0.1, "c1_m0"),
    hypothesis("Half and half is at least as good as causal alone on classification: at most 2 points less", "c1_m1", "classification",
               "accuracy", "above", -0.02, "c1_m0"),
)  # fmt: skip
