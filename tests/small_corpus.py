"""A tiny corpus of made-up English, a run config on it, and test doubles of tokenizer and store.

Everything is the same in each call. `write` and `config` use a real source and SentencePiece.
`Ids` and `Tokens` stand in for a tokenizer and a store without text: a test chooses the ids, and no
vocabulary is learned.
"""

import copyreg
import os
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm.data.store import Store
from lm.tokenizers.sentencepiece import MODES
from lm.training.program import Program

DOCUMENTS = 240  # over all labels
# Nouns, verbs and places of each label.
TOPICS = {
    "garden": (
        "rose tulip oak fern gardener hedge spade seed",
        "grows waters plants trims shades digs",
        "soil greenhouse orchard lawn",
    ),
    "harbour": (
        "ship sailor anchor gull captain crane net lighthouse",
        "sails loads guides repairs signals moors",
        "pier bay dock channel",
    ),
    "kitchen": (
        "cook oven pan recipe baker knife soup bread",
        "bakes stirs tastes chops seasons serves",
        "pantry table stove cellar",
    ),
    "observatory": (
        "telescope comet star astronomer planet lens moon orbit",
        "observes measures reflects tracks records charts",
        "dome sky mountain desert",
    ),
    "library": (
        "book reader shelf author novel librarian archive page",
        "lends catalogues quotes prints reads binds",
        "hall catalogue basement gallery",
    ),
    "workshop": (
        "carpenter hammer plank joint chisel bench saw apprentice",
        "cuts sands joins polishes measures carves",
        "yard shed street mill",
    ),
}
ADJECTIVES = "old quiet bright heavy careful distant narrow patient sudden wooden".split()
TEMPLATES = (
    "The {adjective} {noun} {verb} the {other} near the {place}.",
    "Every morning a {noun} {verb} beside the {adjective} {other}.",
    "In the {place} the {noun} {verb} while the {other} waits.",
    "Nobody knows why the {adjective} {noun} {verb} the {other} again.",
    "When the {noun} leaves the {place}, another {other} {verb} more slowly.",
    "A {noun} and a {adjective} {other} remain in the {place}.",
)


def write(directory: str | Path) -> str:
    """Writes the corpus as text files below `directory` and returns their folder.

    A file is a document; its label is its topic.
    """
    folder = Path(directory) / "text"
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    topics = list(TOPICS)
    for number in range(DOCUMENTS):
        topic = topics[number % len(topics)]
        paragraphs = [
            " ".join(_sentence(draw, topic) for _ in range(draw.randint(2, 6)))
            for _ in range(draw.randint(1, 4))
        ]
        # The source's label is the name up to the first dot.
        (folder / f"{topic}.{number:03}.txt").write_text(
            "\n\n".join(paragraphs) + "\n", encoding="utf-8"
        )
    return str(folder)


def _sentence(draw: random.Random, topic: str) -> str:
    nouns, verbs, places = (words.split() for words in TOPICS[topic])
    noun, other = draw.sample(nouns, 2)
    return draw.choice(TEMPLATES).format(
        adjective=draw.choice(ADJECTIVES),
        noun=noun,
        other=other,
        verb=draw.choice(verbs),
        place=draw.choice(places),
    )


