"""Makes workdirs like those of lm.compare, with numbers of a tiny comparison, for tests."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from lm.stats import scores

ARMS = {
    "mlm": ("MLM", "mlm", "encoder"),
    "clm": ("CLM", "clm", "decoder"),
    "nsp": ("NSP", "nsp", "encoder"),
    "mlm_nsp": ("MLM + NSP", "mlm_nsp", "encoder"),
}
OWN = {
    "mlm": ["masked"],
    "clm": ["causal"],
    "nsp": ["next_sentence"],
    "mlm_nsp": ["masked", "next_sentence"],
}
UNITS = {
    "nll": ("nats/token", "lower"),
    "bits_per_byte": ("bits/byte", "lower"),
    "perplexity": ("perplexity", "lower"),
    "ce": ("nats/token", "lower"),
    "accuracy": ("share", "higher"),
    "balanced_accuracy": ("share", "higher"),
}
PROBE = {
    "mlm": 0.50,
    "clm": 0.60,
    "nsp": 0.41,
    "mlm_nsp": 0.49,
    "untrained encoder": 0.37,
    "untrained decoder": 0.40,
}
LOSSES = {"mlm": (6.5, 5.6), "clm": (6.5, 4.7), "nsp": (0.69, 0.5), "mlm_nsp": (7.2, 6.3)}
TOKENS, SEEDS = 1_048_576, (0, 1, 2)


def check(text, arm, task, metric, compare, op, value):
    return {
        "text": text,
        "arm": arm,
        "task": task,
        "metric": metric,
        "compare": compare,
        "op": op,
        "value": value,
    }


CHECKS = [
    check(
        "CLM is at least 20 % below the unigram baseline",
        "clm",
        "causal",
        "nll",
        "unigram",
        "ratio_below",
        0.8,
    ),
    check("CLM is below the bigram baseline", "clm", "causal", "nll", "bigram", "ratio_below", 1.0),
    check(
        "MLM is at least 8 % below the unigram baseline",
        "mlm",
        "masked",
        "ce",
        "unigram",
        "ratio_below",
        0.92,
    ),
    check(
        "MLM has twice the unigram baseline's accuracy",
        "mlm",
        "masked",
        "accuracy",
        "unigram",
        "ratio_above",
        2.0,
    ),
    check("NSP's interval is above 60 %", "nsp", "next_sentence", "accuracy", "", "above", 0.6),
    check(
        "CLM's probe is above the untrained model, intervals apart",
        "clm",
        "probe",
        "balanced_accuracy",
        "untrained decoder",
        "intervals_apart_above",
        0.0,
    ),
    check(
        "MLM's probe is above the bag of words",
        "mlm",
        "probe",
        "balanced_accuracy",
        "bag of words",
        "above",
        0.0,
    ),
]


def rows_of(seeds):
    rng = np.random.default_rng(0)
    rows = []

    def add(arm, seed, task, metric, value, count, kind, own):
        unit, better = UNITS[metric]
        about = {"arm": arm, "seed": seed, "task": task, "metric": metric, "kind": kind, "own": own}
        rows.append(about | {"value": value, "count": count, "unit": unit, "better": better})

    def causal(arm, seed, nll, kind):
        for metric, value in (
            ("nll", nll),
            ("bits_per_byte", nll / 2.69),
            ("perplexity", math.exp(nll)),
        ):
            add(
                arm,
                seed,
                "causal",
                metric,
                value,
                401_388 if metric == "bits_per_byte" else 103_412,
                kind,
                True,
            )

    for arm in ARMS:
        for seed in seeds:
            jitter = rng.normal(0, 1)
            if "causal" in OWN[arm]:
                causal(arm, seed, 4.83 + 0.01 * jitter, "model")
            if "masked" in OWN[arm]:
                add(arm, seed, "masked", "ce", 5.81 + 0.02 * jitter, 15_511, "model", True)
                add(arm, seed, "masked", "accuracy", 0.149 + 0.002 * jitter, 15_511, "model", True)
            if "next_sentence" in OWN[arm]:
                add(
                    arm,
                    seed,
                    "next_sentence",
                    "accuracy",
                    0.71 + 0.04 * jitter,
                    2_000,
                    "model",
                    True,
                )
            add(
                arm,
                seed,
                "probe",
                "balanced_accuracy",
                PROBE[arm] + 0.008 * jitter,
                1_600,
                "model",
                False,
            )
            add(
                arm,
                seed,
                "probe",
                "accuracy",
                PROBE[arm] + 0.05 + 0.008 * jitter,
                1_600,
                "model",
                False,
            )
    for name, nll in (("unigram", 6.52), ("bigram", 4.97)):
        causal(name, -1, nll, "baseline")
        add(name, -1, "masked", "ce", nll + 0.01, 15_511, "baseline", True)
        add(
            name,
            -1,
            "masked",
            "accuracy",
            {"unigram": 0.048, "bigram": 0.171}[name],
            15_511,
            "baseline",
            True,
        )
    for name, value in (("TF-IDF overlap", 0.853), ("majority", 0.5)):
        add(name, -1, "next_sentence", "accuracy", value, 2_000, "baseline", True)
    for name, value in (("bag of words", 0.632), ("majority", 0.125)):
        add(name, -1, "probe", "balanced_accuracy", value, 1_600, "baseline", False)
        add(name, -1, "probe", "accuracy", value + 0.05, 1_600, "baseline", False)
    for name in ("untrained encoder", "untrained decoder"):
        for seed in seeds:
            add(
                name,
                seed,
                "probe",
                "balanced_accuracy",
                PROBE[name] + 0.006 * rng.normal(),
                1_600,
                "untrained",
                False,
            )
            add(
                name,
                seed,
                "probe",
                "accuracy",
                PROBE[name] + 0.05 + 0.006 * rng.normal(),
                1_600,
                "untrained",
                False,
            )
    return rows


def make(directory, seeds=SEEDS, checks=CHECKS, rows=None, **about):
    """Makes a workdir like one of lm.compare; `about` replaces fields of comparison.json."""
    (directory / "runs").mkdir(parents=True)
    sizes = {"documents": 4_046, "words": 1_161_000, "bytes": 7_380_123, "tokens": 1_755_310}
    comparison = {
        "name": "Objectives",
        "question": "Which pretraining objective makes the most of one minute on two cores?",
        "command": "python -m lm.compare --config=experiments/objectives.py:tiny --workdir=W",
        "config": "experiments/objectives.py:tiny",
        "seeds": list(seeds),
        "budget": {"matched": "tokens", "value": TOKENS},
        "hypotheses": checks,
        "arms": {
            arm: {
                "label": label,
                "objective": objective,
                "model": model,
                "describe": f"two layers of width 128, {model}",
            }
            for arm, (label, objective, model) in ARMS.items()
        },
        "data": {
            "source": "python_docs",
            "fingerprint": "b1946ac92492d234",
            "tokenizer": {"kind": "unigram", "size": 4096},
            "splits": {
                "train": sizes,
                "validation": {key: value // 20 for key, value in sizes.items()},
            },
        },
        "machine": {
            "device": "cpu",
            "devices": 1,
            "cores": 2,
            "memory_gib": 7.8,
            "python": "3.11.2",
            "platform": "Linux x86_64",
        },
        "versions": {"jax": "0.10.2", "flax": "0.12.0"},
        "git": "0123abc",
        "started": "2026-01-02T03:04:05",
        "seconds": 602.0,
        "workers": 2,
    } | about
    (directory / "comparison.json").write_text(json.dumps(comparison))
    rng = np.random.default_rng(1)
    for arm, (start, end) in LOSSES.items():
        for seed in seeds:
            run = directory / "runs" / f"{arm}-seed{seed}"
            run.mkdir()
            record = {
                "parameters": 983_040 + 1_000 * (arm == "nsp"),
                "flops": 1.2e13,
                "tokens": TOKENS,
                "loss_tokens": TOKENS * (1 if arm == "clm" else 0.15),
                "padding": 0.0312,
                "seconds": 58.3 + seed,
                "tokens_per_second": 18_000.4,
                "steps": 512,
                "status": "done",
                "input_wait_share": 0.004,
                "config": {
                    "objective": {"name": arm},
                    "optimizer": {"learning_rate": 0.003},
                    "seed": seed,
                    "note": "a|b <i> ``` *",
                },
            }
            (run / "run.json").write_text(json.dumps(record))
            (run / "scores.json").write_text(json.dumps({"rows": []}))
            bend = rng.normal(0, 0.03)
            points = [
                (k / 20, (end + bend) + (start - end - bend) * math.exp(-4 * k / 20))
                for k in range(1, 21)
            ]
            lines = [
                {
                    "step": round(512 * x),
                    "tokens": round(TOKENS * x),
                    "split": "validation",
                    "loss": y,
                }
                for x, y in points
            ]
            lines += [{"step": 1, "tokens": 2048, "seconds": 0.1, "split": "train", "loss": 8.0}]
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_rows(directory, rows_of(seeds) if rows is None else rows)
    return directory


def write_rows(directory, rows):
    pa.parquet.write_table(pa.Table.from_pylist(rows), directory / "results.parquet")


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# `enrich` adds these to a workdir from `make`.
TASKS = {
    "causal": {
        "task": "causal",
        "shared": False,
        "metrics": ["nll", "bits_per_byte", "perplexity"],
    },
    "masked": {"task": "masked", "shared": False, "metrics": ["ce", "accuracy"]},
    "next_sentence": {"task": "next_sentence", "shared": False, "metrics": ["accuracy"]},
    "probe": {"task": "probe", "shared": True, "metrics": ["balanced_accuracy", "accuracy"]},
    "blimp": {
        "task": "minimal_pairs",
        "shared": True,
        "metrics": ["accuracy", "accuracy/anaphor_agreement", "accuracy/binding"],
    },
}
RATES = (0.001, 0.003, 0.009)
PAIRS = {"anaphor_agreement": 0.62, "binding": 0.55}


def _pairs(arm, seed, advantage, rng):
    """Rows of a shared task with metrics of subsets, and their examples."""
    common = {
        "arm": arm,
        "seed": seed,
        "task": "blimp",
        "unit": "share",
        "better": "higher",
        "kind": "model",
        "own": False,
    }
    rows, examples, all_hits = [], {}, []
    for part, base in PAIRS.items():
        hits = (rng.random(400) < base + advantage).astype(float)
        all_hits.append(hits)
        rows.append(common | {"metric": f"accuracy/{part}", "value": hits.mean(), "count": 400})
        examples[f"{arm}/blimp/accuracy/{part}"] = scores.Examples(
            hits, np.ones(400), f"pairs {part}"
        )
    hits = np.concatenate(all_hits)
    rows.insert(0, common | {"metric": "accuracy", "value": hits.mean(), "count": 800})
    examples[f"{arm}/blimp/accuracy"] = scores.Examples(hits, np.ones(800), "pairs")
    return rows, examples


def enrich(directory, **about):
    """Adds tasks, planned steps, tuning, energy, scores by example, and samples to a workdir."""
    record = json.loads((directory / "comparison.json").read_text())
    arms, seeds, rng = list(record["arms"]), record["seeds"], np.random.default_rng(2)
    trials = {
        arm: [
            {
                "value": rate,
                "loss": 4.0 + abs(place - 1) * 0.2 + 0.1 * (arm == "nsp"),
                "status": "done",
            }
            for place, rate in enumerate(RATES)
        ]
        for arm in arms
    }
    trials[arms[0]][2] = {"value": RATES[2], "loss": None, "status": "diverged"}
    chosen = dict.fromkeys(arms, RATES[1])
    trials[arms[-1]][0]["loss"], chosen[arms[-1]] = 3.5, RATES[0]
    edit(
        directory / "comparison.json",
        **{
            "tasks": TASKS,
            "planned": {
                arm: {"steps": 512, "tokens": TOKENS, "flops": 1.2e13, "loss_tokens": 0.15 * TOKENS}
                for arm in arms
            },
            "tuning": {
                "field": "optimizer.learning_rate",
                "share": 0.25,
                "seed": 1000,
                "trials": trials,
                "chosen": chosen,
            },
            "energy": {"watts": 0.0, "pue": 1.1, "grid_kg_per_kwh": 0.4},
            "reference": arms[0],
            "experiment": {
                "name": record["name"],
                "seeds": seeds,
                "budget": record["budget"],
                "arms": {
                    arm: {"run": {"objective": {"name": record["arms"][arm]["objective"]}}}
                    for arm in arms
                },
            },
        }
        | about,
    )
    rows = pa.parquet.read_table(directory / "results.parquet").to_pylist()
    for place, arm in enumerate(arms):
        for seed in seeds:
            run = directory / "runs" / f"{arm}-seed{seed}"
            pair_rows, examples = _pairs(arm, seed, 0.05 * (place % 4), rng)
            rows += pair_rows
            scores.write_examples(run / "examples.npz", examples)
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            lines = [
                line
                | {
                    "flops": 1.2e13 * line["tokens"] / TOKENS,
                    "seconds": 58 * line["tokens"] / TOKENS,
                }
                for line in lines
            ]
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (directory / "runs" / f"{arm}-seed{seeds[0]}" / "samples.json").write_text(
            json.dumps(
                {
                    "asked": "The [MASK] of names is sorted.",
                    "samples": [
                        {
                            "prompt": "The list of names is",
                            "text": f"sorted by <b>{arm}</b> before it is returned.",
                        }
                    ],
                }
            )
        )
        for place in range(len(RATES)):
            trial = directory / "tuning" / f"{arm}-{place}"
            trial.mkdir(parents=True)
            (trial / "run.json").write_text(
                json.dumps({"status": "done", "seconds": 15.0, "tokens": TOKENS // 4})
            )
    write_rows(directory, rows)
    return directory


def crowd(directory, copies, seeds=SEEDS, tasks=()):
    """Makes a workdir with `copies` arms for each of `ARMS`, and further shared tasks."""
    make(directory, seeds)
    names = {f"{arm}_{copy}": arm for copy in range(copies) for arm in ARMS}
    rows, rng = rows_of(seeds), np.random.default_rng(3)
    shared = [row for row in rows if row["task"] == "probe"]
    rows += [
        row | {"task": task, "value": row["value"] + 0.01 * rng.normal()}
        for task in tasks
        for row in shared
    ]
    rows = [
        row | {"arm": name, "value": row["value"] * (1 + 0.01 * rng.normal())}
        for name, arm in names.items()
        for row in rows
        if row["arm"] == arm
    ] + [row for row in rows if row["kind"] != "model"]
    for name, arm in names.items():
        for seed in seeds:
            source, run = (
                directory / "runs" / f"{arm}-seed{seed}",
                directory / "runs" / f"{name}-seed{seed}",
            )
            run.mkdir()
            for file in source.iterdir():
                (run / file.name).write_bytes(file.read_bytes())
    described = {
        name: {
            "label": f"{ARMS[arm][0]}, variant {name[-1]}",
            "objective": arm,
            "model": ARMS[arm][2],
            "describe": f"a copy of {arm}",
        }
        for name, arm in names.items()
    }
    write_rows(directory, rows)
    checks = [check | {"arm": f"{check['arm']}_0"} for check in CHECKS]
    edit(directory / "comparison.json", arms=described, hypotheses=checks)
    return enrich(directory)
