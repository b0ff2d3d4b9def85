"""Starts a command as several processes on this machine, as if each were a host of a slice.

python -m tpu.local --n=4 [--devices=2] --
    python -m lm.train --config=configs/mlm.py:tiny --workdir=runs/rehearsal

Each process has --devices emulated CPU devices; together they form one mesh of n × devices. Every
line of output begins with its host's number. Signals to this process (SIGTERM, Ctrl-C) go to all
hosts. To rehearse a fault, `kill` the process id that is printed for a host.

When a host ends with an error, the others cannot continue: they get SIGTERM, and SIGKILL after
--grace seconds. Exit status: 0 if all hosts end with 0; 42 if all stopped and saved; otherwise that
of the host that failed first (128 + n if signal n ended it).

All hosts restart up to --restarts times after failures, and up to --preemptions times after stops
(42) that did not come through this process, as the launcher of a real slice does. The two have
separate limits: a stop loses nothing, a failure may recur for ever.
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
import types
from collections.abc import Callable, Sequence
from typing import TextIO

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
STOPPED = 42  # exit status of lm.train after a request to stop, when it has saved


class Gang:
    """The host processes of one start.

    Args:
      command: the command of each host.
      count: the number of hosts.
      devices: emulated devices of each host.
      heartbeat: seconds after which JAX treats a silent process as dead.

    Attributes:
      hosts: the processes, by host number.
      ended: (host number, status) of ended hosts in order; the first is the cause.
      readers: threads that forward the hosts' output.

    Raises:
      OSError: the command cannot be started.
    """

    def __init__(self, command: Sequence[str], count: int, devices: int, heartbeat: int):
        coordinator = f"localhost:{_free_port()}"
        # The caller's number of emulated devices must not reach the hosts.
        xla_flags = [
            flag
            for flag in os.environ.get("XLA_FLAGS", "").split()
            if "xla_force_host_platform_device_count" not in flag
        ]
        shared = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": " ".join(
                [*xla_flags, f"--xla_force_host_platform_device_count={devices}"]
            ),
            "LM_COORDINATOR": coordinator, "LM_PROCESSES": str(count),
            "LM_HEARTBEAT": str(heartbeat), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self.hosts: list[subprocess.Popen] = []
        self.ended: queue.Queue[tuple[int, int]] = queue.Queue()
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
                    start_new_session=True,  # otherwise Ctrl-C on a terminal reaches the hosts too
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
                _log(f"host {number} is process {host.pid}")
        except OSError:
            self.end(0.0)
            raise

    def _wait_for(self, number: int, host: subprocess.Popen) -> None:
        self.ended.put((number, host.wait()))

    def signal(self, number: int) -> None:
        """Sends a signal to all running hosts."""
        for host in self.hosts:
            if host.poll() is None:
                host.send_signal(number)

    def wait(self, grace: float) -> int:
        """Waits until all hosts have ended, and ends those that cannot continue.

        Args:
          grace: seconds from SIGTERM to SIGKILL.

        Returns:
          0, 42, or the exit status of the host that failed first.
        """
        statuses: dict[int, int] = {}
        deadline = None
        while len(statuses) < len(self.hosts):
            try:
                number, status = self.ended.get(timeout=0.5)
            except queue.Empty:
                if deadline and time.monotonic() > deadline:
                    _log(
                        f"hosts {', '.join(map(str, statuses))} have ended, but not all others;"
                        " ending them"
                    )
                    self.end(grace)
                    deadline = None
                continue
            statuses[number] = status
            if status not in (0, STOPPED):
                if len(statuses) < len(self.hosts):
                    _log(f"host {number} ended with {_exit_status(status)}; ending the others")
                self.end(grace)
                return _exit_status(status)
            if status == STOPPED:  # the others stop at the same step, and end when they have saved
                deadline = deadline or time.monotonic() + 6 * grace
        self.end(0.0)
        return STOPPED if STOPPED in statuses.values() else 0

    def end(self, grace: float) -> None:
        """Ends all hosts.

        Args:
          grace: seconds from SIGTERM to SIGKILL.
        """
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(host.poll() is None for host in self.hosts):
            time.sleep(0.05)
        self.signal(signal.SIGKILL)
        for host in self.hosts:
            host.wait()
        for reader in self.readers:
            reader.join(timeout=5.0)  # a grandchild may hold the pipe open


def _prefixed(number: int, source: TextIO, sink: TextIO) -> None:
    for line in source:
        sink.write(f"[{number}] {line.rstrip()}\n")  # in one call: lines of hosts do not mix
        sink.flush()


def _end_with_parent() -> None:
    """Requests SIGTERM at the parent's death (Linux): a killed launcher leaves no hosts behind."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGTERM)


