"""Kills a run at random moments, resumes it, and compares its final state with an undisturbed run.

  python -m benchmarks.faults [--kills=30] [--seed=0] [--steps=1200] [--workdir=DIR]

Half of the kills hit a run of one process, half one of two hosts (python -m tpu.local). All kinds
of fault are about equally frequent:

  -9                  kill -9 at a random step
  -9 while starting   kill -9 before the first step
  -9 in a save        kill -9 while a checkpoint is being written
  -9, then damage     kill -9; before the restart a bit of the newest checkpoint is flipped, or one
                      of its files is cut in half
  TERM                the run must save and exit with 42
  -9, TERM to a host  the same to one of two hosts; the other must exit as well

Prints for each kind the number of faults, recomputed steps, interrupted saves, damaged checkpoints
that were skipped, and the time from the kill until the run was back at the same step. Exit
status 1 if a run is lost, an exit status is not the documented one, or any bit of the parameters,
the optimizer state or the metrics differs. The folder is then kept.
"""

import argparse
import dataclasses
import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
STOPPED = 42
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)  # of a process; of tpu.local
ONE_PROCESS = ("-9", "TERM", "-9 in a save", "-9, then damage", "-9 while starting")
TWO_HOSTS = (
    "-9 to a host",
    "TERM to a host",
    "-9 to a host in a save",
    "-9 to a host, then damage",
)
CLOCKS = {"seconds", "tokens_per_second", "input_wait_share", "mfu"}
TIMEOUT = 300.0  # seconds
RESUMED = re.compile(r"(?:continues|resumes) from step (\d+)\n")  # printed by lm.train


@dataclasses.dataclass
class Fault:
    """A fault and its cost.

    Attributes:
      kind: one of ONE_PROCESS or TWO_HOSTS.
      step: last logged step when it happened.
      seconds: time until the run is back at that step; minus the time of the fault until then.
      recomputed: steps computed again.
      damaged: damaged checkpoints; minus the earlier ones until the run is back.
      cut: whether a save was interrupted.
    """

    kind: str
    step: int
    seconds: float = 0.0
    recomputed: int = 0
    damaged: int = 0
    cut: bool = False


