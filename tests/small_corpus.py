"""A tiny corpus of made-up English on disk, a run config on it, and stand-ins for tokenizer and store; the same each time.

`write` and `config` go the whole road through a source and SentencePiece. `Ids` and `Tokens` are the parts of a tokenizer and a
store that objectives use, without text: whole numbers mean what a test wants them to, and no learned vocabulary is involved.
"""

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm.tokenizers.sentencepiece import MODES

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
    """Writes the corpus as text files below `directory` and returns their folder. A file is a document; its label is its topic."""
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
    """A run of a few steps on the corpus that `write(directory)` wrote, cached in the same directory.

    Args:
      objective: a plug-in; the model is the first that suits it.
      directory: where `write` was called.
      options: of the objective.
      overrides: sections to update, as training={"steps": 3}, or plain fields, as seed=1.
    """
    from lm import presets
    from lm.core import compatibility

    model = presets.laptop(compatibility.models(objective)[0])
    # Spelled out, so that tuning a recipe moves no golden number.
    model.update(
        width=32, layers=2, heads=2, feedforward=64, positions="sinusoidal", norm="rms", bias=False, activation="gelu_tanh",
        embedding_scaled=True, embedding_std=0.02, init_std=0.0, query_key_start="same", scan=False, head_chunks=4,
    )  # fmt: skip
    base = {
        "data": {"source": "text", "path": str(Path(directory) / "text"), "cache": str(Path(directory) / "cache"), "length": 32,
                 "validation": 0.1, "test": 0.1, "workers": 1},
        "tokenizer": {"kind": "bpe", "vocab_size": 600},
        "training": {"batch_size": 8, "steps": 6, "log_every": 2, "evaluate_tokens": 1024, "tensorboard": False},
    }  # fmt: skip
    for name, fields in overrides.items():
        if name in base:
            base[name] |= fields
        elif name == "model":
            model.update(fields)
        else:
            base[name] = fields
    return presets.run(model, {"name": objective, **(options or {})}, **base).to_dict()


def pairings() -> list[tuple[str, str]]:
    """Every (objective, model) that runs with default options; what is made of other objectives does so on a decoder alone."""
    from lm.core import compatibility, plugins

    suiting = [
        (name, model)
        for name in plugins.names("objectives")
        for model in compatibility.models(name)
    ]
    return [
        (name, model)
        for name, model in suiting
        if model == "decoder" or not plugins.find("objectives", name).Objective.composed
    ]


class Ids:
    """A tokenizer without text: ids 0 to 6 are special as in lm.tokenizers.sentencepiece, each other id is one byte.

    Args:
      size: V. sentinels: at the top of it, below them the three mode tokens; none of these without sentinels. Every third id goes on
        with a word.
    """

    pad, bos, eos, unk, cls, sep, mask = range(7)

    def __init__(self, size: int = 64, sentinels: int = 0):
        self.size = size
        self.sentinels = tuple(range(size - 1, size - 1 - sentinels, -1))
        self.modes = (
            dict(zip(MODES, range(size - sentinels - 3, size - sentinels), strict=True))
            if sentinels
            else {}
        )
        ordinary = np.arange(size) > self.mask
        ordinary[size - sentinels - 3 * bool(sentinels) :] = False
        self.bytes_per_id = ordinary.astype(np.int32)
        self.is_word_start = np.arange(size) % 3 != 0

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """An ordinary id for each word, the same wherever it stands."""
        ordinary = np.flatnonzero(self.bytes_per_id)
        return [
            [int(ordinary[zlib.crc32(word.encode()) % len(ordinary)]) for word in text.split()]
            for text in texts
        ]

    def name(self, i: int) -> str:
        """Each is written with a letter."""
        return f"id{i}"

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts are numbers between spaces: their own ids."""
        parts = [[int(each) for each in text.split()] for text in texts]
        return np.array([each for part in parts for each in part], np.int32), np.array(
            [len(part) for part in parts], np.int64
        )


class Tokens:
    """A store made of lists.

    Args:
      documents: for each document its sentences, each a sequence of ids. Every sentence is a paragraph of its own.
      labels: of the documents.
    """

    def __init__(self, documents: Sequence[Sequence[Sequence[int]]], labels: Sequence[str] = ()):
        sentences = [
            np.asarray(sentence, np.uint32) for document in documents for sentence in document
        ]
        self.tokens = np.concatenate(sentences) if sentences else np.zeros(0, np.uint32)
        self.sentence_offsets = np.cumsum([0, *map(len, sentences)])
        self.document_sentences = np.cumsum([0, *map(len, documents)])
        self.document_offsets = self.sentence_offsets[self.document_sentences]
        self.paragraph_starts = np.ones(len(sentences), bool)
        self.labels = list(labels) or [""] * len(documents)

    def __len__(self) -> int:
        return len(self.document_offsets) - 1

    def document(self, i: int) -> np.ndarray:
        return self.tokens[self.document_offsets[i] : self.document_offsets[i + 1]]


def numbered(sizes: Sequence[Sequence[int]], start: int = 0) -> Tokens:
    """A store in which token i is the number start + i, so that where a piece of text came from can be read off it.

    Args:
      sizes: for each document, the length of its sentences.
    """
    at, documents = start, []
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
    """Documents of 1 to 8 sentences of 3 to 20 ordinary ids, with some structure to learn: an id is often followed by the next."""
    rng = np.random.default_rng(seed)

    def sentence() -> np.ndarray:
        size = int(rng.integers(3, 21))
        steps = np.where(rng.random(size) < 0.6, 1, rng.integers(0, vocabulary - first, size))
        return first + np.cumsum(steps) % (vocabulary - first)

    return Tokens([[sentence() for _ in range(int(rng.integers(1, 9)))] for _ in range(documents)])


def quick_compilation() -> Iterator[None]:
    """Body of a fixture: XLA compiles with few optimisations, which takes a third of the time; same results to float tolerance."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def numbers(shapes: Any, seed: int = 0, std: float = 0.1) -> Any:
    """A tree of float32 arrays of these shapes, from N(0, std²): parameters without compiling a program's `init`."""
    import jax

    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0.0, std, leaf.shape).astype(np.float32), shapes)


def state(program: Any, seed: int = 0) -> dict[str, Any]:
    """A train state of `numbers` on the program's mesh."""
    import jax

    params = numbers(program.shapes["params"], seed)
    fresh = {
        "params": params,
        "opt_state": program.optimizer.init(params),
        "step": np.zeros((), np.int32),
    }
    return jax.device_put(fresh, program.shardings)
