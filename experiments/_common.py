"""What experiments share: one backbone for all arms at each size, arms and hypotheses in a line each, fields for flags to override.

At `:tiny` an arm is its config of configs/, for two CPU cores. At `:small` (one GPU, or four TPU chips) and `:base` (a slice) all arms have
one shape, one tokenizer and one recipe; they need text of your own:

  --config.shared.data.source=text --config.shared.data.path='books/*.md' --config.shared.mesh.fsdp=4

What stands under `shared` holds for all arms.
"""

import importlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

SEEDS = (0, 1, 2)
# Of the laptop's block (lm/presets.py): rotary positions, RMS pre-norm, no biases.
SHAPES = {
    "small": {"layers": 8, "width": 512, "heads": 8, "feedforward": 2048},
    "base": {"layers": 12, "width": 768, "heads": 12, "feedforward": 3072},
}
RECIPES = {
    "small": {"batch_size": 64, "learning_rate": 1e-3},
    "base": {"batch_size": 256, "learning_rate": 6e-4},
}
LENGTH, WORDS = 512, 32_768
_TRIALS = (1 / 3, 1.0, 3.0)
_SHARE = 0.5  # of the budget; at a quarter, arms that had not left their plateau were tuned by chance (experiments/LOG.md)
_SHARED: dict[str, dict[str, type]] = {
    "data": {"source": str, "path": str, "field": str, "packages": str, "name": str, "subset": str, "cache": str, "workers": int,
             "length": int, "validation": float, "test": float},
    "tokenizer": {"kind": str, "vocab_size": int, "path": str},
    "model": {"dtype": str, "attention": str, "remat": str, "head_chunks": int, "scan": bool, "dropout": float},
    "training": {"batch_size": int, "microbatches": int, "log_every": int, "evaluate_every": int, "evaluate_tokens": int,
                 "checkpoint_every": int, "keep": int, "tensorboard": bool},
    "mesh": {"slice": int, "data": int, "fsdp": int, "stage": int, "context": int, "tensor": int},
}  # fmt: skip


def sized(size: str, amounts: dict[str, Any]) -> Any:
    """What an experiment has at a size.

    Raises:
      ValueError: it has no such size.
    """
    if size not in amounts:
        raise ValueError(
            f"size {size!r} is not one of {', '.join(amounts)} (given after the colon of --config=FILE:SIZE)"
        )
    return amounts[size]


def arm(
    config: str, size: str, label: str, describe: str, model: str = "", series: str = "", times: float = 1.0, **options: Any
) -> dict[str, Any]:  # fmt: skip
    """An arm.

    Args:
      config: a file of configs/. label, describe: for the report. model: another one than the config's. series: of the scaling fit.
      times: the budget. options: of the objective, over the config's.
    """
    run = importlib.import_module(f"configs.{config}").get_config("tiny")
    if model:
        run.model.name = model
        run.model.types = 2 if model == "encoder" else 0
    if size not in ("tiny", "all"):
        shape, recipe = SHAPES[size], RECIPES[size]
        run.model.update(**shape, dtype="bfloat16", scan=True, head_chunks=8, max_length=2 * LENGTH)
        run.data.length, run.tokenizer.vocab_size = LENGTH, WORDS
        run.optimizer.update(
            name="adamw", learning_rate=recipe["learning_rate"], schedule="cosine", warmup=0.02, final=0.1, adam_rate=None,
            embedding_rate=None, weight_decay=0.1, b2=0.95,
        )  # fmt: skip
        run.training.batch_size = recipe["batch_size"]
    run.training.update(evaluate_tokens=16_384 if size in ("tiny", "all") else 524_288, keep=1)
    run.objective.update(options)
    return {"label": label, "describe": describe, "series": series, "times": times, "run": run}


def hypothesis(
    text: str, arm: str, task: str, metric: str, op: str, value: float, compare: str = ""
) -> dict[str, Any]:
    """A line of an experiment's hypotheses (lm/report/scores.py says what the ops mean)."""
    return {
        "text": text,
        "arm": arm,
        "task": task,
        "metric": metric,
        "compare": compare,
        "op": op,
        "value": value,
    }


def experiment(
    name: str, size: str, question: str, arms: dict[str, dict], budget: tuple[str, float], tasks: Any, hypotheses: Sequence[dict],
    reference: str = "", seeds: tuple[int, ...] = SEEDS, tuned: bool = True, tolerance: float = 0.01, scaling: dict[str, str] | None = None,
) -> ConfigDict:  # fmt: skip
    """The whole experiment.

    Args:
      budget: what is matched over the arms, and how much of it each run gets. tasks: names, or a name of one's own → options.
      reference: the arm that others are shown against. tuned: by three trials of each arm's learning rate.
      scaling: {"task", "metric"} by which a law is fitted to each series of arms, over sizes and multiples of the budget.
    """
    tasks = tasks if isinstance(tasks, dict) else {task: {} for task in tasks}
    return ConfigDict(
        {
            "name": name if size == "tiny" else f"{name} {size}",
            "question": question,
            "seeds": seeds,
            "budget": {"matched": budget[0], "value": budget[1], "tolerance": tolerance},
            "tuning": {
                "field": "optimizer.learning_rate",
                "factors": _TRIALS if tuned else (),
                "share": _SHARE,
                "seed": 1000,
            },
            "energy": {"watts": 0.0, "pue": 1.1, "grid_kg_per_kwh": 0.4},
            "shared": {
                section: {field: config_dict.placeholder(kind) for field, kind in fields.items()}
                for section, fields in _SHARED.items()
            },
            "split": "test",
            "tasks": ConfigDict(tasks, sort_keys=False),
            "workers": 0,
            "reference": reference,
            "scaling": scaling or {},
            "arms": ConfigDict(
                arms, sort_keys=False
            ),  # reports show arms and tasks in the order of their declaration
            "hypotheses": tuple(hypotheses),
        }
    )
