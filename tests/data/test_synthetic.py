"""Languages of known probability: against independent algorithms, brute force and what is drawn."""

import collections
import dataclasses
import functools
import itertools
import json
import math

import numpy as np
import pytest

from lm.core import plugins
from lm.core.plugins import UserError
from lm.data.documents import Tally, split_of
from lm.data.sources import brackets as brackets_source
from lm.data.sources import grammar as grammar_source
from lm.data.sources import recall as recall_source
from lm.data.synthetic import brackets, english, grammar, pairs, recall
from lm.data.synthetic.grammar import END, MORE, Grammar

SOURCES = {"recall": recall_source, "brackets": brackets_source, "grammar": grammar_source}

# Two rules of "a" continue alike only after different words; "b" is recursive on both sides of a
# word.
SMALL = {
    "s": [(0.7, ("a", "b")), (0.3, ("x", "s"))],
    "a": [(0.4, ("y",)), (0.6, ("z", "b", "a"))],
    "b": [(0.8, ("u",)), (0.2, ("v", "b", "b"))],
}


def inside(rules, symbol: str, text: tuple[str, ...]) -> float:
    """The probability that a symbol derives a text, summed over all derivations.

    It splits every right side, and does not read from left to right.
    """

    @functools.cache
    def of(symbol: str, text: tuple[str, ...]) -> float:
        if symbol not in rules:
            return float(text == (symbol,))
        return sum(p * sequence(side, text) for p, side in rules[symbol] if len(side) <= len(text))

    @functools.cache
    def sequence(side: tuple[str, ...], words: tuple[str, ...]) -> float:
        if len(side) == 1:
            return of(side[0], words)
        return sum(
            of(side[0], words[:cut]) * sequence(side[1:], words[cut:])
            for cut in range(1, len(words) - len(side) + 2)
        )

    return of(symbol, text)


def entropy_of_rules(rules, start: str) -> tuple[float, float]:
    """(nats, words) of derivations by the grammar's own nonterminals: x = own + rules · x."""
    names = list(rules)
    own, counts = np.zeros((len(names), 2)), np.zeros((len(names), len(names)))
    for row, name in enumerate(names):
        for p, side in rules[name]:
            own[row] += p * np.array([-math.log(p), sum(symbol not in rules for symbol in side)])
            for symbol in side:
                if symbol in rules:
                    counts[row, names.index(symbol)] += p
    return tuple(np.linalg.solve(np.eye(len(names)) - counts, own)[names.index(start)])


def test_probabilities_are_those_of_all_derivations():
    language = Grammar(SMALL, "s")
    total = 0.0
    for size in range(1, 6):
        for text in itertools.product(language.words, repeat=size):
            expected = inside(SMALL, "s", text)
            total += expected
            assert math.exp(language.log_probability(text)) == pytest.approx(expected, abs=1e-15)
    assert 0.5 < total < 1.0
    uniform = grammar.uniform(3)
    for _ in range(20):
        text = language.draw(uniform)
        assert sum(language.walk(text)[1]) == pytest.approx(-language.log_probability(text))


def test_english_sentences_against_the_inside_algorithm():
    language, rules, uniform = english.sentence(), english.rules(), grammar.uniform(1)
    drawn = [language.draw(uniform) for _ in range(60)]
    for text in [text for text in drawn if len(text) <= 9][:12]:
        assert language.log_probability(text) == pytest.approx(
            math.log(inside(rules, "sentence", tuple(text))), rel=1e-12
        )
        assert (
            language.log_probability(text[:-1])
            == language.log_probability([*text, english.STOP])
            == -math.inf
        )


@pytest.mark.parametrize(
    "rules, start", [(SMALL, "s"), (english.rules(), "sentence")], ids=["small", "english"]
)
def test_the_entropy_is_that_of_the_rules(rules, start):
    assert Grammar(rules, start).expected() == pytest.approx(
        entropy_of_rules(rules, start), rel=1e-12
    )


