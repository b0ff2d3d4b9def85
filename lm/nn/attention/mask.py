"""Which query may attend to which key, as a small specification instead of a dense array.

Segments number the documents of a packed row from 1; 0 is padding. A query attends to keys of its
own segment only, so no document attends to another. Within a segment, attention is
bidirectional, causal, or causal after a prefix.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

KINDS = ("bidirectional", "causal", "prefix")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """The specification of a mask. `*B` are the batch axes, usually one.

    Attributes:
      query_segments: segment of each query.
      key_segments: segment of each key.
      prefix: whether every query of the segment attends to each key; only for kind "prefix".
      kind: one of KINDS.
      query_start: position of the first query in the row, if the queries are only part of the row;
        None for 0.
      key_start: position of the first key in the row, if the keys are only part of the row; None
        for 0.
    """

    query_segments: Int[Array, "*B T"]
    key_segments: Int[Array, "*B S"]
    prefix: Bool[Array, "*B S"] | None = None
    kind: str = dataclasses.field(default="bidirectional", metadata={"static": True})
    query_start: Int[Array, ""] | None = None
    key_start: Int[Array, ""] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"mask kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.kind == "prefix" and self.prefix is None:
            raise ValueError("a prefix mask needs the array `prefix`")


def allowed(
    mask: Mask, queries: slice = slice(None), keys: slice = slice(None)
) -> Bool[Array, "B 1 T S"]:
    """Expands the specification: True where a query may attend to a key.

    Args:
      mask: the specification.
      queries: range of the queries; by default all.
      keys: range of the keys; by default all.
    """
    query_BT, key_BS = mask.query_segments, mask.key_segments
    T, S = query_BT.shape[1], key_BS.shape[1]
    query_BT, key_BS = query_BT[:, queries], key_BS[:, keys]
    ok_BTS = query_BT[:, :, None] == key_BS[:, None, :]
    if mask.kind != "bidirectional":
        query_T = _positions(T, mask.query_start)[queries]
        key_S = _positions(S, mask.key_start)[keys]
        past_1TS = (query_T[:, None] >= key_S[None, :])[None]
        if mask.kind == "prefix":
            assert mask.prefix is not None
            past_1TS = past_1TS | mask.prefix[:, None, keys]
        ok_BTS &= past_1TS
    return ok_BTS[:, None]


def _positions(count: int, start: Int[Array, ""] | None) -> Int[Array, "T"]:
    positions = jnp.arange(count)
    return positions if start is None else positions + start
