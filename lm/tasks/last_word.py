"""The last word of a text, given all before it (LAMBADA, Paperno et al. 2016): accuracy and nats.

A text counts as correct if each token of its last word has the highest logit, given the tokens
before it. Each model predicts in the way it was trained:

    CLM          from left to right
    prefix LM    reads the given text bidirectionally, then continues it
    MLM          fills as many consecutive [MASK]s as the word has tokens, all at once
    T5           writes the content of a sentinel at the end of the text
    mixtures     as the objective that continues prefixes, else the last one in the config

A masked model thus knows the number of tokens of the word, unlike other models; the report mentions
this. Texts have no punctuation after the last word; texts without any punctuation, such as those of
LAMBADA, are best. The nats count the tokens of the word, but not its end.

The texts are JSON Lines with a field "text", or plain lines (.txt). Without `path` they are made
from held-out documents: the last word of a sentence, without the punctuation after it, and the
sentences before it as far as there is room.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int32, Integer

from lm.core.plugins import NotApplicable, UserError
from lm.core.protocols import Objective, Params, Tokenizer
from lm.data.corpus import Corpus
from lm.inference import scoring
from lm.stats import ngrams
from lm.stats.scores import Examples, Score, fraction, identity
from lm.tasks import _sentences, _text
from lm.training.program import Program

Text = tuple[np.ndarray, np.ndarray]  # ids before the last word, ids of the last word


@dataclasses.dataclass(frozen=True)
class Config:
    """The source and size of the texts.

    Attributes:
      path: JSON Lines or text files, directories, globs; if empty, held-out text is used.
      broken: maximum fraction of broken lines in a file; broken lines are left out, with a note.
      most: maximum number of texts of a file, or of the split; 0 means all.
      shortest: minimum number of tokens before the last word, in texts made from the corpus.
      longest: maximum number of tokens before the last word, in texts made from the corpus; a
        longer text is cut at the beginning.
    """

    path: tuple[str, ...] = ()
    broken: float = 0.01
    most: int = 1000
    shortest: int = 8
    longest: int = 64

    def __post_init__(self) -> None:
        if not 0.0 <= self.broken < 1.0:
            raise ValueError(f"broken={self.broken} must be a fraction from 0 to below 1")
        if self.most < 0:
            raise ValueError(f"most={self.most} must not be negative (0: all texts)")
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(
                f"shortest={self.shortest} must be at least 1 and not above longest={self.longest}"
            )


class Task:
    """Prediction of the last word of a text (LAMBADA): accuracy, and nats per word.

    Attributes:
      texts: the texts that are evaluated.
      identity: hash of the texts.
    """

    metrics = ("accuracy", "nll")
    shared = True
    by_name = False
    bounds: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def __init__(self, config: Config, corpus: Corpus, split: str, length: int):
        self.config, self.corpus, self.room = config, corpus, length - scoring.SPECIALS
        self.texts = self._read() if config.path else self._of_split(split)
        if not self.texts:
            raise NotApplicable(
                f"last_word: the {split} split has no sentence that ends with a word after"
                f" {config.shortest} tokens; lower last_word.shortest, or give texts in"
                " last_word.path"
            )
        self.identity = identity(*(part for text in self.texts for part in text))
        self._scorers = _sentences.Scorers(corpus.tokenizer)

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Whether the model predicts tokens in any way."""
        return bool(scoring.methods(objective))

    def score(self, program: Program, params: Params) -> dict[str, Score]:
        """Evaluates a model.

        Returns:
          {metric: Score}:
            accuracy: fraction of texts whose last word is predicted correctly.
            nll: negative log-likelihood of the last word, nats per word.
        """
        log_p, hits = self._scorers(program).continuations(params, self.texts)
        return self._scores(hits, log_p)

    def baselines(self, program: Program) -> dict[str, dict[str, Score]]:
        """Unigrams and Kneser-Ney bigrams of the training split; its most frequent last word."""
        size = self.corpus.tokenizer.size
        before, after = _text.neighbors(self.corpus.stores["train"], self.corpus.tokenizer)
        unigram, bigram = ngrams.Unigram(after, size), ngrams.Bigram(before, after, size)
        lasts = [last for _, last in self.texts]
        targets, lengths = np.concatenate(lasts), np.array([len(last) for last in lasts])
        previous = np.concatenate([[context[-1], *last[:-1]] for context, last in self.texts])
        owner = np.repeat(np.arange(len(lasts)), lengths)
        guesses = {int(v): int(bigram.after(int(v)).argmax()) for v in np.unique(previous)}
        is_correct = {
            "unigram": targets == unigram.best(),
            "bigram": targets == np.array([guesses[int(v)] for v in previous]),
        }
        nll = {"unigram": unigram.nll(targets), "bigram": bigram.nll(previous, targets)}
        scores = {
            name: self._scores(
                np.bincount(owner, is_correct[name]) == lengths, -np.bincount(owner, nll[name])
            )
            for name in ("unigram", "bigram")
        }
        counts = collections.Counter(tuple(last.tolist()) for _, last in self._of_split("train"))
        if counts:
            best = counts.most_common(1)[0][0]
            hits = np.array([tuple(last.tolist()) == best for last in lasts])
            scores["most frequent last word"] = {
                "accuracy": self._scores(hits, np.zeros(len(hits)))["accuracy"]
            }
        return scores

    def _scores(
        self, hits: Bool[np.ndarray, "N"], log_p: Float[np.ndarray, "N"]
    ) -> dict[str, Score]:
        count, ones = len(hits), np.ones(len(hits))
        return {
            "accuracy": fraction(
                float(hits.sum()), count, Examples(hits.astype(float), ones, self.identity)
            ),
            "nll": Score(
                -float(log_p.sum()) / count,
                count,
                "nats/word",
                "lower",
                Examples(-log_p, ones, self.identity),
            ),
        }

    def _read(self) -> list[Text]:
        """The texts of the files, cut at the beginning where they are too long."""
        config = self.config
        pairs, notes = _sentences.read(
            "last_word",
            config.path,
            (".jsonl", ".ndjson", ".txt"),
            _parse,
            config.broken,
            config.most,
        )
        contexts, lasts = (
            scoring.encode(self.corpus.tokenizer, side) for side in zip(*pairs, strict=True)
        )
        texts = [
            (context[max(0, len(context) + len(last) - self.room) :], last)
            for context, last in zip(contexts, lasts, strict=True)
        ]
        kept = [text for text in texts if len(text[0]) and 0 < len(text[1]) < self.room]
        if dropped := len(texts) - len(kept):
            if dropped > config.broken * len(texts):
                raise UserError(
                    f"last_word: {dropped} of {len(texts)} last words do not fit {self.room} tokens"
                )
            notes.append(f"{dropped} texts left out: no room")
        self.notes = notes
        _sentences.print_notes("last_word", notes)
        return kept

    def _of_split(self, split: str) -> list[Text]:
        """Texts of a split, in a random order that is the same in every run."""
        store, tokenizer, config = self.corpus.stores[split], self.corpus.tokenizer, self.config
        offsets, borders = np.asarray(store.sentence_offsets), np.asarray(store.document_sentences)
        texts: list[Text] = []
        for sentence in np.random.default_rng(0).permutation(len(offsets) - 1):
            ids = np.asarray(store.tokens[offsets[sentence] : offsets[sentence + 1]], np.int32)
            first, stop = _last_word(tokenizer, ids)
            if not _is_word(tokenizer, ids[first:stop]):
                continue
            last, at = ids[first:stop], int(offsets[sentence]) + first
            room = min(config.longest, self.room - len(last))
            document = int(np.searchsorted(borders, sentence, side="right")) - 1
            # The text starts at the earliest sentence that fits, or within the current sentence.
            starts = offsets[borders[document] : sentence + 1]
            begin = int(next((start for start in starts if at - start <= room), at - room))
            if at - begin >= config.shortest:
                texts.append((np.asarray(store.tokens[begin:at], np.int32), last))
            if len(texts) == config.most:
                break
        return texts


