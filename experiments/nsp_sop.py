"""Does next-sentence prediction teach the order of sentences, and does sentence order teach what follows? (ALBERT's table 5)

  python -m lm.compare --config=experiments/nsp_sop.py:tiny --workdir=runs/nsp_sop

tiny: NSP, SOP and MLM + SOP × 3 seeds on 2 CPU cores; nsp_sop/README.md says how long it took. Rows have 512 tokens: in 128 the order of
two segments can hardly be told (experiments/LOG.md).
"""

from ml_collections import ConfigDict

TOKENS = {"tiny": 4_000_000}


def get_config(size: str = "tiny") -> ConfigDict:
    from configs import albert, nsp, sop  # beside this folder

    if size not in TOKENS:
        raise ValueError(f"size {size!r} is not one of {', '.join(TOKENS)} (given after the colon of --config=FILE:SIZE)")

    def arm(label: str, describe: str, run: ConfigDict) -> dict:
        run.data.length = 512
        run.training.update(batch_size=4, evaluate_tokens=65_536, keep=1)
        return {"label": label, "describe": describe, "run": run}

    return ConfigDict(
        {
            "name": "nsp_sop",
            "question": "Does next-sentence prediction teach the order of sentences, and does sentence order teach what follows?",
            "seeds": (0, 1, 2),
            "budget": {"matched": "tokens", "value": TOKENS[size], "tolerance": 0.01},
            "tuning": {
                "field": "optimizer.learning_rate",
                "factors": (),
                "share": 0.25,
                "seed": 1000,
            },  # no trials: rates are the configs' own
            "energy": {"watts": 0.0, "pue": 1.1, "grid_kg_per_kwh": 0.4},
            "split": "test",
            "tasks": ("next_sentence", "sentence_order", "probe"),
            "workers": 0,
            "reference": "nsp",
            "arms": {
                "nsp": arm("NSP", "does segment B follow segment A", nsp.get_config(size)),
                "sop": arm("SOP", "do two consecutive segments stand in their order", sop.get_config(size)),
                "mlm_sop": arm("MLM + SOP", "ALBERT's sum", albert.get_config(size)),
            },
            "hypotheses": tuple(
                {"text": text, "arm": arm_, "task": task, "metric": "accuracy", "compare": "", "op": op, "value": value}
                for text, arm_, task, op, value in CHECKS
            ),
        }
    )


CHECKS = (
    ("NSP reaches 75 % on next sentence", "nsp", "next_sentence", "above", 0.75),
    ("NSP stays above 45 % on sentence order", "nsp", "sentence_order", "above", 0.45),
    ("NSP stays below 55 % on sentence order", "nsp", "sentence_order", "below", 0.55),
    ("SOP reaches 80 % on sentence order", "sop", "sentence_order", "above", 0.8),
    ("SOP is above chance on sentence order", "sop", "sentence_order", "above", 0.5),
    ("MLM + SOP is above chance on sentence order", "mlm_sop", "sentence_order", "above", 0.5),
)
