"""Rows of clm, mlm and pairs; losses against NumPy; sums over rows; golden metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import (
    Ids,
    Tokens,
    compatible_pairs,
    config,
    numbered,
    quick_compilation,
    random_store,
    state,
)

from lm.core import compatibility, plugins
from lm.core.plugins import UserError
from lm.core.protocols import Objective
from lm.data import loader, packing, pairs
from lm.models import encoder
from lm.nn import flops, heads, layers
from lm.nn.config import TransformerConfig
from lm.nn.embedding import Embedding
from lm.training.program import Program, divide_sums

LENGTH, VOCABULARY = 32, 64
WIDE = Ids(96, 20)  # with sentinels and mode tokens above the ordinary ids
SPECIAL = Ids.mask + 1  # ids below are special

quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


def make(name: str, tokenizer=None, length: int = LENGTH, model: str = "", **options):
    """The objective for a model, its usual one by default."""
    return compatibility.make(
        {"name": name, **options},
        tokenizer or Ids(VOCABULARY),
        length,
        model or compatibility.models(name)[0],
    )


def epoch(
    name: str, store, seed: int = 0, number: int = 0, **options
) -> list[dict[str, np.ndarray]]:
    """The examples of one epoch."""
    objective = make(name, Ids(max(VOCABULARY, int(store.tokens.max(initial=0)) + 1)), **options)
    examples = loader.examples(objective, store, objective.plan(store), seed)
    repeated = examples.repeat(None)
    return [
        repeated[index] for index in range(number * len(examples), (number + 1) * len(examples))
    ]


@pytest.fixture(scope="module")
def store():
    return random_store(VOCABULARY, 60)


sizes = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(16, 48), st.integers(0, 3))
def test_clm_predicts_every_token_once(documents, length, seed):
    text = numbered(documents, start=SPECIAL)
    targeted, ends = [], 0
    for row in epoch("clm", text, seed, length=length):
        weights, targets, tokens, segments = (
            row["weights"],
            row["targets"],
            row["tokens"],
            row["segments"],
        )
        assert set(weights.tolist()) <= {0.0, 1.0}
        assert (
            not weights[segments == 0].any()
            and not targets[weights == 0].any()
            and not tokens[segments == 0].any()
        )
        for segment in range(1, segments.max() + 1):
            here = np.flatnonzero(segments == segment)
            assert (np.diff(here) == 1).all() and row["positions"][here].tolist() == list(
                range(len(here))
            )
            first = targets[here[0]] - SPECIAL
            # The input is the token before the target: [BOS] before a document's first token, the
            # document's own text after a cut.
            assert tokens[here[0]] == (
                Ids.bos if first in text.document_offsets[:-1] else first - 1 + SPECIAL
            )
            assert (tokens[here[1:]] == targets[here[:-1]]).all()
            assert weights[here[:-1]].all()
            if weights[here[-1]]:
                assert (
                    targets[here[-1]] == Ids.eos
                    and tokens[here[-1]] - SPECIAL + 1 in text.document_offsets[1:]
                )
                ends += 1
            targeted += targets[here[:-1]].tolist()
    assert sorted(targeted) == list(range(SPECIAL, SPECIAL + len(text.tokens))), (
        "each token is a target exactly once"
    )
    assert ends == len(text), "and so is each document's [EOS]"


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(16, 48), st.sampled_from([0.15, 0.4]))
def test_mlm_rows(documents, length, rate):
    text = numbered(documents, start=SPECIAL)
    seen = []
    for row in epoch("mlm", text, length=length, rate=rate):
        original = row["tokens"].copy()
        real = row["weights"] > 0
        original[row["target_positions"][real]] = row["targets"][real]
        used = int((row["segments"] > 0).sum())
        assert real.sum() == max(1, round(rate * used))
        for segment in range(1, row["segments"].max() + 1):
            here = np.flatnonzero(row["segments"] == segment)
            assert (np.diff(here) == 1).all() and row["positions"][here].tolist() == list(
                range(len(here))
            )
            assert (original[here[0]], original[here[-1]]) == (Ids.cls, Ids.sep)
            assert (np.diff(original[here[1:-1]]) == 1).all(), "a piece is consecutive text"
            seen += original[here[1:-1]].tolist()
        assert not original[row["segments"] == 0].any()
        assert (row["targets"][real] >= SPECIAL).all()
    assert sorted(seen) == list(range(SPECIAL, SPECIAL + len(text.tokens)))


def test_masks_are_drawn_anew_in_each_epoch(store):
    first, second = epoch("mlm", store), epoch("mlm", store, number=1)

    def by_text(rows):
        positions = {}
        for row in rows:
            original = row["tokens"].copy()
            real = row["weights"] > 0
            original[row["target_positions"][real]] = row["targets"][real]
            positions[original.tobytes()] = row["target_positions"][real].tobytes()
        return positions

    one, two = by_text(first), by_text(second)
    assert one.keys() == two.keys() and len(one) == len(first)
    assert sum(one[text] == two[text] for text in one) < 0.05 * len(one)
    assert by_text(epoch("mlm", store)) == one


@pytest.mark.parametrize("seed", [0, 1])
def test_mlm_and_clm_see_the_same_text_in_the_same_rows(store, seed):
    for mlm, clm in zip(epoch("mlm", store, seed), epoch("clm", store, seed), strict=True):
        real = mlm["weights"] > 0
        mlm["tokens"][mlm["target_positions"][real]] = mlm["targets"][real]
        pieces = []
        for row, tokens, ends in (
            (mlm, mlm["tokens"], slice(1, -1)),
            (clm, clm["targets"], slice(0, -1)),
        ):
            pieces.append(
                [
                    tokens[row["segments"] == segment][ends].tolist()
                    for segment in range(1, row["segments"].max() + 1)
                ]
            )
        assert pieces[0] == pieces[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_nsp_and_mlm_nsp_draw_the_same_pairs(store, seed):
    alone, both = epoch("nsp", store, seed), epoch("mlm_nsp", store, seed)
    assert len(alone) == len(pairs.chunk(store, LENGTH))
    for nsp, joint in zip(alone, both, strict=True):
        real = joint["weights"] > 0
        joint["tokens"][joint["target_positions"][real]] = joint["targets"][real]
        for name, values in nsp.items():
            assert np.array_equal(values, joint[name]), name
        assert real.sum() == max(1, round(0.15 * int((nsp["segments"] > 0).sum())))


# Losses against NumPy.

CONFIG = TransformerConfig(
    vocab_size=WIDE.size,
    width=16,
    heads=2,
    max_length=LENGTH,
    activation="gelu_tanh",
    norm="layer",
    head_chunks=2,
)


class FixedModel:
    """A `Model` whose hidden states are given.

    Args:
      objective: whose heads it gets.
      hidden: the states, [B, T, D].
    """

    Config = TransformerConfig
    masks = ("bidirectional", "causal", "prefix", "cross")
    pipelined = False
    flops = staticmethod(encoder.Model.flops)

    def __init__(self, objective: Objective, hidden: np.ndarray):
        scope = layers.Scope(jax.random.key(3))
        self.embedding = Embedding(CONFIG, scope / "embedding")
        self.heads = objective.heads(CONFIG, scope / "heads")
        self.hidden, self.batch = jnp.asarray(hidden), {}
        rng = np.random.default_rng(1)
        for module in (
            self.embedding,
            *self.heads.values(),
            *(head.norm for head in self.heads.values() if hasattr(head, "norm")),
        ):
            for param in vars(module).values():
                if hasattr(param, "get_metadata"):
                    param.set_value(jnp.asarray(rng.normal(0.0, 0.7, param.shape), jnp.float32))

    def embed(self, batch, dropout_keys=None):
        return self.embedding(batch["tokens"], batch["positions"], batch.get("types"), dropout_keys)

    def states(self, batch, dropout_keys=None):
        self.batch, self.dropout_keys = batch, dropout_keys
        return self.hidden[:, : batch["tokens"].shape[1]]

    def features(self, batch, dropout_keys=None):
        return self.states(batch, dropout_keys)

    def cross_entropy(self, *arguments):
        return self.embedding.cross_entropy(*arguments)

    def row_log_probs(self, *arguments):
        return self.embedding.row_log_probs(*arguments)

    def row_log_probs(self, *arguments):
        return self.embedding.row_log_probs(*arguments)

    def logits(self, h):
        return self.embedding.logits(h)


def softmax_nll(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    return -np.take_along_axis(log_p, targets[..., None], -1)[..., 0]


def array(param) -> np.ndarray:
    return np.asarray(param[...], np.float64)


def batch_of(objective: Objective, store: Tokens, rows: int = 6) -> dict[str, np.ndarray]:
    examples = loader.examples(objective, store, objective.plan(store), 0)
    return {key: np.stack([examples[index][key] for index in range(rows)]) for key in examples[0]}


def loss(objective: Objective, model: FixedModel, batch: dict[str, np.ndarray]):
    """The objective's terms and metrics, without dropout."""
    return objective.loss(model, jax.tree.map(jnp.asarray, batch), None)


