"""What the runs of a sweep are judged by: whether each will have the metric, known before any is trained, and which direction is better."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lm.comparison.experiment import CHANGES_LOSS
from lm.core import plugins
from lm.core.plain import read_json
from lm.core.plugins import UserError

VALIDATION = "validation"
_SAME_LOSS = ("data.workers", "data.cache")
_NAMES = ("_accuracy", "_nll", "_loss")  # of validation's metrics, those that have a direction


def tasks(metric: str) -> dict[str, dict[str, str]]:
    """The task that measures a metric, for `trial`; none for validation's own numbers.

    Args:
      metric: "validation.loss", or "task.metric", of which a part of the examples may follow ("minimal_pairs.accuracy/agreement").

    Raises:
      UserError: there is no such task, or it has no such metric.
    """
    name, dot, what = metric.partition(".")
    if not (name and dot and what):
        raise UserError(
            f"--metric={metric!r} should be validation.loss or TASK.METRIC, as causal.nll"
        )
    if name == VALIDATION:
        return {}
    valid = plugins.names("tasks")
    if name not in valid:
        raise UserError(
            f"--metric={metric!r}: no task is called {name!r}; there are: validation (as validation.loss), {', '.join(valid)}"
        )
    task = plugins.find("tasks", name).Task
    if what.partition("/")[0] not in task.metrics:
        raise UserError(f"--metric={metric!r}: task {name!r} measures {', '.join(task.metrics)}")
    return {name: {"task": name}}


def check_comparable(metric: str, fields: Iterable[str]) -> None:
    """Refuses to compare validation's numbers over fields that make them another quantity.

    Args:
      fields: that are swept.
    """
    changing = [
        field for field in fields if field.startswith(CHANGES_LOSS) and field not in _SAME_LOSS
    ]
    if changing and metric.partition(".")[0] == VALIDATION:
        raise UserError(
            f"--sweep.{changing[0]} with --metric={metric}: each run's validation asks by its own objective, tokenizer and data, so with"
            f" another {changing[0]} it is another quantity, and the lowest is not the best; judge by a task, which asks all runs the same:"
            " --metric=causal.nll, masked.ce or probe.balanced_accuracy"
            + (
                "; over tokenizers causal.bits_per_byte, since their tokens differ"
                if changing[0].startswith("tokenizer.")
                else ""
            )
        )


def check(config: Mapping[str, Any], metric: str, split: str) -> None:
    """Refuses a metric that a run of this config will not have; the program is built, nothing computed.

    Raises:
      UserError: the task does not suit the objective, or its validation has no such number; the message lists what it has.
    """
    from lm.comparison import accounting
    from lm.data import corpus as corpora
    from lm.evaluation import evaluator
    from lm.parallel import mesh

    mesh.initialize()
    corpus = corpora.prepare(config["data"], config["tokenizer"], progress=False)
    program = accounting.build(config, corpus.tokenizer)
    name, _, what = metric.partition(".")
    objective = config["objective"]["name"]
    if wanted := tasks(metric):
        if not evaluator.make_tasks(wanted, corpus, split, program.length)[name].suits(
            program.objective
        ):
            fitting = ", ".join([*_suiting(program, corpus, split), "validation.loss"])
            raise UserError(
                f"--metric={metric!r}: task {name!r} does not suit objective {objective!r}; what does: {fitting}"
            )
    elif what != "loss" and what not in (there := _measured(program, corpus)):
        raise UserError(
            f"--metric={metric!r}: validation of objective {objective!r} has {', '.join(there)}"
        )


def _suiting(program: Any, corpus: Any, split: str) -> list[str]:
    """ "task.metric" of the tasks that can be asked without options and suit the objective, each by its first metric."""
    from lm.evaluation import evaluator

    found = []
    for name in plugins.names("tasks"):
        try:
            task = evaluator.make_tasks([name], corpus, split, program.length)[name]
        except UserError:
            continue  # it needs options, or labels that the corpus has not
        if task.suits(program.objective):
            found.append(f"{name}.{task.metrics[0]}")
    return found


def _measured(program: Any, corpus: Any) -> list[str]:
    """The numbers of a run's validation that have a direction: "loss", its terms and the metrics beside them, from shapes alone."""
    import jax

    from lm.parallel import mesh as meshes
    from lm.training.validation import Validation

    asked = Validation(
        program,
        program.objective,
        corpus.stores["validation"],
        "validation",
        1,
        program.training.batch_size,
    )
    batch = {
        name: jax.ShapeDtypeStruct((asked.size, *array.shape[1:]), array.dtype)
        for name, array in asked.batches[0].items()
    }
    with meshes.use(program.mesh, program.mesh_config):
        terms, metrics = jax.eval_shape(
            lambda params, batch: program.objective.loss(program.model(params), batch, None),
            program.shapes["params"],
            batch,
        )
    there = terms | metrics
    return ["loss", *(name for name in there if name in program.terms or name.endswith(_NAMES))]


def value(
    directory: Path, record: Mapping[str, Any], metric: str
) -> tuple[float | None, str | None]:
    """What a run reached, and whether "higher" or "lower" is better: of a task as its score says; None for both where it has no value.

    Args:
      directory, record: of the run and its run.json.
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
        # The untrained model is measured in the same file.
        row = next(
            (
                row
                for row in rows
                if (row["task"], row["metric"]) == (name, what)
                and row.get("kind", "model") == "model"
            ),
            {},
        )
    found = row.get("value")
    return (found, row["better"]) if found is not None and math.isfinite(found) else (None, None)


def direction(arms: Iterable[Mapping[str, Any]]) -> str | None:
    """ "higher" or "lower", as the values of a sweep's runs say; None where none has a value."""
    return next((run["better"] for arm in arms for run in arm["runs"] if run["better"]), None)


def cost(mean: float, better: str | None) -> float:
    """A mean as a number of which less is better."""
    return -mean if better == "higher" else mean
