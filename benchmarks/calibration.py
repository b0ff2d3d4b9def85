"""Do the intervals of lm/stats/bootstrap.py keep their promise? False positives and coverage in simulated comparisons.

    python -m benchmarks.calibration [--comparisons=4000]

Each comparison trains two arms over n seeds and asks all models the same N examples, by a model of scores whose true values are known:

    score = arm + difficulty of the example + what the arm makes of it + what the seed does (partly alike in both arms) + noise

as nats of rows of 20 to 60 tokens, or as a share of right answers (right where the score is positive, so the true share is Φ(mean / sd)).
Row after row a table says how often two arms of the same true score get a 95 % interval that excludes 0 (false positives, 5 % wanted), how
often the interval holds a true difference, and how often that of one arm's score holds the true score (95 % wanted); beside them false
positives of the Multi-Bootstrap's plain percentiles. ± is twice the binomial standard error of the simulation.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from scipy import special

from lm.stats import bootstrap, resampling
from lm.stats.scores import Examples

BATCH = 100  # comparisons simulated at once: one product makes all their resamples


@dataclass(frozen=True)
class Setting:
    """A kind of comparison.

    Attributes:
      unit: "nats" or "share". seeds: of each arm. examples: N. spread: standard deviation between seeds; of latent scores for shares.
      mean: of the arms, latent for shares. gap: added to the first arm's mean where there is a difference.
      far: share of seeds that lie ten spreads lower, for seeds that are not normal.
    """

    unit: str
    seeds: int
    examples: int
    spread: float
    mean: float
    gap: float
    far: float = 0.0


def settings() -> list[Setting]:
    """Those for which calibration is claimed: seeds that differ little beside the test set, and much."""
    found = []
    for unit, spreads, mean, gap in (
        ("nats", (0.005, 0.02), 4.0, -0.03),
        ("share", (0.03, 0.1), 0.52, 0.15),
    ):
        for spread in spreads:
            found += [
                Setting(unit, seeds, examples, spread, mean, gap)
                for examples in (200, 2000)
                for seeds in (3, 5, 10)
            ]
    return found


def hard() -> list[Setting]:
    """Those for which it is not: two seeds, shares near their limit, seeds that are not normal."""
    return [
        Setting("nats", 2, 2000, 0.005, 4.0, -0.03), Setting("nats", 2, 2000, 0.02, 4.0, -0.03),
        Setting("share", 3, 200, 0.03, 2.0, 0.15), Setting("share", 3, 2000, 0.03, 2.0, 0.15),
        Setting("nats", 3, 2000, 0.005, 4.0, -0.03, far=0.1), Setting("nats", 10, 2000, 0.005, 4.0, -0.03, far=0.1),
    ]  # fmt: skip


def true_score(setting: Setting, gap: float) -> float:
    """The score of an arm over all seeds and examples."""
    mean = setting.mean + gap
    if setting.unit == "nats":
        return mean + setting.far * 10 * setting.spread
    return float(special.ndtr(mean / np.sqrt(1 + setting.spread**2)))


def draw(
    setting: Setting, gap: float, rng: np.random.Generator
) -> tuple[dict[int, Examples], dict[int, Examples]]:
    """The two arms' examples by seed. `gap` is added to the first arm's mean."""
    n, count = setting.seeds, setting.examples
    difficulty = rng.standard_normal(count)
    quirk_AN = rng.standard_normal((2, count))
    noise_ASN = rng.standard_normal((2, n, count), dtype=np.float32)
    common_S, own_AS = rng.standard_normal(n), rng.standard_normal((2, n))
    seed_AS = setting.spread * (0.3**0.5 * common_S + 0.7**0.5 * own_AS)
    seed_AS += 10 * setting.spread * (rng.random((2, n)) < setting.far)
    mean_AS = setting.mean + np.array([[gap], [0.0]]) + seed_AS
    if setting.unit == "nats":
        weights = rng.integers(20, 61, count).astype(np.float64)
        scores_ASN = (
            mean_AS[..., None] + 0.6 * difficulty + 0.1 * quirk_AN[:, None] + 0.1 * noise_ASN
        )
        totals_ASN = scores_ASN * weights
    else:
        weights = np.ones(count)
        latent_ASN = (
            mean_AS[..., None]
            + 0.6**0.5 * difficulty
            + 0.1**0.5 * quirk_AN[:, None]
            + 0.3**0.5 * noise_ASN
        )
        totals_ASN = (latent_ASN > 0).astype(np.float64)
    first, second = (
        {seed: Examples(totals, weights, "simulated") for seed, totals in enumerate(side)}
        for side in totals_ASN
    )
    return first, second


def percentile(
    first: dict[int, Examples], second: dict[int, Examples], rng: np.random.Generator
) -> tuple[float, float]:
    """The Multi-Bootstrap's plain 95 % percentile interval of the difference (Sellam et al. 2021), seeds and examples paired."""
    n = len(first)
    values = [
        np.array([each.totals.sum() / each.weights.sum() for each in side.values()])
        for side in (first, second)
    ]
    replicates = [resampling.replicates(list(side.values())) for side in (first, second)]
    differences_SB = (values[0] - values[1])[:, None] + replicates[0] - replicates[1]
    drawn_SB = rng.multinomial(n, np.full(n, 1 / n), size=differences_SB.shape[1]).T
    low, high = np.quantile((differences_SB * drawn_SB).mean(0), (0.025, 0.975))
    return float(low), float(high)


