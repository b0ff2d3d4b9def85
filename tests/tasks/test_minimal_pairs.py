import json

import jax
import numpy as np
import pytest
import stand_ins
from small_corpus import Ids, config, numbers, quick_compilation, random_store

from lm.core.plugins import UserError
from lm.inference import scoring
from lm.stats import ngrams
from lm.tasks import minimal_pairs
from lm.training.program import Program

LENGTH, VOCABULARY = 32, 64
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


@pytest.fixture(scope="module")
def corpus():
    stores = {
        "train": random_store(VOCABULARY, 60, seed=1),
        "test": random_store(VOCABULARY, 9, seed=3),
    }
    return stand_ins.corpus(Ids(VOCABULARY), stores)


@pytest.fixture(scope="module")
def decoder(corpus):
    return Program(config("clm", model={"layers": 1}), corpus.tokenizer, jax.devices()[:1])


def text(rng, size: int) -> str:
    return " ".join(map(str, rng.integers(7, VOCABULARY, size)))


def records(count: int = 40, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    about = [
        {"field": "syntax", "linguistics_term": term, "UID": f"{term}_1"}
        for term in ("binding", "islands")
    ]
    return [
        {
            "sentence_good": text(rng, 5),
            "sentence_bad": text(rng, 5 + index % 2),
            **about[index % 4 == 0],
        }
        for index in range(count)
    ]


def write(directory, lines, name: str = "pairs.jsonl"):
    path = directory / name
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n",
        encoding="utf-8",
    )
    return path


def make(corpus, *paths, **options) -> minimal_pairs.Task:
    return minimal_pairs.Task(
        minimal_pairs.Config(path=tuple(map(str, paths)), **options), corpus, "test", LENGTH
    )


def test_scores_by_hand(corpus, decoder, tmp_path):
    lines = records()
    task = make(corpus, write(tmp_path, lines))
    params = numbers(decoder.shapes["params"], std=0.3)
    scores = task.score(decoder, params)
    ids = scoring.encode(
        corpus.tokenizer, [line[key] for key in ("sentence_good", "sentence_bad") for line in lines]
    )
    values = scoring.Scorer(decoder, corpus.tokenizer, "causal").sentences(params, ids)
    hits = np.array([float(good > bad) for good, bad in zip(values[:40], values[40:], strict=True)])
    assert scores["accuracy"].value == scores["accuracy_causal"].value == hits.mean()
    assert scores["accuracy"].examples.totals.tolist() == hits.tolist()
    binding = np.arange(40) % 4 != 0
    assert scores["accuracy/linguistics_term/binding"].value == hits[binding].mean()
    assert scores["accuracy/UID/islands_1"].value == hits[~binding].mean()
    assert scores["accuracy/UID/islands_1"].count == 10
    assert not any(name.startswith("accuracy/field") for name in scores), "one field is no subset"
    assert list(scores)[:2] == ["accuracy", "accuracy_causal"] and set(list(scores)[:2]) < set(
        task.metrics
    )


def test_a_uniform_model_scores_one_half(corpus, decoder, tmp_path):
    """Sentences of the same length tie, and the shorter of two others wins."""
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), decoder.shapes["params"])
    even = write(tmp_path, records()[0::2])
    longer = write(tmp_path, records()[1::2], "longer.jsonl")
    assert make(corpus, even).score(decoder, params)["accuracy"].value == 0.5
    assert make(corpus, longer).score(decoder, params)["accuracy"].value == 1.0
    assert make(corpus, even, longer).score(decoder, params)["accuracy"].value == 0.75


def test_baselines(corpus, decoder, tmp_path):
    task = make(corpus, write(tmp_path, records(2000)))
    result = task.baselines(decoder)
    assert result["constant"]["accuracy"].value == 0.5
    assert result["random"]["accuracy"].value == pytest.approx(0.5, abs=0.01)
    parts = [
        score.value for name, score in result["random"].items() if name.startswith("accuracy/UID/")
    ]
    assert len(parts) == 2 and parts == pytest.approx([0.5, 0.5], abs=0.01)
    assert result["shorter"]["accuracy"].value == 0.75
    assert task.baselines(decoder)["random"]["accuracy"].value == result["random"]["accuracy"].value
    # Kneser-Ney sums by hand, from [BOS] on, without [EOS].
    store, pairs = corpus.stores["train"], []
    for index in range(len(store)):
        document = store.document(index).tolist()
        pairs += zip([Ids.bos, *document], [*document, Ids.eos], strict=True)
    bigram = ngrams.Bigram(*np.array(pairs).T, VOCABULARY)
    sums = [sum(bigram.nll(np.array([Ids.bos, *ids[:-1]]), ids)) for ids in task.sentences]
    assert result["bigram"]["accuracy"].value == pytest.approx(
        np.mean(np.array(sums[:2000]) < np.array(sums[2000:]))
    )
    assert (
        result["bigram"]["accuracy"].examples.identity
        == result["constant"]["accuracy"].examples.identity
    )


def test_other_pairs_have_another_identity(corpus, tmp_path):
    one, other = (
        make(corpus, write(tmp_path, records())),
        make(corpus, write(tmp_path, records(seed=1), "b.jsonl")),
    )
    again = make(corpus, write(tmp_path, records(), "c.jsonl"))
    assert one.identity == again.identity != other.identity


def test_broken_lines_are_counted_and_named(corpus, tmp_path, capsys):
    same = {"sentence_good": "8 9", "sentence_bad": "8 9"}
    broken = ["{", {"sentence_good": "8 9"}, [1], same]
    path = write(tmp_path, records(96) + broken)
    task = make(corpus, path, broken=0.05)
    assert len(task.pairs) == 96
    printed = capsys.readouterr().err
    assert len(task.notes) == 1 and task.notes[0] in printed
    assert (
        "4 of 100 lines are broken (line 97 is not JSON" in printed
        and "line 98 has no text in 'sentence_bad'" in printed
    )
    with pytest.raises(
        UserError, match=r"4 of 100 lines are broken .* more than minimal_pairs.broken=1%"
    ):
        make(corpus, path)


def test_bad_input(corpus, tmp_path):
    with pytest.raises(
        UserError, match=r"needs minimal_pairs.path: JSON Lines files.*sentence_good"
    ):
        make(corpus)
    with pytest.raises(
        UserError, match=r"minimal_pairs.path='.*nowhere.jsonl': there is no such file"
    ):
        make(corpus, tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"empty.jsonl is empty"):
        make(corpus, tmp_path / "empty.jsonl")
    long = [{"sentence_good": " ".join(["9"] * 28), "sentence_bad": "8 9"}]
    with pytest.raises(UserError, match="1 of 1 pairs have a sentence of more than 27 tokens"):
        make(corpus, write(tmp_path, long))
    with pytest.raises(ValueError, match="methods='plll' is not one of causal, pll"):
        minimal_pairs.Config(methods=("plll",))
    with pytest.raises(ValueError, match="broken=1.0 must be a fraction"):
        minimal_pairs.Config(broken=1.0)


def test_a_glob_of_files_and_the_first_pairs_of_each(corpus, tmp_path):
    rows = [{key: line[key] for key in ("sentence_good", "sentence_bad")} for line in records(20)]
    write(tmp_path, rows, "one.jsonl")
    write(tmp_path, rows, "two.jsonl")
    task = make(corpus, tmp_path / "*.jsonl", most=3)
    assert [pair.about for pair in task.pairs] == [("", "", "one")] * 3 + [("", "", "two")] * 3
    assert [pair.good for pair in task.pairs[:3]] == [row["sentence_good"] for row in rows[:3]]
