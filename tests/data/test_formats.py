import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_corpus import Ids, Tokens, numbered

from lm.core import plugins
from lm.core.plugins import UserError

SPECIAL = Ids.mask + 1
corpora = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=1, max_size=10)
lengths = st.integers(16, 64)


def form(name: str, text: Tokens, length: int, **options):
    return plugins.find("data.formats", name).Format(
        Ids(SPECIAL + len(text.tokens)), length, **options
    )


def laid(
    name: str, text: Tokens, length: int, seed: int = 0, **options
) -> list[dict[str, np.ndarray]]:
    made, rng = form(name, text, length, **options), np.random.default_rng(seed)
    plan = made.plan(text)
    return [made.row(text, plan, index, rng) for index in range(len(plan))]


def segments(row: dict[str, np.ndarray]) -> list[list[int]]:
    """Ids of each segment, after a look at segments, positions and padding."""
    result, end = [], 0
    for segment in range(1, row["segments"].max() + 1):
        here = np.flatnonzero(row["segments"] == segment)
        assert here.tolist() == list(range(end, end + len(here))) and row["positions"][
            here
        ].tolist() == list(range(len(here)))
        result.append(row["tokens"][here].tolist())
        end = here[-1] + 1
    for name in ("tokens", "segments", "positions", "types"):
        assert not row[name][end:].any()
    return result


def document_of(text: Tokens, token: int) -> int:
    return int(np.searchsorted(text.document_offsets, token - SPECIAL, side="right")) - 1


def every_token(text: Tokens) -> list[int]:
    return list(range(SPECIAL, SPECIAL + len(text.tokens)))


def whole_sentences(text: Tokens, pieces: list[list[int]], room: int) -> None:
    borders = set(text.sentence_offsets.tolist())
    sizes = np.diff(text.sentence_offsets)
    for piece in pieces:
        for at in (piece[0] - SPECIAL, piece[-1] + 1 - SPECIAL):
            sentence = int(np.searchsorted(text.sentence_offsets, at, side="right")) - 1
            assert at in borders or sizes[sentence] > room, (
                "only a sentence that is longer than a row is cut"
            )


@settings(max_examples=50, deadline=None)
@given(corpora, lengths, st.sampled_from([None, (Ids.bos, Ids.eos)]))
def test_packed(documents, length, ends):
    text = numbered(documents, start=SPECIAL)
    first, last = ends or (Ids.cls, Ids.sep)
    seen = []
    for row in laid("packed", text, length, ends=ends):
        for piece in segments(row):
            assert (piece[0], piece[-1]) == (first, last) and (np.diff(piece[1:-1]) == 1).all()
            assert document_of(text, piece[1]) == document_of(text, piece[-2])
            seen += piece[1:-1]
    assert seen == every_token(text), "greedy packing keeps the order"


@settings(max_examples=50, deadline=None)
@given(corpora, lengths)
def test_doc_sentences(documents, length):
    text = numbered(documents, start=SPECIAL)
    pieces = []
    for row in laid("doc_sentences", text, length):
        for piece in segments(row):
            assert (piece[0], piece[-1]) == (Ids.cls, Ids.sep) and (np.diff(piece[1:-1]) == 1).all()
            pieces.append(piece[1:-1])
    assert all(document_of(text, piece[0]) == document_of(text, piece[-1]) for piece in pieces)
    assert sorted(itertools.chain(*pieces)) == every_token(text)
    whole_sentences(text, pieces, length - 2)
    # As many sentences as fit: what follows a piece in its document has no room in it.
    ends = {piece[0]: piece for piece in pieces}
    for piece in pieces:
        after = ends.get(piece[-1] + 1)
        if after and document_of(text, after[0]) == document_of(text, piece[0]):
            sentence = (
                text.sentence_offsets[
                    np.searchsorted(text.sentence_offsets, after[0] - SPECIAL, side="right")
                ]
                + SPECIAL
            )
            assert len(piece) + min(len(after), sentence - after[0]) > length - 2


@settings(max_examples=50, deadline=None)
@given(corpora, lengths)
def test_full_sentences(documents, length):
    text = numbered(documents, start=SPECIAL)
    pieces, free = [], []
    for row in laid("full_sentences", text, length):
        assert set(row["segments"].tolist()) <= {0, 1}, "the row is one segment"
        (ids,) = segments(row)
        assert ids[0] == Ids.cls and ids[-1] == Ids.sep and not row["types"].any()
        parts = [
            list(part)
            for is_text, part in itertools.groupby(ids, lambda token: token >= SPECIAL)
            if is_text
        ]
        assert len(ids) == 1 + sum(map(len, parts)) + len(parts), (
            "one [SEP] after each document's part"
        )
        owners = [document_of(text, part[0]) for part in parts]
        assert owners == sorted(set(owners)) and all(
            document_of(text, part[-1]) == owner for part, owner in zip(parts, owners, strict=True)
        )
        assert (np.diff([token for token in ids if token >= SPECIAL]) == 1).all(), (
            "the row is contiguous across documents"
        )
        pieces += parts
        free.append(length - len(ids))
    assert list(itertools.chain(*pieces)) == every_token(text)
    whole_sentences(text, pieces, length - 2)


def test_full_sentences_by_hand():
    text = numbered([[4, 5], [3, 6], [20]], start=SPECIAL)
    rows = [segments(row)[0] for row in laid("full_sentences", text, 16)]
    a, c = SPECIAL, Ids.sep
    assert rows == [
        [Ids.cls, *range(a, a + 9), c, *range(a + 9, a + 12), c],
        [Ids.cls, *range(a + 12, a + 18), c],
        [Ids.cls, *range(a + 18, a + 32), c],
        [Ids.cls, *range(a + 32, a + 38), c],
    ]


