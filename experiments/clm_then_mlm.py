"""CLM first, then MLM? And in which shares (Gisserot-Boukhlef et al. 2025)?

  python -m lm.compare --config=experiments/clm_then_mlm.py:tiny --workdir=runs/clm_then_mlm

One decoder, which reads all of a text in the MLM phase. tiny: six arms × 3 seeds, for 2 CPU cores; clm_then_mlm/README.md says how long
they took. small and base: experiments/_common.py. Published, 610 M parameters: CLM leads early, MLM late; 25 % CLM then MLM beats MLM
at equal steps.
"""

from experiments import _common
from experiments._common import hypothesis

TOKENS = {"tiny": 1_000_000, "small": 500_000_000, "base": 10_000_000_000}


def get_config(size: str = "tiny"):
    tokens = _common.sized(size, TOKENS)

    def biphasic(share: float, first: str = "clm", second: str = "mlm"):
        label = f"{share:.0%} {first.upper()}, then {second.upper()}".replace("%", " %")
        run = _common.arm("biphasic", size, label, f"{label}, one optimiser state", share=share)
        objective = run["run"].objective
        if first == "mlm":
            swapped = objective.first_options, objective.second_options
            objective.second_options, objective.first_options = swapped
            objective.first, objective.second = first, second
        return run

    arms = {
        "clm": _common.arm("clm", size, "CLM", "CLM all the way"),
        "mlm": _common.arm(
            "mlm", size, "MLM", "MLM all the way, on the same decoder", model="decoder"
        ),
        "clm_25": biphasic(0.25),
        "clm_50": biphasic(0.5),
        "clm_75": biphasic(0.75),
        "mlm_75": biphasic(0.75, "mlm", "clm"),
    }
    return _common.experiment(
        "clm_then_mlm", size, "Is a phase of CLM before MLM worth its tokens?", arms, ("tokens", tokens),
        ("masked", "causal", "classification", "probe"), HYPOTHESES, reference="mlm",
    )  # fmt: skip


HYPOTHESES = (
    hypothesis("25 % CLM, then MLM predicts masked tokens better than MLM alone", "clm_25", "masked", "ce", "below", 0.0, "mlm"),
    hypothesis("25 % CLM, then MLM classifies better than MLM alone", "clm_25", "classification", "accuracy", "above", 0.0, "mlm"),
    hypothesis("At a small budget CLM classifies better than MLM", "clm", "classification", "accuracy", "above", 0.0, "mlm"),
    hypothesis("MLM as the last phase forgets the causal mode: at least 1 nat above CLM", "clm_50", "causal", "nll", "above", 1.0, "clm"),
)  # fmt: skip
