"""Wall time of a run, and the speed of its training steps."""

import contextlib
import time
from collections.abc import Iterator


class Speed:
    """Measures tokens per second; compilation, validation and saving do not count."""

    def __init__(self, tokens: int, flops: float, peak: float | None, before: float = 0.0):
        """Starts the clock.

        Args:
          tokens: number of token positions of a step.
          flops: training FLOPs of a step.
          peak: peak FLOP/s of all devices together; None if unknown.
          before: seconds that earlier sessions of this run took.
        """
        self.tokens, self.flops, self.peak = tokens, flops, peak
        self.began = time.perf_counter() - before
        self.busy_since: float | None = None
        self.paused = self.waited_before = 0.0
        self.steps = 0

    def step_done(self, waited: float) -> None:
        """Counts a step. The clock of steps starts after the first step, which compiles.

        Args:
          waited: seconds spent waiting for input so far.
        """
        if self.busy_since is None:
            self.busy_since, self.waited_before, self.paused = time.perf_counter(), waited, 0.0
        else:
            self.steps += 1

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Context manager: time inside does not count."""
        begin = time.perf_counter()
        yield
        self.paused += time.perf_counter() - begin

    def seconds(self) -> float:
        """Wall time of the run so far, earlier sessions included."""
        return time.perf_counter() - self.began

    def values(self, waited: float) -> dict[str, float]:
        """Tokens per second, fraction of time waiting for input, and MFU if the peak is known."""
        if not self.steps or self.busy_since is None:
            return {"tokens_per_second": 0.0, "input_wait_share": 0.0}
        busy = max(1e-9, time.perf_counter() - self.busy_since - self.paused)
        values = {
            "tokens_per_second": self.tokens * self.steps / busy,
            "input_wait_share": min(1.0, (waited - self.waited_before) / busy),
        }
        if self.peak:
            values["mfu"] = self.flops * self.steps / busy / self.peak
        return values

    def seconds_left(self, steps: int) -> float:
        """Expected seconds for this many more steps, including pauses; NaN if unknown."""
        if not self.steps or self.busy_since is None:
            return float("nan")
        return (time.perf_counter() - self.busy_since) / self.steps * steps