def pairs_in(row: dict[str, np.ndarray]) -> list[tuple[list[int], list[int], int]]:
    """(A, B, label) of each pair."""
    result = []
    for number, ids in enumerate(segments(row)):
        types = row["types"][row["segments"] == number + 1].tolist()
        a = types.index(1)
        assert types == [0] * a + [1] * (len(ids) - a)
        assert (
            ids[0] == Ids.cls
            and ids[a - 1] == ids[-1] == Ids.sep
            and row["label_weights"][number] == 1
        )
        first, second = ids[1 : a - 1], ids[a:-1]
        assert first and second and (np.diff(first) == 1).all() and (np.diff(second) == 1).all()
        result.append((first, second, int(row["labels"][number])))
    assert row["label_weights"].sum() == len(result) > 0
    return result


two_documents = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5), max_size=8).map(
    lambda more: [[5, 9], *more, [7, 3, 30]]
)


@settings(max_examples=40, deadline=None)
@given(
    two_documents,
    lengths,
    st.sampled_from(["segment_pair", "sentence_pair"]),
    st.sampled_from(["next", "order"]),
    st.integers(0, 99),
)
def test_pairs(documents, length, name, relation, seed):
    text = numbered(documents, start=SPECIAL)
    sizes = np.diff(text.document_sentences)
    for row in laid(name, text, length, seed, relation=relation):
        result = pairs_in(row)
        assert name == "sentence_pair" or len(result) == 1
        for a, b, label in result:
            same = document_of(text, a[0]) == document_of(text, b[0])
            assert sizes[document_of(text, a[0])] > 1, "a document of one sentence gives no A"
            if relation == "order":
                assert same, "no random document, ever"
                assert (a[-1] < b[0]) == (label == 0) and (b[-1] < a[0]) == (label == 1)
            else:
                assert same == (label == 0) and (label or a[-1] < b[0])


@settings(max_examples=40, deadline=None)
@given(two_documents, st.sampled_from(["next", "order"]), st.integers(0, 99))
def test_sentence_pairs_are_neighboring_sentences(documents, relation, seed):
    documents = [[min(size, 25) for size in document] for document in documents]
    text = numbered(documents, start=SPECIAL)
    offsets = (text.sentence_offsets + SPECIAL).tolist()
    seen = set()
    for row in laid("sentence_pair", text, 128, seed, relation=relation):
        for a, b, label in pairs_in(row):
            first, second = (a, b) if relation == "next" or not label else (b, a)
            if relation == "next" and label:
                continue
            # Beside a random pair, the last one of a full row may have been shortened.
            if relation == "order" or not row["segments"].all():
                assert (
                    first[0] in offsets
                    and first[-1] + 1 == second[0]
                    and second[0] in offsets
                    and second[-1] + 1 in offsets
                )
                seen.add(first[0])
    borders = text.document_sentences
    starts = {
        SPECIAL + int(text.sentence_offsets[sentence])
        for begin, end in zip(borders, borders[1:], strict=False)
        for sentence in range(begin, end - 1)
    }
    assert seen <= starts and (relation == "next" or seen == starts), (
        "without random pairs, each neighboring pair occurs once"
    )


def test_several_short_pairs_share_a_row():
    text = numbered([[4, 4, 4, 4]] * 20, start=SPECIAL)
    rows = laid("sentence_pair", text, 64, relation="order")
    assert sum(len(pairs_in(row)) for row in rows) == 60 and all(
        len(pairs_in(row)) == 4 for row in rows[:-1]
    )


@pytest.mark.parametrize("name", ["segment_pair", "sentence_pair"])
def test_documents_of_one_sentence_are_counted(name):
    text = numbered([[5, 5], [9], [4, 4], [3], [200]], start=SPECIAL)
    assert (
        "3" in form(name, text, 32).plan(text).note
        and "one sentence" in form(name, text, 32).plan(text).note
    )
    full = numbered([[5, 5], [4, 4]], start=SPECIAL)
    assert form(name, full, 32).plan(full).note == ""
    for relation, documents in (("next", [[5, 5], [9]]), ("order", [[5], [9]])):
        few = numbered(documents, start=SPECIAL)
        with pytest.raises(UserError, match="sentences"):
            form(name, few, 32, relation=relation).plan(few)


SIZES = {
    "short": lambda rng: rng.integers(3, 21),
    "uneven": lambda rng: rng.choice([4, 80]),
    "long": lambda rng: rng.integers(1, 100),
}


@pytest.mark.parametrize("relation", ["next", "order"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["sentence_pair", "segment_pair"])
def test_half_of_the_labels(name, sizes, relation):
    rng = np.random.default_rng(0)
    text = numbered(
        [[int(SIZES[sizes](rng)) for _ in range(rng.integers(1, 9))] for _ in range(250)],
        start=SPECIAL,
    )
    made = form(name, text, 128, relation=relation)
    plan, draws, counts = made.plan(text), np.random.default_rng(1), np.zeros(2, int)
    for _ in range(60 if name == "sentence_pair" else 100):
        for index in range(len(plan)):
            row = made.row(text, plan, index, draws)
            counts += np.bincount(row["labels"][row["label_weights"] > 0], minlength=2)
    assert stats.binomtest(int(counts[1]), int(counts.sum())).pvalue > 1e-3, counts / counts.sum()
    assert counts.sum() < 30_000 or abs(counts[1] / counts.sum() - 0.5) < 0.005
