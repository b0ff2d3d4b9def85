"""Every config's step as shapes: batches without a corpus."""

import importlib
from pathlib import Path

import jax
import numpy as np
import pytest

from lm.core.plain import plain
from tpu import abstract

CONFIGS = sorted(
    path.stem for path in (Path(__file__).parent.parent.parent / "configs").glob("*.py")
)


def config(name: str, size: str):
    made = plain(importlib.import_module(f"configs.{name}").get_config(size))
    made["mesh"]["data"] = 1
    return made


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_can_be_traced(name):
    made = config(name, "tiny")
    program = abstract.build(made, jax.devices()[:1])
    batch = abstract.batch(program, made["tokenizer"])
    lowered = program.lower(batch)
    state, sums = lowered.out_info
    assert jax.tree.map(lambda leaf: leaf.shape, state) == jax.tree.map(
        lambda leaf: leaf.shape, program.shapes
    )
    assert set(program.terms) <= set(sums)


@pytest.mark.parametrize("name", CONFIGS)
def test_published_shapes_have_full_rows(name):
    made = config(name, "base")
    program = abstract.build(made, jax.devices()[:1])
    batch = abstract.batch(program, made["tokenizer"])
    assert all(shape.shape[0] == made["training"]["batch_size"] for shape in batch.values())
    assert (
        max(shape.shape[1] for key, shape in batch.items() if key.endswith("tokens"))
        == made["data"]["length"]
    )
    assert program.config.vocab_size >= made["tokenizer"]["vocab_size"]


def test_shapes_do_not_depend_on_the_text():
    made = config("mlm", "tiny")
    program = abstract.build(made, jax.devices()[:1])
    batch = abstract.batch(program, made["tokenizer"])
    store = abstract.FakeStore(40, 10, 500)
    plan = program.objective.plan(store)
    example = program.objective.example(store, plan, 1, np.random.default_rng(3), 0.5)
    assert {
        name: (made["training"]["batch_size"], *value.shape) for name, value in example.items()
    } == {name: shape.shape for name, shape in batch.items()}


def test_the_special_ids_are_those_of_a_trained_tokenizer():
    ids = abstract.FakeTokenizer(4096, 100)
    assert (ids.pad, ids.bos, ids.eos, ids.unk, ids.cls, ids.sep, ids.mask) == tuple(range(7))
    assert (
        ids.sentinels[0] == 4095
        and len(ids.sentinels) == 100
        and not ids.bytes_per_id[list(ids.sentinels)].any()
    )
    assert sorted(ids.modes.values()) == [7, 8, 9]