class Session:
    """One start of the run.

    Attributes:
      pids: process ids to kill: of the process, or of the hosts.
      output: stderr so far.
    """

    def __init__(self, command: list[str], hosts: int, environment: dict[str, str]) -> None:
        launch = [sys.executable, "-m", "tpu.local", f"--n={hosts}", "--"] if hosts > 1 else []
        self.process = subprocess.Popen(
            launch + command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.hosts, self.output = hosts, ""
        self.pids = [self.process.pid] if hosts == 1 else []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.output += line
            match = re.match(r"tpu\.local: host \d+ is process (\d+)", line)
            if match:
                self.pids.append(int(match[1]))

    def until(self, condition: Callable[[], bool]) -> bool:
        """Waits for a condition.

        Returns:
          False if the run ended before.

        Raises:
          RuntimeError: Neither happened in time.
        """
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(
                    f"nothing happened for {TIMEOUT:.0f} s; output of the run:\n{self.output}"
                )
            time.sleep(0.002)
        return True

    def end(self) -> int:
        """Waits for the end; returns the exit status."""
        status = self.process.wait(timeout=TIMEOUT)
        self.reader.join(timeout=TIMEOUT)
        return status


class Run:
    """A workdir and the command of its run."""

    def __init__(self, root: Path, name: str, hosts: int, steps: int) -> None:
        self.workdir, self.hosts, self.steps = root / name, hosts, steps
        fields = {
            "model.layers": 1,
            "model.width": 32,
            "model.heads": 2,
            "model.feedforward": 64,
            "data.source": "text",
            "data.length": 32,
            "data.path": root / "text",
            "data.cache": root / "cache",
            "tokenizer.vocab_size": 400,
            "mesh.data": 1,
            "mesh.fsdp": -1,
            "training.tokens": 0,
            "training.steps": steps,
            "training.batch_size": 8,
            "training.log_every": 1,
            "training.checkpoint_every": steps // 50,
            "training.evaluate_every": steps // 20,
            "training.evaluate_tokens": 2048,
            "training.keep": 3,
        }
        overrides = [f"--config.{name}={value}" for name, value in fields.items()]
        self.command = [
            sys.executable,
            "-m",
            "lm.train",
            "--config=configs/clm.py:tiny",
            f"--workdir={self.workdir}",
            *overrides,
        ]
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("XLA_", "JAX_", "LM_"))
        }
        self.environment = inherited | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def start(self) -> Session:
        """Starts or resumes the run."""
        return Session(self.command, self.hosts, self.environment)

    def step(self) -> int:
        """The last step in metrics.jsonl."""
        try:
            with open(self.workdir / "metrics.jsonl", "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
                return max(
                    (
                        int(step)
                        for step in re.findall(rb'^{"step": (\d+), .*}$', file.read(), re.MULTILINE)
                    ),
                    default=0,
                )
        except FileNotFoundError:
            return 0

    def reached(self, step: int) -> bool:
        """Whether this step was logged."""
        return self.step() >= step

    def saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))

    def quarantined(self) -> int:
        """Number of damaged checkpoints that the run quarantined."""
        return len(list((self.workdir / "checkpoints").glob("damaged-*")))

    def damage(self, rng: random.Random) -> None:
        """Flips a bit of the newest checkpoint, or cuts one of its files in half."""
        steps = sorted(
            int(path.name)
            for path in (self.workdir / "checkpoints").iterdir()
            if path.name.isdigit()
        )
        newest = self.workdir / "checkpoints" / str(steps[-1])
        file = rng.choice(
            [
                path
                for path in sorted(newest.glob("*/**/*"))
                if path.is_file() and path.stat().st_size > 1
            ]
        )
        content = bytearray(file.read_bytes())
        if rng.random() < 0.5:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[len(content) // 2 :]
        file.write_bytes(content)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl without times."""
        lines = (self.workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [
            {name: value for name, value in json.loads(line).items() if name not in CLOCKS}
            for line in lines
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the last checkpoint."""
        from lm.training.checkpoint import Checkpoints

        checkpoints = Checkpoints(self.workdir, read_only=True)
        arrays = checkpoints.arrays(checkpoints.latest() or 0)
        checkpoints.close()
        return arrays


def write_text(folder: Path, rng: random.Random) -> None:
    """Writes a small corpus of made-up words."""
    if folder.exists():
        sys.exit(f"error: {folder.parent} has an earlier result; give an empty --workdir")
    folder.mkdir(parents=True)
    words = [
        "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
        for _ in range(300)
    ]
    for number in range(150):
        sentences = [
            " ".join(rng.choices(words, k=rng.randint(6, 14))).capitalize() + "."
            for _ in range(rng.randint(8, 20))
        ]
        (folder / f"{number:03}.txt").write_text(" ".join(sentences) + "\n", encoding="utf-8")


def disturb(run: Run, kinds: list[str], rng: random.Random) -> list[Fault]:
    """Runs to the end, with a fault of each of these kinds on the way, in this order.

    Raises:
      RuntimeError: A session did not end as it should.
    """
    # Random steps over the run. The first comes after a few checkpoints, so that one can be
    # restored.
    targets = sorted(rng.randint(run.steps // 12, run.steps * 9 // 10) for _ in kinds)
    faults: list[Fault] = []
    done, pending = 0, None  # pending: the fault whose step is not reached again yet
    while True:
        kind = kinds[done] if done < len(kinds) else ""
        session, began = run.start(), time.monotonic()

        if kind == "-9 while starting":
            delay = rng.uniform(0.2, 5.0)
            while time.monotonic() - began < delay and not RESUMED.search(session.output):
                time.sleep(0.01)
            os.kill(session.pids[0], signal.SIGKILL)
            if (status := session.end()) not in KILLED:
                raise RuntimeError(
                    f"{kind}: exit status {status}; output of the run:\n{session.output}"
                )
            faults.append(Fault(kind, run.step(), time.monotonic() - began))
            done += 1
            print(f"  {done}/{len(kinds)}  {kind}", file=sys.stderr, flush=True)
            continue
        if pending:
            recover(run, session, pending)
            pending = None
        if not kind:
            if (status := session.end()) != 0:
                raise RuntimeError(f"exit status {status}; output of the run:\n{session.output}")
            return faults
        reached = session.until(functools.partial(run.reached, targets[done]))
        time.sleep(rng.uniform(0.0, 0.1))
        if reached and "in a save" in kind:
            reached = session.until(run.saving)
            time.sleep(rng.uniform(0.0, 0.03))
        if not reached or session.process.poll() is not None:
            raise RuntimeError(
                f"the run ended before it could be hit at step {targets[done]}; give more --steps."
                f" Output:\n{session.output}"
            )
        pending = Fault(kind, run.step(), -time.monotonic(), damaged=-run.quarantined())
        os.kill(rng.choice(session.pids), signal.SIGTERM if "TERM" in kind else signal.SIGKILL)
        status = session.end()
        if status != STOPPED if "TERM" in kind else status not in KILLED:
            raise RuntimeError(
                f"{kind} at step {pending.step}: exit status {status}; output of the run:\n"
                f"{session.output}"
            )
        pending.step = max(
            pending.step, run.step()
        )  # a run that stops on SIGTERM continues up to its save
        pending.cut = run.saving()
        if "damage" in kind:
            run.damage(rng)
        faults.append(pending)
        done += 1
        print(f"  {done}/{len(kinds)}  {kind} at step {pending.step}", file=sys.stderr, flush=True)


def recover(run: Run, session: Session, fault: Fault) -> None:
    """Waits until the run is back where a fault hit it, and records the cost.

    Raises:
      RuntimeError: The run ended before.
    """

    def resumed() -> list[str]:
        return RESUMED.findall(session.output)

    if not session.until(lambda: bool(resumed())):
        raise RuntimeError(
            f"the run did not resume after {fault.kind!r} at step {fault.step}; output:\n"
            f"{session.output}"
        )
    start = int(resumed()[0])
    if not session.until(lambda: start >= fault.step or run.step() >= fault.step):
        raise RuntimeError(
            f"the run did not recover from {fault.kind!r} at step {fault.step}; output:\n"
            f"{session.output}"
        )
    fault.recomputed = max(0, fault.step - start)
    fault.seconds += time.monotonic()
    fault.damaged += run.quarantined()


def differences(one: Run, other: Run) -> list[str]:
    """Names what differs in two finished runs, in any bit."""
    result = []
    ends = one.arrays(), other.arrays()
    if ends[0].keys() != ends[1].keys():
        result.append(f"arrays {sorted(ends[0].keys() ^ ends[1].keys())}")
    result += [
        name
        for name in ends[0]
        if name in ends[1] and ends[0][name].tobytes() != ends[1][name].tobytes()
    ]
    lines = one.metrics(), other.metrics()
    result += [
        f"metrics.jsonl: {first} and {second}"
        for first, second in zip(*lines, strict=False)
        if first != second
    ][:3]
    if len(lines[0]) != len(lines[1]):
        result.append(f"metrics.jsonl: {len(lines[0])} and {len(lines[1])} lines")
    records = [
        json.loads((run.workdir / "run.json").read_text(encoding="utf-8")) for run in (one, other)
    ]
    return result + [
        f"run.json: {name}"
        for name in ("status", "step", "final", "loss_tokens")
        if records[0][name] != records[1][name]
    ]


def table(faults: list[Fault]) -> str:
    """A line for each kind, and their total."""
    lines = [
        f"{'fault':<28}{'count':>6}{'recomputed':>13}{'most':>6}{'cut saves':>15}{'damaged':>9}"
        f"{'seconds lost':>14}"
    ]
    for kind in [*ONE_PROCESS, *TWO_HOSTS, "all"]:
        matching = [fault for fault in faults if kind in (fault.kind, "all")]
        if matching:
            steps, seconds = (
                [fault.recomputed for fault in matching],
                [fault.seconds for fault in matching],
            )
            cut, damaged = (
                sum(fault.cut for fault in matching),
                sum(fault.damaged for fault in matching),
            )
            lines.append(
                f"{kind:<28}{len(matching):>6}{sum(steps):>13}{max(steps):>6}{cut:>15}{damaged:>9}"
                f"{sum(seconds):>14.0f}"
            )
    return "\n".join(lines)


def main() -> int:
    """Prints the table; returns the exit status."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--kills", type=int, default=30, help="number of kills (30)")
    flags.add_argument("--seed", type=int, default=0, help="seed of kinds and moments (0)")
    flags.add_argument(
        "--steps",
        type=int,
        default=1200,
        help="steps of the run of one process; two hosts run a third (1200)",
    )
    flags.add_argument(
        "--workdir",
        type=Path,
        help="a new folder; default: a temporary one, removed unless something fails",
    )
    args = flags.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    root = args.workdir or Path(tempfile.mkdtemp(prefix="faults-"))
    rng = random.Random(args.seed)
    write_text(root / "text", rng)
    faults, different, began = [], [], time.monotonic()
    try:
        for hosts, known, count in (
            (1, ONE_PROCESS, args.kills - args.kills // 2),
            (2, TWO_HOSTS, args.kills // 2),
        ):
            kinds = [known[number % len(known)] for number in range(count)]
            rng.shuffle(kinds)
            steps = args.steps // (1 if hosts == 1 else 3)
            print(
                f"{hosts} process{'es' * (hosts > 1)}: {steps} steps without a fault, then with"
                f" {count}",
                file=sys.stderr,
                flush=True,
            )
            undisturbed, disturbed = (
                Run(root, f"{name}-{hosts}", hosts, steps) for name in ("undisturbed", "disturbed")
            )
            session = undisturbed.start()
            if session.end() != 0:
                raise RuntimeError(f"the undisturbed run failed:\n{session.output}")
            faults += disturb(disturbed, kinds, rng)
            different += differences(undisturbed, disturbed)
    except RuntimeError as error:
        print(f"LOST: {error}\nkept: {root}", file=sys.stderr)
        return 1
    print(table(faults))
    print(
        f"{len(faults)} faults in {time.monotonic() - began:.0f} s; lost runs: 0;"
        f" differences from the undisturbed run: {len(different)}"
    )
    if different:
        print("\n".join(different), f"kept: {root}", sep="\n", file=sys.stderr)
        return 1
    if not args.workdir:
        shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
