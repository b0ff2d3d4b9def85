"""The training loop: from a config and a workdir to a trained model, from wherever the last session stopped."""

import contextlib
import functools
import itertools
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from lm.core.plain import plain
from lm.core.plugins import UserError
from lm.data import corpus as corpora
from lm.data import loader
from lm.parallel import chips, pipeline
from lm.parallel import mesh as meshes
from lm.training import energy, events, records
from lm.training.checkpoint import Checkpoints
from lm.training.program import Program, Sums, divide_sums, total_loss
from lm.training.speed import Speed
from lm.training.validation import Validation

STOPPED = 42  # exit status of a run that was asked to stop (SIGTERM, Ctrl-C) and saved


class _Stopped(Exception):
    """This process was asked to stop while it evaluated."""


class Diverged(UserError):
    """The loss or its gradient is no longer a finite number."""


def train(
    config: Mapping, workdir: str | Path, quiet: bool = False, group: events.Group | None = None
) -> dict[str, Any]:
    """Trains, or continues, the run that `config` describes.

    Args:
      config: as built by lm.presets.run. workdir: a new directory, or one of the same config. quiet: show no progress.
      group: the experiment that it is a trial of.

    Returns:
      The run's record, as in workdir/run.json.

    Raises:
      UserError: the config, data or workdir cannot work; nothing was written.
      Diverged: the loss is not finite; the last good checkpoint is kept and named.
      SystemExit(STOPPED): SIGTERM or Ctrl-C came; the state was saved, and the same command continues.
    """
    workdir, config = Path(workdir), plain(config)
    record = records.check_same_run(workdir, config)
    corpus = corpora.prepare(config["data"], config["tokenizer"], progress=not quiet)
    records.check_same_data(workdir, record, corpus.fingerprint, corpus.tokenizer.fingerprint)
    program = Program(config, corpus.tokenizer)
    options = program.training
    events.check_installed(options)
    total, step_tokens, step_flops = (
        program.steps,
        options.batch_size * program.row_tokens,
        options.batch_size * program.flops_per_row,
    )
    plan = training_plan(program, corpus.stores["train"])
    validation = Validation(
        program,
        program.objective,
        corpus.stores["validation"],
        "validation",
        options.evaluate_tokens,
        options.batch_size,
    )
    _check_disk(workdir, program, options.keep)

    multihost_utils.sync_global_devices("workdir looked at")  # before any process writes there
    records.make_directory(workdir)
    rows = loader.examples(
        program.objective, corpus.stores["train"], plan, program.seed, options.batch_size, total
    )
    fresh = _new_record(config, corpus, program, total) | {
        "padding": round(loader.padding(program.objective, corpus.stores["train"], plan), 4)
    }
    if record is None:
        records.write_run(
            workdir, fresh
        )  # before all else, so that whatever is killed now is known as this run
    checkpoints = Checkpoints(workdir, options.keep)
    start = checkpoints.latest() or 0
    if record and record["status"] == "done" and start == total:
        checkpoints.close()
        return record
    counters: dict[str, Any] = {"seconds": 0.0, "loss_tokens": 0.0, "sums": {}}
    if start:
        state, counters = checkpoints.restore(start, program.shapes, program.shardings)
    else:
        state = program.init()
    record = (record or {}) | fresh
    record.pop("error", None)  # of a session that diverged
    records.write_run(workdir, record)
    if jax.process_index() == 0:
        corpus.tokenizer.save(workdir / "tokenizer.model")
    batches = loader.Loader(rows, options.batch_size, program.mesh, start)

    peak = chips.peak_flops(jax.devices()[0].device_kind)
    speed = Speed(step_tokens, step_flops, peak and peak * program.mesh.size, counters["seconds"])
    owed = bool(
        counters.get("owes_validation")
    )  # the session before was asked to stop in the middle of it
    writers = functools.partial(events.writers, options, workdir, config, start, group)
    shown = records.Records(workdir, start, total, writers, quiet, validates_again=owed)
    shown.say(_header(config, corpus, program, plan, fresh["padding"], total, start))
    if not start and "step" in record:
        shown.say(
            f"run.json tells of step {record['step']}, but its checkpoint was not completed: starts again from step 0"
        )
    meter, power = (
        _Meter(program.terms, counters, checkpoints.latest),
        energy.Meter(counters.get("energy_joules", 0.0)),
    )

    def amounts(step: int) -> dict[str, float]:
        return {
            "tokens": step * step_tokens,
            "flops": step * step_flops,
            "seconds": speed.seconds(),
        }

    evaluate_every, save_every = (
        options.evaluate_every or -(-total // 10),
        options.checkpoint_every or -(-total // 10),
    )
    try:
        with _stop_signals() as asked_to_stop:
            for step in range(start if owed else start + 1, total + 1):
                if step > start:
                    state, sums = program.step(state, next(batches))
                    meter.add(step, sums)  # reads the step before, while this one computes
                    if step == start + 1:
                        jax.block_until_ready(sums)
                    speed.step_done(batches.waited)
                stop = asked_to_stop() and step < total
                evaluate, save = (
                    step == total or step % every == 0 for every in (evaluate_every, save_every)
                )
                loss, owed = None, False
                if step > start and (step % options.log_every == 0 or evaluate or save):
                    means = meter.flush()
                    now = speed.values(batches.waited)
                    power.values()  # often enough: counters wrap around
                    shown.write(step, "train", amounts(step) | means | now)
                    shown.show(step, means["loss"], now, speed.left(total - step))
                if evaluate:
                    try:
                        with speed.pause():
                            asked = validation.sums(
                                state["params"], functools.partial(_stop_if, asked_to_stop)
                            )
                            meter.check(
                                step,
                                {f"validation {name}": value for name, (value, _) in asked.items()},
                            )
                            means = divide_sums(asked)
                            loss = total_loss(program.terms, means)
                        record["final"] = {"step": step, "loss": loss, **means}
                        shown.write(step, "validation", amounts(step) | {"loss": loss} | means)
                    except _Stopped:
                        stop = owed = True
                if step > start and (save or stop):
                    counters = (
                        meter.counters()
                    )  # reads this step first: what is saved has a finite loss
                    used = power.values(last=step == total or stop)
                    record |= (
                        {"step": step}
                        | amounts(step)
                        | {"loss_tokens": meter.loss_tokens}
                        | speed.values(batches.waited)
                        | used
                    )
                    # Before the checkpoint: once the last one is there, nothing is computed again.
                    records.write_run(workdir, record)
                    with speed.pause():
                        counters |= {
                            "seconds": speed.seconds(),
                            "owes_validation": owed,
                            "energy_joules": power.total,
                        }
                        checkpoints.save(step, state, counters, loss)
                if stop:
                    checkpoints.wait()
                    shown.say(
                        f"stopped at step {step}, saved in {checkpoints.directory}; the same command continues"
                    )
                    sys.exit(STOPPED)
        checkpoints.wait()
        record["status"] = "done"
        records.write_run(workdir, record)
        shown.say(_footer(workdir, record))
        return record
    except Diverged as error:
        records.write_run(workdir, record | {"status": "diverged", "error": str(error)})
        raise
    finally:
        shown.close()
        checkpoints.close()


class _Meter:
    """Adds up metrics as (sum, weight), one step behind the device; refuses numbers that are not finite.

    Attributes:
      loss_tokens: targets that bore a loss so far: the weight of all loss terms, or what the metric "targets" counts where weights do not.
      total: sums since the last flush. steps: how many of them each term had a weight in.
    """

    def __init__(
        self,
        terms: Mapping[str, float],
        counters: Mapping[str, Any],
        last_good: Callable[[], int | None],
    ):
        self.terms, self.last_good = terms, last_good
        self.loss_tokens = counters["loss_tokens"]
        self.total: dict[str, tuple[float, float]] = {
            name: tuple(pair) for name, pair in counters["sums"].items()
        }
        self.steps: dict[str, int] = dict(counters.get("steps", {}))
        self.pending: tuple[int, Sums] | None = None

    def add(self, step: int, sums: Sums) -> None:
        """Takes a step's sums, and reads those of the step before."""
        self._read()
        self.pending = (step, sums)

    def flush(self) -> dict[str, float]:
        """Means since the last flush, "loss" among them."""
        self._read()
        means, steps = divide_sums(self.total), max(self.steps.values(), default=1)
        # A term that only some of the steps had counts for those: in a run of two phases, one line may hold both.
        shares = {
            name: factor * self.steps.get(name, 0) / steps for name, factor in self.terms.items()
        }
        self.total, self.steps = {}, {}
        return {"loss": total_loss(shares, means), **means}

    def counters(self) -> dict[str, Any]:
        """What continues with a checkpoint."""
        self._read()
        return {"loss_tokens": self.loss_tokens, "sums": self.total, "steps": self.steps}

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """Raises Diverged where a value is not finite."""
        for name, value in values.items():
            if not math.isfinite(value):
                last = self.last_good()
                good = (
                    f"The last good checkpoint is that of step {last}."
                    if last
                    else "There is no checkpoint yet."
                )
                raise Diverged(
                    f"{name} is {value} at step {step}; training stops. {good}"
                    " Lower config.optimizer.learning_rate or raise config.optimizer.warmup, in a new --workdir; or look at the data."
                )

    def _read(self) -> None:
        if self.pending is None:
            return
        step, sums = self.pending
        self.pending = None
        read = jax.device_get(sums)
        self.check(step, {name: value for name, (value, _) in read.items()})
        counted = float(read.pop("targets", (0.0, 0.0))[0])
        self.loss_tokens += counted or sum(
            float(weight) for name, (_, weight) in read.items() if name in self.terms
        )
        self.steps[""] = self.steps.get("", 0) + 1  # all of them
        for name, (value, weight) in read.items():
            before = self.total.get(name, (0.0, 0.0))
            self.total[name] = (before[0] + float(value), before[1] + float(weight))
            if name in self.terms and float(weight):
                self.steps[name] = self.steps.get(name, 0) + 1


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGTERM or Ctrl-C came; a second Ctrl-C ends at once.

    Several processes, which must all ask equally often, are told at the same question, soon after SIGTERM came to one of them; Ctrl-C
    ends them at once.
    """
    came: list[int] = []
    if jax.process_count() > 1:
        # JAX agrees on one of these numbers, which all processes must come by.
        questions = itertools.count(1)

        def asked() -> bool:
            if not came and multihost_utils.reached_preemption_sync_point(next(questions)):
                came.append(signal.SIGTERM)
            return bool(came)

        yield asked
        return

    def handle(number: int, frame: Any) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    try:
        before = {
            number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)
        }
    except ValueError:  # not the main thread: the caller's own handlers hold
        before = {}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_if(asked_to_stop: Callable[[], bool]) -> None:
    if asked_to_stop():
        raise _Stopped


def training_plan(program: Program, store):
    """What an epoch of the objective consists of; its length is the number of rows.

    Raises:
      UserError: the text does not fill one batch.
    """
    size, length = program.training.batch_size, program.length
    if len(store.tokens) < length:
        raise UserError(
            f"the training split has {len(store.tokens):,} tokens, fewer than one row of config.data.length={length}; give more text or"
            " shorter rows"
        )
    plan = program.objective.plan(store)
    if len(plan) < size:
        raise UserError(
            f"the training split gives {len(plan):,} examples of {length} tokens, fewer than one batch of"
            f" config.training.batch_size={size}; give more text, shorter rows (config.data.length) or smaller batches"
        )
    return plan


def _check_disk(workdir: Path, program: Program, keep: int) -> None:
    """Refuses to start where a checkpoint would not fit."""
    size = sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.shapes)
    )
    existing = next(
        parent for parent in [workdir.resolve(), *workdir.resolve().parents] if parent.exists()
    )
    free = shutil.disk_usage(existing).free
    if free < (keep + 2) * size:
        raise UserError(
            f"{existing} has {free / 2**30:.2f} GiB free, but {keep + 2} checkpoints of {size / 2**30:.2f} GiB must fit (the last {keep},"
            " the best, and the one being written); free some space, lower config.training.keep or give another --workdir"
        )


def _new_record(config: Mapping, corpus, program: Program, total: int) -> dict[str, Any]:
    """What run.json says before the first step; a continued run updates where and with what it runs."""
    return {
        "status": "running", "config": config, "steps": total, "seed": program.seed, "parameters": program.parameters,
        "data": {"fingerprint": corpus.fingerprint, "tokenizer": corpus.tokenizer.fingerprint}, "mesh": dict(program.mesh.shape),
        "machine": records.machine(), "versions": records.versions(), "git": records.git_revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def _header(
    config: Mapping, corpus, program: Program, plan: Any, padding: float, total: int, start: int
) -> str:
    mesh = meshes.describe(program.mesh.shape)
    stages, microbatches, repeats = pipeline.schedule(program.mesh_config, program.mesh)
    bubble = pipeline.bubble(stages, microbatches, repeats)
    size = program.training.batch_size
    lines = [
        corpus.describe(),
        f"{config['objective']['name']} on {config['model']['name']}: {program.parameters:,} parameters; {total:,} steps of"
        f" {size} × {program.row_tokens} tokens ({total * size / len(plan):.2f} epochs); {jax.devices()[0].device_kind}, mesh: {mesh}",
        f"  {len(plan):,} rows an epoch, {padding:.1%} padding; {program.flops_per_row / 1e6:,.1f} MFLOP a row, forward and backward",
        *([f"  {plan.note}"] if plan.note else []),
        *(
            [
                f"  {stages} stages × {repeats} rounds, {microbatches} microbatches: {bubble:.1%} bubble"
            ]
            if stages > 1
            else []
        ),
    ]
    return "\n".join(lines + ([f"continues from step {start}"] if start else []))


def _footer(workdir: Path, record: Mapping[str, Any]) -> str:
    final = ", ".join(
        f"{name} {value:.6g}" for name, value in record["final"].items() if name != "step"
    )
    return (
        f"done: {record['steps']} steps in {record['seconds']:.0f} s, {record['tokens_per_second']:,.0f} tokens/s,"
        f" input wait {record['input_wait_share']:.1%}; validation {final}\n"
        f"record {workdir / 'run.json'} · metrics {workdir / 'metrics.jsonl'} · checkpoints {workdir / 'checkpoints'}"
        f" · tensorboard --logdir {workdir / 'tensorboard'}\n"
        f"next: python -m lm.evaluate --workdir={workdir}"
    )
