"""Processes as hosts: their environment, what happens when one ends, and the exit status."""

import os
import signal
import subprocess
import sys
import time

import pytest
import runs

from tpu import local

# The beginning of every host's program.
HOST = "import os, signal, sys, time; host = int(os.environ['LM_PROCESS']); "


def launch(*arguments, code, **popen):
    """Starts tpu.local with hosts that run this code after HOST."""
    command = [
        sys.executable,
        "-m",
        "tpu.local",
        *arguments,
        "--",
        sys.executable,
        "-c",
        HOST + code,
    ]
    return subprocess.Popen(
        command,
        cwd=runs.TESTS.parent,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **popen,
    )


def done(*arguments, code, **popen):
    """Exit status, stdout and stderr."""
    process = launch(*arguments, code=code, **popen)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_the_environment_of_each_host():
    names = ("LM_PROCESSES", "LM_COORDINATOR", "XLA_FLAGS", "JAX_PLATFORMS")
    code = f"print(host, *(os.environ[name] for name in {names}))"
    flags = "--xla_a --xla_force_host_platform_device_count=8"
    status, out, err = done(
        "--n=3", "--devices=2", code=code, env=os.environ | {"XLA_FLAGS": flags}
    )
    lines = [line.split() for line in sorted(out.splitlines())]
    assert status == 0
    assert [line[:3] for line in lines] == [[f"[{host}]", str(host), "3"] for host in range(3)]
    assert len({line[3] for line in lines}) == 1 and lines[0][3].startswith("localhost:")
    assert all(
        line[4:] == ["--xla_a", "--xla_force_host_platform_device_count=2", "cpu"] for line in lines
    )
    assert err.count("is process") == 3


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(42)", 42),
        ("time.sleep(60 * (host == 0)); sys.exit(7)", 7),
        ("host or time.sleep(60); os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_the_first_failure_is_the_status(code, expected):
    status, _, err = done("--n=2", "--grace=1", code=code)
    assert status == expected
    assert (f"host 1 ended with {expected}; ending the others" in err) == (expected in (7, 137))


def test_a_host_that_does_not_end_is_killed():
    code = (
        "signal.signal(signal.SIGTERM, lambda *_: print('not yet'));"
        " time.sleep(60 if host else 1); sys.exit(3)"
    )
    began = time.monotonic()
    status, out, _ = done("--n=2", "--grace=1", code=code)
    assert status == 3 and "[1] not yet" in out and time.monotonic() - began < 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_to_all_hosts(number):
    """Ctrl-C reaches the hosts as SIGTERM, at which they save."""
    ready = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42));"
        " signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready')"
    )
    code = f"{ready}; time.sleep(60)"
    process = launch("--n=2", "--preemptions=5", code=code)
    assert [process.stdout.readline()[3:] for _ in range(2)] == [" ready\n"] * 2
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 42  # and it did not restart


def test_a_killed_launcher_leaves_no_hosts():
    process = launch(
        "--n=1",
        code="signal.signal(signal.SIGTERM, signal.SIG_DFL); print(os.getpid()); time.sleep(60)",
    )
    pid = int(process.stdout.readline().split()[1])
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the host still runs")


def test_failures_and_preemptions_have_separate_limits(tmp_path):
    """Two stops, a failure, a stop, a failure: the third stop exceeds --preemptions=2."""
    (tmp_path / "starts").touch()
    code = (
        f"file = open({str(tmp_path / 'starts')!r}, 'r+'); n = len(file.read()); file.write('x');"
        " sys.exit([42, 42, 5, 42, 5][n])"
    )
    status, _, err = done("--n=1", "--preemptions=2", "--restarts=1", code=code)
    assert status == 42 and (tmp_path / "starts").read_text() == "xxxx"
    assert (
        err.count("starts all hosts again") == 3
        and "failed with 5; starts all hosts again (0 left)" in err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --n"),
        (["--n=0", "--", "true"], "argument --n: '0' should be a whole number from 1"),
        (["--n=two", "--", "true"], "'two' should be a whole number from 1"),
        (["--n=2"], "give the command to run after --"),
        (["--n=2", "--devises=2", "--", "true"], "unrecognized arguments: --devises=2"),
    ],
)
def test_wrong_options_raise(arguments, message, capsys):
    with pytest.raises(SystemExit) as raised:
        local.parse(arguments)
    assert raised.value.code == 2 and message in capsys.readouterr().err


def test_a_command_that_does_not_exist():
    # In a process of its own: JAX, loaded here, warns of forks.
    command = [sys.executable, "-m", "tpu.local", "--n=2", "--", "no-such-command"]
    done = subprocess.run(
        command, cwd=runs.TESTS.parent, capture_output=True, text=True, timeout=60
    )
    assert (
        done.returncode == 2
        and done.stderr == "error: 'no-such-command' cannot be started: No such file or directory\n"
    )