def _last_word(tokenizer: Tokenizer, ids: Int32[np.ndarray, "n"]) -> tuple[int, int]:
    """Start and end of the last word, without punctuation after it; (0, 0) if there is none."""
    stop = len(ids)
    while stop and scoring.is_punctuation(tokenizer, int(ids[stop - 1])):
        stop -= 1
    starts = np.flatnonzero(scoring.word_starts(tokenizer, ids[:stop]))
    return (int(starts[-1]), stop) if len(starts) else (0, 0)


def _is_word(tokenizer: Tokenizer, ids: Integer[np.ndarray, "n"]) -> bool:
    """Whether the ids are ordinary, the first begins a word, and all are letters or digits."""
    names = [tokenizer.name(int(i)).removeprefix("\u2581") for i in ids]
    return bool(
        len(ids) and (tokenizer.bytes_per_id[ids] > 0).all() and tokenizer.is_word_start[ids[0]]
    ) and all(map(str.isalnum, names))


def _parse(record: Any, stem: str) -> tuple[str, str]:
    """The text before the last word, and the last word."""
    line = record.get("text") if isinstance(record, dict) else record
    if not isinstance(line, str) or len(line.split()) < 2:
        raise ValueError(f"has no text of two words in 'text', but {str(line)[:40]!r}")
    context, last = line.strip().rsplit(None, 1)
    return context, last
