"""Programs on random ids, and log-probabilities computed one text at a time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from small_corpus import Ids, config

from lm.training.program import Program

VOCABULARY, SENTINELS, LENGTH = 96, 20, 32
TOKENIZER = Ids(VOCABULARY, SENTINELS)


def build(
    objective: str,
    model: str = "",
    devices: int = 1,
    mesh: dict[str, Any] | None = None,
    **options: Any,
) -> Program:
    """The program of an objective with these options, on a model of one layer.

    Args:
      objective: the objective.
      model: the architecture; by default the first that is compatible.
      devices: how many.
      mesh: sizes of the mesh; by default all devices are along "data".
      options: options of the objective.
    """
    section = config(
        objective,
        options=options,
        model={"layers": 1} | ({"name": model} if model else {}),
        mesh=mesh or {"data": devices},
    )
    return Program(section, TOKENIZER, jax.devices()[:devices])


def log_prob_function(program: Program, params: Any) -> Callable[..., np.ndarray]:
    """A function that computes log p over the vocabulary at each position of a single text [T, V].

    The function takes the text's ids and, by name: `both` (attend in both directions), `inputs`
    (ids that the encoder reads), `head` (use the objective's head for masked tokens) and `prefix`
    (length of the prefix that is attended in both directions).
    """

    @functools.cache
    def compiled(both: bool, with_inputs: bool, head: bool) -> Any:
        def compute(model: Any, batch: dict[str, jax.Array]) -> jax.Array:
            x = batch["tokens"]
            given = {
                "segments_BT": jnp.ones_like(x),
                "positions_BT": jnp.arange(x.shape[1], dtype=jnp.int32)[None],
            }
            if with_inputs:
                y = batch["inputs"]
                ones, positions = jnp.ones_like(y), jnp.arange(y.shape[1], dtype=jnp.int32)[None]
                memory = model.encode(y, segments_BS=ones, positions_BS=positions)
                given |= {"memory_BSD": memory, "memory_segments_BS": ones}
            elif program.objective.mask == "prefix":
                given["prefix_BT"] = (
                    jnp.ones_like(x)
                    if both
                    else (jnp.arange(x.shape[1])[None] < batch["prefix"]).astype(jnp.int32)
                )
            h = model.hidden(x, **given)
            return model.heads["masked"](model, h) if head else model.logits(h)

        return program.jit(compute)

    def query(
        tokens: Any,
        both: bool = False,
        inputs: Any = None,
        head: bool = False,
        prefix: int = 0,
    ) -> np.ndarray:
        batch = {"tokens": np.array([tokens], np.int32), "prefix": np.array([[prefix]], np.int32)}
        batch |= {} if inputs is None else {"inputs": np.array([inputs], np.int32)}
        logits = np.asarray(
            jax.device_get(compiled(both, inputs is not None, head)(params, batch)), np.float64
        )[0]
        return (
            logits
            - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
            - logits.max(-1, keepdims=True)
        )

    return query
