"""Tasks on synthetic corpora, with models whose answers are known."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from small_corpus import config, numbers, quick_compilation

from lm.core import plugins
from lm.core.plugins import UserError
from lm.data import corpus as corpora
from lm.data.synthetic import english, recall
from lm.data.synthetic.grammar import END, MORE
from lm.tasks import _language, _synthetic, brackets, grammar, grammar_masked
from lm.tasks import recall as recall_task
from lm.training.program import Program

LENGTH = 48
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)
OPTIONS = {
    "recall": {"pairs": 4, "queries": 3, "slots": 8, "keys": 8, "values": 10, "noise": 2},
    "brackets": {"kinds": 3, "depth": 4, "sentences": 2.0},
    "grammar": {"sentences": 4.0},
}


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """source → its corpus."""
    directory = tmp_path_factory.mktemp("cache")

    def make(source: str, tokenizer: dict | None = None):
        data = {
            "source": source,
            "cache": str(directory),
            "documents": 400,
            "validation": 0.2,
            "test": 0.3,
            "workers": 1,
        }
        return corpora.prepare(
            data | OPTIONS.get(source, {}),
            tokenizer or {"kind": "word", "sentinels": 4},
            progress=False,
        )

    return make


def build(corpus, objective: str, model: str = "") -> Program:
    section = config(
        objective, model={"layers": 1} | ({"name": model} if model else {}), data={"length": LENGTH}
    )
    return Program(section, corpus.tokenizer, jax.devices()[:1])


def uniform(program):
    """Parameters of a model that gives each token the same probability."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), program.shapes["params"])


MODES = [("clm", ""), ("mlm", ""), ("mntp", ""), ("prefix_lm", "encoder_decoder")]


def test_recall_evaluates_every_model_on_the_same_answers(prepare):
    corpus = prepare("recall")
    task, size = (
        recall_task.Task(recall_task.Config(), corpus, "test", LENGTH),
        corpus.tokenizer.size,
    )
    identities = set()
    for objective, model in MODES:
        program = build(corpus, objective, model)
        scores = task.score(program, uniform(program))
        assert (
            scores["accuracy"].value
            == scores["accuracy_first"].value
            == pytest.approx(1 / size, rel=1e-4)
        )
        assert scores["accuracy_first"].count == len(task.texts)
        assert scores["nll"].value == pytest.approx(math.log(size), rel=1e-4)
        assert scores["nll"].count == 3 * len(task.texts)
        identities |= {score.examples.identity for score in scores.values()}
    assert len(identities) == 1
    baselines = task.baselines(program)
    assert (
        baselines["looked up"]["accuracy"].value == 1.0
        and baselines["looked up"]["nll"].value == 0.0
    )
    assert baselines["a value of the document"]["accuracy"].value == pytest.approx(1 / 4)
    assert baselines["a value of the document"]["nll"].value == pytest.approx(math.log(4))
    assert baselines["unigram"]["nll"].value == pytest.approx(math.log(10), rel=0.05)
    # Of four values, one is the first answer; then three and two remain.
    assert baselines["a value not yet answered"]["accuracy"].value == pytest.approx(
        (1 / 4 + 1 / 3 + 1 / 2) / 3
    )
    assert baselines["a value not yet answered"]["nll"].value == pytest.approx(
        math.log(4 * 3 * 2) / 3
    )
    assert baselines["a value not yet answered"]["accuracy_first"].value == pytest.approx(1 / 4)


def test_recall_masks_the_answers(prepare):
    corpus = prepare("recall")
    task, tokenizer = (
        recall_task.Task(recall_task.Config(), corpus, "test", LENGTH),
        corpus.tokenizer,
    )
    causal, masked = task._batch("causal", "causal"), task._batch("masked", "bidirectional")
    shifted, suffix = task._batch("masked_next", "prefix"), task._batch("suffix", "cross")
    assert "prefix" in shifted and "prefix" not in masked
    for row, (text, targets) in enumerate(zip(task.texts, causal["targets"], strict=True)):
        names = tokenizer.decode(text).split()
        for column, target in enumerate(targets.tolist()):
            answer = tokenizer.decode([target])
            at = causal["target_positions"][row, column]
            key = tokenizer.decode([causal["tokens"][row, at]])
            assert names[names.index(key) + 1] == answer, (
                "at its first occurrence, a key is followed by its value"
            )
            assert causal["tokens"][row, at + 1] == target, "the next token is the answer"
            assert masked["tokens"][row, masked["target_positions"][row, column]] == tokenizer.mask
            place = shifted["target_positions"][row, column]
            assert (
                shifted["tokens"][row, place + 1] == tokenizer.mask
                and tokenizer.decode([shifted["tokens"][row, place]]) == key
            )
            place = suffix["target_positions"][row, column]
            assert (
                tokenizer.decode([suffix["tokens"][row, place]]) == key
                and suffix["tokens"][row, place + 1] == target
            )
        for batch in (masked, shifted):
            assert (batch["tokens"][row] == tokenizer.mask).sum() == 3
            assert not set(batch["targets"][row]) & set(batch["tokens"][row, 2 * 4 + 1 :]), (
                "no answer is left after the pairs"
            )
        assert suffix["input_tokens"][row, : 2 * 4 + 2].tolist() == [
            tokenizer.bos,
            *text[:8],
            tokenizer.eos,
        ]


