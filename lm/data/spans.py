"""Span corruption: sentinels replace spans, and the target spells them out.

Source: T5, Raffel et al. 2020, section 3.1.4.

    input    Thank you <extra_id_0> me to your party <extra_id_1> week [EOS]
    target   <extra_id_0> for inviting <extra_id_1> last [EOS]

n tokens at density r and mean span m lose round(n·r) tokens in round(n·r / m) spans, so that sizes
are fixed before anything is drawn: 568 tokens at r = 0.15 and m = 3 give exactly 512 input and 114
target tokens. The lost tokens are called noise, as in T5. The noise is rolled by a random offset;
otherwise the first token would never be lost and the last one always. Where the roll cuts a span in
two, at the ends of the text, two other spans are joined to keep the number of spans.
"""

import functools

import numpy as np
from jaxtyping import Int32, Int64, Integer

from lm.core.plugins import UserError
from lm.core.protocols import Tokenizer


def counts(n: int, density: float, mean_span: float) -> tuple[int, int]:
    """The number of noise tokens and the number of spans of a text.

    Args:
      n: tokens of the text, at least 2.
      density: fraction of tokens that are noise.
      mean_span: mean number of tokens of a span.
    """
    noise = min(max(int(np.round(n * density)), 1), n - 1)
    return noise, min(max(int(np.round(noise / mean_span)), 1), n - noise)


@functools.cache
def sizes(
    most: int, density: float, mean_span: float
) -> tuple[Int64[np.ndarray, "lengths"], Int64[np.ndarray, "lengths"]]:
    """The numbers of input and of target tokens, [EOS] included, for texts of 0 … most tokens.

    A text of fewer than 2 tokens cannot be corrupted and counts as 2.

    Args:
      most: maximum number of tokens of a text.
      density: fraction of tokens that are noise.
      mean_span: mean number of tokens of a span.
    """
    table = np.array(
        [counts(max(2, n), density, mean_span) for n in range(most + 1)], np.int64
    ).reshape(-1, 2)
    noise, spans = table.T
    return np.maximum(2, np.arange(most + 1)) - noise + spans + 1, noise + spans + 1


def raw_length(inputs: int, density: float, mean_span: float) -> int:
    """The maximum number of tokens whose corrupted input, [EOS] included, fits a row.

    The result is 568 for 512 positions at density 0.15 and mean span 3.

    Args:
      inputs: number of positions of the row.
      density: fraction of tokens that are noise.
      mean_span: mean number of tokens of a span.
    """
    table = sizes(int(inputs / (1.0 - density)) + 8, density, mean_span)[0]
    return int(np.searchsorted(table, inputs, side="right")) - 1


def noise_spans(
    n: int, density: float, mean_span: float, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "spans"], Int64[np.ndarray, "spans"]]:
    """Draws the spans of a text of n tokens: as many spans and noise tokens as `counts` gives.

    The first and the last position are noise as often as positions are on average. The exception is
    a single span: placed uniformly, it covers the ends least.

    Args:
      n: tokens of the text, at least 2.
      density: fraction of tokens that are noise.
      mean_span: mean number of tokens of a span.
      rng: the only source of randomness.

    Returns:
      Starts and stops of the spans, ascending; no two spans are adjacent.
    """
    noise, spans = counts(n, density, mean_span)
    lengths, gaps = _parts(noise, spans, rng), _parts(n - noise, spans, rng)
    if spans == 1:
        start = int(rng.integers(n - noise + 1))
        return np.array([start]), np.array([start + noise])
    # A circle of span, gap, span, gap …, opened `offset` tokens after the start of the first span.
    both = np.empty(2 * spans, np.int64)
    both[0::2], both[1::2] = lengths, gaps
    ends = np.cumsum(both)
    offset = int(rng.integers(n))
    place = int(np.searchsorted(ends, offset, side="right"))
    both = np.roll(both, -place)
    head = int(ends[place]) - offset  # rest of the part that is opened
    if place % 2:  # a gap is opened: it is at both ends
        pieces = np.concatenate([[0, head], both[1:], [both[0] - head]])
    elif head == both[0]:  # opened exactly where a span starts
        pieces = both
    else:  # a span is opened, which makes one span too many: join two others
        tail = both[0] - head
        if spans == 2:  # the other one joins the opened span's head
            pieces = np.array([head + both[2], both[1] + both[3], tail])
        else:
            # A span that is neither the opened one nor the last.
            join = 2 * int(rng.integers(1, spans - 1))
            gap = both[join + 1]
            merged = np.concatenate([both[:join], [both[join] + both[join + 2]], both[join + 3 :]])
            merged[join + 1] += gap
            pieces = np.concatenate([[head], merged[1:], [tail]])
    stops = np.cumsum(pieces)
    starts = stops - pieces
    starts, stops = starts[0::2], stops[0::2]
    used = stops > starts
    return starts[used], stops[used]


def replace(
    tokens: Integer[np.ndarray, "n"],
    starts: Integer[np.ndarray, "spans"],
    stops: Integer[np.ndarray, "spans"],
    sentinels: Int32[np.ndarray, "S"],
    eos: int,
) -> tuple[Int32[np.ndarray, "inputs"], Int32[np.ndarray, "targets"]]:
    """Replaces spans by sentinels, in the order of `sentinels`.

    Args:
      tokens: ids of the text.
      starts: index of the first token of each span, ascending; no span is empty.
      stops: index after the last token of each span.
      sentinels: ids of the sentinels, at least one per span.
      eos: the id of [EOS].

    Returns:
      Ids of the input and of the target; both end with `eos`.
    """
    n, count = len(tokens), len(starts)
    change = np.zeros(n + 1, np.int64)
    change[starts] += 1
    change[stops] -= 1
    noise = np.cumsum(change[:-1]) > 0
    marked = np.array(tokens, np.int32)
    marked[starts] = sentinels[:count]
    keep = ~noise
    keep[starts] = True
    inputs = np.append(marked[keep], np.int32(eos))
    targets = np.empty(int((stops - starts).sum()) + count + 1, np.int32)
    at = np.cumsum(stops - starts + 1) - (stops - starts + 1)  # positions of the sentinels
    is_text = np.ones(len(targets), bool)
    is_text[at] = False
    is_text[-1] = False
    targets[at] = sentinels[:count]
    targets[is_text] = np.asarray(tokens)[noise]
    targets[-1] = eos
    return inputs, targets


def _parts(total: int, count: int, rng: np.random.Generator) -> Int64[np.ndarray, "count"]:
    """An ordered split of `total` into `count` positive parts, drawn uniformly."""
    if count == 1:
        return np.array([total])
    cuts = np.sort(rng.permutation(total - 1)[: count - 1]) + 1
    return np.diff(cuts, prepend=0, append=total)


def check_sentinels(needed: int, tokenizer: Tokenizer, length: int) -> None:
    """Checks that the vocabulary has enough sentinels.

    Args:
      needed: maximum number of spans of a row.
      tokenizer: the vocabulary.
      length: number of tokens of a row.

    Raises:
      UserError: there are fewer than `needed` sentinels; the message gives both numbers.
    """
    if needed > len(tokenizer.sentinels):
        raise UserError(
            f"rows of {length} tokens have up to {needed} spans, but the vocabulary has"
            f" {len(tokenizer.sentinels)} sentinels; set config.tokenizer.sentinels={needed} (and a"
            " new vocabulary), a larger mean span, or a smaller config.data.length"
        )
