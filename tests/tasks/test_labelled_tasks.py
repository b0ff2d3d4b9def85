import collections

import numpy as np
import pytest
import stand_ins
from sklearn.metrics import f1_score
from small_corpus import Ids, Tokens

from lm.core.plugins import UserError, configure
from lm.finetuning import tuner
from lm.tasks import _labelled, classification, pair_classification, token_classification

LENGTH, VOCABULARY = 32, 256
WORDS = {"red": 10, "green": 11, "blue": 12}


def labelled(seed: int, documents: int = 60) -> Tokens:
    """Documents of several paragraphs whose words determine the label; last words differ."""
    rng = np.random.default_rng(seed)
    names = list(WORDS)
    texts = [
        [
            [10 + number % 3] * int(rng.integers(14, 40)) + [20 + number + 100 * seed] * 2
            for _ in range(4)
        ]
        for number in range(documents)
    ]
    return Tokens(texts, [names[number % 3] for number in range(documents)])


@pytest.fixture(scope="module")
def corpus():
    return stand_ins.corpus(Ids(VOCABULARY), {"train": labelled(0), "test": labelled(1, 30)})


def program(mask: str, model: str, scores: tuple[str, ...] = ("causal", "masked_next")):
    return stand_ins.StandInProgram(mask, model, scores)


class OracleTuner(tuner.Tuner):
    """A tuner whose features and logits are functions of the rows; it keeps its training rows."""

    def __init__(self, program, features, classes, recipe):
        self.program, self.classes, self.trained = program, classes, []

    def frozen(self, params, rows):
        return (
            (rows["tokens"][:, :, None] == np.arange(10, 13))
            .mean(1, keepdims=True)
            .astype(np.float32)
        )

    def run(self, params, train, dev, select_by):
        self.trained.append(train)
        self.selected = select_by(np.eye(self.classes, dtype=np.float32)[dev["targets"]])
        return tuner.Tuned(params, {}, 0.1, 0, [])

    def logits(self, params, head, rows):
        # Correct only where it reads the row from both sides.
        is_bidirectional = "prefix" not in rows or rows["prefix"].any()
        return np.eye(self.classes, dtype=np.float32)[
            rows["targets"] if is_bidirectional else np.zeros_like(rows["targets"])
        ]


def scored(task, program, patch):
    patch.setattr(_labelled, "Tuner", OracleTuner)
    return task.score(program, None)


SMALL = {"train_most": 60, "dev_most": 18, "test_most": 30}


def test_every_mask_is_fine_tuned_and_named(corpus, monkeypatch):
    task = classification.Task(classification.Config(**SMALL), corpus, "test", LENGTH)
    causal = scored(task, program("causal", "decoder"), monkeypatch)
    assert tuple(sorted(causal)) == tuple(sorted(task.metrics))
    assert len(task._tuner.trained) == 2 and task._tuner.selected == 1.0
    assert [bool(rows["prefix"].any()) for rows in task._tuner.trained] == [False, True]
    first = np.mean(task.targets["test"] == 0)
    assert causal["accuracy"].value == 1.0 and causal["accuracy_own"].value == pytest.approx(first)
    assert causal["probe_accuracy"].value == 1.0  # the features tell the label
    for mask, model in (
        ("prefix", "decoder"),
        ("bidirectional", "encoder"),
        ("cross", "encoder_decoder"),
    ):
        result = scored(task, program(mask, model), monkeypatch)
        assert len(task._tuner.trained) == 1, "its own mask is bidirectional already"
        assert (
            result.keys() == causal.keys()
            and result["accuracy"] is not None
            and result["accuracy_own"].value == 1.0
        )
        assert result["accuracy"].examples.identity == causal["accuracy"].examples.identity


def test_a_prefix_decoder_trained_causally_alone_is_read_as_a_causal_one(corpus, monkeypatch):
    task = classification.Task(classification.Config(**SMALL), corpus, "test", LENGTH)
    result, causal = (
        scored(task, program(mask, "decoder", ("causal",)), monkeypatch)
        for mask in ("prefix", "causal")
    )
    assert [bool(rows["prefix"].any()) for rows in task._tuner.trained] == [False, True]
    assert {name: score.value for name, score in result.items()} == {
        name: score.value for name, score in causal.items()
    }