def test_languages_of_a_uniform_model_and_of_the_truth(prepare):
    for module, source in ((grammar, "grammar"), (brackets, "brackets")):
        corpus = prepare(source)
        task, size = module.Task(module.Config(), corpus, "test", LENGTH), corpus.tokenizer.size
        program = build(corpus, "clm")
        scores = task.score(program, uniform(program))
        is_target = task.weights > 0
        truth = task.language.table[task.batch["states"][is_target]]
        entropies = -(truth * np.log(np.where(truth > 0, truth, 1))).sum(1)
        assert scores["nll"].value == pytest.approx(math.log(size), rel=1e-4)
        assert scores["excess_nll"].value == pytest.approx(
            math.log(size) - task.surprisal[is_target].mean(), rel=1e-4
        )
        assert scores["kl"].value == pytest.approx((math.log(size) - entropies).mean(), rel=1e-4)
        assert scores["legal_mass"].value == pytest.approx(
            ((truth > 0).sum(1) / size).mean(), rel=1e-4
        )
        # Up to sampling error, the mean surprisal is the mean entropy: the language's rate.
        spread = 4 * (task.surprisal[is_target] - entropies).std() / math.sqrt(is_target.sum())
        assert abs(task.surprisal[is_target].mean() - entropies.mean()) < spread
        baselines = task.baselines(program)
        true = baselines["true distribution"]
        assert true["excess_nll"].value == pytest.approx(0, abs=1e-12) and true[
            "kl"
        ].value == pytest.approx(0, abs=1e-12)
        assert true["legal_mass"].value == pytest.approx(1)
        assert (
            true["kl"].value
            < baselines["bigram"]["kl"].value
            < baselines["unigram"]["kl"].value
            < baselines["uniform"]["kl"].value
        )
        for metric, score in scores.items():
            totals, weights = score.examples.totals, score.examples.weights
            assert score.value == pytest.approx(totals.sum() / weights.sum()) and len(
                totals
            ) == len(task.weights), metric


def test_a_model_and_a_table_of_the_same_distribution_score_alike(prepare):
    """A model whose layers do nothing depends on the previous token only: a table of bigrams."""
    corpus = prepare("brackets")
    task, program = (
        brackets.Task(brackets.Config(tokens=4096), corpus, "test", LENGTH),
        build(corpus, "clm"),
    )
    params = numbers(program.shapes["params"], std=0.5)
    params["stack"]["blocks"] = jax.tree.map(np.zeros_like, params["stack"]["blocks"])
    positions = {"tokens": np.arange(corpus.tokenizer.size, dtype=np.int32)[:, None]}
    alone = {
        name: np.zeros_like(positions["tokens"]) for name in ("positions", "targets")
    } | positions
    alone |= {
        "segments": np.ones_like(alone["tokens"]),
        "weights": np.ones(alone["tokens"].shape, np.float32),
    }

    def log_q(model, batch):
        hidden = model.hidden(
            batch["tokens"], segments_BT=batch["segments"], positions_BT=0 * batch["positions"]
        )
        return jax.nn.log_softmax(model.logits(hidden).astype(np.float32), axis=-1)[:, 0]

    q_CV = np.exp(np.asarray(program.jit(log_q)(params, alone), np.float64))
    batch = task.batch | {"positions": 0 * task.batch["positions"]}
    result = _synthetic.evaluate(program, params, batch, task.truth)
    expected = _language.evaluate_table(q_CV, batch["tokens"], batch, task.truth)
    for name in expected:
        np.testing.assert_allclose(result[name], expected[name], rtol=2e-4, atol=2e-4, err_msg=name)