@pytest.mark.parametrize(
    "language",
    [english.make(8.0), brackets.make(brackets.Options(kinds=3, depth=3))],
    ids=["english", "brackets"],
)
def test_what_is_drawn_has_the_entropy_the_length_and_the_next_words_that_it_should(language):
    uniform = grammar.uniform(7)
    texts = [language.draw(uniform) for _ in range(1500)]
    nats, length = language.expected()
    for expected, values in (
        (nats, [-language.log_probability(text) for text in texts]),
        (length, [len(text) for text in texts]),
    ):
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / math.sqrt(len(texts))
    counts = np.zeros(language.table.shape)
    column = {word: at for at, word in enumerate(language.words)}
    for text in texts:
        for state, word in zip(language.walk(text)[0], text, strict=True):
            counts[state, column[word]] += 1
    np.testing.assert_allclose(language.table.sum(1), 1.0, rtol=1e-12)
    seen = counts.sum(1) > 500
    error = np.abs(counts / np.maximum(counts.sum(1, keepdims=True), 1) - language.table)
    spread = np.sqrt(
        language.table * (1 - language.table) / np.maximum(counts.sum(1, keepdims=True), 1)
    )
    assert seen.sum() > 5 and (error[seen] <= 5 * spread[seen] + 1e-12).all()


@pytest.mark.parametrize(
    "rules, message",
    [
        ({"s": [(0.5, ("a",)), (0.6, ("b",))]}, "add up to 1"),
        ({"s": [(1.0, ())]}, "empty"),
        ({"s": [(0.5, ("a",)), (0.5, ("a", "b"))]}, "begin with 'a'"),
        ({"s": [(0.5, ("t", "a")), (0.5, ("a",))], "t": [(1.0, ("a",))]}, "begin with 'a'"),
        ({"s": [(0.5, ("s", "a")), (0.5, ("b",))]}, "begin with itself"),
    ],
)
def test_grammars_whose_words_do_not_tell_the_rule_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        Grammar(rules, "s")


@pytest.mark.parametrize("fraction", [0.5, 0.7])
def test_endless_texts_have_no_entropy(fraction):
    with pytest.raises((ValueError, np.linalg.LinAlgError)):
        Grammar({"s": [(fraction, ("a", "s", "s")), (1 - fraction, ("b",))]}, "s").expected()


# Brackets.


@pytest.mark.parametrize(
    "kinds, depth, push, stop", [(1, 1, 0.5, 0.5), (2, 3, 0.4, 0.6), (3, 2, 0.7, 0.3)]
)
def test_brackets_by_brute_force(kinds, depth, push, stop):
    """Of all strings up to a length exactly the well-nested ones are possible.

    Their probability is that of counting choices.
    """
    language = brackets.make(brackets.Options(kinds, depth, push, stop))
    symbols = [f"{side}{kind}" for side in "()" for kind in range(kinds)]
    for size in (1, 2, 3, 4, 5, 6) if kinds < 3 else (2, 4):
        for word in itertools.product(symbols, repeat=size):
            text, expected, stack = [*word, brackets.STOP], 1.0, []
            for at, symbol in enumerate(text):
                level = len(stack)
                if symbol[0] == "(":
                    expected *= (
                        (1.0 if not at else 1 - stop if not level else push)
                        / kinds
                        * (level < depth)
                    )
                    stack.append(symbol[1:])
                elif symbol == brackets.STOP:
                    expected *= stop * (not level)
                else:
                    expected *= (1.0 if level == depth else 1 - push) * bool(
                        stack and stack.pop() == symbol[1:]
                    )
            assert math.exp(
                language.log_probability([*text, END], MORE)
            ) * 4 / 3 * 4 == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    "options",
    [brackets.Options(), brackets.Options(2, 1, 0.3, 0.9, 2.0), brackets.Options(5, 9, 0.6, 0.2)],
)
def test_the_entropy_of_brackets_by_formula(options):
    nats, length = brackets.entropy(options)
    more = (
        options.sentences * (-math.log(1 / options.sentences)) / options.sentences
    )  # of ending, once
    more += (options.sentences - 1) * -math.log(1 - 1 / options.sentences)  # of going on
    expected = (options.sentences * nats + more, options.sentences * length + 1)
    assert brackets.make(options).expected() == pytest.approx(expected, rel=1e-10)


# Recall.


def drawn(count: int = 3000, seed: int = 0, **options) -> tuple[recall.Options, list[list[str]]]:
    made = recall.Options(**options)
    return made, list(recall.draw(made, seed, count))


