"""Should one hide 15 %? Mask rates from 15 to 80 %, with BERT's 80/10/10 and by [MASK] alone (Wettig et al. 2023).

  python -m lm.compare --config=experiments/mask_rate.py:tiny --workdir=runs/mask_rate

tiny: eight arms × 3 seeds, for 2 CPU cores; mask_rate/README.md says how long they took. small and base: experiments/_common.py.
Published, MNLI with BERT-large: 15 % 84.2, 40 % 84.5, 80 % 80.8; [MASK] alone at least as good as 80/10/10. Masked tokens are asked both
ways, at the same 15 % of the places: `masked` with 80/10/10, `masked_pure` by [MASK] alone, as an arm trained by it alone knows its input.
"""

from experiments import _common
from experiments._common import hypothesis

TOKENS = {"tiny": 800_000, "small": 500_000_000, "base": 10_000_000_000}
RATES = (15, 30, 40, 80)
TASKS: dict[str, dict] = {
    "masked": {}, "masked_pure": {"task": "masked", "mask_share": 1.0, "random_share": 0.0}, "classification": {}, "probe": {},
}  # fmt: skip


def get_config(size: str = "tiny"):
    tokens = _common.sized(size, TOKENS)
    arms = {}
    for rate in RATES:
        arms[f"mlm_{rate}"] = _common.arm(
            "mlm", size, f"{rate} %", f"{rate} % hidden, 80/10/10", rate=rate / 100
        )
        arms[f"pure_{rate}"] = _common.arm(
            "mlm",
            size,
            f"{rate} % pure",
            f"{rate} % hidden, all by [MASK]",
            rate=rate / 100,
            mask_share=1.0,
            random_share=0.0,
        )
    return _common.experiment(
        "mask_rate", size, "How much of a text should a masked language model hide, and should [MASK] stand at every hidden place?",
        arms, ("tokens", tokens), TASKS, HYPOTHESES, reference="mlm_15",
    )  # fmt: skip


HYPOTHESES = (
    hypothesis("40 % is no worse than 15 %: at most 2 points less on classification", "mlm_40", "classification", "accuracy", "above",
               -0.02, "mlm_15"),
    hypothesis("80 % is worse than 15 % on classification", "mlm_80", "classification", "accuracy", "below", 0.0, "mlm_15"),
    hypothesis("At 40 %, [MASK] alone is no worse than 80/10/10: at most 2 points less on classification", "pure_40", "classification",
               "accuracy", "above", -0.02, "mlm_40"),
    hypothesis("At 40 %, [MASK] alone predicts tokens behind [MASK] better than 80/10/10", "pure_40", "masked_pure", "ce", "below", 0.0,
               "mlm_40"),
    hypothesis("40 % learns faster than 15 % at a small budget: lower cross-entropy on the same masked tokens", "mlm_40", "masked", "ce",
               "below", 0.0, "mlm_15"),
)  # fmt: skip
