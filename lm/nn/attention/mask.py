"""Who may attend to whom, as a small specification instead of a dense array.

Segments number the documents of a packed row from 1; 0 is padding. A query sees a key of its own segment only, so no
document sees another. On top of that a mask is bidirectional, causal, or causal after a prefix.
"""

import dataclasses

import jax
import jax.numpy as jnp

KINDS = ("bidirectional", "causal", "prefix")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask's specification.

    Attributes:
      query_segments: [B, T] segment of each query.
      key_segments: [B, S] segment of each key.
      prefix: [B, S] bool for kind "prefix": keys that every query of the segment may see.
      kind: one of KINDS.
      query_start, key_start: [] places in the row of the first query and key, where these are a piece of the row; None for 0.
    """

    query_segments: jax.Array
    key_segments: jax.Array
    prefix: jax.Array | None = None
    kind: str = dataclasses.field(default="bidirectional", metadata={"static": True})
    query_start: jax.Array | None = None
    key_start: jax.Array | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"mask kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.kind == "prefix" and self.prefix is None:
            raise ValueError("a prefix mask needs the array `prefix`")


def allowed(mask: Mask, queries: slice = slice(None), keys: slice = slice(None)) -> jax.Array:
    """Expands the specification: [B, 1, T, S], True where the query may attend to the key; of ranges of the queries and keys, if given."""
    query_BT, key_BS = mask.query_segments, mask.key_segments
    T, S = query_BT.shape[1], key_BS.shape[1]
    query_BT, key_BS = query_BT[:, queries], key_BS[:, keys]
    ok_BTS = query_BT[:, :, None] == key_BS[:, None, :]
    if mask.kind != "bidirectional":
        query_T, key_S = _places(T, mask.query_start)[queries], _places(S, mask.key_start)[keys]
        past_1TS = (query_T[:, None] >= key_S[None, :])[None]
        if mask.kind == "prefix":
            assert mask.prefix is not None
            past_1TS = past_1TS | mask.prefix[:, None, keys]
        ok_BTS &= past_1TS
    return ok_BTS[:, None]


def _places(count: int, start: jax.Array | None) -> jax.Array:
    places = jnp.arange(count)
    return places if start is None else places + start
