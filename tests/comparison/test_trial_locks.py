"""Locks: one owner at a time, whichever process dies, and however many try at once."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lm.comparison import trial_locks
from lm.comparison.trial_locks import TrialLocks


def test_only_one_of_many_threads_takes_a_lock(tmp_path):
    start = threading.Barrier(16)

    def take(_):
        start.wait()
        return TrialLocks(tmp_path).take("a")

    with ThreadPoolExecutor(16) as pool:
        leases = [lease for lease in pool.map(take, range(16)) if lease]
    assert len(leases) == 1
    assert (
        TrialLocks(tmp_path).owner("a")["pid"] == os.getpid()
        and TrialLocks(tmp_path).owner("b") is None
    )
    leases[0].release()
    assert (
        TrialLocks(tmp_path).owner("a") is None and TrialLocks(tmp_path).take("a.b.0") is not None
    )
    with TrialLocks(tmp_path).take("a"):
        assert TrialLocks(tmp_path).take("a") is None


def _add(directory, counter, times):
    for _ in range(times):
        with TrialLocks(directory).holding("counter"):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_a_held_lock_excludes_other_processes(tmp_path):
    """Processes increment a number in a file: no increment is lost."""
    (tmp_path / "number").write_text("0")
    # JAX may run in this process, and does not survive a fork.
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_add, args=(tmp_path / "locks", tmp_path / "number", 5))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert (tmp_path / "number").read_text() == "20"


def test_the_lock_of_a_dead_process_on_this_host_passes_to_one_process_at_once(tmp_path):
    code = (
        "import time; from lm.comparison.trial_locks import TrialLocks;"
        f" TrialLocks({str(tmp_path)!r}).take('a'); print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        cwd=trial_locks.__file__.rsplit("/lm/", 1)[0],
    )
    process.stdout.readline()
    assert (
        TrialLocks(tmp_path).take("a") is None
        and TrialLocks(tmp_path).owner("a")["pid"] == process.pid
    )
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    # It is a zombie until its parent waits for it, but no owner any more.
    while TrialLocks(tmp_path).owner("a") and time.monotonic() < deadline:
        time.sleep(0.01)
    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(lambda _: TrialLocks(tmp_path).take("a"), range(8)))
    assert sum(lease is not None for lease in leases) == 1
    process.communicate()


def test_an_owner_whose_process_id_was_reused_is_dead(tmp_path):
    tmp_path.joinpath("a.0").write_text(
        json.dumps(trial_locks.this_process() | {"process_started": "1"})
    )
    assert TrialLocks(tmp_path).owner("a") is None


@pytest.mark.parametrize("content", ['{"host": "elsewhere", "pid": 1}', "", '{"host": "elsew'])
def test_an_owner_on_another_host_is_dead_after_a_time_without_heartbeats(
    tmp_path, monkeypatch, content
):
    path, now = tmp_path / "a.0", 1000.0
    path.write_text(content)
    os.utime(path, (5, 5))  # the clock of that host is years behind
    monkeypatch.setattr(time, "monotonic", lambda: now)
    observer = TrialLocks(tmp_path, patience=60)
    assert observer.owner("a") and observer.take("a") is None
    now += 59
    assert observer.owner("a")
    os.utime(path, (6, 6))  # a heartbeat
    assert observer.owner("a")
    now += 59
    assert observer.owner("a")
    now += 2
    assert observer.owner("a") is None
    with observer.take("a") as lease:
        assert lease.path.name == "a.1"


def test_a_lease_sends_heartbeats_and_notices_its_loss(tmp_path):
    lease, lost = TrialLocks(tmp_path, beat=0.02).take("a"), threading.Event()
    lease.lost = lost.set
    os.utime(lease.path, (5, 5))
    deadline = time.monotonic() + 10
    while lease.path.stat().st_mtime == 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lease.path.stat().st_mtime > 5 and not lost.is_set()
    (tmp_path / "a.1").write_text("{}")  # another host took over, since this one was suspended
    assert lost.wait(10)
