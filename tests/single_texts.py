"""Programs on random ids, and a model queried one text at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from small_corpus import Ids, config

from lm.training.program import Program

VOCABULARY, SENTINELS, LENGTH = 96, 20, 32


TOKENIZER = Ids(VOCABULARY, SENTINELS)


def build(objective: str, model: str = "", devices: int = 1, mesh=None, **options) -> Program:
    section = config(
        objective,
        options=options,
        model={"layers": 1} | ({"name": model} if model else {}),
        mesh=mesh or {"data": devices},
    )
    return Program(section, TOKENIZER, jax.devices()[:devices])


def alone(program, params):
    """log p over the vocabulary at each place of one text that stands alone: a function of (tokens, bidirectional?, input, head?)."""

    @functools.cache
    def compiled(both: bool, with_inputs: bool, head: bool):
        def compute(model, batch):
            x = batch["tokens"]
            given = {
                "segments_BT": jnp.ones_like(x),
                "positions_BT": jnp.arange(x.shape[1], dtype=jnp.int32)[None],
            }
            if with_inputs:
                y = batch["inputs"]
                ones, places = jnp.ones_like(y), jnp.arange(y.shape[1], dtype=jnp.int32)[None]
                memory = model.encode(y, segments_BS=ones, positions_BS=places)
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

    def ask(tokens, both: bool = False, inputs=None, head: bool = False, prefix: int = 0):
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

    return ask
