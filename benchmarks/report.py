"""How long the report of a hundred trials takes: 20 arms, 5 seeds, 10 shared tasks, 2 of them with scores by example or part.

  python -m benchmarks.report

Issue: under 20 s.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).parents[1] / "tests")
)  # the synthetic workdir is the tests' own


def main() -> None:
    import comparison_workdir

    from lm import report

    with tempfile.TemporaryDirectory() as directory:
        workdir = comparison_workdir.crowd(
            Path(directory) / "w",
            5,
            tuple(range(5)),
            tuple(f"task_{number}" for number in range(8)),
        )
        wall, cpu = time.perf_counter(), time.process_time()
        written = report.write(workdir)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = written.html.stat().st_size / 1e6
        print(f"report of 100 trials: {wall:.1f} s, {cpu:.1f} s of CPU, {size:.1f} MB")


if __name__ == "__main__":
    main()
