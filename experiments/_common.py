"""What experiments share: one shape for all arms at each size, and fields that flags can override.

At `:tiny` an arm is its config from configs/, for two CPU cores. At `:small` (one GPU, or four TPU
chips) and `:base` (a slice) all arms have one shape, one tokenizer and one recipe, and need your
own text:

  --config.shared.data.source=text --config.shared.data.path='books/*.md' \\
      --config.shared.mesh.fsdp=4

Fields under `shared` apply to all arms.
"""

import importlib
from collections.abc import Sequence
from typing import Any, TypeVar

from ml_collections import ConfigDict

from lm import presets

T = TypeVar("T")

SEEDS = (0, 1, 2)
# With the block of the laptop shape (lm/presets.py): rotary positions, RMS pre-norm, no biases.
SHAPES = {
    "small": {"layers": 8, "width": 512, "heads": 8, "feedforward": 2048},
    "base": {"layers": 12, "width": 768, "heads": 12, "feedforward": 3072},
}
RECIPES = {
    "small": {"batch_size": 64, "learning_rate": 1e-3},
    "base": {"batch_size": 256, "learning_rate": 6e-4},
}
LENGTH, VOCABULARY = 512, 32_768
_FACTORS = (1 / 3, 1.0, 3.0)  # of the recipe's learning rate
# Budget of a tuning trial, as a fraction of a run's. At a quarter, arms that had not left their
# plateau were tuned at random (experiments/LOG.md).
_TRIAL_FRACTION = 0.5


def at_size(size: str, values: dict[str, T]) -> T:
    """An experiment's value at a size.

    Raises:
      ValueError: The experiment has no such size.
    """
    if size not in values:
        raise ValueError(
            f"size {size!r} is not one of {', '.join(values)} (the part after the colon of"
            " --config=FILE:SIZE)"
        )
    return values[size]


def arm(
    config: str,
    size: str,
    label: str,
    describe: str,
    model: str = "",
    series: str = "",
    times: float = 1.0,
    **options: Any,
) -> dict[str, Any]:
    """An arm.

    Args:
      config: name of a file in configs/.
      size: size of the experiment.
      label: short name in the report.
      describe: one line in the report.
      model: architecture, if not the config's own.
      series: series of a scaling fit that the arm belongs to.
      times: multiple of the budget that the arm gets.
      **options: options of the objective that replace the config's.
    """
    run = importlib.import_module(f"configs.{config}").get_config("tiny")
    if model:
        run.model.name = model
        run.model.types = 2 if model == "encoder" else 0
    if size not in ("tiny", "all"):
        shape, recipe = SHAPES[size], RECIPES[size]
        run.model.update(**shape, dtype="bfloat16", scan=True, head_chunks=8, max_length=2 * LENGTH)
        run.data.length, run.tokenizer.vocab_size = LENGTH, VOCABULARY
        run.optimizer.update(
            name="adamw",
            learning_rate=recipe["learning_rate"],
            schedule="cosine",
            warmup=0.02,
            final=0.1,
            adam_rate=None,
            embedding_rate=None,
            weight_decay=0.1,
            b2=0.95,
        )
        run.training.batch_size = recipe["batch_size"]
    run.training.update(evaluate_tokens=16_384 if size in ("tiny", "all") else 524_288, keep=1)
    run.objective.update(options)
    return {"label": label, "describe": describe, "series": series, "times": times, "run": run}


def hypothesis(
    text: str, arm: str, task: str, metric: str, op: str, value: float, compare: str = ""
) -> dict[str, Any]:
    """A hypothesis about an arm's score; lm/report/verdicts.py defines the operations.

    Args:
      text: the hypothesis in words, for the report.
      arm: the arm whose score is tested.
      task: task of the score.
      metric: metric of the score.
      op: operation.
      value: threshold of the operation.
      compare: arm, baseline or untrained model to compare with; "" compares with `value` alone.
    """
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
    name: str,
    size: str,
    question: str,
    arms: dict[str, dict[str, Any]],
    budget: tuple[str, float],
    tasks: Sequence[str] | dict[str, dict[str, Any]],
    hypotheses: Sequence[dict[str, Any]],
    reference: str = "",
    seeds: tuple[int, ...] = SEEDS,
    tuned: bool = True,
    tolerance: float = 0.01,
    scaling: dict[str, str] | None = None,
) -> ConfigDict:
    """The config of an experiment.

    Args:
      name: of the experiment.
      size: of the experiment.
      question: what it answers, for the report.
      arms: `arm` by name, in the order of the report.
      budget: what is matched over the arms, and how much of it each run gets.
      tasks: names of tasks, or options by a name of your own.
      hypotheses: `hypothesis` each.
      reference: the arm that the others are compared with.
      seeds: of the runs of every arm.
      tuned: whether three trials choose each arm's learning rate.
      tolerance: how far budgets may be apart, as a fraction.
      scaling: {"task", "metric"} to which a scaling law is fitted, one for each series of arms.
    """
    options = tasks if isinstance(tasks, dict) else {task: {} for task in tasks}
    return ConfigDict(
        {
            "name": name if size == "tiny" else f"{name} {size}",
            "question": question,
            "seeds": seeds,
            "budget": {"matched": budget[0], "value": budget[1], "tolerance": tolerance},
            "tuning": {
                "field": "optimizer.learning_rate",
                "factors": _FACTORS if tuned else (),
                "share": _TRIAL_FRACTION,
                "seed": 1000,
            },
            "energy": {"watts": 0.0, "pue": 1.1, "grid_kg_per_kwh": 0.4},
            "shared": presets.overrides(),
            "split": "test",
            "tasks": ConfigDict(options, sort_keys=False),  # in the order of their declaration
            "workers": 0,
            "reference": reference,
            "scaling": scaling or {},
            "arms": ConfigDict(arms, sort_keys=False),  # likewise
            "hypotheses": tuple(hypotheses),
        }
    )
