"""Measures a checkpoint by every task that suits it, beside unigram, bigram and other baselines.

python -m lm.evaluate --workdir=runs/mlm [--split=test] [--tasks=masked,probe] [--step=best] [--set=minimal_pairs.path=FILES]
"""

from absl import flags

from lm.core import command

_WORKDIR = flags.DEFINE_string("workdir", None, "workdir of a run of lm.train", required=True)
_SPLIT = flags.DEFINE_enum("split", "test", ["validation", "test"], "which held-out documents")
_TASKS = flags.DEFINE_list(
    "tasks", [], "tasks of lm/tasks, separated by commas; none means all that suit the model"
)
_STEP = flags.DEFINE_string(
    "step", "latest", "which checkpoint: latest, best (lowest validation loss) or a step"
)
_BASELINES = flags.DEFINE_bool("baselines", True, "also measure the baselines")
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
    command.run(main, __doc__)