def test_brackets_by_distance(prepare):
    corpus = prepare("brackets")
    task = brackets.Task(brackets.Config(), corpus, "test", LENGTH)
    distance, depth = task._nesting()
    for row in range(5):
        text = task.words.text(task.batch["targets"][row, : int(task.weights[row].sum())])
        for at, word in enumerate(text):
            inner = text[at - distance[row, at] + 1 : at]
            assert (distance[row, at] > 0) == (word[0] == ")")
            if word[0] == ")":
                assert text[at - distance[row, at]] == "(" + word[1:]
                assert (
                    sum(symbol[0] == "(" for symbol in inner)
                    == sum(symbol[0] == ")" for symbol in inner)
                    and "." not in inner
                )
                before = text[: at - distance[row, at] + 1]
                assert depth[row, at] == sum(symbol[0] == "(" for symbol in before) - sum(
                    symbol[0] == ")" for symbol in before
                )
    parts = [task.targets_of[name] for name in ("closing_near", "closing_middle", "closing_far")]
    assert (sum(part.astype(int) for part in parts) == task.targets_of["closing_accuracy"]).all()
    baselines = task.baselines(build(corpus, "clm"))
    assert baselines["true distribution"]["closing_far"].value == 1.0
    assert baselines["uniform"]["closing_accuracy"].value == pytest.approx(1 / 3)


def test_masked_words_of_the_grammar(prepare):
    corpus = prepare("grammar")
    task = grammar_masked.Task(grammar_masked.Config(tokens=8192), corpus, "test", LENGTH)
    size, scores = corpus.tokenizer.size, []
    for objective in ("mlm", "mntp"):
        program = build(corpus, objective)
        scores.append(task.score(program, uniform(program)))
        assert scores[-1]["nll"].value == pytest.approx(math.log(size), rel=1e-4)
    assert scores[0]["kl"].examples.identity == scores[1]["kl"].examples.identity
    true = task.baselines(program)["true distribution"]
    assert true["excess_nll"].value == pytest.approx(0, abs=1e-12) and true[
        "kl"
    ].value == pytest.approx(0, abs=1e-12)
    stop = corpus.tokenizer.encode(english.STOP)[0]
    for text, places in zip(task.texts, task.places, strict=True):
        assert len(text) <= LENGTH - 2 and text[-1] == stop and len(places) == (text == stop).sum()
        assert not (text[places] == stop).any()


def test_the_distribution_of_a_masked_word_is_bayes_rule():
    language = english.make(4.0)
    sentence = "the dogs near the cat see themselves .".split()
    truth = dict(
        zip(language.words, grammar_masked.distribution(language, sentence, 1), strict=True)
    )
    assert sum(truth.values()) == pytest.approx(1)
    # Only plural nouns agree with "see" and "themselves"; adjectives would leave no noun.
    assert {word for word, p in truth.items() if p > 0} == set(english.NOUNS["p"])
    assert truth["dogs"] / truth["cats"] == pytest.approx(2.0)
    full = {
        word: language.log_probability([*sentence[:1], word, *sentence[2:], END], MORE)
        for word in english.NOUNS["p"]
    }
    total = sum(map(math.exp, full.values()))
    assert truth["geese"] == pytest.approx(math.exp(full["geese"]) / total)


@pytest.mark.parametrize("name", ["recall", "brackets", "grammar", "grammar_masked"])
def test_other_corpora_and_vocabularies_are_refused(name, prepare):
    module = plugins.find("tasks", name)
    source = module.Task.source
    other = prepare("brackets" if source != "brackets" else "grammar")
    with pytest.raises(
        UserError, match=f"--config.data.source={source} and --config.tokenizer.kind=word"
    ):
        module.Task(module.Config(), other, "test", LENGTH)
    if source != "grammar":
        return  # so few symbols that each is one piece
    pieces = prepare(source, {"kind": "bpe", "vocab_size": 330, "sentinels": 4})
    with pytest.raises(UserError, match="--config.tokenizer.kind=word"):
        module.Task(module.Config(), pieces, "test", LENGTH)


def test_recall_needs_rows_that_hold_a_document(prepare):
    with pytest.raises(UserError, match="--config.data.length=26"):
        recall_task.Task(recall_task.Config(), prepare("recall"), "test", 25)


def test_a_corpus_keeps_the_options_of_its_source(prepare):
    corpus = prepare("recall")
    assert {name: corpus.options[name] for name in OPTIONS["recall"]} == OPTIONS["recall"]
    assert {field.name for field in dataclasses.fields(recall.Options)} < set(corpus.options)
