"""The last word of a text, given all before it (LAMBADA, Paperno et al. 2016): how often the model finds it, and how likely it holds it.

A text is found where each piece of its last word scores above all other words, given the pieces before it. Each model is asked as it was
trained (of several objectives by the last named; where it continued a given beginning, by that): a causal one reads from left to right, one
trained on prefixes sees the whole beginning, a masked one finds as many [MASK]s in a row as the word has pieces and fills them at once, T5
writes what stands behind the sentinel at the end. A masked model is so told how many pieces the word has, which the others are not; the
report says so. Texts have no punctuation after the last word; a text without any, as in LAMBADA, is best. The nats are of the word's
pieces, not of its end.

The texts are JSON Lines with a field "text", or plain lines (.txt). Without `path` they are made of held-out documents: the last word of a
sentence, punctuation after it taken away, with the sentences before it as far as there is room.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.core.plugins import NotApplicable, UserError
from lm.core.protocols import Objective
from lm.inference import scoring
from lm.stats import ngrams
from lm.stats.scores import Examples, Score, fraction, identity
from lm.tasks import _sentences, _text

Text = tuple[np.ndarray, np.ndarray]  # ids that are given, ids of the last word


@dataclasses.dataclass(frozen=True)
class Config:
    """What is asked.

    Attributes:
      path: JSON Lines or text files, directories, globs; none takes held-out text.
      broken: share of a file's lines that may be broken; they are left out, and said. most: texts of each file, or of the split; 0: all.
      shortest, longest: tokens before the last word, of texts made of the corpus: with fewer one is passed over, longer ones begin later.
    """

    path: tuple[str, ...] = ()
    broken: float = 0.01
    most: int = 1000
    shortest: int = 8
    longest: int = 64

    def __post_init__(self):
        if not 0.0 <= self.broken < 1.0:
            raise ValueError(f"broken={self.broken} must be a share from 0 to below 1")
        if self.most < 0:
            raise ValueError(f"most={self.most} must not be negative (0: all texts)")
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(
                f"shortest={self.shortest} must be at least 1 and not above longest={self.longest}"
            )


class Task:
    """`suits(objective)` says which models it measures; see lm/core/protocols.py."""

    metrics = ("accuracy", "nll")
    shared = True
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus, split: str, length: int):
        self.config, self.corpus, self.room = config, corpus, length - scoring.SPECIALS
        self.notes: Sequence[str] = ()
        self.texts = self._read() if config.path else self._made(split)
        if not self.texts:
            raise NotApplicable(
                f"last_word: the {split} split has no sentence that ends with a word after {config.shortest} tokens; lower"
                " last_word.shortest, or give texts in last_word.path"
            )
        self.asked = identity(*(part for each in self.texts for part in each))
        self._scorer = _sentences.Scorers(corpus.tokenizer)

    @staticmethod
    def suits(objective: Objective) -> bool:
        return bool(scoring.methods(objective))

    def score(self, program, params) -> dict[str, Score]:
        """accuracy, nll."""
        log_p, hits = self._scorer(program).endings(params, self.texts)
        return self._scores(hits, log_p)

    def baselines(self, program) -> dict[str, dict[str, Score]]:
        """The word that ends most texts of the training split; its unigrams and Kneser-Ney bigrams, piece by piece."""
        size = self.corpus.tokenizer.size
        before, after = _text.neighbours(self.corpus.stores["train"], self.corpus.tokenizer)
        unigram, bigram = ngrams.Unigram(after, size), ngrams.Bigram(before, after, size)
        lasts = [last for _, last in self.texts]
        targets, lengths = np.concatenate(lasts), np.array([len(last) for last in lasts])
        previous = np.concatenate([[given[-1], *last[:-1]] for given, last in self.texts])
        owner = np.repeat(np.arange(len(lasts)), lengths)
        guesses = {int(v): int(bigram.after(int(v)).argmax()) for v in np.unique(previous)}
        right = {
            "unigram": targets == unigram.best(),
            "bigram": targets == np.array([guesses[int(v)] for v in previous]),
        }
        nll = {"unigram": unigram.nll(targets), "bigram": bigram.nll(previous, targets)}
        found = {
            name: self._scores(
                np.bincount(owner, right[name]) == lengths, -np.bincount(owner, nll[name])
            )
            for name in ("unigram", "bigram")
        }
        counts = collections.Counter(tuple(last.tolist()) for _, last in self._made("train"))
        if counts:
            best = counts.most_common(1)[0][0]
            hits = np.array([tuple(last.tolist()) == best for last in lasts])
            found["most frequent last word"] = {
                "accuracy": self._scores(hits, np.zeros(len(hits)))["accuracy"]
            }
        return found

    def _scores(self, hits: np.ndarray, log_p: np.ndarray) -> dict[str, Score]:
        count, ones = len(hits), np.ones(len(hits))
        return {
            "accuracy": fraction(
                float(hits.sum()), count, Examples(hits.astype(float), ones, self.asked)
            ),
            "nll": Score(
                -float(log_p.sum()) / count,
                count,
                "nats/word",
                "lower",
                Examples(-log_p, ones, self.asked),
            ),
        }

    def _read(self) -> list[Text]:
        """The texts of the files, the beginning cut where it is too long."""
        config = self.config
        found, notes = _sentences.read(
            "last_word",
            config.path,
            (".jsonl", ".ndjson", ".txt"),
            _parts,
            config.broken,
            config.most,
        )
        given, last = (
            scoring.encode(self.corpus.tokenizer, side) for side in zip(*found, strict=True)
        )
        texts = [
            (a[len(a) + len(b) - self.room if len(a) + len(b) > self.room else 0 :], b)
            for a, b in zip(given, last, strict=True)
        ]
        kept = [each for each in texts if len(each[0]) and 0 < len(each[1]) < self.room]
        if len(texts) - len(kept) > config.broken * len(texts):
            raise UserError(
                f"last_word: {len(texts) - len(kept)} of {len(texts)} last words have no room in {self.room} tokens"
            )
        self.notes = _sentences.tell(
            "last_word",
            notes
            + [f"{len(texts) - len(kept)} texts left out: no room"] * (len(kept) < len(texts)),
        )
        return kept

    def _made(self, split: str) -> list[Text]:
        """Texts of a split, in an order without pattern that is the same in every run."""
        store, tokenizer, config = self.corpus.stores[split], self.corpus.tokenizer, self.config
        offsets, borders = np.asarray(store.sentence_offsets), np.asarray(store.document_sentences)
        texts: list[Text] = []
        for sentence in np.random.default_rng(0).permutation(len(offsets) - 1):
            ids = np.asarray(store.tokens[offsets[sentence] : offsets[sentence + 1]], np.int32)
            stop = next(
                (
                    at
                    for at in range(len(ids), 0, -1)
                    if not scoring.is_mark(tokenizer, int(ids[at - 1]))
                ),
                0,
            )
            starts = np.flatnonzero(scoring.words(tokenizer, ids[:stop]))
            if not len(starts) or not _is_word(tokenizer, ids[starts[-1] : stop]):
                continue
            last = ids[starts[-1] : stop]
            at, room = (
                int(offsets[sentence] + starts[-1]),
                min(config.longest, self.room - len(last)),
            )
            document = int(np.searchsorted(borders, sentence, side="right")) - 1
            begins = offsets[borders[document] : sentence + 1]
            begin = int(next((each for each in begins if at - each <= room), at - room))
            if at - begin >= config.shortest:
                texts.append((np.asarray(store.tokens[begin:at], np.int32), last))
            if len(texts) == config.most:
                break
        return texts


def _is_word(tokenizer: Any, ids: np.ndarray) -> bool:
    """Whether the ids are ordinary ones, the first begins a word, and all have letters or digits alone."""
    names = [tokenizer.name(int(each)).removeprefix("\u2581") for each in ids]
    return bool(
        (tokenizer.bytes_per_id[ids] > 0).all() and tokenizer.is_word_start[ids[0]]
    ) and all(map(str.isalnum, names))


def _parts(record: Any, stem: str) -> tuple[str, str]:
    line = record.get("text") if isinstance(record, dict) else record
    if not isinstance(line, str) or len(line.split()) < 2:
        raise ValueError(f"has no text of two words in 'text', but {str(line)[:40]!r}")
    given, last = line.strip().rsplit(None, 1)
    return given, last
