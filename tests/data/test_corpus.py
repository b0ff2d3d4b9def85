import dataclasses
import random
import types

import pytest

from lm.core import plugins
from lm.core.plugins import UserError
from lm.data import corpus, store
from lm.data.documents import Document, Tally, split_of
from lm.tokenizers import bpe, unigram

WORDS = (
    "the model learns from text and every token has bytes behind it while gradients flow backwards"
    " through many layers".split()
)
TOKENIZER = {"vocab_size": 310, "sentinels": 10, "kind": "bpe", "path": ""}


@dataclasses.dataclass(frozen=True)
class Config:
    count: int = 200
    seed: int = 0


class Source(types.ModuleType):
    """A source whose documents are counted as they are read."""

    Config = Config

    def __init__(self):
        super().__init__("lm.data.sources.made_up")
        self.read = 0

    def documents(self, config, tally):
        draw = random.Random(config.seed)
        tally.drop("made-up reason", 7)
        for i in range(config.count):
            self.read += 1
            paragraph = tuple(" ".join(draw.choices(WORDS, k=8)) for _ in range(3))
            document = Document(f"d{i}", (paragraph, paragraph[:1]), f"label{i % 2}")
            tally.add(document)
            yield document

    def signature(self, config):
        return repr(config)


@pytest.fixture
def source(monkeypatch) -> Source:
    made_up, find = Source(), plugins.find
    monkeypatch.setattr(
        plugins,
        "find",
        lambda room, name: made_up if room == "data.sources" else find(room, name),
    )
    return made_up


@pytest.fixture
def data(tmp_path, source) -> dict:
    return {
        "source": "made_up",
        "validation": 0.2,
        "test": 0.1,
        "cache": str(tmp_path / "cache"),
        "path": "",
    }


def prepare(data, **changes) -> corpus.Corpus:
    return corpus.prepare(data, TOKENIZER | changes, progress=False)


def test_every_document_is_in_the_split_of_its_text(data, source):
    made = prepare(data)
    names = []
    for split in ("train", "validation", "test"):
        documents = list(made.texts(split))
        assert {split_of(document, 0.2, 0.1) for document in documents} == {split}
        assert made.stores[split].names == [document.name for document in documents]
        assert made.stores[split].labels == [document.label for document in documents]
        texts = [
            " ".join(text for paragraph in document.paragraphs for text in paragraph)
            for document in documents
        ]
        assert [
            made.tokenizer.decode(made.stores[split].document(i)) for i in range(len(texts))
        ] == texts
        names += made.stores[split].names
    assert sorted(names) == sorted(
        document.name for document in Source().documents(Config(), Tally())
    )


def test_the_tokenizer_sees_the_training_split_only(data, source, monkeypatch):
    seen = []
    real = bpe.train

    def train(texts, config):
        texts = list(texts)
        seen.extend(texts)
        return real(texts, config)

    monkeypatch.setattr(bpe, "train", train)
    made = prepare(data)
    assert seen == [
        text
        for document in made.texts("train")
        for paragraph in document.paragraphs
        for text in paragraph
    ]


def never(*_):
    raise AssertionError("trained again")


def test_a_second_start_reads_and_trains_nothing(data, source, monkeypatch):
    first = prepare(data)
    assert source.read == 200
    monkeypatch.setattr(bpe, "train", never)
    monkeypatch.setattr(store, "_write", None)
    second = prepare(data)
    assert source.read == 200
    assert second.fingerprint == first.fingerprint
    assert second.describe() == first.describe()
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint


def test_the_same_text_found_by_another_road_shares_the_stores(data, source, monkeypatch):
    first = prepare(data)
    monkeypatch.setattr(Source, "signature", lambda self, config: "moved elsewhere")
    monkeypatch.setattr(bpe, "train", never)
    second = prepare(data)
    assert source.read == 400
    assert second.directory != first.directory
    assert {split: part.directory for split, part in second.stores.items()} == {
        split: part.directory for split, part in first.stores.items()
    }
    assert second.fingerprint == first.fingerprint


