import math
import types

import jax
import numpy as np
import pytest
import stand_ins
from small_corpus import (
    Ids,
    Tokens,
    compatible_pairs,
    config,
    numbers,
    quick_compilation,
    random_store,
)

from lm.core import compatibility, plugins
from lm.core.plugins import UserError
from lm.stats import bootstrap, ngrams
from lm.tasks import causal, masked, next_sentence, probe
from lm.training.program import Program
from lm.training.validation import Validation

LENGTH, VOCABULARY = 32, 64
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


class TwoByteIds(Ids):
    """Ordinary ids of two bytes each, so that bytes and tokens are not the same number."""

    def __init__(self, size: int):
        super().__init__(size)
        self.bytes_per_id = self.bytes_per_id * 2


@pytest.fixture(scope="module")
def corpus():
    stores = {
        "train": random_store(VOCABULARY, 120, seed=1),
        "test": random_store(VOCABULARY, 40, seed=3),
    }
    return stand_ins.corpus(TwoByteIds(VOCABULARY), stores)


def build(corpus, objective: str) -> Program:
    return Program(config(objective, model={"layers": 1}), corpus.tokenizer, jax.devices()[:1])


@pytest.fixture(scope="module")
def decoder(corpus):
    return build(corpus, "clm")


@pytest.fixture(scope="module")
def encoder(corpus):
    return build(corpus, "mlm_nsp")


