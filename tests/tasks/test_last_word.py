import json

import jax
import numpy as np
import pytest
import stand_ins
from small_corpus import Ids, Tokens, config, numbers, quick_compilation, random_store

from lm.core.plugins import UserError
from lm.inference import scoring
from lm.tasks import last_word
from lm.training.program import Program

LENGTH, VOCABULARY, SENTINELS = 32, 96, 20
TEXT = VOCABULARY - SENTINELS - 3
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


class Marked(Ids):
    """Id 8 is a full stop. Every third id continues a word."""

    def name(self, i: int) -> str:
        return "." if i == 8 else super().name(i)


@pytest.fixture(scope="module")
def corpus():
    stores = {"train": random_store(TEXT, 60, seed=1), "test": random_store(TEXT, 40, seed=3)}
    return stand_ins.corpus(Marked(VOCABULARY, SENTINELS), stores)


def make(corpus, **options) -> last_word.Task:
    return last_word.Task(last_word.Config(**options), corpus, "test", LENGTH)


def build(corpus, objective: str, model: str = "") -> Program:
    section = config(objective, model={"layers": 1} | ({"name": model} if model else {}))
    return Program(section, corpus.tokenizer, jax.devices()[:1])


def test_texts_of_the_corpus():
    """The last word without the full stop, after all before it that there is room for."""
    first, second = [10, 11, 13, 14, 8], [16, 17, 19, 21, 24, 8]
    store = Tokens([[first, second]])
    corpus = stand_ins.corpus(Marked(VOCABULARY, SENTINELS), {"test": store})
    result = {
        tuple(last.tolist()): given.tolist() for given, last in make(corpus, shortest=2).texts
    }
    assert result == {(14,): [10, 11, 13], (19, 21, 24): [10, 11, 13, 14, 8, 16, 17]}
    assert [
        given.tolist() for given, _ in make(corpus, shortest=2, longest=4).texts if len(given) == 2
    ] == [[16, 17]]
    with pytest.raises(UserError, match="no sentence that ends with a word after 9 tokens"):
        make(corpus, shortest=9)


def test_texts_of_files(corpus, tmp_path):
    lines = ["9 10 11 12", "13 14 16"]
    (tmp_path / "plain.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": line}) + "\n" for line in lines)
    )
    one, two = (make(corpus, path=(str(tmp_path / name),)) for name in ("plain.txt", "rows.jsonl"))
    assert [(given.tolist(), last.tolist()) for given, last in one.texts] == [
        ([9, 10, 11], [12]),
        ([13, 14], [16]),
    ]
    assert one.identity == two.identity
    (tmp_path / "long.txt").write_text(" ".join(map(str, range(9, 49))) + "\n")
    given, last = make(corpus, path=(str(tmp_path / "long.txt"),)).texts[0]
    assert given.tolist() == list(range(48 - 26, 48)) and last.tolist() == [48], (
        "the beginning is cut"
    )
    (tmp_path / "bad.jsonl").write_text('{"text": "one"}\n')
    with pytest.raises(
        UserError, match=r"1 of 1 lines are broken \(line 1 has no text of two words"
    ):
        make(corpus, path=(str(tmp_path / "bad.jsonl"),))


@pytest.mark.parametrize(
    ("objective", "model"),
    [
        ("clm", ""),
        ("mlm", ""),
        ("mntp", "decoder"),
        ("prefix_lm", "decoder"),
        ("prefix_lm", "encoder_decoder"),
        ("span_corruption", "encoder_decoder"),
        ("seq2seq", "decoder"),
    ],
)
def test_the_query_of_each_model(corpus, objective, model):
    """The query is laid out as in training, with the targets at the same positions."""
    program = build(corpus, objective, model)
    given, last = np.arange(9, 13), np.array([30, 31])
    query = scoring.Scorer(program, corpus.tokenizer, "").continuation_query(given, last)
    t, text = corpus.tokenizer, [9, 10, 11, 12]
    inputs = None if query.inputs is None else query.inputs.tolist()
    result = (
        query.tokens.tolist(),
        inputs,
        query.positions.tolist(),
        query.targets.tolist(),
        query.prefix,
    )
    assert (
        result
        == {
            ("clm", ""): ([t.bos, *text, 30], None, [4, 5], [30, 31], 0),
            ("mlm", ""): ([t.cls, *text, t.mask, t.mask, t.sep], None, [5, 6], [30, 31], 8),
            ("mntp", "decoder"): ([t.bos, *text, t.mask, t.mask, t.eos], None, [4, 5], [30, 31], 8),
            ("prefix_lm", "decoder"): ([t.bos, *text, 30], None, [4, 5], [30, 31], 5),
            ("prefix_lm", "encoder_decoder"): (
                [t.bos, 30],
                [t.bos, *text, t.eos],
                [0, 1],
                [30, 31],
                0,
            ),
            ("span_corruption", "encoder_decoder"): (
                [t.bos, t.sentinels[0], 30],
                [*text, t.sentinels[0], t.eos],
                [1, 2],
                [30, 31],
                0,
            ),
            ("seq2seq", "decoder"): ([*text, t.eos, t.bos, 30], None, [5, 6], [30, 31], 5),
        }[objective, model]
    )


def test_scores_and_baselines(corpus):
    program = build(corpus, "clm")
    params = numbers(program.shapes["params"], std=0.3)
    task = make(corpus, most=30)
    scores = task.score(program, params)
    expected, hits = [], []
    for given, last in task.texts[:4]:
        tokens = np.array([[Ids.bos, *given, *last]], np.int32)

        def compute(model, batch):
            places = jax.numpy.arange(batch["tokens"].shape[1])[None]
            h = model.hidden(
                batch["tokens"],
                segments_BT=jax.numpy.ones_like(batch["tokens"]),
                positions_BT=places,
            )
            return jax.nn.log_softmax(model.logits(h))

        table = np.asarray(program.jit(compute)(params, {"tokens": tokens}))[0, len(given) :]
        expected.append(-sum(table[at, each] for at, each in enumerate(last)))
        hits.append(all(table[at].argmax() == each for at, each in enumerate(last)))
    np.testing.assert_allclose(scores["nll"].examples.totals[:4], expected, rtol=1e-5)
    assert scores["accuracy"].examples.totals[:4].tolist() == [float(hit) for hit in hits]
    assert scores["nll"].count == len(task.texts) == 30 and scores["nll"].value == pytest.approx(
        scores["nll"].examples.totals.mean()
    )
    baselines = task.baselines(program)
    assert baselines["bigram"]["nll"].value < baselines["unigram"]["nll"].value
    assert baselines["bigram"]["accuracy"].value > baselines["unigram"]["accuracy"].value
    assert baselines.keys() == {"unigram", "bigram", "most frequent last word"}


def test_a_uniform_model_is_never_correct(corpus):
    program = build(corpus, "mlm")
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), program.shapes["params"])
    task = make(corpus)
    scores = task.score(program, params)
    assert scores["accuracy"].value == 0.0, "all words tie"
    pieces = sum(len(last) for _, last in task.texts)
    assert scores["nll"].value == pytest.approx(
        pieces * np.log(VOCABULARY) / len(task.texts), rel=1e-5
    )