def simulate(setting: Setting, comparisons: int, seed: int = 0) -> dict[str, float]:
    """Shares over so many comparisons: false_positives, plain (the same by percentiles), coverage (of a difference), one (of a score)."""
    rng = np.random.default_rng(seed)
    limits = (0.0, 1.0) if setting.unit == "share" else None
    apart = true_score(setting, setting.gap) - true_score(setting, 0.0)
    sums = dict.fromkeys(("false_positives", "plain", "coverage", "one"), 0)
    done = 0
    while done < comparisons:
        size = min(BATCH, comparisons - done)
        drawn = [(draw(setting, 0.0, rng), draw(setting, setting.gap, rng)) for _ in range(size)]
        resampling.replicates(
            [each for pairs in drawn for pair in pairs for side in pair for each in side.values()]
        )
        for same, different in drawn:
            none, some = (
                bootstrap.spread_of_difference(*same).estimate(0.95),
                bootstrap.spread_of_difference(*different).estimate(0.95),
            )
            one = bootstrap.interval(different[0], limits)
            sums["false_positives"] += not none.low <= 0 <= none.high
            low, high = percentile(*same, rng)
            sums["plain"] += not low <= 0 <= high
            sums["coverage"] += some.low <= apart <= some.high
            sums["one"] += one.low <= true_score(setting, setting.gap) <= one.high
        done += size
    return {name: value / comparisons for name, value in sums.items()}


def show(chosen: list[Setting], comparisons: int) -> None:
    """Prints the simulation of each setting as a Markdown table, line by line."""
    heads = ("score", "seeds", "examples", "sd of seeds", "false positives, %", "coverage, difference, %", "coverage, one arm, %",
             "plain percentiles, false positives, %")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
    for setting in chosen:
        found = simulate(setting, comparisons)
        shown = [
            _percent(found[name], comparisons)
            for name in ("false_positives", "coverage", "one", "plain")
        ]
        what = setting.unit + (
            f", {special.ndtr(setting.mean):.1%} right" if setting.unit == "share" else ""
        )
        spread = f"{setting.spread:g}" + (
            f", {setting.far:.0%} of seeds ten of them worse" if setting.far else ""
        )
        print(
            f"| {what} | {setting.seeds} | {setting.examples:,} | {spread} | {' | '.join(shown)} |",
            flush=True,
        )


def combination(level: float, runs: int = 200_000) -> str:
    """False positives of `bootstrap.combined` by the test set's share of the variance, both parts normal, as a Markdown table."""
    rng = np.random.default_rng(0)
    shares = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
    lines = [
        "| seeds | " + " | ".join(f"{share:.0%}" for share in shares) + " |",
        "| --- |" + " --- |" * len(shares),
    ]
    for seeds in (2, 3, 4, 5, 10):
        off, freedom = np.abs(rng.standard_normal(runs)), seeds - 1
        spread = np.sqrt(rng.chisquare(freedom, runs) / freedom) * special.stdtrit(
            freedom, 0.5 + level / 2
        )
        cells = []
        for share in shares:
            test, power = special.ndtri(0.5 + level / 2) * share**0.5, 2 + 12 / freedom**2
            half = (((1 - share) ** 0.5 * spread) ** power + test**power) ** (1 / power)
            cells.append(f"{100 * (off > half).mean():.2f}")
        lines.append(f"| {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(share: float, comparisons: int) -> str:
    return f"{100 * share:.1f} ± {200 * (share * (1 - share) / comparisons) ** 0.5:.1f}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--comparisons", type=int, default=4000, help="simulated, for each line")
    comparisons, begin = parser.parse_args().comparisons, time.perf_counter()
    print(f"{comparisons:,} comparisons a line.\n")
    show(settings(), comparisons)
    print("\nOutside of what is claimed:\n")
    show(hard(), comparisons)
    for level in (0.95, 0.99):
        print(
            f"\nFalse positives, %, at the level {level:g}, by the test set's share of the variance:\n\n{combination(level)}"
        )
    print(f"\n{time.perf_counter() - begin:,.0f} s")


if __name__ == "__main__":
    main()