def masked_reference(model, batch, hidden, head: str) -> tuple[float, float, float]:
    """Σ nll, Σ hits and Σ weights, position by position."""
    total = hits = count = 0.0
    for row in range(len(hidden)):
        for slot, position in enumerate(batch["target_positions"][row]):
            weight, target = batch["weights"][row, slot], batch["targets"][row, slot]
            h = hidden[row, position].astype(np.float64)
            if head == "transform":
                own = model.heads["masked"]
                h = h @ array(own.kernel) + array(own.bias)
                h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
                h = (h - h.mean()) / np.sqrt(h.var() + CONFIG.norm_epsilon) * array(
                    own.norm.scale
                ) + array(own.norm.bias)
            scores = array(model.embedding.tokens) @ h
            if head == "transform":
                scores = scores + array(model.heads["masked"].output_bias)
            total += weight * softmax_nll(scores, np.array(target))
            hits += weight * (scores.argmax() == target)
            count += weight
    return total, hits, count


def pair_reference(model, batch, hidden, pooling: str) -> np.ndarray:
    """Two scores for the pair of each row."""
    own, out = model.heads["pair"], []
    for row in range(len(hidden)):
        h, used, types = (
            hidden[row].astype(np.float64),
            batch["segments"][row] > 0,
            batch["types"][row],
        )
        if pooling == "segments":
            u, v = (h[used & (types == part)].mean(0) for part in (0, 1))
            u, v = u / np.sqrt((u**2).sum() + 1e-6), v / np.sqrt((v**2).sum() + 1e-6)
            root = np.sqrt(CONFIG.width)
            features = root * np.concatenate([u, v, np.abs(u - v), root * u * v])
        else:
            features = np.tanh(
                (h[0] if pooling == "first" else h[used].mean(0)) @ array(own.kernel)
                + array(own.bias)
            )
        out.append(features @ array(own.output) + array(own.output_bias))
    return np.array(out)


