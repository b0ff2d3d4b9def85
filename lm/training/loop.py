"""The training loop: from a config and a workdir to a trained model; resumes a stopped run."""

import functools
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from lm.core.plain import plain
from lm.core.protocols import Plan
from lm.data import corpus as corpora
from lm.data import loader
from lm.data.corpus import Corpus
from lm.parallel import chips, pipeline
from lm.parallel import mesh as meshes
from lm.training import checks, energy, events, records, stopping
from lm.training.checkpoint import Checkpoints
from lm.training.meter import Diverged, MetricAccumulator
from lm.training.program import Program, divide_sums, total_loss
from lm.training.run_log import RunLog
from lm.training.speed import Speed
from lm.training.validation import Validation


def train(
    config: Mapping[str, Any],
    workdir: str | Path,
    quiet: bool = False,
    group: events.Group | None = None,
) -> dict[str, Any]:
    """Trains the run that a config describes, or continues it.

    Args:
      config: config of the run, as lm.presets.run gives it.
      workdir: a new directory, or the directory of a run with the same config.
      quiet: whether to print no progress.
      group: the experiment to which the run belongs as a trial; None without one.

    Returns:
      The run's record, which is also written to workdir/run.json.

    Raises:
      UserError: the config, data or workdir is invalid; nothing was written.
      Diverged: the loss is not finite; the last good checkpoint is kept, and the message names it.
      SystemExit: after SIGTERM or Ctrl-C, with lm.training.stopping.EXIT_STATUS. The state was
        saved, and the same command continues the run.
    """
    workdir, config = Path(workdir), plain(config)
    record = records.check_same_run(workdir, config)
    corpus = corpora.prepare(config["data"], config["tokenizer"], progress=not quiet)
    records.check_same_data(workdir, record, corpus.fingerprint, corpus.tokenizer.fingerprint)
    program = Program(config, corpus.tokenizer)
    options, total = program.training, program.steps
    events.check_installed(options)
    store = corpus.stores["train"]
    plan = checks.training_plan(program, store)
    validation = Validation(
        program,
        program.objective,
        corpus.stores["validation"],
        "validation",
        options.evaluate_tokens,
        options.batch_size,
    )
    checks.check_disk(workdir, program, options.keep)

    multihost_utils.sync_global_devices("workdir looked at")  # before any process writes there
    records.make_directory(workdir)
    rows = loader.examples(program.objective, store, plan, program.seed, options.batch_size, total)
    padding = round(loader.padding(program.objective, store, plan), 4)
    fresh = _new_record(config, corpus, program) | {"padding": padding}
    if record is None:
        # Written first: from now on, a killed process leaves a directory that belongs to this run.
        records.write_run(workdir, fresh)
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

    step_tokens = options.batch_size * program.row_tokens
    step_flops = options.batch_size * program.flops_per_row
    peak = chips.peak_flops(jax.devices()[0].device_kind)
    speed = Speed(step_tokens, step_flops, peak and peak * program.mesh.size, counters["seconds"])
    # The previous session received a stop request while it validated.
    owes_validation = bool(counters.get("owes_validation"))
    writers = functools.partial(events.writers, options, workdir, config, start, group)
    log = RunLog(workdir, start, total, writers, quiet, validates_again=owes_validation)
    log.print(_header(config, corpus, program, plan, padding, start))
    if not start and "step" in record:
        log.print(
            f"run.json records step {record['step']}, but its checkpoint is not complete:"
            " restarts from step 0"
        )
    meter = MetricAccumulator(program.terms, counters, checkpoints.latest)
    power = energy.EnergyMeter(counters.get("energy_joules", 0.0))

    def amounts(step: int) -> dict[str, float]:
        return {
            "tokens": step * step_tokens,
            "flops": step * step_flops,
            "seconds": speed.seconds(),
        }

    evaluate_every = options.evaluate_every or -(-total // 10)
    save_every = options.checkpoint_every or -(-total // 10)
    try:
        with stopping.stop_requests() as stop_requested:
            for step in range(start if owes_validation else start + 1, total + 1):
                if step > start:
                    state, sums = program.step(state, next(batches))
                    meter.add(step, sums)  # reads the previous step while this one computes
                    if step == start + 1:
                        jax.block_until_ready(sums)
                    speed.step_done(batches.waited)
                stop = stop_requested() and step < total
                evaluate = step == total or step % evaluate_every == 0
                save = step == total or step % save_every == 0
                loss, owes_validation = None, False
                if step > start and (step % options.log_every == 0 or evaluate or save):
                    means = meter.flush()
                    now = speed.values(batches.waited)
                    power.values()  # called often, since counters wrap around
                    log.write(step, "train", amounts(step) | means | now)
                    log.update(step, means["loss"], now, speed.seconds_left(total - step))
                if evaluate:
                    try:
                        with speed.pause():
                            held_out = validation.sums(
                                state["params"],
                                functools.partial(stopping.raise_if, stop_requested),
                            )
                            meter.check(
                                step,
                                {
                                    f"validation {name}": value
                                    for name, (value, _) in held_out.items()
                                },
                            )
                            means = divide_sums(held_out)
                            loss = total_loss(program.terms, means)
                        record["final"] = {"step": step, "loss": loss, **means}
                        log.write(step, "validation", amounts(step) | {"loss": loss} | means)
                    except stopping.Stopped:
                        stop = owes_validation = True
                if step > start and (save or stop):
                    # This step is read first: only a state with a finite loss is saved.
                    counters = meter.counters()
                    used = power.values(last=step == total or stop)
                    record |= {"step": step} | amounts(step) | {"loss_tokens": meter.loss_tokens}
                    record |= speed.values(batches.waited) | used
                    # Written first: after the last checkpoint, no step is computed again.
                    records.write_run(workdir, record)
                    with speed.pause():
                        counters |= {
                            "seconds": speed.seconds(),
                            "owes_validation": owes_validation,
                            "energy_joules": power.total,
                        }
                        checkpoints.save(step, state, counters, loss)
                if stop:
                    checkpoints.wait()
                    log.print(
                        f"stopped at step {step}, saved in {checkpoints.directory};"
                        " the same command continues"
                    )
                    sys.exit(stopping.EXIT_STATUS)
        checkpoints.wait()
        record["status"] = "done"
        records.write_run(workdir, record)
        log.print(_footer(workdir, record))
        return record
    except Diverged as error:
        records.write_run(workdir, record | {"status": "diverged", "error": str(error)})
        raise
    finally:
        log.close()
        checkpoints.close()


def _new_record(config: Mapping[str, Any], corpus: Corpus, program: Program) -> dict[str, Any]:
    """run.json before the first step; a resumed run updates where and with what it runs."""
    return {
        "status": "running",
        "config": config,
        "steps": program.steps,
        "seed": program.seed,
        "parameters": program.parameters,
        "data": {"fingerprint": corpus.fingerprint, "tokenizer": corpus.tokenizer.fingerprint},
        "mesh": dict(program.mesh.shape),
        "machine": records.machine(),
        "versions": records.versions(),
        "git": records.git_revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _header(
    config: Mapping[str, Any],
    corpus: Corpus,
    program: Program,
    plan: Plan,
    padding: float,
    start: int,
) -> str:
    """What is printed before the first step."""
    stages, microbatches, repeats = pipeline.schedule(program.mesh_config, program.mesh)
    size, total = program.training.batch_size, program.steps
    lines = [
        corpus.describe(),
        f"{config['objective']['name']} on {config['model']['name']}:"
        f" {program.parameters:,} parameters; {total:,} steps of {size} × {program.row_tokens}"
        f" tokens ({total * size / len(plan):.2f} epochs); {jax.devices()[0].device_kind},"
        f" mesh: {meshes.describe(program.mesh.shape)}",
        f"  {len(plan):,} rows per epoch, {padding:.1%} padding;"
        f" {program.flops_per_row / 1e6:,.1f} MFLOP per row, forward and backward",
    ]
    if plan.note:
        lines.append(f"  {plan.note}")
    if stages > 1:
        bubble = pipeline.bubble(stages, microbatches, repeats)
        lines.append(
            f"  {stages} stages × {repeats} rounds, {microbatches} microbatches:"
            f" {bubble:.1%} bubble"
        )
    if start:
        lines.append(f"continues from step {start}")
    return "\n".join(lines)


def _footer(workdir: Path, record: Mapping[str, Any]) -> str:
    """What is printed after the last step."""
    final = ", ".join(
        f"{name} {value:.6g}" for name, value in record["final"].items() if name != "step"
    )
    return (
        f"done: {record['steps']} steps in {record['seconds']:.0f} s,"
        f" {record['tokens_per_second']:,.0f} tokens/s,"
        f" input wait {record['input_wait_share']:.1%}; validation {final}\n"
        f"record {workdir / 'run.json'} · metrics {workdir / 'metrics.jsonl'}"
        f" · checkpoints {workdir / 'checkpoints'}"
        f" · tensorboard --logdir {workdir / 'tensorboard'}\n"
        f"next: python -m lm.evaluate --workdir={workdir}"
    )
