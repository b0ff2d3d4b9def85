"""Masked-token corruption.

Sources: BERT (Devlin et al. 2019, section 3.1 and its data code), SpanBERT (Joshi et al. 2020).

What is masked together (`unit`):

    token        single tokens
    word         all pieces of a word; a word that exceeds the budget is skipped, so that there may
                 be a few predictions fewer
    token_span   spans of tokens
    word_span    spans of complete words (SpanBERT: lengths geometric with p = 0.2, at most 10); the
                 last span is cut at the budget

Spans extend to the right of where they begin, as in SpanBERT, so that the first token after a
special token is masked less often than other tokens. The length of a span is geometric with
parameter `span_p` on 1 … `span_most`, or uniform on this range if `span_p` is 0 (GPT-BERT: 1 to 3).
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from lm.core.protocols import Tokenizer

UNITS = ("token", "word", "token_span", "word_span")


@dataclasses.dataclass(frozen=True)
class Options:
    """How tokens are masked.

    Attributes:
      rate: fraction of tokens that are predicted.
      final_rate: rate at the end of training, approached linearly; 0 keeps `rate`.
      mask_share: fraction of the selected tokens that become [MASK]. All tokens of a span share
        one draw, as in SpanBERT.
      random_share: fraction of the selected tokens that become a random id; the rest stay as is.
      max_predictions: maximum number of predictions per row; 0 means no limit.
      unit: kind of text unit that is masked as a whole, one of UNITS; see lm/data/masking.py.
      span_p: parameter of the geometric length of spans; 0 means a uniform length.
      span_most: maximum length of a span.
    """

    rate: float = 0.15
    final_rate: float = 0.0
    mask_share: float = 0.8
    random_share: float = 0.1
    max_predictions: int = 0
    unit: str = "token"
    span_p: float = 0.2
    span_most: int = 10

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"rate={self.rate} must be between 0 and 1")
        if not 0.0 <= self.final_rate < 1.0:
            raise ValueError(
                f"final_rate={self.final_rate} must be between 0 and 1 (0: the rate stays)"
            )
        if (
            min(self.mask_share, self.random_share) < 0
            or self.mask_share + self.random_share > 1.0 + 1e-9
        ):
            raise ValueError(
                f"mask_share={self.mask_share} and random_share={self.random_share} must not be"
                " negative, and their sum at most 1"
            )
        if self.max_predictions < 0:
            raise ValueError(
                f"max_predictions={self.max_predictions} must not be negative (0: no limit)"
            )
        if self.unit not in UNITS:
            raise ValueError(f"unit={self.unit!r} is not one of {', '.join(UNITS)}")
        if not 0.0 <= self.span_p < 1.0:
            raise ValueError(f"span_p={self.span_p} must be in [0, 1) (0: uniform lengths)")
        if self.span_most < 1:
            raise ValueError(f"span_most={self.span_most} must be at least 1")

    def rate_at(self, progress: float) -> float:
        """The rate when the fraction `progress` of training is over."""
        return (
            self.rate + (self.final_rate - self.rate) * progress if self.final_rate else self.rate
        )

    def budget(self, length: int) -> int:
        """Maximum number of predictions in a row of `length`, which is the size of its targets."""
        return _budget(length, max(self.rate, self.final_rate), self.max_predictions)


def corrupt(
    row: dict[str, np.ndarray],
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    options: Options,
    progress: float = 1.0,
    eligible: Bool[np.ndarray, "T"] | bool = True,
    replacement: bool = False,
) -> dict[str, np.ndarray]:
    """Selects n = min(max_predictions, max(1, round(rate · tokens))) positions and corrupts them.

    Special tokens (tokens that stand for no text) are never selected, but they count towards
    `tokens` in the formula above, as in the original code.

    Args:
      row: fields `tokens` and `segments`, [T]; segment 0 is padding.
      tokenizer: the tokenizer that made the tokens.
      rng: generator of this example in this epoch.
      options: how tokens are masked.
      progress: fraction of training that is over, for a rate that changes.
      eligible: positions that may be selected.
      replacement: draw single tokens with replacement, as ELECTRA's code does. A position that is
        drawn again counts again, so that fewer than n positions are masked.

    Returns:
      The row with corrupted `tokens`, and target_positions, targets int32 [P], weights float32 [P].
      A weight is 1 for a masked position, or the number of times it was drawn; 0 for padding.
    """
    tokens, segments = row["tokens"], row["segments"]
    used = int(np.count_nonzero(segments))
    ordinary = np.flatnonzero((segments > 0) & (tokenizer.bytes_per_id[tokens] > 0) & eligible)
    count = min(_budget(used, options.rate_at(progress), options.max_predictions), len(ordinary))
    times: np.ndarray | float = 1.0
    if options.unit == "token":
        if replacement and count:
            drawn = ordinary[rng.integers(len(ordinary), size=count)]
            selected, times = np.unique(drawn, return_counts=True)
            count = len(selected)
        else:
            selected = np.sort(rng.permutation(ordinary)[:count])
        group = np.arange(count)
    else:
        selected, group = _units(tokens, ordinary, count, tokenizer, rng, options)
    count = len(selected)
    targets = tokens[selected]
    draws = count if options.unit in ("token", "word") else int(group.max(initial=-1)) + 1
    draw = rng.random(draws)[group]
    replaced = np.where(draw < options.mask_share, tokenizer.mask, targets)
    if options.random_share:
        random_ids = rng.integers(tokenizer.size, size=count)
        replaced = np.where(
            (draw >= options.mask_share) & (draw < options.mask_share + options.random_share),
            random_ids,
            replaced,
        )
    corrupted = tokens.copy()
    corrupted[selected] = replaced
    size = options.budget(len(tokens))
    fields = {
        "target_positions": np.zeros(size, np.int32),
        "targets": np.zeros(size, np.int32),
        "weights": np.zeros(size, np.float32),
    }
    fields["target_positions"][:count] = selected
    fields["targets"][:count] = targets
    fields["weights"][:count] = times
    return row | fields | {"tokens": corrupted}


def _units(
    tokens: Integer[np.ndarray, "T"],
    ordinary: Int64[np.ndarray, "N"],
    count: int,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    options: Options,
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """The selected positions, ascending, and the number of the word or span of each."""
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
    # Ends of uninterrupted text, counted in `ordinary`.
    breaks = np.append(np.flatnonzero(apart) + 1, len(ordinary))
    lengths: Iterator[int] = iter(())
    if options.unit != "word":
        cumulative = _lengths(options.span_p, options.span_most)
        draws = np.searchsorted(cumulative, rng.random(len(borders) - 1)) + 1
        lengths = iter(draws.tolist())
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
def _lengths(p: float, most: int) -> Float64[np.ndarray, "lengths"]:
    """Cumulative probabilities of the lengths 1 … most - 1."""
    weights = p * (1.0 - p) ** np.arange(most) if p else np.ones(most)
    return np.cumsum(weights / weights.sum())[:-1]


def _budget(length: int, rate: float, max_predictions: int) -> int:
    return min(max_predictions or length, max(1, round(rate * length)))