def test_one_mask_alone(corpus, monkeypatch):
    own, both = (
        scored(
            classification.Task(
                configure(classification.Config, SMALL | {"masks": masks}, "it"),
                corpus,
                "test",
                LENGTH,
            ),
            program("causal", "decoder"),
            monkeypatch,
        )
        for masks in ("own", "bidirectional")
    )
    assert own["accuracy"].value == own["accuracy_own"].value < 1.0
    assert both["accuracy"].value == 1.0 and "accuracy_own" not in both


@pytest.mark.parametrize(
    ("mask", "model", "scores", "first", "last"),
    [
        ("causal", "decoder", ("causal",), [Ids.bos], []),
        ("prefix", "decoder", ("masked_next",), [Ids.bos], []),
        ("prefix", "decoder", ("masked",), [Ids.cls], [Ids.sep]),
        ("prefix", "decoder", ("causal", "masked"), [Ids.cls], [Ids.sep]),
        ("prefix", "decoder", ("masked", "causal"), [Ids.bos], []),
        ("cross", "encoder_decoder", ("denoising",), [], [Ids.eos]),
        ("bidirectional", "encoder", ("masked",), [Ids.cls], [Ids.sep]),
    ],
)
def test_texts_are_laid_out_as_in_training(corpus, mask, model, scores, first, last):
    texts = classification.Task(classification.Config(**SMALL), corpus, "test", LENGTH)
    pairs = pair_classification.Task(
        pair_classification.Config(**SMALL, piece=10), corpus, "test", LENGTH
    )
    between = [Ids.sep] if last == [Ids.sep] else [Ids.eos]
    for task, expected in (
        (texts, lambda units: first + units[0][:30] + last),
        (pairs, lambda units: first + units[0] + between + units[1] + last),
    ):
        rows = task.rows("test", program(mask, model, scores), False)
        for row, item in enumerate(task.parts["test"]):
            ids = expected([unit.tolist() for unit in item.units])
            used = len(ids)
            assert rows["tokens"][row].tolist() == ids + [Ids.pad] * (
                rows["tokens"].shape[1] - used
            )
            assert rows["segments"][row].tolist() == [1] * used + [0] * (
                rows["tokens"].shape[1] - used
            )
            assert rows["positions"][row, :used].tolist() == list(range(used))
            for number, unit in enumerate(item.units, 1):
                assert (
                    rows["tokens"][row][rows["units"][row] == number].tolist() == unit.tolist()[:30]
                )
        assert ("types" in rows) == (mask == "bidirectional") and ("prefix" in rows) == (
            model == "decoder"
        )
        assert (
            rows["targets"][:, 0].tolist() == task.targets["test"].tolist()
            and rows["weights"].all()
        )
    if mask == "bidirectional":
        assert rows["types"][0].tolist() == [0] * 12 + [1] * 11 + [0] * (
            rows["types"].shape[1] - 23
        )


