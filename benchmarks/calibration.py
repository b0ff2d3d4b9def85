"""Calibration of the intervals in lm/stats/bootstrap.py: false positives and coverage, simulated.

  python -m benchmarks.calibration [--comparisons=4000]

Each simulated comparison trains two arms over n seeds and evaluates all models on the same N
examples. Scores follow a model whose true values are known:

  score = arm + difficulty of the example + arm-by-example effect
        + seed effect (partly shared by both arms) + noise

Scores are nats of rows of 20 to 60 tokens, or correct answers. An answer is correct where the score
is positive, so the true accuracy is Φ(mean / sd).

A table has one row per setting. It shows how often two arms of the same true score get a 95 %
interval that excludes 0 (false positives, 5 % is ideal), how often the interval covers a true
difference, and how often the interval of one arm's score covers the true score (95 % is ideal). The
last column has the false positives of the Multi-Bootstrap's plain percentiles. ± is twice the
binomial standard error of the simulation.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from scipy import special

from lm.stats import bootstrap, resampling
from lm.stats.intervals import Estimate
from lm.stats.scores import Examples

BATCH = 100  # comparisons simulated at once: one matrix product resamples all of them


@dataclass(frozen=True)
class Setting:
    """A kind of comparison.

    Attributes:
      unit: "nats" or "share" (accuracy).
      seeds: seeds of each arm.
      examples: number of test examples, N.
      spread: standard deviation between seeds; for accuracies, of latent scores.
      mean: mean of the arms; for accuracies, of latent scores.
      gap: added to the first arm's mean where the arms differ.
      far: fraction of seeds that are ten spreads worse, for seeds that are not normal.
    """

    unit: str
    seeds: int
    examples: int
    spread: float
    mean: float
    gap: float
    far: float = 0.0


def settings() -> list[Setting]:
    """Settings with calibrated intervals: small and large variance between seeds."""
    result = []
    for unit, spreads, mean, gap in (
        ("nats", (0.005, 0.02), 4.0, -0.03),
        ("share", (0.03, 0.1), 0.52, 0.15),
    ):
        for spread in spreads:
            result += [
                Setting(unit, seeds, examples, spread, mean, gap)
                for examples in (200, 2000)
                for seeds in (3, 5, 10)
            ]
    return result


def hard() -> list[Setting]:
    """Settings outside the claim: two seeds, accuracies near 1, seeds that are not normal."""
    return [
        Setting("nats", 2, 2000, 0.005, 4.0, -0.03),
        Setting("nats", 2, 2000, 0.02, 4.0, -0.03),
        Setting("share", 3, 200, 0.03, 2.0, 0.15),
        Setting("share", 3, 2000, 0.03, 2.0, 0.15),
        Setting("nats", 3, 2000, 0.005, 4.0, -0.03, far=0.1),
        Setting("nats", 10, 2000, 0.005, 4.0, -0.03, far=0.1),
    ]


def true_score(setting: Setting, gap: float) -> float:
    """True score of an arm, over all seeds and examples."""
    mean = setting.mean + gap
    if setting.unit == "nats":
        return mean + setting.far * 10 * setting.spread
    return float(special.ndtr(mean / np.sqrt(1 + setting.spread**2)))


def draw(
    setting: Setting, gap: float, rng: np.random.Generator
) -> tuple[dict[int, Examples], dict[int, Examples]]:
    """Draws both arms' examples by seed; `gap` is added to the first arm's mean."""
    n, count = setting.seeds, setting.examples
    difficulty = rng.standard_normal(count)
    interaction_AN = rng.standard_normal((2, count))
    noise_ASN = rng.standard_normal((2, n, count), dtype=np.float32)
    common_S, own_AS = rng.standard_normal(n), rng.standard_normal((2, n))
    seed_AS = setting.spread * (0.3**0.5 * common_S + 0.7**0.5 * own_AS)
    seed_AS += 10 * setting.spread * (rng.random((2, n)) < setting.far)
    mean_AS = setting.mean + np.array([[gap], [0.0]]) + seed_AS
    if setting.unit == "nats":
        weights = rng.integers(20, 61, count).astype(np.float64)
        scores_ASN = (
            mean_AS[..., None] + 0.6 * difficulty + 0.1 * interaction_AN[:, None] + 0.1 * noise_ASN
        )
        totals_ASN = scores_ASN * weights
    else:
        weights = np.ones(count)
        latent_ASN = (
            mean_AS[..., None]
            + 0.6**0.5 * difficulty
            + 0.1**0.5 * interaction_AN[:, None]
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
    """The Multi-Bootstrap's plain 95 % percentile interval of a paired difference.

    Sellam et al. 2022. Seeds and examples are paired.
    """
    n = len(first)
    values = [
        np.array([scored.totals.sum() / scored.weights.sum() for scored in side.values()])
        for side in (first, second)
    ]
    replicates = [resampling.replicates(list(side.values())) for side in (first, second)]
    differences_SB = (values[0] - values[1])[:, None] + replicates[0] - replicates[1]
    drawn_SB = rng.multinomial(n, np.full(n, 1 / n), size=differences_SB.shape[1]).T
    low, high = np.quantile((differences_SB * drawn_SB).mean(0), (0.025, 0.975))
    return float(low), float(high)


def covers(estimate: Estimate, value: float) -> bool:
    """Returns whether the interval contains a value."""
    assert estimate.low is not None and estimate.high is not None
    return estimate.low <= value <= estimate.high


def simulate(setting: Setting, comparisons: int, seed: int = 0) -> dict[str, float]:
    """Simulates comparisons of one setting.

    Returns:
      Fractions of the comparisons: false_positives; plain, the same by plain percentiles; coverage,
      of a true difference; one, coverage of one arm's score.
    """
    rng = np.random.default_rng(seed)
    limits = (0.0, 1.0) if setting.unit == "share" else None
    apart = true_score(setting, setting.gap) - true_score(setting, 0.0)
    sums = dict.fromkeys(("false_positives", "plain", "coverage", "one"), 0)
    done = 0
    while done < comparisons:
        size = min(BATCH, comparisons - done)
        drawn = [(draw(setting, 0.0, rng), draw(setting, setting.gap, rng)) for _ in range(size)]
        resampling.replicates(
            [
                examples
                for pairs in drawn
                for pair in pairs
                for side in pair
                for examples in side.values()
            ]
        )
        for same, different in drawn:
            none, some = (
                bootstrap.spread_of_difference(*same).estimate(0.95),
                bootstrap.spread_of_difference(*different).estimate(0.95),
            )
            one = bootstrap.interval(different[0], limits)
            sums["false_positives"] += not covers(none, 0.0)
            low, high = percentile(*same, rng)
            sums["plain"] += not low <= 0 <= high
            sums["coverage"] += covers(some, apart)
            sums["one"] += covers(one, true_score(setting, setting.gap))
        done += size
    return {name: value / comparisons for name, value in sums.items()}


def show(chosen: list[Setting], comparisons: int) -> None:
    """Prints a Markdown table, one row per setting, as soon as each is simulated."""
    heads = (
        "score",
        "seeds",
        "examples",
        "sd of seeds",
        "false positives, %",
        "coverage, difference, %",
        "coverage, one arm, %",
        "plain percentiles, false positives, %",
    )
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
    for setting in chosen:
        fractions = simulate(setting, comparisons)
        shown = [
            _percent(fractions[name], comparisons)
            for name in ("false_positives", "coverage", "one", "plain")
        ]
        score = f"accuracy, {special.ndtr(setting.mean):.1%}" if setting.unit == "share" else "nats"
        spread = f"{setting.spread:g}" + (
            f", {setting.far:.0%} of seeds ten sd worse" if setting.far else ""
        )
        cells = [score, str(setting.seeds), f"{setting.examples:,}", spread, *shown]
        print(f"| {' | '.join(cells)} |", flush=True)


def combination(level: float, runs: int = 200_000) -> str:
    """False positives of `bootstrap.combined` by the test set's fraction of the variance.

    Both parts are normal. Returns a Markdown table.
    """
    rng = np.random.default_rng(0)
    fractions = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
    lines = [
        "| seeds | " + " | ".join(f"{fraction:.0%}" for fraction in fractions) + " |",
        "| --- |" + " --- |" * len(fractions),
    ]
    for seeds in (2, 3, 4, 5, 10):
        off, dof = np.abs(rng.standard_normal(runs)), seeds - 1
        spread = np.sqrt(rng.chisquare(dof, runs) / dof) * special.stdtrit(dof, 0.5 + level / 2)
        cells = []
        for fraction in fractions:
            test, power = special.ndtri(0.5 + level / 2) * fraction**0.5, 2 + 12 / dof**2
            half = (((1 - fraction) ** 0.5 * spread) ** power + test**power) ** (1 / power)
            cells.append(f"{100 * (off > half).mean():.2f}")
        lines.append(f"| {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(fraction: float, comparisons: int) -> str:
    error = (fraction * (1 - fraction) / comparisons) ** 0.5
    return f"{100 * fraction:.1f} ± {200 * error:.1f}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--comparisons", type=int, default=4000, help="simulated per setting")
    comparisons, begin = parser.parse_args().comparisons, time.perf_counter()
    print(f"{comparisons:,} comparisons per row.\n")
    show(settings(), comparisons)
    print("\nOutside the calibrated settings:\n")
    show(hard(), comparisons)
    for level in (0.95, 0.99):
        print(
            f"\nFalse positives, %, at the level {level:g}, by the test set's fraction of"
            f" the variance:\n\n{combination(level)}"
        )
    print(f"\n{time.perf_counter() - begin:,.0f} s")


if __name__ == "__main__":
    main()