def uniform(program: Program):
    """Parameters of a model that gives each token the same probability, and each answer."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), program.shapes["params"])


@pytest.fixture(scope="module")
def clm_targets(corpus, decoder):
    """(token before, target) of all targets of the causal task on the test split."""
    task = causal.Task(causal.Config(), corpus, "test", LENGTH)
    batches = Validation(
        decoder, task.objective, corpus.stores["test"], "test", task.config.tokens, 32
    ).batches
    keep = [batch["weights"] > 0 for batch in batches]
    return tuple(
        np.concatenate([batch[name][kept] for batch, kept in zip(batches, keep, strict=True)])
        for name in ("tokens", "targets")
    )


def test_causal_scores_of_a_uniform_model(corpus, decoder, clm_targets):
    task = causal.Task(causal.Config(), corpus, "test", LENGTH)
    scores = task.score(decoder, uniform(decoder))
    _, targets = clm_targets
    assert scores["nll"].value == pytest.approx(math.log(VOCABULARY), rel=1e-5)
    assert scores["perplexity"].value == pytest.approx(VOCABULARY, rel=1e-4)
    assert scores["nll"].count == len(targets)
    size = 2 * int((targets != Ids.eos).sum())
    assert scores["bits_per_byte"].value == pytest.approx(
        len(targets) * math.log2(VOCABULARY) / size, rel=1e-5
    )
    assert scores["bits_per_byte"].count == size
    assert {name: (score.unit, score.better) for name, score in scores.items()} == {
        "nll": ("nats/token", "lower"),
        "perplexity": ("perplexity", "lower"),
        "bits_per_byte": ("bits/byte", "lower"),
        "accuracy": ("share", "higher"),
    }


def test_the_causal_task_reads_nearly_all_of_a_small_split_once(corpus, clm_targets):
    store = corpus.stores["test"]
    total = len(store.tokens) + len(store)
    # Whole batches only, so less than one batch of the split is not read.
    assert total - 32 * LENGTH < len(clm_targets[1]) <= total


def test_causal_baselines_read_the_tokens_that_the_model_reads(corpus, decoder, clm_targets):
    task = causal.Task(causal.Config(), corpus, "test", LENGTH)
    before, targets = clm_targets
    result = task.baselines(decoder)
    # Documents of the training split one after the other, by hand: [BOS] text [EOS].
    store = corpus.stores["train"]
    pairs = [
        pair
        for i in range(len(store))
        for pair in zip(
            [Ids.bos, *store.document(i).tolist()],
            [*store.document(i).tolist(), Ids.eos],
            strict=True,
        )
    ]
    first, second = np.array(pairs).T
    for name, nll in {
        "unigram": ngrams.Unigram(second, VOCABULARY).nll(targets),
        "bigram": ngrams.Bigram(first, second, VOCABULARY).nll(before, targets),
    }.items():
        assert result[name]["nll"].value == pytest.approx(nll.mean())
        assert result[name]["nll"].count == len(targets)
        assert result[name]["bits_per_byte"].value == pytest.approx(
            nll.sum() / math.log(2) / (2 * (targets != Ids.eos).sum())
        )
    assert (
        result["bigram"]["nll"].value < result["unigram"]["nll"].value < math.log(VOCABULARY) + 0.1
    )


@pytest.fixture(scope="module")
def masked_scores(corpus, encoder):
    task = masked.Task(masked.Config(), corpus, "test", LENGTH)
    return task.score(encoder, uniform(encoder)), task.baselines(encoder)


def test_masked_scores(masked_scores):
    scores, baselines = masked_scores
    assert scores["ce"].value == pytest.approx(math.log(VOCABULARY), rel=1e-5)
    assert baselines.keys() == {"unigram", "bigram"}
    for result in baselines.values():
        assert result["ce"].count == result["accuracy"].count == scores["ce"].count
    assert baselines["bigram"]["ce"].value < baselines["unigram"]["ce"].value
    assert baselines["bigram"]["accuracy"].value > baselines["unigram"]["accuracy"].value


def test_masked_baselines_by_hand(corpus, encoder, masked_scores):
    task = masked.Task(masked.Config(), corpus, "test", LENGTH)
    store, inside = corpus.stores["train"], []
    for i in range(len(store)):
        text = store.document(i).tolist()
        inside += zip(text[:-1], text[1:], strict=True)
    bigram = ngrams.Bigram(*np.array(inside).T, VOCABULARY)
    unigram = ngrams.Unigram(store.tokens, VOCABULARY)
    total, hits, ce, count = 0.0, 0, 0.0, 0
    for batch in task._validation(encoder, "mlm").batches:
        for row in range(len(batch["tokens"])):
            for slot, weight in enumerate(batch["weights"][row]):
                if weight:
                    at, target = (
                        batch["target_positions"][row, slot],
                        int(batch["targets"][row, slot]),
                    )
                    guess = bigram.between(
                        int(batch["tokens"][row, at - 1]), int(batch["tokens"][row, at + 1])
                    )
                    total, hits, count = (
                        total - guess[target],
                        hits + (guess.argmax() == target),
                        count + 1,
                    )
                    ce += float(unigram.nll(np.array([target]))[0])
    result = masked_scores[1]
    assert (result["bigram"]["ce"].count, result["unigram"]["ce"].count) == (count, count)
    assert result["bigram"]["ce"].value == pytest.approx(total / count)
    assert result["bigram"]["accuracy"].value == pytest.approx(hits / count)
    assert result["unigram"]["ce"].value == pytest.approx(ce / count)


def test_tokens_can_be_masked_by_mask_alone(corpus, encoder):
    tasks = [
        masked.Task(masked.Config(**options), corpus, "test", LENGTH)
        for options in ({}, {"mask_share": 1.0, "random_share": 0.0})
    ]
    usual, pure = (task._validation(encoder, "mlm").batches for task in tasks)
    for one, other in zip(usual, pure, strict=True):
        assert all(
            (one[name] == other[name]).all() for name in ("target_positions", "targets", "weights")
        ), "the targets are the same"
        rows, slots = np.nonzero(other["weights"])
        is_mask = [
            batch["tokens"][rows, batch["target_positions"][rows, slots]] == Ids.mask
            for batch in (one, other)
        ]
        assert is_mask[1].all() and not is_mask[0].all()
    identities = [task._targets(task._validation(encoder, "mlm")).identity for task in tasks]
    assert identities[0] != identities[1], "the inputs differ, so the two are not paired"
    with pytest.raises(UserError, match="their sum at most 1"):
        plugins.configure(masked.Config, {"mask_share": 1.0}, "tasks.masked")


def test_next_sentence(corpus, encoder):
    task = next_sentence.Task(next_sentence.Config(), corpus, "test", LENGTH)
    params = uniform(encoder)
    batches = task._validation(encoder).batches
    assert all(
        batch["labels"].shape == (len(batch["tokens"]), 1) and (batch["label_weights"] == 1).all()
        for batch in batches
    )
    labels = np.concatenate([batch["labels"][:, 0] for batch in batches])
    scores, baselines = task.score(encoder, params), task.baselines(encoder)
    assert scores["accuracy"].value == pytest.approx(
        (labels == 0).mean()
    )  # a tie predicts the first class
    assert scores["accuracy"].count == baselines["TF-IDF overlap"]["accuracy"].count == len(labels)
    fractions = {label: (labels == label).mean() for label in (0, 1)}
    assert baselines["majority"]["accuracy"].value in (
        pytest.approx(fractions[0]),
        pytest.approx(fractions[1]),
    )


def test_overlap_separates_documents_of_different_words(encoder):
    """Each document has words of its own, so a threshold separates held-out pairs completely."""

    def make(seed: int) -> Tokens:
        rng = np.random.default_rng(seed)
        documents = [
            [list(rng.permutation(np.arange(word, word + 4))) * 2 for _ in range(12)]
            for word in range(8, 60, 4)
        ]
        return Tokens(documents)

    corpus = stand_ins.corpus(Ids(VOCABULARY), {"train": make(0), "test": make(1)})
    task = next_sentence.Task(next_sentence.Config(), corpus, "test", LENGTH)
    assert task.baselines(encoder)["TF-IDF overlap"]["accuracy"].value == 1.0


PAIRED = {"nsp", "sop", "mlm_nsp", "mlm_sop"}
# Objectives by the tasks that suit them; where it depends on the model, "objective on model".
SUITED = {
    "causal": {"clm", "hybrid", "mixture", "biphasic", "prefix_lm on decoder"},
    "masked": {"mlm", "mntp", "hybrid", "mixture", "biphasic", "mlm_nsp", "mlm_sop"},
    "next_sentence": PAIRED,
    "sentence_order": PAIRED,
    "suffix": {"clm", "hybrid", "mixture", "biphasic", "prefix_lm"},
    "denoising": {"span_corruption", "ul2"},
    "last_word": {name for name, _ in compatible_pairs()} - {"nsp", "sop", "rtd"},
}


@pytest.mark.parametrize("task", SUITED)
def test_tasks_suit_objectives(corpus, task):
    module = plugins.find("tasks", task)
    made = module.Task(module.Config(), corpus, "test", LENGTH)
    for name, model in compatible_pairs():
        objective = compatibility.make({"name": name}, Ids(96, 20), LENGTH, model)
        assert made.suits(objective) == (
            not SUITED[task].isdisjoint((name, f"{name} on {model}"))
        ), (name, model)


# The probe.

LABELS = ("red", "green", "blue")


def labelled(seed: int, documents: int = 60) -> Tokens:
    """Documents of several paragraphs of one word, which is the label: id 10, 11 or 12."""
    rng = np.random.default_rng(seed)
    texts = [
        [[10 + number % 3] * int(rng.integers(16, 40)) for _ in range(4)]
        for number in range(documents)
    ]
    return Tokens(texts, [LABELS[number % 3] for number in range(documents)])


@pytest.fixture(scope="module")
def probed():
    corpus = stand_ins.corpus(Ids(VOCABULARY), {"train": labelled(0), "test": labelled(1, 30)})
    return probe.Task(probe.Config(train=40, test=20), corpus, "test", LENGTH)


class FeatureProgram(stand_ins.StandInProgram):
    """A program whose model's features are a NumPy function of the batch; it keeps the batches."""

    def __init__(self, features, mask="causal", scores=("causal",)):
        super().__init__(mask, scores=scores)
        self.features = features
        self.batches = []

    def jit(self, function):
        def call(params, batch):
            self.batches.append(jax.device_get(batch))
            return self.features(self.batches[-1])

        return call