def test_the_corpus_own_labels(corpus):
    task = classification.Task(classification.Config(**SMALL, classes=2), corpus, "test", LENGTH)
    assert len(task.classes) == 2 and set(task.classes) <= set(WORDS)
    for part, items in task.parts.items():
        assert collections.Counter(
            label for item in items for label in item.labels
        ) == dict.fromkeys(task.classes, SMALL[f"{part}_most"] // 2)
        assert all(
            item.units[0][0] == WORDS[item.labels[0]] and len(item.units[0]) >= 16 for item in items
        )
    owners = [{int(item.units[0][-1]) for item in task.parts[part]} for part in ("train", "dev")]
    assert not owners[0] & owners[1], "the development set has documents of its own"


def test_baselines_of_texts(corpus):
    task = classification.Task(classification.Config(**SMALL), corpus, "test", LENGTH)
    result = task.baselines(program("causal", "decoder"))
    assert (
        result["bag of words"]["accuracy"].value == result["bag of words"]["macro_f1"].value == 1.0
    )
    assert result["majority"]["accuracy"].value == pytest.approx(1 / 3)
    assert all(tuple(sorted(metrics)) == tuple(sorted(task.metrics)) for metrics in result.values())


def test_scores_of_classes_are_scikit_learns():
    rng = np.random.default_rng(0)
    answers, predicted = rng.integers(0, 5, (2, 200))
    result = _labelled.class_scores(answers, predicted, "x")
    assert result["macro_f1"].value == pytest.approx(f1_score(answers, predicted, average="macro"))
    examples = result["accuracy"].examples
    assert (
        examples.totals.sum() / examples.weights.sum()
        == result["accuracy"].value
        == np.mean(answers == predicted)
    )


def test_one_text_of_a_pair_does_not_reveal_the_label():
    """Every piece has the same size, and pairs of both labels use pieces alike."""
    rng = np.random.default_rng(0)
    # Token 300 + d throughout document d.
    documents = [
        [[300 + number] * int(rng.integers(5, 30)) for _ in range(12)] for number in range(200)
    ]
    items = pair_classification._pairs(Tokens(documents), np.arange(200), 20, 0)
    assert len(items) > 200 and {len(unit) for item in items for unit in item.units} == {20}
    for item in items:
        a, b = (set(unit.tolist()) for unit in item.units)
        assert len(a) == len(b) == 1 and (a == b) == (item.labels == ["same"])
    count = collections.Counter(item.labels[0] for item in items)
    assert count["same"] == count["other"]
    few = pair_classification._pairs(Tokens(documents), np.arange(200), 20, 48)
    assert len(few) == 48 and len({int(item.units[0][0]) for item in few}) == 48, (
        "from many documents"
    )


def test_overlap_separates_pairs_of_different_words(corpus):
    rng = np.random.default_rng(0)

    def make(documents: int) -> Tokens:
        return Tokens(
            [
                [rng.permutation(np.arange(8 + 4 * n, 12 + 4 * n)).tolist() * 3 for _ in range(6)]
                for n in range(documents)
            ]
        )

    stand_in = stand_ins.corpus(Ids(VOCABULARY), {"train": make(60), "test": make(60)})
    task = pair_classification.Task(
        pair_classification.Config(train_most=40, dev_most=8, test_most=40),
        stand_in,
        "test",
        LENGTH,
    )
    result = task.baselines(program("causal", "decoder"))
    assert (
        result["overlap"]["accuracy"].value == 1.0
        and 0.3 < result["majority"]["accuracy"].value < 0.7
    )


# Tags.


@pytest.fixture
def tagged(tmp_path, corpus):
    def make(content: str = "", **options):
        sentences = [
            f"Ann\tB-PER\nLee\tI-PER\nsaw\tO\nw{number}\tO\nRome\tB-LOC\n" for number in range(50)
        ]
        (tmp_path / "train").write_text("\n".join(sentences), encoding="utf-8")
        (tmp_path / "test").write_text(
            content or "Rome\tB-LOC\nis\tO\n\nAnn\tB-PER\nRome\tI-PER\nunheard\tO\n",
            encoding="utf-8",
        )
        paths = {"path": str(tmp_path / "train"), "test": str(tmp_path / "test")}
        config = configure(
            token_classification.Config, paths | options, "tasks.token_classification"
        )
        return token_classification.Task(config, corpus, "test", LENGTH)

    return make


def test_f1_by_hand(tagged):
    task = tagged("Rome\tB-LOC\nX\tI-LOC\nis\tO\n\nAnn\tB-PER\nRome\tI-PER\nunheard\tO\n")
    guesses = {3: ["I-LOC", "I-LOC", "O"], 0: ["B-PER", "I-PER", "B-LOC"]}
    order = [guesses[3] if item.content[0] == "Rome" else guesses[0] for item in task.parts["test"]]
    result = task.measure(
        "test", np.array([task.classes.index(tag) for tags in order for tag in tags])
    )
    # Gold: LOC, PER. Predicted: LOC (in conlleval only, since it begins with I-), PER, a wrong LOC.
    assert result["f1"].value == pytest.approx(2 * 2 / (2 + 3)) and result[
        "strict_f1"
    ].value == pytest.approx(2 * 1 / (2 + 2))
    assert result["token_accuracy"].value == pytest.approx(4 / 6)
    assert (result["f1"].count, result["token_accuracy"].count) == (2, 6)
    for score in result.values():
        assert score.examples.totals.sum() / score.examples.weights.sum() == pytest.approx(
            score.value
        )
        assert len(score.examples.totals) == 2


def test_baselines_of_tags(tagged):
    result = tagged().baselines(program("causal", "decoder"))
    # In training Rome is a place and Ann begins a person; an unseen word is outside.
    assert result["each word's usual tag"]["token_accuracy"].value == pytest.approx(4 / 5)
    assert result["each word's usual tag"]["f1"].value == pytest.approx(2 * 1 / (2 + 3))
    assert (
        result["majority"]["token_accuracy"].value == pytest.approx(2 / 5)
        and result["majority"]["f1"].value == 0.0
    )


def test_a_long_sentence_continues_in_another_row(tagged):
    words = [f"w{number}" for number in range(40)]
    task = tagged(
        "\n".join(f"{word}\t{'B-LOC' if n % 7 == 0 else 'O'}" for n, word in enumerate(words)),
        longest=12,
    )
    rows = task.rows("test", program("causal", "decoder"), False)
    is_target = rows["weights"] > 0
    assert len(rows["tokens"]) == 4 and is_target.sum() == 40
    assert rows["targets"][is_target].tolist() == task.targets["test"].tolist()
    for row, count in zip(range(4), is_target.sum(1), strict=True):
        assert sorted(set(rows["units"][row].tolist()) - {0}) == list(range(1, count + 1))


def test_chinese_characters_have_no_space_before_them(tagged):
    class Pieces(Ids):
        def name(self, i):
            return "▁" if i == 7 else "x"

    task = tagged()
    task.corpus = stand_ins.corpus(Pieces(VOCABULARY), task.corpus.stores)
    assert len(task.encoded("科", [7, 30])) == 1 and len(task.encoded("Rome", [7, 30])) == 2
    assert task.encoded("?", []).tolist() == [Ids.unk]


# Bad input.


def test_unusable_examples_are_refused(tagged, corpus, tmp_path):
    with pytest.raises(UserError, match="needs files with a word and its tag per line"):
        token_classification.Task(token_classification.Config(), corpus, "test", LENGTH)
    with pytest.raises(UserError, match=r"reads tags in IOB2 .*not 'NN'"):
        tagged("dog\tNN\n")
    with pytest.raises(UserError, match="has no span"):
        tagged("dog\tO\n")
    bare = stand_ins.corpus(
        Ids(VOCABULARY),
        {"train": Tokens([[[10] * 20]] * 9), "test": Tokens([[[10] * 20]])},
    )
    with pytest.raises(UserError, match="at least two labels"):
        classification.Task(classification.Config(), bare, "test", LENGTH)
    with pytest.raises(UserError, match="two pieces of 14 tokens"):
        pair_classification.Task(pair_classification.Config(), bare, "test", LENGTH)
    for name, label in (("train.tsv", "x"), ("test.tsv", "y")):
        (tmp_path / name).write_text(
            "text\tlabel\n" + "".join(f"{name} {n}\t{label}\n" for n in range(20)), encoding="utf-8"
        )
    config = classification.Config(
        path=(str(tmp_path / "train.tsv"),), test=(str(tmp_path / "test.tsv"),)
    )
    with pytest.raises(UserError, match="no training example has the label y"):
        classification.Task(config, corpus, "test", LENGTH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": ("causal",)}, "one or both of own, bidirectional"),
        ({"train_most": -1}, "must not be negative"),
        ({"longest": 1}, "at least 4"),
        ({"classes": 1}, "at least 2"),
        ({"rates": (-1.0,)}, "above 0"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message):
        configure(classification.Config, options, "tasks.classification")
