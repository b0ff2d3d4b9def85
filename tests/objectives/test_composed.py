"""Composed objectives: sizes, refused options without effect, refused heads with two labels."""

from typing import Any

import numpy as np
import pytest
from small_corpus import Ids, config, random_store

from lm.core import compatibility
from lm.core.plugins import UserError
from lm.core.protocols import Objective
from lm.data import loader, pairs
from lm.training.meter import MetricAccumulator
from lm.training.program import Program

TOKENIZER = Ids(96, 20)
STORE = random_store(73, 80, seed=1)


def make(name: str, model: str, **options: Any) -> Objective:
    return compatibility.make({"name": name, **options}, TOKENIZER, 32, model)


def test_both_phases_have_one_shape():
    objective = make("biphasic", "encoder_decoder", first="prefix_lm", second="ul2", share=0.5)
    rows = loader.examples(objective, STORE, objective.plan(STORE), 0, 4, 10)
    shapes = [{key: np.shape(value) for key, value in rows[index].items()} for index in (0, 39)]
    assert [int(rows[index]["phase"]) for index in (0, 39)] == [0, 1]
    assert shapes[0] == shapes[1]


def test_padding_and_positions_are_those_of_both_phases():
    objective = make(
        "biphasic", "encoder_decoder", first="span_corruption", second="prefix_lm", share=0.25
    )
    plan = objective.plan(STORE)
    members = [
        loader.padding(member, STORE, plan.plans[name])
        for name, member in objective.members.items()
    ]
    assert loader.padding(objective, STORE, plan) == pytest.approx(
        0.25 * members[0] + 0.75 * members[1]
    )
    first, second = (member.positions for member in objective.members.values())
    assert first != second and objective.positions == round(0.25 * first + 0.75 * second)


def test_options_without_effect_are_refused():
    with pytest.raises(UserError, match="set them on the mixture"):
        make("mixture", "decoder", members={"clm": {"label_smoothing": 0.1}, "mntp": {}})
    with pytest.raises(UserError, match="set them on its members"):
        make("mixture", "encoder", members={"mlm": {}, "nsp": {}}, z_loss=1e-4)
    make("mixture", "decoder", members={"clm": {}, "mntp": {}}, label_smoothing=0.1)
    make("mixture", "encoder", members={"mlm": {"label_smoothing": 0.1}, "nsp": {}})


def test_one_head_does_not_serve_two_relations():
    with pytest.raises(UserError, match="relations are next, order"):
        make("mixture", "encoder", members={"nsp": {}, "sop": {}})


def test_positions_reach_as_far_as_the_longest_stream():
    section = config(
        "span_corruption", options={"density": 0.85}, model={"positions": "learned", "layers": 1}
    )
    program = Program(section, TOKENIZER)
    longest = max(program.objective.layout.stream_lengths)
    assert longest > 32 and program.config.max_length == longest
    with pytest.raises(UserError, match="max_length"):
        Program(
            config("seq2seq", options={"target_length": 96}, model={"max_length": 32}), TOKENIZER
        )


def test_a_logged_line_over_both_phases_has_one_loss():
    meter = MetricAccumulator(
        {"first": 1.0, "second": 1.0}, {"loss_tokens": 0.0, "sums": {}}, lambda: None
    )
    for step, (one, two) in enumerate(
        [((12.0, 2.0), (0.0, 0.0)), ((0.0, 0.0), (8.0, 2.0)), ((0.0, 0.0), (8.0, 2.0))], 1
    ):
        meter.add(
            step, {"first": tuple(map(np.float32, one)), "second": tuple(map(np.float32, two))}
        )
    assert meter.flush()["loss"] == pytest.approx((6.0 + 4.0 + 4.0) / 3)


def test_sentence_order_drops_only_chunks_of_one_sentence():
    """A chunk ends before the sentence that does not fit; the next one begins with it."""
    chunks = pairs.chunk(STORE, 40, "order")
    covered = np.zeros(len(STORE.sentence_offsets) - 1, int)
    for start, stop in zip(chunks.start, chunks.stop, strict=True):
        assert stop - start >= 2
        covered[start:stop] += 1
        size = STORE.sentence_offsets[stop] - STORE.sentence_offsets[start]
        assert size <= 40 - pairs.SPECIALS or stop - start == 2
    assert covered.max() == 1 and (covered == 0).sum() == chunks.dropped