def test_fingerprints_tell_apart(data, source, tmp_path):
    made = prepare(data)
    result = {made.fingerprint}
    for other in (data | {"seed": 1}, data | {"validation": 0.3}, data | {"test": 0.3}):
        result.add(prepare(other).fingerprint)
    for changes in ({"vocab_size": 305}, {"kind": "unigram"}, {"sentinels": 5}):
        other = prepare(data, **changes)
        result.add(other.fingerprint)
        assert {part.meta["tokenizer"] for part in other.stores.values()} == {
            other.tokenizer.fingerprint
        }
    assert len(result) == 7
    assert prepare(data | {"cache": str(tmp_path / "elsewhere")}).fingerprint == made.fingerprint


def test_a_given_model_is_taken(data, source, tmp_path):
    texts = [" ".join(random.Random(i).choices(WORDS, k=6)) for i in range(200)]
    model = unigram.train(texts, unigram.Config(vocab_size=310, sentinels=10))
    model.save(tmp_path / "x.model")
    made = prepare(data, path=str(tmp_path / "x.model"))
    assert made.tokenizer.fingerprint == model.fingerprint
    assert made.stores["test"].meta["tokenizer"] == model.fingerprint
    assert not (tmp_path / "cache" / "tokenizers").exists()


def test_describe(data, source):
    made = prepare(data)
    text = made.describe()
    assert text.startswith("made_up: 200 documents, 400 paragraphs, 800 sentences, 6,400 words")
    assert "dropped: 7 made-up reason" in text
    for split, part in made.stores.items():
        assert f"{split}: {len(part):,} documents, {len(part.tokens):,} tokens, " in text
    assert made.tally["documents"] == 200
    density = made.stores["train"].meta["bytes"] / made.stores["train"].meta["tokens"]
    assert f"{density:.2f} bytes/token" in text


@pytest.mark.parametrize(
    "count, message",
    [
        (0, "gave no documents.*\n.*\n.*made-up reason"),
        (1, "no document falls into the .* split: .*only 1"),
    ],
)
def test_too_few_documents(data, source, count, message, tmp_path):
    with pytest.raises(UserError, match=message):
        prepare(data | {"count": count})
    assert not [
        path
        for path in tmp_path.rglob("*")
        if path.name.endswith(".part") or path.suffix == ".jsonl"
    ]


def test_a_vocabulary_too_large_leaves_the_text_alone(data, source, tmp_path):
    with pytest.raises(UserError, match="at most"):
        prepare(data, vocab_size=9000)
    assert not [path for path in (tmp_path / "cache" / "tokenizers").iterdir() if path.is_dir()]
    prepare(data)
    assert source.read == 200


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"path": "x.txt"}, "path='x.txt' is not known.*count, seed"),
        ({"validation": 0.0}, "validation=0.0 should be a fraction"),
        ({"test": 1.5}, "test=1.5 should be a fraction"),
        ({"validation": 0.6, "test": 0.4}, "below 1"),
        ({"workers": -1}, "workers=-1 should be 0"),
        ({"count": "many"}, "should be int"),
    ],
)
def test_impossible_options(data, source, changes, message):
    with pytest.raises(UserError, match=message):
        prepare(data | changes)


def test_the_length_of_rows_changes_nothing(data, source):
    first = prepare(data)
    assert prepare(data | {"length": 64}).directory == first.directory


def test_text_under_another_key_is_reported(data, source, capfd):
    corpus.prepare(data, TOKENIZER)
    assert "reading it again" not in capfd.readouterr().err
    corpus.prepare(data | {"seed": 1}, TOKENIZER, progress=False)
    assert "reading it again" not in capfd.readouterr().err
    corpus.prepare(data | {"seed": 2}, TOKENIZER)
    assert "the cache has text of the source made_up, but" in capfd.readouterr().err


@pytest.mark.parametrize("place", ["texts", "tokenizers", "stores"])
def test_damage_in_the_cache_is_named(data, source, tmp_path, place):
    prepare(data)
    for path in (tmp_path / "cache" / place).rglob("*"):
        if path.suffix in (".jsonl", ".model", ".bin"):
            path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{place}.*is damaged.*Delete that directory"):
        prepare(data)


def test_the_cache_is_where_the_environment_says(source, tmp_path, monkeypatch):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "there"))
    made = prepare({"source": "made_up", "validation": 0.2, "test": 0.1})
    assert made.directory.is_relative_to(tmp_path / "there" / "texts")
    assert made.stores["train"].directory.is_relative_to(tmp_path / "there" / "stores")
    monkeypatch.delenv("LM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert corpus.DataConfig().root == tmp_path / ".cache" / "lm"
