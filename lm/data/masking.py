"""Masked-token corruption (BERT, Devlin et al. 2019, section 3.1 and its data code)."""

import numpy as np


def budget(length: int, rate: float, max_predictions: int) -> int:
    """The most positions masked in a row of `length`: the fixed size of a row's targets."""
    return min(max_predictions or length, max(1, round(rate * length)))


def corrupt(
    row: dict[str, np.ndarray],
    tokenizer,
    rng: np.random.Generator,
    *,
    rate: float,
    max_predictions: int,
    mask_share: float,
    random_share: float,
) -> dict[str, np.ndarray]:
    """Chooses n = min(max_predictions, max(1, round(rate · tokens))) positions and corrupts them.

    A chosen token becomes [MASK] with probability `mask_share`, a random vocabulary id with `random_share`, and else stays.
    Special tokens (those with no text behind them) are never chosen; they count among the tokens of the rate, as in the original code.

    Args:
      row: `tokens` and `segments`, each [T], padding in segment 0.
      rng: draws of this example and epoch alone.

    Returns:
      The row with corrupted `tokens` and masked_positions (ascending), masked_targets int32 [P], masked_weights float32 [P]
      (1 for a masked position, 0 for filling).
    """
    tokens = row["tokens"]
    length = len(tokens)
    size = budget(length, rate, max_predictions)
    ordinary = np.flatnonzero((row["segments"] > 0) & (tokenizer.bytes_per_id[tokens] > 0))
    count = min(size, max(1, round(rate * int((row["segments"] > 0).sum()))), len(ordinary))
    chosen = np.sort(rng.permutation(ordinary)[:count]).astype(np.int32)
    targets = tokens[chosen]
    draw = rng.random(count)
    replaced = np.where(draw < mask_share, tokenizer.mask, targets)
    random_ids = rng.integers(tokenizer.size, size=count)
    replaced = np.where((draw >= mask_share) & (draw < mask_share + random_share), random_ids, replaced)
    corrupted = tokens.copy()
    corrupted[chosen] = replaced
    filling = size - count
    return row | {
        "tokens": corrupted,
        "masked_positions": np.pad(chosen, (0, filling)),
        "masked_targets": np.pad(targets, (0, filling)).astype(np.int32),
        "masked_weights": np.pad(np.ones(count, np.float32), (0, filling)),
    }


def check(rate: float, mask_share: float, random_share: float, max_predictions: int) -> None:
    """Refuses impossible settings.

    Raises:
      ValueError: says which value, and what is allowed.
    """
    if not 0.0 < rate < 1.0:
        raise ValueError(f"rate={rate} must lie between 0 and 1")
    if min(mask_share, random_share) < 0 or mask_share + random_share > 1.0 + 1e-9:
        raise ValueError(f"mask_share={mask_share} and random_share={random_share} must not be negative, nor pass 1 together")
    if max_predictions < 0:
        raise ValueError(f"max_predictions={max_predictions} must not be negative (0: no limit)")
