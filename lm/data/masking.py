"""Masked-token corruption (BERT, Devlin et al. 2019, section 3.1 and its data code; SpanBERT, Joshi et al. 2020).

What is chosen together (`unit`):

    token        single tokens
    word         all pieces of a word or none; a word that overflows the budget is passed over, so a few predictions may be missing
    token_span   runs of tokens
    word_span    runs of whole words (SpanBERT: lengths geometric with p = 0.2, at most 10); the last one is cut at the budget

Runs go on from where they begin, as in SpanBERT: the first token after a special one is hidden less often than others. A run's length is
geometric with parameter `span_p` on 1 … `span_most`, or uniform there where `span_p` is 0 (GPT-BERT: 1 to 3).
"""

import dataclasses
import functools

import numpy as np

UNITS = ("token", "word", "token_span", "word_span")


@dataclasses.dataclass(frozen=True)
class Options:
    """How tokens are hidden.

    Attributes:
      rate: share of tokens that are predicted. final_rate: where the rate has moved, linearly, by the end of the run; 0: it stays.
      mask_share, random_share: shares of the chosen tokens that become [MASK] and a random id; the rest stays as it is. For runs, one
        draw a run, as in SpanBERT.
      max_predictions: most predictions a row; 0: no limit.
      unit, span_p, span_most: what is chosen together; see lm/data/masking.py.
    """

    rate: float = 0.15
    final_rate: float = 0.0
    mask_share: float = 0.8
    random_share: float = 0.1
    max_predictions: int = 0
    unit: str = "token"
    span_p: float = 0.2
    span_most: int = 10

    def __post_init__(self):
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"rate={self.rate} must lie between 0 and 1")
        if not 0.0 <= self.final_rate < 1.0:
            raise ValueError(
                f"final_rate={self.final_rate} must lie between 0 and 1 (0: the rate stays)"
            )
        if (
            min(self.mask_share, self.random_share) < 0
            or self.mask_share + self.random_share > 1.0 + 1e-9
        ):
            raise ValueError(
                f"mask_share={self.mask_share} and random_share={self.random_share} must not be negative, nor pass 1 together"
            )
        if self.max_predictions < 0:
            raise ValueError(
                f"max_predictions={self.max_predictions} must not be negative (0: no limit)"
            )
        if self.unit not in UNITS:
            raise ValueError(f"unit={self.unit!r} is not one of {', '.join(UNITS)}")
        if not 0.0 <= self.span_p < 1.0:
            raise ValueError(f"span_p={self.span_p} must lie in [0, 1) (0: uniform lengths)")
        if self.span_most < 1:
            raise ValueError(f"span_most={self.span_most} must be at least 1")

    def rate_at(self, progress: float) -> float:
        """The rate when a share `progress` of the run is over."""
        return (
            self.rate + (self.final_rate - self.rate) * progress if self.final_rate else self.rate
        )

    def budget(self, length: int) -> int:
        """The most positions masked in a row of `length`, whenever in the run: the fixed size of a row's targets."""
        return _budget(length, max(self.rate, self.final_rate), self.max_predictions)