def one_hot(batch) -> np.ndarray:
    """Fractions of the three words among the tokens."""
    # The last batch is filled up with empty rows.
    count = np.maximum(1, batch["segments"].sum(1))
    return np.stack([(batch["tokens"] == word).sum(1) / count for word in (10, 11, 12)], 1)


def test_the_probe_learns_from_features_that_determine_the_label(probed, monkeypatch):
    monkeypatch.setattr(probe.loader, "place", lambda batch, sharding, size: batch)
    scores = probed.score(FeatureProgram(one_hot), None)
    assert scores["accuracy"].value == scores["balanced_accuracy"].value == 1.0
    assert scores["accuracy"].count == 60


def test_the_probe_learns_nothing_from_random_features(probed, monkeypatch):
    monkeypatch.setattr(probe.loader, "place", lambda batch, sharding, size: batch)
    rng = np.random.default_rng(0)
    scores = probed.score(
        FeatureProgram(lambda batch: rng.normal(size=(len(batch["tokens"]), 4))), None
    )
    assert 0.1 < scores["balanced_accuracy"].value < 0.6  # 1/3 by guessing


def test_probe_baselines(probed):
    result = probed.baselines(FeatureProgram(one_hot))
    assert result["bag of words"]["balanced_accuracy"].value == 1.0
    assert result["majority"]["balanced_accuracy"].value == pytest.approx(1 / 3)
    assert result["majority"]["accuracy"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("mask", "scores", "first", "last"),
    [
        ("causal", ("causal",), Ids.bos, None),
        ("prefix", ("causal", "masked_next"), Ids.bos, None),
        ("prefix", ("causal",), Ids.bos, None),
        ("prefix", ("masked",), Ids.cls, Ids.sep),
        ("prefix", ("causal", "masked"), Ids.cls, Ids.sep),
        ("bidirectional", ("masked",), Ids.cls, Ids.sep),
        ("cross", ("denoising",), None, Ids.eos),
    ],
)
def test_the_probe_lays_out_text_as_in_training(probed, monkeypatch, mask, scores, first, last):
    monkeypatch.setattr(probe.loader, "place", lambda batch, sharding, size: batch)
    program = FeatureProgram(one_hot, mask, scores)
    probed.score(program, None)
    for batch in program.batches:
        assert ("prefix" in batch) == (mask == "prefix")
        if mask == "prefix":
            assert (batch["prefix"] == batch["segments"] * (scores != ("causal",))).all()
        for tokens, segments, positions in zip(
            batch["tokens"], batch["segments"], batch["positions"], strict=True
        ):
            used = int(segments.sum())
            if used:
                assert (first is None or tokens[0] == first) and (
                    last is None or tokens[used - 1] == last
                )
                assert (
                    (segments[:used] == 1).all()
                    and not segments[used:].any()
                    and not tokens[used:].any()
                )
                assert positions[:used].tolist() == list(range(used))
                assert set(tokens[first is not None : used - (last is not None)].tolist()) <= {
                    10,
                    11,
                    12,
                }


