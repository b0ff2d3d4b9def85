"""Time to write the report of a hundred trials.

  python -m benchmarks.report

20 arms, 5 seeds, 10 shared tasks, two of them with scores per example or part. Target: under 20 s.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

# The tests make the synthetic workdir.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    """Prints the time."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
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
