"""Workers of several comparisons on one machine never have a core in common, unless they have all of them."""

import multiprocessing
import os
import time

import pytest

from lm.comparison import workers


def _worker(share, directory, answers):
    pinned = workers._pin(share, directory)
    answers.put((pinned, sorted(os.sched_getaffinity(0))))
    time.sleep(60)


def test_cores_are_taken_once_and_given_back_by_death(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")
    context = multiprocessing.get_context(
        "spawn"
    )  # JAX may run in this process, and does not bear a fork
    answers = context.SimpleQueue()
    share = len(cores) // 2
    made = []

    def ask():
        made.append(
            context.Process(target=_worker, args=(share, tmp_path / "cores", answers), daemon=True)
        )
        made[-1].start()
        return answers.get()

    first, second = ask(), ask()
    assert (
        first[0]
        and second[0]
        and len(first[1]) == len(second[1]) == share
        and not set(first[1]) & set(second[1])
    )
    if len(cores) == 2 * share:
        assert ask() == (False, cores)  # another comparison's: no core is left, so it may use all
    made[0].kill()
    made[0].join()
    assert ask() == (True, first[1])
    for process in made:
        process.kill()
        process.join()


def test_as_many_as_wanted_or_as_there_are_cores_and_memory(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(workers, "_available_memory", lambda: 5 * 2**30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert workers.number(3, 100) == 3 and workers.number(0, 100) == 2 and workers.number(0, 1) == 1
    monkeypatch.setattr(workers, "_available_memory", lambda: 0)
    assert workers.number(0, 100) == 1
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setattr(workers, "_accelerator", lambda: True)
    assert workers.number(0, 100) == 1
