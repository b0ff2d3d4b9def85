"""Kills a run at random moments, starts it again each time, and compares its end with that of a run that nothing happened to.

    python -m benchmarks.faults [--kills=30] [--seed=0] [--steps=1200] [--workdir=DIR]

Half of the kills hit one process, half one of two hosts (python -m tpu.local). Each kind of fault comes about equally often:

    -9                  kill -9 at a random step
    -9 while starting   kill -9 before the first step
    -9 in a save        kill -9 while a checkpoint is being written
    -9, then damage     and, before the restart, a bit of the newest checkpoint is flipped or one of its files cut in half
    TERM                the run must save and exit with 42
    -9, TERM to a host  the same to one of two hosts; the other must end as well

Printed: for each kind how often, steps that were computed again, saves that were cut off, checkpoints that were damaged and passed over,
and the time from the kill until the run was again where it had been. Exit status 1, and the folder is kept, if a run is lost, an exit
status is not the documented one, or any parameter, optimiser state or line of metrics differs in any bit.
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

ROOT = Path(__file__).resolve().parents[1]
STOPPED = 42
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)  # of a process; of tpu.local whose host it was
ALONE = ("-9", "TERM", "-9 in a save", "-9, then damage", "-9 while starting")
HOSTS = ("-9 to a host", "TERM to a host", "-9 to a host in a save", "-9 to a host, then damage")
CLOCKS = {"seconds", "tokens_per_second", "input_wait_share", "mfu"}
PATIENCE = 300.0  # seconds without what is waited for


@dataclasses.dataclass
class Fault:
    """What was done, and what it cost; seconds and damaged are negative readings of clock and folder until it is made up for."""

    kind: str
    step: int  # the last step that was logged when it happened
    seconds: float = 0.0
    recomputed: int = 0
    damaged: int = 0
    cut: bool = False  # a save was left unfinished


class Session:
    """One start of the run.

    Attributes:
      pids: what can be killed: the process, or the hosts. said: what was printed so far.
    """

    def __init__(self, command: list[str], hosts: int, environment: dict[str, str]):
        launch = [sys.executable, "-m", "tpu.local", f"--n={hosts}", "--"] if hosts > 1 else []
        self.process = subprocess.Popen(
            launch + command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.hosts, self.said = hosts, ""
        self.pids = [self.process.pid] if hosts == 1 else []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            found = re.match(r"tpu\.local: host \d+ is process (\d+)", line)
            if found:
                self.pids.append(int(found[1]))

    def until(self, arrived: Callable[[], bool]) -> bool:
        """Waits for something; False if the run ended before. Raises if neither happens."""
        deadline = time.monotonic() + PATIENCE
        while not arrived():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(
                    f"nothing happened for {PATIENCE:.0f} s; the run said:\n{self.said}"
                )
            time.sleep(0.002)
        return True

    def end(self) -> int:
        """The exit status."""
        status = self.process.wait(timeout=PATIENCE)
        self.reader.join(timeout=PATIENCE)
        return status


class Run:
    """A workdir, and how its run is started."""

    def __init__(self, root: Path, name: str, hosts: int, steps: int):
        self.workdir, self.hosts, self.steps = root / name, hosts, steps
        fields = {
            "model.layers": 1, "model.width": 32, "model.heads": 2, "model.feedforward": 64, "data.source": "text", "data.length": 32,
            "data.path": root / "text", "data.cache": root / "cache", "tokenizer.vocab_size": 400, "mesh.data": 1, "mesh.fsdp": -1,
            "training.tokens": 0, "training.steps": steps, "training.batch_size": 8, "training.log_every": 1,
            "training.checkpoint_every": steps // 50, "training.evaluate_every": steps // 20, "training.evaluate_tokens": 2048,
            "training.keep": 3,
        }  # fmt: skip
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
            "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }  # fmt: skip

    def start(self) -> Session:
        return Session(self.command, self.hosts, self.environment)

    def step(self) -> int:
        """The last step in metrics.jsonl."""
        try:
            with open(self.workdir / "metrics.jsonl", "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
                return max(
                    (
                        int(found)
                        for found in re.findall(
                            rb'^{"step": (\d+), .*}$', file.read(), re.MULTILINE
                        )
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

    def passed_over(self) -> int:
        """How many damaged checkpoints were moved aside."""
        return len(list((self.workdir / "checkpoints").glob("damaged-*")))

    def damage(self, draw: random.Random) -> None:
        """Flips a bit of the newest checkpoint, or cuts a file of it in half."""
        steps = sorted(
            int(path.name)
            for path in (self.workdir / "checkpoints").iterdir()
            if path.name.isdigit()
        )
        newest = self.workdir / "checkpoints" / str(steps[-1])
        file = draw.choice(
            [
                path
                for path in sorted(newest.glob("*/**/*"))
                if path.is_file() and path.stat().st_size > 1
            ]
        )
        content = bytearray(file.read_bytes())
        if draw.random() < 0.5:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        else:
            del content[len(content) // 2 :]
        file.write_bytes(content)

    def metrics(self) -> list[dict]:
        """The lines of metrics.jsonl without clocks."""
        lines = (self.workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [
            {name: value for name, value in json.loads(line).items() if name not in CLOCKS}
            for line in lines
        ]

    def arrays(self) -> dict:
        """The last checkpoint."""
        from lm.training.checkpoint import Checkpoints

        checkpoints = Checkpoints(self.workdir, read_only=True)
        found = checkpoints.arrays(checkpoints.latest() or 0)
        checkpoints.close()
        return found


def write_text(folder: Path, draw: random.Random) -> None:
    """A small corpus of made-up words."""
    if folder.exists():
        sys.exit(f"error: {folder.parent} holds an earlier soak; give an empty --workdir")
    folder.mkdir(parents=True)
    words = [
        "".join(
            draw.choice("bdfgklmnprst") + draw.choice("aeiou") for _ in range(draw.randint(1, 3))
        )
        for _ in range(300)
    ]
    for number in range(150):
        sentences = [
            " ".join(draw.choices(words, k=draw.randint(6, 14))).capitalize() + "."
            for _ in range(draw.randint(8, 20))
        ]
        (folder / f"{number:03}.txt").write_text(" ".join(sentences) + "\n", encoding="utf-8")


def torment(run: Run, kinds: list[str], draw: random.Random) -> list[Fault]:
    """Runs to the end with a fault of each of these kinds on the way, in this order.

    Raises:
      RuntimeError: a session ended otherwise than it should.
    """
    # Spread over the run, at random places; the first after a few checkpoints, so that there is one to fall back to.
    targets = sorted(draw.randint(run.steps // 12, run.steps * 9 // 10) for _ in kinds)
    faults: list[Fault] = []
    done, waiting = 0, None  # waiting: the fault whose step is not reached again yet
    while True:
        kind = kinds[done] if done < len(kinds) else ""
        session, began = run.start(), time.monotonic()

        if kind == "-9 while starting":
            delay = draw.uniform(0.2, 5.0)
            while time.monotonic() - began < delay and "continues from" not in session.said:
                time.sleep(0.01)
            os.kill(session.pids[0], signal.SIGKILL)
            if (status := session.end()) not in KILLED:
                raise RuntimeError(f"{kind}: exit status {status}; the run said:\n{session.said}")
            faults.append(Fault(kind, run.step(), time.monotonic() - began))
            done += 1
            print(f"  {done}/{len(kinds)}  {kind}", file=sys.stderr, flush=True)
            continue
        if waiting:
            come_back(run, session, waiting)
            waiting = None
        if not kind:
            if (status := session.end()) != 0:
                raise RuntimeError(f"exit status {status}; the run said:\n{session.said}")
            return faults
        reached = session.until(functools.partial(run.reached, targets[done]))
        time.sleep(draw.uniform(0.0, 0.1))
        if reached and "in a save" in kind:
            reached = session.until(run.saving)
            time.sleep(draw.uniform(0.0, 0.03))
        if not reached or session.process.poll() is not None:
            raise RuntimeError(
                f"the run ended before it could be hit at step {targets[done]}; give more --steps. It said:\n{session.said}"
            )
        waiting = Fault(kind, run.step(), -time.monotonic(), damaged=-run.passed_over())
        os.kill(draw.choice(session.pids), signal.SIGTERM if "TERM" in kind else signal.SIGKILL)
        status = session.end()
        if status != STOPPED if "TERM" in kind else status not in KILLED:
            raise RuntimeError(
                f"{kind} at step {waiting.step}: exit status {status}; the run said:\n{session.said}"
            )
        waiting.step = max(
            waiting.step, run.step()
        )  # of a run that was told to stop, the step it came to
        waiting.cut = run.saving()
        if "damage" in kind:
            run.damage(draw)
        faults.append(waiting)
        done += 1
        print(f"  {done}/{len(kinds)}  {kind} at step {waiting.step}", file=sys.stderr, flush=True)


def come_back(run: Run, session: Session, fault: Fault) -> None:
    """Waits until the run is again where a fault hit it, and notes what that cost.

    Raises:
      RuntimeError: it ended before.
    """

    def continued() -> list[str]:
        return re.findall(r"continues from step (\d+)\n", session.said)

    if not session.until(lambda: bool(continued())):
        raise RuntimeError(
            f"the run did not continue after {fault.kind!r} at step {fault.step}; it said:\n{session.said}"
        )
    start = int(continued()[0])
    if not session.until(lambda: start >= fault.step or run.step() >= fault.step):
        raise RuntimeError(
            f"the run did not come back from {fault.kind!r} at step {fault.step}; it said:\n{session.said}"
        )
    fault.recomputed = max(0, fault.step - start)
    fault.seconds += time.monotonic()
    fault.damaged += run.passed_over()


def differences(one: Run, other: Run) -> list[str]:
    """What is not the same in two finished runs, to the last bit."""
    found = []
    ends = one.arrays(), other.arrays()
    if ends[0].keys() != ends[1].keys():
        found.append(f"arrays {sorted(ends[0].keys() ^ ends[1].keys())}")
    found += [
        name
        for name in ends[0]
        if name in ends[1] and ends[0][name].tobytes() != ends[1][name].tobytes()
    ]
    lines = one.metrics(), other.metrics()
    found += [
        f"metrics.jsonl: {first} and {second}"
        for first, second in zip(*lines, strict=False)
        if first != second
    ][:3]
    if len(lines[0]) != len(lines[1]):
        found.append(f"metrics.jsonl: {len(lines[0])} and {len(lines[1])} lines")
    records = [
        json.loads((run.workdir / "run.json").read_text(encoding="utf-8")) for run in (one, other)
    ]
    return found + [
        f"run.json: {name}"
        for name in ("status", "step", "final", "loss_tokens")
        if records[0][name] != records[1][name]
    ]


def table(faults: list[Fault]) -> str:
    """A line for each kind, and their sum."""
    lines = [
        f"{'fault':<28}{'count':>6}{'steps again':>13}{'most':>6}{'saves cut off':>15}{'damaged':>9}{'seconds lost':>14}"
    ]
    for kind in [*ALONE, *HOSTS, "all"]:
        those = [fault for fault in faults if kind in (fault.kind, "all")]
        if those:
            again, seconds = (
                [fault.recomputed for fault in those],
                [fault.seconds for fault in those],
            )
            cut, damaged = sum(fault.cut for fault in those), sum(fault.damaged for fault in those)
            lines.append(
                f"{kind:<28}{len(those):>6}{sum(again):>13}{max(again):>6}{cut:>15}{damaged:>9}{sum(seconds):>14.0f}"
            )
    return "\n".join(lines)


def main() -> int:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--kills", type=int, default=30, help="how many (30)")
    flags.add_argument("--seed", type=int, default=0, help="of kinds and moments (0)")
    flags.add_argument(
        "--steps",
        type=int,
        default=1200,
        help="length of the run of one process; a third for two (1200)",
    )
    flags.add_argument(
        "--workdir",
        type=Path,
        help="a new folder; by default a temporary one, which is removed unless something fails",
    )
    args = flags.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    root = args.workdir or Path(tempfile.mkdtemp(prefix="faults-"))
    draw = random.Random(args.seed)
    write_text(root / "text", draw)
    faults, different, began = [], [], time.monotonic()
    try:
        for hosts, known, count in (
            (1, ALONE, args.kills - args.kills // 2),
            (2, HOSTS, args.kills // 2),
        ):
            kinds = [known[number % len(known)] for number in range(count)]
            draw.shuffle(kinds)
            steps = args.steps // (1 if hosts == 1 else 3)
            print(
                f"{hosts} process{'es' * (hosts > 1)}: {steps} steps without a fault, then with {count}",
                file=sys.stderr,
                flush=True,
            )
            undisturbed, disturbed = (
                Run(root, f"{name}-{hosts}", hosts, steps) for name in ("undisturbed", "disturbed")
            )
            session = undisturbed.start()
            if session.end() != 0:
                raise RuntimeError(f"the run without faults failed:\n{session.said}")
            faults += torment(disturbed, kinds, draw)
            different += differences(undisturbed, disturbed)
    except RuntimeError as error:
        print(f"LOST: {error}\nkept: {root}", file=sys.stderr)
        return 1
    print(table(faults))
    print(
        f"{len(faults)} faults in {time.monotonic() - began:.0f} s; lost runs: 0; differing from the undisturbed run: {len(different)}"
    )
    if different:
        print("\n".join(different), f"kept: {root}", sep="\n", file=sys.stderr)
        return 1
    if not args.workdir:
        shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