def _exit_status(status: int) -> int:
    return 128 - status if status < 0 else status


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _log(text: str) -> None:
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
    """Runs a command on several hosts, and restarts it after failures and preemptions.

    Args:
      command: the command of each host.
      count: the number of hosts.
      devices: emulated devices of each host.
      restarts: maximum number of restarts after failures.
      preemptions: maximum number of restarts after stops.
      grace: seconds from SIGTERM to SIGKILL when a host has failed.
      heartbeat: seconds after which JAX treats a silent process as dead.

    Returns:
      The exit status of the launcher: 0, 42, or the status of the host that failed first.

    Raises:
      OSError: the command cannot be started.
    """
    gang: list[Gang] = []
    received: list[int] = []

    def forward(number: int, frame: types.FrameType | None) -> None:
        if received and number == signal.SIGINT:  # a second Ctrl-C: do not wait for the hosts
            gang[-1].signal(signal.SIGKILL)
        received.append(number)
        if gang:
            gang[-1].signal(signal.SIGTERM)  # hosts save at SIGTERM only

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while True:
            gang.append(Gang(command, count, devices, heartbeat))
            if received:  # while the hosts were starting
                gang[-1].signal(signal.SIGTERM)
            status = gang[-1].wait(grace)
            if status == 0 or received:
                return status
            if status == STOPPED:
                preemptions, left, how = preemptions - 1, preemptions, "stopped"
            else:
                restarts, left, how = restarts - 1, restarts, f"failed with {status}"
            if not left:
                return status
            _log(f"{how}; starts all hosts again ({left - 1} left)")
    finally:
        if gang:
            gang[-1].end(0.0)
        for number, handler in before.items():
            signal.signal(number, handler)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the command line; exits with 2 and a message if it is wrong.

    Returns:
      The options; `command` is the command after `--`.
    """

    def integer(minimum: int) -> Callable[[str], int]:
        def number(text: str) -> int:
            try:
                value = int(text)
            except ValueError:
                value = minimum - 1
            if value < minimum:
                raise argparse.ArgumentTypeError(
                    f"{text!r} should be a whole number from {minimum}"
                )
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
    parser.add_argument("--n", type=integer(1), required=True, help="number of hosts")
    parser.add_argument(
        "--devices", type=integer(1), default=1, help="emulated devices of each host (1)"
    )
    parser.add_argument(
        "--restarts", type=integer(0), default=0, help="restarts after failures (0)"
    )
    parser.add_argument(
        "--preemptions",
        type=integer(0),
        default=0,
        help="restarts after a host was stopped (0)",
    )
    parser.add_argument(
        "--grace",
        type=integer(0),
        default=5,
        help="seconds from SIGTERM to SIGKILL when a host has failed (5)",
    )
    parser.add_argument(
        "--heartbeat",
        type=integer(1),
        default=10,
        help="seconds after which a silent host is treated as dead (10)",
    )
    options = parser.parse_args(own)
    if not command:
        parser.error(
            "give the command to run after --, for example: -- python -m lm.train"
            " --config=configs/mlm.py:tiny --workdir=runs/rehearsal"
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
