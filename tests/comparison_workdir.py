"""Makes a workdir as lm.compare leaves it, with numbers like those of a tiny comparison. For tests of what reads one."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet

ARMS = {
    "mlm": ("MLM", "mlm", "encoder"), "clm": ("CLM", "clm", "decoder"), "nsp": ("NSP", "nsp", "encoder"),
    "mlm_nsp": ("MLM + NSP", "mlm_nsp", "encoder"),
}  # fmt: skip
OWN = {"mlm": ["masked"], "clm": ["causal"], "nsp": ["next_sentence"], "mlm_nsp": ["masked", "next_sentence"]}
UNITS = {
    "nll": ("nats/token", "lower"), "bits_per_byte": ("bits/byte", "lower"), "perplexity": ("perplexity", "lower"),
    "ce": ("nats/token", "lower"), "accuracy": ("share", "higher"), "balanced_accuracy": ("share", "higher"),
}  # fmt: skip
PROBE = {"mlm": 0.50, "clm": 0.60, "nsp": 0.41, "mlm_nsp": 0.49, "untrained encoder": 0.37, "untrained decoder": 0.40}
LOSSES = {"mlm": (6.5, 5.6), "clm": (6.5, 4.7), "nsp": (0.69, 0.5), "mlm_nsp": (7.2, 6.3)}
TOKENS, SEEDS = 1_048_576, (0, 1, 2)


def check(text, arm, task, metric, compare, op, value):
    return {"text": text, "arm": arm, "task": task, "metric": metric, "compare": compare, "op": op, "value": value}


CHECKS = [
    check("CLM is at least 20 % below the unigram baseline", "clm", "causal", "nll", "unigram", "ratio_below", 0.8),
    check("CLM is below the bigram baseline", "clm", "causal", "nll", "bigram", "ratio_below", 1.0),
    check("MLM is at least 8 % below the unigram baseline", "mlm", "masked", "ce", "unigram", "ratio_below", 0.92),
    check("MLM has twice the unigram baseline's accuracy", "mlm", "masked", "accuracy", "unigram", "ratio_above", 2.0),
    check("NSP's interval is above 60 %", "nsp", "next_sentence", "accuracy", "", "above", 0.6),
    check("CLM's probe is above the untrained model, intervals apart", "clm", "probe", "balanced_accuracy", "untrained decoder",
          "intervals_apart_above", 0.0),
    check("MLM's probe is above the bag of words", "mlm", "probe", "balanced_accuracy", "bag of words", "above", 0.0),
]  # fmt: skip


def rows_of(seeds):
    rng = np.random.default_rng(0)
    rows = []

    def add(arm, seed, task, metric, value, count, kind, own):
        unit, better = UNITS[metric]
        about = {"arm": arm, "seed": seed, "task": task, "metric": metric, "kind": kind, "own": own}
        rows.append(about | {"value": value, "count": count, "unit": unit, "better": better})

    def causal(arm, seed, nll, kind):
        for metric, value in (("nll", nll), ("bits_per_byte", nll / 2.69), ("perplexity", math.exp(nll))):
            add(arm, seed, "causal", metric, value, 401_388 if metric == "bits_per_byte" else 103_412, kind, True)

    for arm in ARMS:
        for seed in seeds:
            jitter = rng.normal(0, 1)
            if "causal" in OWN[arm]:
                causal(arm, seed, 4.83 + 0.01 * jitter, "model")
            if "masked" in OWN[arm]:
                add(arm, seed, "masked", "ce", 5.81 + 0.02 * jitter, 15_511, "model", True)
                add(arm, seed, "masked", "accuracy", 0.149 + 0.002 * jitter, 15_511, "model", True)
            if "next_sentence" in OWN[arm]:
                add(arm, seed, "next_sentence", "accuracy", 0.71 + 0.04 * jitter, 2_000, "model", True)
            add(arm, seed, "probe", "balanced_accuracy", PROBE[arm] + 0.008 * jitter, 1_600, "model", False)
            add(arm, seed, "probe", "accuracy", PROBE[arm] + 0.05 + 0.008 * jitter, 1_600, "model", False)
    for name, nll in (("unigram", 6.52), ("bigram", 4.97)):
        causal(name, -1, nll, "baseline")
        add(name, -1, "masked", "ce", nll + 0.01, 15_511, "baseline", True)
        add(name, -1, "masked", "accuracy", {"unigram": 0.048, "bigram": 0.171}[name], 15_511, "baseline", True)
    for name, value in (("TF-IDF overlap", 0.853), ("majority", 0.5)):
        add(name, -1, "next_sentence", "accuracy", value, 2_000, "baseline", True)
    for name, value in (("bag of words", 0.632), ("majority", 0.125)):
        add(name, -1, "probe", "balanced_accuracy", value, 1_600, "baseline", False)
        add(name, -1, "probe", "accuracy", value + 0.05, 1_600, "baseline", False)
    for name in ("untrained encoder", "untrained decoder"):
        for seed in seeds:
            add(name, seed, "probe", "balanced_accuracy", PROBE[name] + 0.006 * rng.normal(), 1_600, "untrained", False)
            add(name, seed, "probe", "accuracy", PROBE[name] + 0.05 + 0.006 * rng.normal(), 1_600, "untrained", False)
    return rows


def make(directory, seeds=SEEDS, checks=CHECKS, rows=None, **about):
    """A workdir as lm.compare leaves it; `about` replaces fields of comparison.json."""
    (directory / "runs").mkdir(parents=True)
    sizes = {"documents": 4_046, "words": 1_161_000, "bytes": 7_380_123, "tokens": 1_755_310}
    comparison = {
        "name": "Objectives", "question": "Which pretraining objective makes the most of one minute on two cores?",
        "command": "python -m lm.compare --config=experiments/objectives.py:tiny --workdir=W", "config": "experiments/objectives.py:tiny",
        "seeds": list(seeds), "budget": {"matched": "tokens", "value": TOKENS}, "hypotheses": checks,
        "arms": {arm: {"label": label, "objective": objective, "model": model, "describe": f"two layers of width 128, {model}"}
                 for arm, (label, objective, model) in ARMS.items()},
        "data": {"source": "python_docs", "fingerprint": "b1946ac92492d234", "tokenizer": {"kind": "unigram", "size": 4096},
                 "splits": {"train": sizes, "validation": {key: value // 20 for key, value in sizes.items()}}},
        "machine": {"device": "cpu", "devices": 1, "cores": 2, "memory_gib": 7.8, "python": "3.11.2", "platform": "Linux x86_64"},
        "versions": {"jax": "0.10.2", "flax": "0.12.0"}, "git": "0123abc", "started": "2026-01-02T03:04:05", "seconds": 602.0, "workers": 2,
    } | about  # fmt: skip
    (directory / "comparison.json").write_text(json.dumps(comparison))
    rng = np.random.default_rng(1)
    for arm, (start, end) in LOSSES.items():
        for seed in seeds:
            run = directory / "runs" / f"{arm}-seed{seed}"
            run.mkdir()
            record = {
                "parameters": 983_040 + 1_000 * (arm == "nsp"), "flops": 1.2e13, "tokens": TOKENS,
                "loss_tokens": TOKENS * (1 if arm == "clm" else 0.15), "padding": 0.0312,
                "seconds": 58.3 + seed, "tokens_per_second": 18_000.4, "steps": 512, "status": "done", "input_wait_share": 0.004,
                "config": {"objective": {"name": arm}, "optimizer": {"learning_rate": 0.003}, "seed": seed, "note": "a|b <i> ``` *"},
            }  # fmt: skip
            (run / "run.json").write_text(json.dumps(record))
            (run / "scores.json").write_text(json.dumps({"rows": []}))
            bend = rng.normal(0, 0.03)
            points = [(k / 20, (end + bend) + (start - end - bend) * math.exp(-4 * k / 20)) for k in range(1, 21)]
            lines = [{"step": round(512 * x), "tokens": round(TOKENS * x), "split": "validation", "loss": y} for x, y in points]
            lines += [{"step": 1, "tokens": 2048, "seconds": 0.1, "split": "train", "loss": 8.0}]
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_rows(directory, rows_of(seeds) if rows is None else rows)
    return directory


def write_rows(directory, rows):
    pa.parquet.write_table(pa.Table.from_pylist(rows), directory / "results.parquet")


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