def check(given, expected_sum: float, expected_weight: float) -> None:
    assert float(given[0]) == pytest.approx(expected_sum, rel=2e-5)
    assert float(given[1]) == expected_weight


def check_pairs(term, accuracy, scores: np.ndarray, batch) -> None:
    """Of one pair a row."""
    assert (
        batch["labels"].shape == (6, 1)
        and (batch["label_weights"] == 1.0).all()
        and len(np.unique(batch["labels"])) == 2
    )
    labels = batch["labels"][:, 0]
    check(term, float(softmax_nll(scores, labels).sum()), 6)
    check(accuracy, float((scores.argmax(1) == labels).sum()), 6)


@pytest.fixture(scope="module")
def hidden():
    return np.random.default_rng(2).normal(0.0, 1.0, (6, LENGTH, CONFIG.width)).astype(np.float32)


def test_clm_loss(store, hidden):
    objective = make("clm")
    batch = batch_of(objective, store)
    model = FixedModel(objective, hidden)
    terms, metrics = loss(objective, model, batch)
    scores = hidden.astype(np.float64) @ array(model.embedding.tokens).T
    weights = batch["weights"]
    check(
        terms["clm"], float((softmax_nll(scores, batch["targets"]) * weights).sum()), weights.sum()
    )
    check(
        metrics["clm_accuracy"],
        float(((scores.argmax(-1) == batch["targets"]) * weights).sum()),
        weights.sum(),
    )
    assert model.dropout_keys is None
    assert objective.flops(encoder.Model, CONFIG) == flops.stack(CONFIG, LENGTH) + flops.head(
        CONFIG, LENGTH
    )


@pytest.mark.parametrize("head", ["transform", "plain"])
def test_mlm_loss(store, hidden, head):
    objective = make("mlm", head=head)
    batch = batch_of(objective, store)
    model = FixedModel(objective, hidden)
    terms, metrics = loss(objective, model, batch)
    total, hits, count = masked_reference(model, batch, hidden, head)
    assert 0 < count < batch["weights"].size, "the batch needs unused targets"
    check(terms["mlm"], total, count)
    check(metrics["mlm_accuracy"], hits, count)
    places = batch["target_positions"].shape[1]
    assert places == objective.config.budget(LENGTH) == round(0.15 * LENGTH)
    assert objective.flops(encoder.Model, CONFIG) == flops.stack(CONFIG, LENGTH) + flops.head(
        CONFIG, places, transform=head == "transform"
    )


@pytest.mark.parametrize("pooling", heads.POOLINGS)
def test_nsp_loss(store, hidden, pooling):
    objective = make("nsp", pooling=pooling)
    batch = batch_of(objective, store)
    model = FixedModel(objective, hidden)
    terms, metrics = loss(objective, model, batch)
    scores = pair_reference(model, batch, hidden, pooling)
    check_pairs(terms["nsp"], metrics["nsp_accuracy"], scores, batch)


def test_mlm_nsp_loss(store, hidden):
    objective = make("mlm_nsp")
    batch = batch_of(objective, store)
    model = FixedModel(objective, hidden)
    terms, metrics = loss(objective, model, batch)
    total, hits, count = masked_reference(model, batch, hidden, "transform")
    check(terms["mlm"], total, count)
    check(metrics["mlm_accuracy"], hits, count)
    scores = pair_reference(model, batch, hidden, "first")
    check_pairs(terms["nsp"], metrics["nsp_accuracy"], scores, batch)