def test_answers_are_right_and_nothing_else_tells_them():
    options, texts = drawn(pairs=5, queries=3, slots=9, keys=7, values=6, noise=2)
    for text in texts:
        assert len(text) == options.symbols == 28
        keys, values = text[0:10:2], text[1:10:2]
        assert (
            len(set(keys)) == len(set(values)) == 5
            and {key[0] for key in keys} == {"k"}
            and {value[0] for value in values} == {"v"}
        )
        later = [(text[at], text[at + 1]) for at in range(10, 28, 2)]
        queried = [(key, value) for key, value in later if key[0] == "k"]
        assert len(queried) == len({key for key, _ in queried}) == 3, (
            "each key at most once, so that no answer is given away"
        )
        assert all(dict(zip(keys, values, strict=True))[key] == value for key, value in queried)
        assert {letter[0] for slot in later if slot not in queried for letter in slot} <= {"n"}
        assert recall.answers(text, 5) == [
            (at + 1, text[at + 1]) for at in range(10, 28, 2) if text[at][0] == "k"
        ]


def test_keys_values_and_noise_are_uniform_and_independent():
    options, texts = drawn(20_000, pairs=2, queries=1, slots=3, keys=4, values=3, noise=5)
    counts = collections.Counter((text[0], text[1]) for text in texts)
    assert len(counts) == 12
    for fraction in (*(count / len(texts) for count in counts.values()),):
        assert abs(fraction - 1 / 12) < 5 * math.sqrt(1 / 12 * 11 / 12 / len(texts))
    noise = collections.Counter(word for text in texts for word in text if word[0] == "n")
    assert len(noise) == options.noise and max(noise.values()) / min(noise.values()) < 1.06


def test_slots_follow_the_power_law():
    for power in (0.01, 1.0):
        _, texts = drawn(20_000, pairs=2, queries=1, slots=10, power=power)
        places = np.array(
            [next(at for at in range(10) if text[4 + 2 * at][0] == "k") for text in texts]
        )
        expected = np.arange(1, 11) ** (power - 1.0) / (np.arange(1, 11) ** (power - 1.0)).sum()
        fraction = np.bincount(places, minlength=10) / len(texts)
        assert (
            np.abs(fraction - expected) < 5 * np.sqrt(expected * (1 - expected) / len(texts))
        ).all()


@pytest.mark.parametrize(
    "text",
    ["k0 v0 k1 v1 k0 v1", "k0 v0 k0 v1 k0 v0", "v0 k0 k1 v1 k0 v0", "k0 v0 k1 v1 k2 v0"],
    ids=["wrong value", "repeated key", "no key", "unknown key"],
)
def test_texts_with_wrong_answers_are_refused(text):
    with pytest.raises(ValueError):
        recall.answers(text.split(), 2)


def test_what_is_learnt_of_the_training_split_does_not_help_in_the_others():
    """The same keys occur in all splits, but their values agree no more often than at random."""
    documents = list(
        recall_source.documents(
            recall_source.Config(documents=8000, pairs=3, queries=3, slots=3, keys=8, values=8),
            Tally(),
        )
    )
    seen = collections.defaultdict(collections.Counter)
    held_out = []
    for document in documents:
        text = document.text.split()
        if split_of(document, 0.1, 0.1) == "train":
            for key, value in zip(text[0:6:2], text[1:6:2], strict=True):
                seen[key][value] += 1
        else:
            held_out.append(text)
    train = {document.text for document in documents if split_of(document, 0.1, 0.1) == "train"}
    assert not train & {" ".join(text) for text in held_out}
    hits = [
        seen[text[at - 1]].most_common(1)[0][0] == value
        for text in held_out
        for at, value in recall.answers(text, 3)
    ]
    assert abs(np.mean(hits) - 1 / 8) < 4 * math.sqrt(1 / 8 * 7 / 8 / len(hits))


# Sources.

FEW = {"recall": {}, "brackets": {"sentences": 2.0}, "grammar": {"sentences": 2.0}}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_a_function_of_its_config(name):
    module = SOURCES[name]
    config = module.Config(**FEW[name], documents=600, seed=4)
    tally = Tally()
    result = list(module.documents(config, tally))
    assert (
        result == list(module.documents(config, Tally())) and len(result) == tally.documents == 600
    )
    assert result[:100] == list(
        module.documents(dataclasses.replace(config, documents=100), Tally())
    )
    assert result != list(module.documents(dataclasses.replace(config, seed=5), Tally()))
    assert module.signature(config) != module.signature(dataclasses.replace(config, seed=5))
    assert not tally.dropped, "what is dropped changes the probabilities"