def test_probe_features_are_means_over_the_text(decoder):
    params = numbers(decoder.shapes["params"])
    rng = np.random.default_rng(0)
    segments = (np.arange(LENGTH)[None] < np.array([[5], [LENGTH]])).astype(np.int32)
    batch = {
        "tokens": (rng.integers(7, VOCABULARY, (2, LENGTH)) * segments).astype(np.int32),
        "segments": segments,
        "positions": np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (2, LENGTH)) * segments,
    }

    def compute(model, batch):
        hidden = model.hidden(
            batch["tokens"], segments_BT=batch["segments"], positions_BT=batch["positions"]
        )
        return probe._features(model, batch), hidden

    features, hidden = jax.device_get(decoder.jit(compute)(params, batch))
    expected = np.stack([hidden[0, :5].mean(0), hidden[1].mean(0)])
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_the_probe_drops_short_paragraphs_and_cuts_long_ones():
    corpus = stand_ins.corpus(Ids(VOCABULARY), {"train": labelled(0), "test": labelled(1, 30)})
    task = probe.Task(probe.Config(shortest=20, longest=24), corpus, "test", LENGTH)
    sizes = {len(text) for texts, _ in (task.train, task.test) for text in texts}
    assert min(sizes) == 20 and max(sizes) == 24


def test_the_probe_needs_labels():
    stores = {"train": random_store(VOCABULARY, 20), "test": random_store(VOCABULARY, 9)}
    corpus = stand_ins.corpus(Ids(VOCABULARY), stores)
    with pytest.raises(UserError, match="at least two labels"):
        probe.Task(probe.Config(), corpus, "test", LENGTH)


def test_the_probe_needs_held_out_paragraphs():
    stores = {"train": labelled(0), "test": Tokens([[[10] * 5]], ["red"])}
    corpus = stand_ins.corpus(Ids(VOCABULARY), stores)
    with pytest.raises(UserError, match="no paragraph of 16 tokens under its labels"):
        probe.Task(probe.Config(), corpus, "test", LENGTH)


def test_classes_of_the_probe_have_equal_weights_on_any_test_set():
    """The error over test sets is that of the mean recall computed on each; a constant has none."""
    rng = np.random.default_rng(0)
    answers = rng.choice(4, 300, p=(0.55, 0.25, 0.15, 0.05))
    predicted = np.where(rng.random(300) < 0.5 + 0.1 * answers, answers, rng.choice(4, 300))
    task = types.SimpleNamespace(test=([np.arange(3)] * 300, answers))
    result = probe.Task._scores(task, predicted)["balanced_accuracy"]

    def balanced(index):
        return np.mean(
            [
                (predicted[index] == answers[index])[answers[index] == each].mean()
                for each in range(4)
            ]
        )

    again = [balanced(rng.integers(0, 300, 300)) for _ in range(3000)]
    assert result.value == pytest.approx(balanced(np.arange(300)))
    assert result.examples.totals.sum() / result.examples.weights.sum() == pytest.approx(
        result.value
    )
    assert bootstrap.test_error({-1: result.examples}) == pytest.approx(np.std(again), rel=0.08)
    constant = probe.Task._scores(task, np.zeros(300, int))["balanced_accuracy"]
    assert constant.value == 0.25 and bootstrap.test_error({-1: constant.examples}) == 0.0