def corrupt(
    row: dict[str, np.ndarray],
    tokenizer,
    rng: np.random.Generator,
    options: Options,
    progress: float = 1.0,
    eligible: np.ndarray | bool = True,
    replacement: bool = False,
) -> dict[str, np.ndarray]:
    """Chooses n = min(max_predictions, max(1, round(rate · tokens))) positions and corrupts them.

    Special tokens (those with no text behind them) are never chosen; they count among the tokens of the rate, as in the original code.

    Args:
      row: `tokens` and `segments`, each [T], padding in segment 0.
      rng: draws of this example and epoch alone.
      progress: share of the run that is over, for a rate that moves. eligible: [T] places that may be chosen.
      replacement: draw single tokens with replacement, as ELECTRA's code does: a place that is drawn again counts again, so that fewer
        than n places are hidden.

    Returns:
      The row with corrupted `tokens` and target_positions, targets int32 [P], weights float32 [P] (1 for a masked position, or how often
      it was drawn; 0 for filling).
    """
    tokens, segments = row["tokens"], row["segments"]
    used = int(np.count_nonzero(segments))
    ordinary = np.flatnonzero((segments > 0) & (tokenizer.bytes_per_id[tokens] > 0) & eligible)
    count = min(_budget(used, options.rate_at(progress), options.max_predictions), len(ordinary))
    times: np.ndarray | float = 1.0
    if options.unit == "token":
        if replacement and count:
            chosen, times = np.unique(
                ordinary[rng.integers(len(ordinary), size=count)], return_counts=True
            )
            count = len(chosen)
        else:
            chosen = np.sort(rng.permutation(ordinary)[:count])
        group = np.arange(count)
    else:
        chosen, group = _units(tokens, ordinary, count, tokenizer, rng, options)
    count = len(chosen)
    targets = tokens[chosen]
    draw = rng.random(
        count if options.unit in ("token", "word") else int(group.max(initial=-1)) + 1
    )[group]
    replaced = np.where(draw < options.mask_share, tokenizer.mask, targets)
    if options.random_share:
        random_ids = rng.integers(tokenizer.size, size=count)
        replaced = np.where(
            (draw >= options.mask_share) & (draw < options.mask_share + options.random_share),
            random_ids,
            replaced,
        )
    corrupted = tokens.copy()
    corrupted[chosen] = replaced
    size = options.budget(len(tokens))
    found = {
        "target_positions": np.zeros(size, np.int32),
        "targets": np.zeros(size, np.int32),
        "weights": np.zeros(size, np.float32),
    }
    found["target_positions"][:count] = chosen
    found["targets"][:count] = targets
    found["weights"][:count] = times
    return row | found | {"tokens": corrupted}


def _units(tokens, ordinary, count, tokenizer, rng, options) -> tuple[np.ndarray, np.ndarray]:
    """The chosen positions, ascending, and the number of the word or run that each belongs to."""
    # A unit begins at a word, or where text begins after a special token.
    begins = np.empty(len(ordinary), bool)
    begins[:1] = True
    apart = np.diff(ordinary) > 1
    begins[1:] = (
        apart
        if options.unit == "token_span"
        else apart | tokenizer.is_word_start[tokens[ordinary[1:]]]
    )
    if options.unit == "token_span":
        borders = list(range(len(ordinary) + 1))
    else:
        borders = [*np.flatnonzero(begins).tolist(), len(ordinary)]
    breaks = np.append(
        np.flatnonzero(apart) + 1, len(ordinary)
    )  # where a run of text ends, counted in `ordinary`
    lengths = iter(())
    if options.unit != "word":
        lengths = iter(
            (
                np.searchsorted(
                    _lengths(options.span_p, options.span_most), rng.random(len(borders) - 1)
                )
                + 1
            ).tolist()
        )
    group = np.full(len(ordinary), -1)
    left, groups = count, 0
    for unit in rng.permutation(len(borders) - 1).tolist():
        if not left:
            break
        begin, end = borders[unit], borders[unit + 1]
        if group[begin] >= 0:
            continue
        if options.unit == "word":
            if end - begin > left:
                continue
        else:
            last = min(unit + next(lengths), len(borders) - 1)
            end = min(borders[last], int(breaks[np.searchsorted(breaks, begin, side="right")]))
        free = np.flatnonzero(group[begin:end] < 0)[:left] + begin
        group[free] = groups
        left, groups = left - len(free), groups + 1
    at = np.flatnonzero(group >= 0)
    return ordinary[at], group[at]


@functools.cache
def _lengths(p: float, most: int) -> np.ndarray:
    """Cumulative probabilities of the lengths 1 … most."""
    weights = p * (1.0 - p) ** np.arange(most) if p else np.ones(most)
    return np.cumsum(weights / weights.sum())[:-1]


def _budget(length: int, rate: float, max_predictions: int) -> int:
    return min(max_predictions or length, max(1, round(rate * length)))