FIRST = (
    "k11 v16 k3 v31 k20 v4 k13 v26 k2 v3 k21 v15 k15 v23 k1 v30 k13 v26 k3 v31 k20 v4 k1 v30 k21"
    " v15 n1 n3 n2 n1 k2 v3 k11 v16 n6 n0 n5 n6"
    " n7 n0 n2 n1 n7 n0 n0 n4 n4 n3 n7 n2 n6 n0 n0 n4 k15 v23 n5 n5 n4 n3 n5 n2",
    "(5 )5 .",
    "this dog sleeps . each snake near each cat does not ever follow the cats . these cats chase"
    " this old quiet horse . no bird that many horses near every dog see sees every dog . these"
    " lions hear each dog . the bird that sees this small goose thinks that these old dogs swim ."
    " each dog sleeps . the small dogs chase these dogs . the young dogs that fear all cats see"
    " these ducks . the cats say that each dog beside each lion runs . many rabbits sleep . all"
    " rabbits swim . these geese think that these snakes see every cat .",
)


def test_the_text_of_a_seed_is_fixed():
    """The same words on any machine: these were drawn once."""
    first = {
        name: next(module.documents(module.Config(), Tally())).text.split()
        for name, module in SOURCES.items()
    }
    assert first == {
        "recall": FIRST[0].split(),
        "brackets": FIRST[1].split(),
        "grammar": FIRST[2].split(),
    }


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("recall", {"pairs": 1}, "pairs=1"),
        ("recall", {"keys": 4}, "pairs=8"),
        ("recall", {"queries": 9}, "queries=9"),
        ("recall", {"slots": 3}, "slots=3"),
        ("recall", {"noise": 0}, "noise=0"),
        ("recall", {"power": 0.0}, "power=0.0"),
        ("recall", {"documents": 0}, "documents=0"),
        ("brackets", {"kinds": 0}, "kinds=0"),
        ("brackets", {"kinds": 64, "depth": 64}, "at most"),
        ("brackets", {"push": 1.0}, "push=1.0"),
        ("brackets", {"sentences": 1.0}, "sentences=1.0"),
        ("grammar", {"sentences": 0.5}, "sentences=0.5"),
        ("grammar", {"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        plugins.configure(SOURCES[name].Config, options, "config.data")


# Minimal pairs.


def test_minimal_pairs(tmp_path, monkeypatch):
    path = tmp_path / "pairs.jsonl"
    assert pairs.write(path, 30, 0) == 30 * len(pairs.PARADIGMS)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    language, words = english.sentence(), set(english.sentence().words)
    assert collections.Counter(row["UID"] for row in rows) == dict.fromkeys(pairs.PARADIGMS, 30)
    assert len({(row["UID"], row["sentence_good"]) for row in rows}) == len(rows)
    for row in rows:
        good, bad = row["sentence_good"].split(), row["sentence_bad"].split()
        assert language.log_probability(good) > -math.inf == language.log_probability(bad)
        assert set(bad) <= words and len(good) == len(bad)
        changed = [at for at, (one, two) in enumerate(zip(good, bad, strict=True)) if one != two]
        assert len(changed) == (2 if row["UID"] == "npi_scope" else 1)
    assert (
        pairs.write(path, 30, 0)
        and [json.loads(line) for line in path.read_text().splitlines()] == rows
    )
    few = dataclasses.replace(
        pairs.PARADIGMS["transitive"], sides=(("the", "noun {n}", pairs.MARK, "the", "cat"),)
    )
    monkeypatch.setattr(pairs, "PARADIGMS", {"few": few})
    with pytest.raises(UserError, match="--pairs=300 are too many: few has hardly more than"):
        pairs.write(path, 300, 0)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows and list(
        tmp_path.iterdir()
    ) == [path]


def test_a_wrong_word_is_no_rarer_than_the_right_one():
    """A scorer that prefers one number, or frequent words, scores like guessing on agreement."""
    rows = list(pairs.draw(400, 1))
    preferred = collections.defaultdict(list)
    plural = {
        *english.NOUNS["p"],
        *english.TRANSITIVE["p"],
        *english.INTRANSITIVE["p"],
        *english.CLAUSAL["p"],
        "do",
        "themselves",
    }
    for row in rows:
        if "agreement" in row["UID"]:
            critical = [
                one
                for one, two in zip(
                    row["sentence_good"].split(), row["sentence_bad"].split(), strict=True
                )
                if one != two
            ]
            preferred[row["UID"]].append(critical[0] in plural)
    assert all(np.mean(values) == 0.5 for values in preferred.values()) and len(preferred) == 9


def test_random_numbers_do_not_depend_on_the_block():
    one, two = grammar.uniform(5, block=3), grammar.uniform(5, block=4096)
    assert [one() for _ in range(10)] == [two() for _ in range(10)]
