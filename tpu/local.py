"""Starts a command as several processes on this machine, as if each were a host of a slice.

python -m tpu.local --n=4 [--devices=2] -- python -m lm.train --config=configs/mlm.py:tiny --workdir=runs/rehearsal

Each process sees --devices emulated CPU devices; together they are one mesh of n × devices. Lines are printed with the host's number. What
comes to this process (SIGTERM, Ctrl-C) goes to all hosts; to rehearse a fault, `kill` the process id that is printed for a host.

When a host ends with an error the others cannot go on: they get SIGTERM, and after --grace seconds SIGKILL. Exit status: 0 if all hosts end
with 0; 42 if all stopped and saved; otherwise that of the host that failed first (128 + n when a signal n ended it).

A whole gang is started again --restarts times after failures, and --preemptions times after stops (42) that did not come through this
process: what the launcher of a real slice does. The two are counted apart, for a stop loses nothing and a failure may come back for ever.
"""

import argparse
import ctypes
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
STOPPED = 42  # as lm.train exits when it was asked to stop and has saved


class Gang:
    """The processes of one start.

    Args:
      command: what each runs. count: how many. devices: emulated devices of each. heartbeat: seconds after which JAX takes a silent
        process for dead.

    Attributes:
      hosts: the processes, by host number.
    """

    def __init__(self, command: Sequence[str], count: int, devices: int, heartbeat: int):
        coordinator = f"localhost:{_free_port()}"
        # A host must not take the flags of whoever rehearses for its own number of devices.
        kept = [
            flag
            for flag in os.environ.get("XLA_FLAGS", "").split()
            if "xla_force_host_platform_device_count" not in flag
        ]
        shared = os.environ | {
            "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join([*kept, f"--xla_force_host_platform_device_count={devices}"]),
            "LM_COORDINATOR": coordinator, "LM_PROCESSES": str(count), "LM_HEARTBEAT": str(heartbeat), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self.hosts: list[subprocess.Popen] = []
        self.ended: queue.Queue[tuple[int, int]] = (
            queue.Queue()
        )  # in the order in which they ended: the first is the cause
        self.readers: list[threading.Thread] = []
        try:
            for number in range(count):
                host = subprocess.Popen(
                    command,
                    env=shared | {"LM_PROCESS": str(number)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    start_new_session=True,  # Ctrl-C on a terminal would otherwise come to the hosts too
                    preexec_fn=_end_with_parent,
                )
                self.hosts.append(host)
                threading.Thread(target=self._wait_for, args=(number, host), daemon=True).start()
                for source, sink in ((host.stdout, sys.stdout), (host.stderr, sys.stderr)):
                    reader = threading.Thread(
                        target=_prefixed, args=(number, source, sink), daemon=True
                    )
                    reader.start()
                    self.readers.append(reader)
                _say(f"host {number} is process {host.pid}")
        except OSError:
            self.end(0.0)
            raise

    def _wait_for(self, number: int, host: subprocess.Popen) -> None:
        self.ended.put((number, host.wait()))

    def signal(self, number: int) -> None:
        """Sends a signal to all hosts that still run."""
        for host in self.hosts:
            if host.poll() is None:
                host.send_signal(number)

    def wait(self, grace: float) -> int:
        """Waits until all have ended, and ends those that cannot go on.

        Returns:
          0, 42 or the status of the host that failed first.
        """
        statuses: dict[int, int] = {}
        deadline = None
        while len(statuses) < len(self.hosts):
            try:
                number, status = self.ended.get(timeout=0.5)
            except queue.Empty:
                if deadline and time.monotonic() > deadline:
                    _say(
                        f"hosts {', '.join(map(str, statuses))} have ended, but not all others; ending them"
                    )
                    self.end(grace)
                    deadline = None
                continue
            statuses[number] = status
            if status not in (0, STOPPED):
                if len(statuses) < len(self.hosts):
                    _say(f"host {number} ended with {_exit_status(status)}; ending the others")
                self.end(grace)
                return _exit_status(status)
            if status == STOPPED:  # the others stop at the same step, and end when it is saved
                deadline = deadline or time.monotonic() + 6 * grace
        self.end(0.0)
        return STOPPED if STOPPED in statuses.values() else 0

    def end(self, grace: float) -> None:
        """SIGTERM, and SIGKILL for what still runs after `grace` seconds."""
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(host.poll() is None for host in self.hosts):
            time.sleep(0.05)
        self.signal(signal.SIGKILL)
        for host in self.hosts:
            host.wait()
        for reader in self.readers:
            reader.join(timeout=5.0)  # a grandchild may hold the pipe open


def _prefixed(number: int, source, sink) -> None:
    for line in source:
        sink.write(f"[{number}] {line.rstrip()}\n")  # in one piece: lines of hosts do not mix
        sink.flush()


def _end_with_parent() -> None:
    """Asks the system to send SIGTERM when the parent is gone, so that a killed launcher leaves no hosts behind (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGTERM)


def _exit_status(status: int) -> int:
    return 128 - status if status < 0 else status


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def _say(text: str) -> None:
    print(f"tpu.local: {text}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str],
    count: int,
    devices: int = 1,
    restarts: int = 0,
    preemptions: int = 0,
    grace: float = 5.0,
    heartbeat: int = 10,
) -> int:
    """Runs a command on `count` hosts, again after failures and preemptions, and returns the exit status."""
    gang: list[Gang] = []
    asked: list[int] = []

    def forward(number: int, frame) -> None:
        if (
            asked and number == signal.SIGINT
        ):  # Ctrl-C again: whoever types it does not want to wait
            gang[-1].signal(signal.SIGKILL)
        asked.append(number)
        if gang:
            gang[-1].signal(signal.SIGTERM)  # hosts save at SIGTERM only

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while True:
            gang.append(Gang(command, count, devices, heartbeat))
            if asked:  # while they were started
                gang[-1].signal(signal.SIGTERM)
            status = gang[-1].wait(grace)
            if status == 0 or asked:
                return status
            if status == STOPPED:
                preemptions, left, how = preemptions - 1, preemptions, "stopped"
            else:
                restarts, left, how = restarts - 1, restarts, f"failed with {status}"
            if not left:
                return status
            _say(f"{how}; starts all hosts again ({left - 1} left)")
    finally:
        if gang:
            gang[-1].end(0.0)
        for number, handler in before.items():
            signal.signal(number, handler)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, with the command after `--` as `command`; exits with 2 and a message where they cannot work."""

    def whole(least: int):
        def number(text: str) -> int:
            try:
                value = int(text)
            except ValueError:
                value = least - 1
            if value < least:
                raise argparse.ArgumentTypeError(f"{text!r} should be a whole number from {least}")
            return value

        return number

    usage = "python -m tpu.local --n=N [--devices=K] [--restarts=R] [--preemptions=P] -- command …"
    own, command = arguments, []
    if "--" in arguments:
        at = arguments.index("--")
        own, command = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="tpu.local",
        description=__doc__,
        usage=usage,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--n", type=whole(1), required=True, help="number of hosts")
    parser.add_argument(
        "--devices", type=whole(1), default=1, help="emulated devices of each host (1)"
    )
    parser.add_argument(
        "--restarts", type=whole(0), default=0, help="starts again after failures (0)"
    )
    parser.add_argument(
        "--preemptions",
        type=whole(0),
        default=0,
        help="starts again after a host was told to stop (0)",
    )
    parser.add_argument(
        "--grace",
        type=whole(0),
        default=5,
        help="seconds from SIGTERM to SIGKILL when a host has failed (5)",
    )
    parser.add_argument(
        "--heartbeat",
        type=whole(1),
        default=10,
        help="seconds after which a silent host counts as dead (10)",
    )
    options = parser.parse_args(own)
    if not command:
        parser.error(
            "say what to run after --, for example: -- python -m lm.train --config=configs/mlm.py:tiny --workdir=runs/rehearsal"
        )
    options.command = command
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        return run(
            options.command,
            options.n,
            options.devices,
            options.restarts,
            options.preemptions,
            options.grace,
            options.heartbeat,
        )
    except OSError as error:
        print(f"error: {options.command[0]!r} cannot be started: {error.strerror}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
