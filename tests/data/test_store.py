import json
import os
import pickle
import random
import resource
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from lm.core.plugins import UserError
from lm.data import atomic_directory, store
from lm.data.documents import Document
from lm.data.store import Store
from lm.tokenizers import bpe
from lm.tokenizers.sentencepiece import Tokenizer

WORDS = (
    "the model learns from text and every token has bytes behind it while gradients flow backwards"
    " 我们 都是 好 孩子".split()
)


def corpus(count: int = 60, seed: int = 0) -> list[Document]:
    draw = random.Random(seed)

    def sentence() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 12)))

    def paragraph() -> tuple[str, ...]:
        return tuple(sentence() for _ in range(draw.randint(1, 5)))

    return [
        Document(
            f"document é {i}",
            tuple(paragraph() for _ in range(draw.randint(1, 4))),
            f"label{i % 3}",
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def tokens() -> Tokenizer:
    texts = [
        sentence
        for document in corpus()
        for paragraph in document.paragraphs
        for sentence in paragraph
    ]
    return bpe.train(texts, bpe.Config(vocab_size=320, sentinels=10))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(store, "_CHUNK", 200)  # characters: many chunks in flight


def contents(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_what_went_in_comes_out(tokens, tmp_path, small_chunks):
    documents = corpus()
    opened = store.build(iter(documents), tokens, tmp_path / "store", workers=3)
    assert len(opened) == 60
    assert opened.tokens.dtype == np.uint16
    assert opened.names == [document.name for document in documents]
    assert opened.labels == [document.label for document in documents]
    sentence = 0
    for i, document in enumerate(documents):
        assert opened.document_sentences[i] == sentence
        assert opened.sentence_offsets[sentence] == opened.document_offsets[i]
        for paragraph in document.paragraphs:
            for j, text in enumerate(paragraph):
                assert opened.sentence(sentence).tolist() == tokens.encode(text)
                assert opened.paragraph_starts[sentence] == (j == 0)
                sentence += 1
        assert tokens.decode(opened.document(i)) == " ".join(
            text for paragraph in document.paragraphs for text in paragraph
        )
    assert (
        len(opened.paragraph_starts)
        == sentence
        == opened.meta["sentences"]
        == opened.document_sentences[-1]
    )
    assert (
        len(opened.tokens)
        == opened.document_offsets[-1]
        == opened.sentence_offsets[-1]
        == opened.meta["tokens"]
    )
    texts = [
        text for document in documents for paragraph in document.paragraphs for text in paragraph
    ]
    assert opened.meta["bytes"] == sum(len(text.encode()) + 1 for text in texts)
    assert opened.meta["unknown"] == 0
    assert opened.meta["tokenizer"] == tokens.fingerprint


def test_the_number_of_workers_changes_nothing(tokens, tmp_path, small_chunks):
    one = store.build(corpus(), tokens, tmp_path / "one", workers=1)
    many = store.build(corpus(), tokens, tmp_path / "many", workers=7)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert one.fingerprint == many.fingerprint
    assert store.build(corpus(seed=1), tokens, tmp_path / "other").fingerprint != one.fingerprint


def test_large_vocabularies_take_four_bytes(tokens, tmp_path):
    large = Tokenizer(tokens._bytes, sentinels=2**16)
    assert store.build(corpus(2), large, tmp_path / "store").tokens.dtype == np.uint32
    largest = Tokenizer(tokens._bytes, sentinels=2**16 - 310)
    assert largest.size == 2**16
    assert store.build(corpus(2), largest, tmp_path / "short").tokens.dtype == np.uint16


def test_documents_are_read_a_few_chunks_ahead(tokens, tmp_path, small_chunks, monkeypatch):
    read = 0
    ahead = []
    real = store._Column.append

    def append(self, values):
        if self._dtype == np.bool_:
            ahead.append(read)
        real(self, values)

    def documents():
        nonlocal read
        for document in corpus():
            read += 1
            yield document

    monkeypatch.setattr(store._Column, "append", append)
    store.build(documents(), tokens, tmp_path / "store", workers=1)
    assert ahead[0] < 20  # of 60, when the first chunk was written


def test_a_store_that_is_there_is_reused(tokens, tmp_path):
    opened = store.build(corpus(), tokens, tmp_path / "store")

    def never():
        raise AssertionError("read again")
        yield

    assert store.build(never(), tokens, tmp_path / "store").fingerprint == opened.fingerprint


def test_pickles_by_name(tokens, tmp_path):
    opened = store.build(corpus(), tokens, tmp_path / "store")
    data = pickle.dumps(opened)
    assert len(data) < 1000
    assert pickle.loads(data).document(3).tolist() == opened.document(3).tolist()


def test_no_documents(tokens, tmp_path):
    with pytest.raises(UserError, match="at least one document"):
        store.build([], tokens, tmp_path / "store")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_an_error_leaves_nothing(tokens, tmp_path, small_chunks):
    def documents():
        yield from corpus()
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        store.build(documents(), tokens, tmp_path / "store")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    "name",
    ["tokens.bin", *(f"{name}.npy" for name in store._ARRAYS), "documents.jsonl", "meta.json"],
)
def test_damage_is_found_at_opening(tokens, tmp_path, name):
    store.build(corpus(), tokens, tmp_path / "store")
    path = tmp_path / "store" / name
    good = path.read_bytes()
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    for bad in (flipped, good[:-1], b""):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=f"damaged: {name}.*Delete that directory"):
            Store(tmp_path / "store")
    path.unlink()
    with pytest.raises(UserError, match=f"damaged: {name}"):
        Store(tmp_path / "store")
    path.write_bytes(good)
    Store(tmp_path / "store").verify()


def test_no_store(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Store(tmp_path / "store")


def test_large_files_are_checked_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_directory, "_FULL_CHECK", 100)
    monkeypatch.setattr(atomic_directory, "_BLOCK", 10)
    path = tmp_path / "large" / "data"
    with atomic_directory.create(tmp_path / "large") as part:
        (part / "data").write_bytes(bytes(10_000))
        atomic_directory.commit(part, {"some": "thing"})

    def damage(at: int) -> None:
        content = bytearray(10_000)
        content[at] = 1
        path.write_bytes(content)

    assert atomic_directory.read(tmp_path / "large")["some"] == "thing"
    for at in (0, 9_999):
        damage(at)
        with pytest.raises(UserError, match="damaged: data"):
            atomic_directory.read(tmp_path / "large")
    damage(20)  # between two blocks
    atomic_directory.read(tmp_path / "large")
    with pytest.raises(UserError, match="damaged: data"):
        atomic_directory.read(tmp_path / "large", full=True)


def test_a_full_disk(tokens, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(UserError, match="could not be written.*nothing was kept.*data.cache"):
            store.build(corpus(1000), tokens, tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(store.build(corpus(1000), tokens, tmp_path / "store")) == 1000


def test_a_place_that_cannot_be_written(tokens, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written.*LM_CACHE"):
        store.build(corpus(), tokens, tmp_path / "file" / "store")


def run(tmp_path, code: str) -> subprocess.Popen:
    start = (
        "import sys, time\nfrom lm.tokenizers import sentencepiece as tokenizer\n"
        "from lm.data import store\nfrom lm.data.documents import Document\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", start + textwrap.dedent(code), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_build_leaves_nothing_that_counts(tokens, tmp_path):
    tokens.save(tmp_path / "x.model")
    process = run(
        tmp_path,
        """
        def documents():
            for i in range(100):
                yield Document(str(i), (("the model learns",),))
            print("half-way", flush=True)
            time.sleep(60)
        store._CHUNK = 20
        loaded = tokenizer.load(sys.argv[1] + "/x.model", 10)
        store.build(documents(), loaded, sys.argv[1] + "/store", workers=1)
        """,
    )
    assert process.stdout.readline() == "half-way\n"
    process.kill()
    process.communicate()
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert left.name.endswith(".part")
    opened = store.build(corpus(), tokens, tmp_path / "store")
    assert len(opened) == 60
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["store"]


def test_two_builders_at_once(tokens, tmp_path, capfd):
    inside, go_on = threading.Event(), threading.Event()

    def slowly():
        inside.set()
        assert go_on.wait(20)
        yield from corpus()

    def never():
        raise AssertionError("built twice")
        yield

    results = []
    first = threading.Thread(
        target=lambda: results.append(store.build(slowly(), tokens, tmp_path / "store"))
    )
    second = threading.Thread(
        target=lambda: results.append(store.build(never(), tokens, tmp_path / "store"))
    )
    first.start()
    assert inside.wait(20)
    second.start()
    deadline = time.monotonic() + 20
    output = ""
    while "waiting for another process" not in output and time.monotonic() < deadline:
        time.sleep(0.01)
        output += capfd.readouterr().err
    assert not (tmp_path / "store").exists()
    go_on.set()
    first.join()
    second.join()
    assert "waiting for another process" in output
    assert [len(result) for result in results] == [60, 60]


def test_without_locks_the_first_one_wins(tokens, tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(atomic_directory.errno.ENOLCK, "no locks")

    def documents():
        yield from corpus()
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 0)
            store.build(corpus(), tokens, tmp_path / "store")

    monkeypatch.setattr(atomic_directory.fcntl, "flock", no_locks)
    assert len(store.build(documents(), tokens, tmp_path / "store")) == 60
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["store"]


def test_progress_goes_to_stderr(tokens, tmp_path, capfd):
    store.build(corpus(), tokens, tmp_path / "store", progress=True, total=60)
    out, err = capfd.readouterr()
    assert out == ""
    assert "60/60" in err
    store.build(corpus(), tokens, tmp_path / "quiet")
    assert capfd.readouterr() == ("", "")


def test_importing_the_store_starts_no_jax():
    code = (
        "import sys, lm.data.corpus; heavy = ('jax', 'rich', 'pyarrow', 'sentencepiece');"
        " print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
