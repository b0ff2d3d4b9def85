"""Evaluates a checkpoint on all tasks that suit it, beside unigram, bigram and other baselines.

  python -m lm.evaluate --workdir=runs/mlm [--split=test] [--tasks=masked,probe] [--step=best]
      [--set=minimal_pairs.path=FILES]

Prints a table, and writes it as evaluation-SPLIT.json in the workdir.

Exit status: 0 done; 2 a flag is wrong, or there is no such checkpoint; 1 internal error.
"""

from absl import flags

from lm.core import command

_WORKDIR = flags.DEFINE_string("workdir", None, "workdir of a run of lm.train", required=True)
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["validation", "test"], "which held-out documents to evaluate on"
)
_TASKS = flags.DEFINE_list(
    "tasks", [], "tasks of lm/tasks, separated by commas; default: all that suit the model"
)
_STEP = flags.DEFINE_string(
    "step", "latest", "which checkpoint: latest, best (lowest validation loss), or a step number"
)
_BASELINES = flags.DEFINE_bool("baselines", True, "also evaluate the baselines")
_SET = command.set_flag()


def main() -> None:
    from lm.evaluation import evaluator
    from lm.parallel import mesh

    mesh.initialize()
    rows = evaluator.evaluate(
        _WORKDIR.value,
        _SPLIT.value,
        _TASKS.value,
        _STEP.value,
        _BASELINES.value,
        command.task_options(_SET.value),
    )
    print(evaluator.table(rows))
    print(f"written: {_WORKDIR.value}/evaluation-{_SPLIT.value}.json")


if __name__ == "__main__":
    command.run(main)