@pytest.mark.parametrize(("name", "model"), compatible_pairs())
def test_losses_are_sums_over_rows(store, hidden, name, model):
    """Sums and weights of rows add up to the batch's: nothing is divided before the end."""
    objective = make(name, WIDE, model=model)
    batch = batch_of(objective, store)

    def sums(part: slice) -> dict[str, list[float]]:
        fixed = FixedModel(objective, hidden[part])
        terms, metrics = loss(
            objective, fixed, {key: values[part] for key, values in batch.items()}
        )
        assert set(terms) == set(objective.terms) and not set(terms) & set(metrics)
        assert ("input_tokens" in fixed.batch) == (model == "encoder_decoder")
        return {key: [float(value) for value in pair] for key, pair in (terms | metrics).items()}

    full, first, second = (sums(part) for part in (slice(0, 6), slice(0, 3), slice(3, 6)))
    assert any(full[term][1] > 0 for term in objective.terms)
    for key, pair in full.items():
        assert [
            one + two for one, two in zip(first[key], second[key], strict=True)
        ] == pytest.approx(pair, rel=1e-5), key

    fixed = FixedModel(objective, hidden)
    rows = objective.by_row(fixed, jax.tree.map(jnp.asarray, batch))
    assert set(objective.terms) <= set(rows) and set(rows) == set(full) - {"targets"}
    for key, pair in rows.items():
        assert all(values.shape == (6,) for values in pair)
        assert [float(values.sum()) for values in pair] == pytest.approx(full[key], rel=1e-5), key


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlm", {"head": "linear"}),
        ("mlm", {"rate": 1.5}),
        ("mlm_nsp", {"head": "linear"}),
        ("mlm_nsp", {"pooling": "last"}),
        ("nsp", {"pooling": "last"}),
    ],
)
def test_impossible_options_are_refused(name, options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        plugins.find("objectives", name).Config(**options)
    with pytest.raises(UserError, match=rf"config\.objective: .*{next(iter(options.values()))}"):
        make(name, **options)


def test_pieces_leave_room_for_two_specials():
    assert packing.SPECIALS == 2  # [CLS] and [SEP]; [BOS] and the position whose target is [EOS]


# Golden metrics: losses and gradient norms of step 1, and of step 2, which is after one update.

GOLDEN = {
    "clm": {"clm 1": 4.1649368, "clm_accuracy 1": 4 / 231, "gradient_norm 1": 0.08026627,
            "clm 2": 4.1443135, "clm_accuracy 2": 9 / 231, "gradient_norm 2": 0.08008333},
    "mlm": {"mlm 1": 4.1705940, "mlm_accuracy 1": 1 / 39, "gradient_norm 1": 0.2114052,
            "mlm 2": 4.1267477, "mlm_accuracy 2": 1 / 39, "gradient_norm 2": 0.2271245},
    "mlm_nsp": {"mlm 1": 4.1578217, "mlm_accuracy 1": 0.0, "nsp 1": 0.6824859,
                "nsp_accuracy 1": 0.75, "gradient_norm 1": 0.5251470,
                "mlm 2": 4.1139730, "mlm_accuracy 2": 2 / 37, "nsp 2": 0.6311408,
                "nsp_accuracy 2": 0.75, "gradient_norm 2": 0.4591709},
    "nsp": {"nsp 1": 0.7210662, "nsp_accuracy 1": 0.25, "gradient_norm 1": 0.5324450,
            "nsp 2": 0.6621477, "nsp_accuracy 2": 0.75, "gradient_norm 2": 0.4138746},
}  # fmt: skip


def measured(name: str) -> dict[str, float]:
    section = config(
        name,
        model={"layers": 1, "heads": 2},
        optimizer={"learning_rate": 0.01, "warmup": 0.0, "schedule": "constant"},
    )
    program = Program(section, Ids(VOCABULARY), jax.devices()[:1])
    objective, text, size = (
        program.objective,
        random_store(VOCABULARY, 60),
        program.training.batch_size,
    )
    examples = loader.examples(objective, text, objective.plan(text), 0).repeat(None)
    source = loader.Loader(examples, size, program.mesh)
    batch, trained = next(source), state(program)
    metrics = {}
    for step in (1, 2):
        trained, sums = program.step(trained, batch)
        metrics |= {
            f"{key} {step}": value for key, value in divide_sums(jax.device_get(sums)).items()
        }
    return metrics


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_metrics(name):
    assert measured(name) == pytest.approx(GOLDEN[name], rel=1e-5)
