"""Stopping a run on request: SIGTERM, or Ctrl-C."""

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 42  # of a run that saved its state after a stop request


class Stopped(Exception):
    """This process received a stop request while it evaluated."""


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether SIGTERM or Ctrl-C was received.

    A second Ctrl-C ends the process at once. If several processes train, all must call the function
    equally often. All of them get the same result at the same call, soon after one of them received
    SIGTERM; Ctrl-C ends all of them at once.
    """
    received: list[int] = []
    if jax.process_count() > 1:
        # The processes agree, through JAX, on the number at which all of them stop.
        calls = itertools.count(1)

        def requested() -> bool:
            if not received and multihost_utils.reached_preemption_sync_point(next(calls)):
                received.append(signal.SIGTERM)
            return bool(received)

        yield requested
        return

    def handle(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {
            number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)
        }
    except ValueError:  # not the main thread: the caller's own handlers stay
        before = {}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_if(requested: Callable[[], bool]) -> None:
    """Raises Stopped if a stop was requested."""
    if requested():
        raise Stopped
