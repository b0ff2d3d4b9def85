"""Workers of several comparisons on one host have disjoint cores, or all cores."""

import multiprocessing
import os
import time

import pytest

from lm.comparison import workers


def _worker(count, directory, answers):
    pinned = workers._pin(count, directory)
    answers.put((pinned, sorted(os.sched_getaffinity(0))))
    time.sleep(60)


def test_cores_have_one_worker_and_are_released_when_it_dies(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")
    # JAX may run in this process, and does not survive a fork.
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    count = len(cores) // 2
    processes = []

    def start():
        processes.append(
            context.Process(target=_worker, args=(count, tmp_path / "cores", answers), daemon=True)
        )
        processes[-1].start()
        return answers.get()

    first, second = start(), start()
    assert (
        first[0]
        and second[0]
        and len(first[1]) == len(second[1]) == count
        and not set(first[1]) & set(second[1])
    )
    if len(cores) == 2 * count:
        assert start() == (False, cores)  # no core is free: it uses all
    processes[0].kill()
    processes[0].join()
    assert start() == (True, first[1])
    for process in processes:
        process.kill()
        process.join()


def test_the_number_of_workers_depends_on_cores_memory_and_accelerators(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(workers, "_available_memory", lambda: 5 * 2**30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert workers.number(3, 100) == 3 and workers.number(0, 100) == 2 and workers.number(0, 1) == 1
    monkeypatch.setattr(workers, "_available_memory", lambda: 0)
    assert workers.number(0, 100) == 1
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setattr(workers, "_accelerator", lambda: True)
    assert workers.number(0, 100) == 1
