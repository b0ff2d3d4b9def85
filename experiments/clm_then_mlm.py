"""Is a phase of CLM before MLM worth its tokens, and in which proportion?

  python -m lm.compare --config=experiments/clm_then_mlm.py:tiny --workdir=runs/clm_then_mlm

Gisserot-Boukhlef et al. 2025. One decoder, which attends in both directions in the MLM phase.

tiny: six arms × 3 seeds, 2 CPU cores, 16 minutes; results in clm_then_mlm/README.md.
small (one GPU, or four TPU chips) and base (a slice): experiments/_common.py; not run yet.
Published, 610 M parameters: CLM leads early and MLM late; 25 % CLM, then MLM, beats MLM at equal
steps.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments import _common
from experiments._common import hypothesis

TOKENS = {"tiny": 1_000_000, "small": 500_000_000, "base": 10_000_000_000}


def get_config(size: str = "tiny") -> ConfigDict:
    tokens = _common.at_size(size, TOKENS)

    def biphasic(fraction: float, first: str = "clm", second: str = "mlm") -> dict[str, Any]:
        label = f"{fraction:.0%} {first.upper()}, then {second.upper()}".replace("%", " %")
        arm = _common.arm("biphasic", size, label, f"{label}, one optimizer state", share=fraction)
        objective = arm["run"].objective
        if first == "mlm":
            swapped = objective.first_options, objective.second_options
            objective.second_options, objective.first_options = swapped
            objective.first, objective.second = first, second
        return arm

    arms = {
        "clm": _common.arm("clm", size, "CLM", "CLM for the whole run"),
        "mlm": _common.arm(
            "mlm", size, "MLM", "MLM for the whole run, on the same decoder", model="decoder"
        ),
        "clm_25": biphasic(0.25),
        "clm_50": biphasic(0.5),
        "clm_75": biphasic(0.75),
        "mlm_75": biphasic(0.75, "mlm", "clm"),
    }
    return _common.experiment(
        "clm_then_mlm",
        size,
        "Is a phase of CLM before MLM worth its tokens?",
        arms,
        ("tokens", tokens),
        ("masked", "causal", "classification", "probe"),
        HYPOTHESES,
        reference="mlm",
    )


HYPOTHESES = (
    hypothesis(
        "25 % CLM, then MLM predicts masked tokens better than MLM alone",
        "clm_25",
        "masked",
        "ce",
        "below",
        0.0,
        "mlm",
    ),
    hypothesis(
        "25 % CLM, then MLM classifies better than MLM alone",
        "clm_25",
        "classification",
        "accuracy",
        "above",
        0.0,
        "mlm",
    ),
    hypothesis(
        "At a small budget CLM classifies better than MLM",
        "clm",
        "classification",
        "accuracy",
        "above",
        0.0,
        "mlm",
    ),
    hypothesis(
        "MLM as the last phase forgets causal prediction: at least 1 nat per token above CLM",
        "clm_50",
        "causal",
        "nll",
        "above",
        1.0,
        "clm",
    ),
)
