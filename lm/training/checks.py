"""Checks before the first step of a run."""

import math
import shutil
from pathlib import Path

import jax

from lm.core.plugins import UserError
from lm.core.protocols import Plan
from lm.data.store import Store
from lm.training.program import Program


def training_plan(program: Program, store: Store) -> Plan:
    """Returns the plan of rows for one epoch of the training split.

    Args:
      program: the program to train.
      store: token store of the training split.

    Raises:
      UserError: the text does not fill one batch.
    """
    size, length = program.training.batch_size, program.length
    if len(store.tokens) < length:
        raise UserError(
            f"the training split has {len(store.tokens):,} tokens, fewer than one row of"
            f" config.data.length={length}; give more text or shorter rows"
        )
    plan = program.objective.plan(store)
    if len(plan) < size:
        raise UserError(
            f"the training split gives {len(plan):,} examples of {length} tokens, fewer than one"
            f" batch of config.training.batch_size={size}; give more text, shorter rows"
            " (config.data.length) or smaller batches"
        )
    return plan


def check_disk(workdir: Path, program: Program, keep: int) -> None:
    """Checks that checkpoints fit on the disk.

    Args:
      workdir: directory of the run, which may not exist yet.
      program: the program whose state is saved.
      keep: number of latest checkpoints to keep, in addition to the best one and the one
        being written.

    Raises:
      UserError: the checkpoints do not fit.
    """
    size = sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.shapes)
    )
    existing = next(
        parent for parent in [workdir.resolve(), *workdir.resolve().parents] if parent.exists()
    )
    free = shutil.disk_usage(existing).free
    if free < (keep + 2) * size:
        raise UserError(
            f"{existing} has {free / 2**30:.2f} GiB free, but {keep + 2} checkpoints of"
            f" {size / 2**30:.2f} GiB must fit (the last {keep}, the best, and the one being"
            " written); free some space, lower config.training.keep or give another --workdir"
        )
