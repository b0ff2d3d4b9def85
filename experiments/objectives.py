"""Which objective teaches a small Transformer most from the same text: MLM, CLM, NSP, or MLM with NSP?

  python -m lm.compare --config=experiments/objectives.py:tiny --workdir=runs/objectives

tiny: 4 objectives × 3 seeds on 2 CPU cores; `make compare` runs it.
"""

from ml_collections import ConfigDict

TOKENS = {"tiny": 1_200_000}


def get_config(size: str = "tiny") -> ConfigDict:
    from configs import bert, clm, mlm, nsp  # beside this folder

    if size not in TOKENS:
        raise ValueError(f"size {size!r} is not one of {', '.join(TOKENS)} (given after the colon of --config=FILE:SIZE)")

    def arm(label: str, describe: str, run: ConfigDict) -> dict:
        run.training.update(evaluate_tokens=16_384, tensorboard=False, keep=1)
        return {"label": label, "describe": describe, "run": run}

    return ConfigDict(
        {
            "name": "objectives",
            "question": "Which pretraining objective teaches a small Transformer most from the same text at the same number of tokens?",
            "seeds": (0, 1, 2),
            "budget": {"matched": "tokens", "value": TOKENS[size]},
            "split": "test",
            "tasks": ("causal", "masked", "next_sentence", "probe"),
            "workers": 0,
            "arms": {
                "clm": arm("CLM", "each token from those before it", clm.get_config(size)),
                "mlm": arm("MLM", "15 % hidden tokens from all others, BERT's 80/10/10", mlm.get_config(size)),
                "nsp": arm("NSP", "does segment B follow segment A", nsp.get_config(size)),
                "mlm_nsp": arm("MLM + NSP", "BERT's sum of both", bert.get_config(size)),
            },
            # What a sound set-up should reach at this size.
            "checks": tuple(
                {"text": text, "arm": arm_, "task": task, "metric": metric, "compare": against, "op": op, "value": value}
                for text, arm_, task, metric, against, op, value in CHECKS
            ),
        }
    )


CHECKS = (
    ("CLM is at least 20 % below the unigram baseline", "clm", "causal", "nll", "unigram", "ratio_below", 0.8),
    ("CLM is below the Kneser-Ney bigram baseline", "clm", "causal", "nll", "bigram", "ratio_below", 1.0),
    ("MLM is at least 8 % below the unigram baseline", "mlm", "masked", "ce", "unigram", "ratio_below", 0.92),
    ("MLM has at least twice the unigram baseline's accuracy", "mlm", "masked", "accuracy", "unigram", "ratio_above", 2.0),
    ("NSP is above 60 % accuracy", "nsp", "next_sentence", "accuracy", "", "above", 0.6),
    ("CLM's probe is above the untrained decoder's, intervals apart", "clm", "probe", "balanced_accuracy", "untrained decoder",
     "intervals_apart_above", 0.0),
)  # fmt: skip