def config(
    objective: str = "clm",
    directory: str | Path = "",
    options: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """The config of a run of a few steps on the corpus that `write(directory)` wrote.

    Args:
      objective: a plug-in; the model is the first that is compatible with it.
      directory: the argument of `write`; caches are kept there too.
      options: options of the objective.
      overrides: sections to update, as training={"steps": 3}, or plain fields, as seed=1.
    """
    from lm import presets
    from lm.core import compatibility

    model = presets.laptop(compatibility.models(objective)[0])
    # Written out, so that tuning a recipe changes no golden number.
    model.update(
        width=32, layers=2, heads=2, feedforward=64, positions="sinusoidal", norm="rms", bias=False,
        activation="gelu_tanh", embedding_scaled=True, embedding_std=0.02, init_std=0.0,
        query_key_start="same", scan=False, head_chunks=4,
    )  # fmt: skip
    base = {
        "data": {"source": "text", "path": str(Path(directory) / "text"),
                 "cache": str(Path(directory) / "cache"), "length": 32, "validation": 0.1,
                 "test": 0.1, "workers": 1},
        "tokenizer": {"kind": "bpe", "vocab_size": 600},
        "training": {"batch_size": 8, "steps": 6, "log_every": 2, "evaluate_tokens": 1024,
                     "tensorboard": False},
    }  # fmt: skip
    for name, fields in overrides.items():
        if name in base:
            base[name] |= fields
        elif name == "model":
            model.update(fields)
        else:
            base[name] = fields
    return presets.run(model, {"name": objective, **(options or {})}, **base).to_dict()


def compatible_pairs() -> list[tuple[str, str]]:
    """Every (objective, model) that runs with default options.

    Objectives composed of others run on a decoder only.
    """
    from lm.core import compatibility, plugins

    pairs = [
        (name, model)
        for name in plugins.names("objectives")
        for model in compatibility.models(name)
    ]
    return [
        (name, model)
        for name, model in pairs
        if model == "decoder" or not plugins.find("objectives", name).Objective.composed
    ]


class Ids:
    """A `Tokenizer` without text: ids 0 to 6 are special, as in lm.tokenizers.sentencepiece.

    Each other id is one byte. Every third id continues a word.

    Args:
      size: V.
      sentinels: sentinels at the top of the vocabulary, below them the three mode tokens. Without
        sentinels there are no mode tokens.
    """

    pad, bos, eos, unk, cls, sep, mask = range(7)
    note = ""

    def __init__(self, size: int = 64, sentinels: int = 0):
        self.size = size
        self.sentinels = tuple(range(size - 1, size - 1 - sentinels, -1))
        self.modes: dict[str, int] = (
            dict(zip(MODES, range(size - sentinels - 3, size - sentinels), strict=True))
            if sentinels
            else {}
        )
        ordinary = np.arange(size) > self.mask
        ordinary[size - sentinels - 3 * bool(sentinels) :] = False
        self.bytes_per_id = ordinary.astype(np.int32)
        self.is_word_start = np.arange(size) % 3 != 0
        self.special_ids = frozenset(np.flatnonzero(~ordinary).tolist())
        self.fingerprint = f"ids-{size}-{sentinels}"

    def encode(self, text: str) -> list[int]:
        """An id for each word: its own if it is a number, else an ordinary one by a hash."""
        ordinary = np.flatnonzero(self.bytes_per_id)
        return [
            int(word)
            if word.isdecimal()
            else int(ordinary[zlib.crc32(word.encode()) % len(ordinary)])
            for word in text.split()
        ]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`encode` of each text, joined, and the number of ids of each."""
        parts = [self.encode(text) for text in texts]
        return np.array([i for part in parts for i in part], np.int32), np.array(
            [len(part) for part in parts], np.int64
        )

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        """Ids by name, separated by spaces."""
        return " ".join(self.name(i) for i in ids if specials or i not in self.special_ids)

    def name(self, i: int) -> str:
        """Every name has a letter, so that none is a number."""
        return f"id{i}"

    def save(self, path: str | os.PathLike) -> None:
        raise NotImplementedError("a tokenizer without text has no file")


class Tokens(Store):
    """A `Store` in memory, made of lists.

    Args:
      documents: for each document its sentences, each a sequence of ids. Every sentence is a
        paragraph of its own.
      labels: labels of the documents.
    """

    # Plain attributes in place of Store's properties, which read files.
    names: list[str] = []
    labels: list[str] = []

    def __init__(self, documents: Sequence[Sequence[Sequence[int]]], labels: Sequence[str] = ()):
        sentences = [
            np.asarray(sentence, np.uint32) for document in documents for sentence in document
        ]
        self.tokens = np.concatenate(sentences) if sentences else np.zeros(0, np.uint32)
        self.sentence_offsets = np.cumsum([0, *map(len, sentences)])
        self.document_sentences = np.cumsum([0, *map(len, documents)])
        self.document_offsets = self.sentence_offsets[self.document_sentences]
        self.paragraph_starts = np.ones(len(sentences), bool)
        self.names = [""] * len(documents)
        self.labels = list(labels) or [""] * len(documents)
        self.fingerprint = ""

    def __reduce__(self) -> tuple:
        return copyreg.__newobj__, (type(self),), self.__dict__  # type: ignore[attr-defined]


def numbered(sizes: Sequence[Sequence[int]], start: int = 0) -> Tokens:
    """A store in which token i is the number start + i: a token's value shows its position.

    Args:
      sizes: for each document, the lengths of its sentences.
      start: the first token.
    """
    documents: list[list[range]] = []
    at = start
    for document in sizes:
        sentences = []
        for size in document:
            sentences.append(range(at, at + size))
            at += size
        documents.append(sentences)
    return Tokens(documents)


def random_store(
    vocabulary: int, documents: int, seed: int = 0, first: int = Ids.mask + 1
) -> Tokens:
    """Documents of 1 to 8 sentences of 3 to 20 ordinary ids, with some structure to learn.

    An id is often followed by the next higher one.

    Args:
      vocabulary: ordinary ids are below it.
      documents: how many.
      seed: of the random generator.
      first: the first ordinary id.
    """
    rng = np.random.default_rng(seed)

    def sentence() -> np.ndarray:
        size = int(rng.integers(3, 21))
        steps = np.where(rng.random(size) < 0.6, 1, rng.integers(0, vocabulary - first, size))
        return first + np.cumsum(steps) % (vocabulary - first)

    return Tokens([[sentence() for _ in range(int(rng.integers(1, 9)))] for _ in range(documents)])


def quick_compilation() -> Iterator[None]:
    """Body of a fixture: XLA compiles with few optimisations, in a third of the time.

    Results are the same to float tolerance.
    """
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def numbers(shapes: Any, seed: int = 0, std: float = 0.1) -> Any:
    """A tree of float32 arrays of these shapes, from N(0, std²).

    Gives parameters without compiling a program's `init`.
    """
    import jax

    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0.0, std, leaf.shape).astype(np.float32), shapes)


def state(program: Program, seed: int = 0) -> dict[str, Any]:
    """A train state of `numbers` on the program's mesh."""
    import jax

    params = numbers(program.shapes["params"], seed)
    fresh = {
        "params": params,
        "opt_state": program.optimizer.init(params),
        "step": np.zeros((), np.int32),
    }
    return jax.device_put(fresh, program.shardings)
