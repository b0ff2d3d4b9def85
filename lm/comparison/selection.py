"""The selection metric of a sweep: whether runs have it, its values, and its direction."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from lm.comparison import accounting
from lm.comparison.experiment import CHANGES_LOSS
from lm.core import plugins
from lm.core.plain import read_json
from lm.core.plugins import NotApplicable, UserError
from lm.core.protocols import Batch, Params
from lm.data import corpus as corpora
from lm.data.corpus import Corpus
from lm.evaluation import evaluator
from lm.parallel import mesh as meshes
from lm.training.program import Program
from lm.training.validation import Validation

VALIDATION = "validation"
_SAME_LOSS = ("data.workers", "data.cache")
_SUFFIXES = ("_accuracy", "_nll", "_loss")  # of validation metrics that have a direction


def tasks(metric: str) -> dict[str, dict[str, str]]:
    """Returns the task that measures a metric, in the form of lm.comparison.trial.Tasks.

    Args:
      metric: "validation.loss", or "task.metric". A subset of the examples may follow, as in
        "minimal_pairs.accuracy/agreement".

    Returns:
      {task: {"task": plug-in}}; empty for validation metrics, which need no task.

    Raises:
      UserError: there is no such task, or the task does not have the metric.
    """
    name, dot, what = metric.partition(".")
    if not (name and dot and what):
        raise UserError(
            f"--metric={metric!r} should be validation.loss or TASK.METRIC, such as causal.nll"
        )
    if name == VALIDATION:
        return {}
    valid = plugins.names("tasks")
    if name not in valid:
        raise UserError(
            f"--metric={metric!r}: no task is called {name!r}; there are: validation (as"
            f" validation.loss), {', '.join(valid)}"
        )
    task = plugins.find("tasks", name).Task
    if what.partition("/")[0] not in task.metrics:
        raise UserError(f"--metric={metric!r}: task {name!r} measures {', '.join(task.metrics)}")
    return {name: {"task": name}}


def check_comparable(metric: str, fields: Iterable[str]) -> None:
    """Checks that values of a metric can be compared between runs.

    Args:
      metric: metric of the sweep.
      fields: names of the swept fields.

    Raises:
      UserError: it is a validation metric, and a field changes the quantity that it measures.
    """
    changing = [
        field for field in fields if field.startswith(CHANGES_LOSS) and field not in _SAME_LOSS
    ]
    if changing and metric.partition(".")[0] == VALIDATION:
        raise UserError(
            f"--sweep.{changing[0]} with --metric={metric}: the validation of a run uses its own"
            f" objective, tokenizer and data, so {changing[0]} changes what it measures, and the"
            " lowest value is not the best; select by a task, which measures the same for all runs:"
            " --metric=causal.nll, masked.ce or probe.balanced_accuracy"
            + (
                "; over tokenizers causal.bits_per_byte, since their tokens differ"
                if changing[0].startswith("tokenizer.")
                else ""
            )
        )


def check(config: Mapping[str, Any], metric: str, split: str) -> None:
    """Checks that a run of a config will have a metric, without computing anything.

    Args:
      config: the run config.
      metric: metric of the sweep.
      split: split that tasks evaluate on.

    Raises:
      UserError: the task does not suit the objective, or validation has no such metric; the
        message lists the available metrics.
    """
    meshes.initialize()
    corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False)
    program = accounting.build(config, corpus.tokenizer)
    name, _, what = metric.partition(".")
    objective = config["objective"]["name"]
    if wanted := tasks(metric):
        task = evaluator.make_tasks(wanted, corpus, split, program.length)[name]
        if not task.suits(program.objective):
            suitable = ", ".join([*_suitable(program, corpus, split), "validation.loss"])
            raise UserError(
                f"--metric={metric!r}: task {name!r} does not suit objective {objective!r};"
                f" these do: {suitable}"
            )
    elif what != "loss" and what not in (available := _validation_metrics(program, corpus)):
        raise UserError(
            f"--metric={metric!r}: validation of objective {objective!r} has {', '.join(available)}"
        )


def _suitable(program: Program, corpus: Corpus, split: str) -> list[str]:
    """The first metric of each task that suits the objective and needs no options."""
    metrics = []
    for name in plugins.names("tasks"):
        try:
            task = evaluator.make_tasks([name], corpus, split, program.length)[name]
        except NotApplicable:
            continue
        if task.suits(program.objective):
            metrics.append(f"{name}.{task.metrics[0]}")
    return metrics


def _validation_metrics(program: Program, corpus: Corpus) -> list[str]:
    """Validation metrics that have a direction, "loss" and its terms first; from shapes alone."""
    validation = Validation(
        program,
        program.objective,
        corpus.stores["validation"],
        "validation",
        1,
        program.training.batch_size,
    )
    batch = {
        name: jax.ShapeDtypeStruct((validation.size, *array.shape[1:]), array.dtype)
        for name, array in validation.batches[0].items()
    }

    def loss(params: Params, batch: Batch) -> tuple[Any, Any]:
        return program.objective.loss(program.model(params), batch, None)

    with meshes.use(program.mesh, program.mesh_config):
        terms, metrics = jax.eval_shape(loss, program.shapes["params"], batch)
    names = terms | metrics
    return ["loss", *(name for name in names if name in program.terms or name.endswith(_SUFFIXES))]


def value(
    directory: Path, record: Mapping[str, Any], metric: str
) -> tuple[float | None, str | None]:
    """Reads the value of a metric from the files of a run.

    Args:
      directory: directory of the run.
      record: content of its run.json.
      metric: metric of the sweep.

    Returns:
      The value, and the better direction, "higher" or "lower". Both are None if the run has no
      value.
    """
    name, _, what = metric.partition(".")
    if record.get("status") != "done":
        return None, None
    row: Mapping[str, Any]
    if name == VALIDATION:
        row = {
            "value": record["final"].get(what),
            "better": "higher" if what.endswith("_accuracy") else "lower",
        }
    else:
        path = directory / "scores.json"
        rows = read_json(path, "scores")["rows"] if path.exists() else []
        # The file may also have scores of an untrained model.
        row = next(
            (
                row
                for row in rows
                if (row["task"], row["metric"]) == (name, what)
                and row.get("kind", "model") == "model"
            ),
            {},
        )
    number = row.get("value")
    if number is None or not math.isfinite(number):
        return None, None
    return number, row["better"]


def direction(arms: Iterable[Mapping[str, Any]]) -> str | None:
    """Returns the better direction, "higher" or "lower"; None if no run has a value.

    Args:
      arms: combinations of a sweep, with their "runs".
    """
    return next((run["better"] for arm in arms for run in arm["runs"] if run["better"]), None)


def cost(mean: float, better: str | None) -> float:
    """Converts a mean to a cost, for which lower is better.

    Args:
      mean: mean of a metric over seeds.
      better: direction of the metric, "higher" or "lower".
    """
    return -mean if better == "higher" else mean
