"""Every plug-in of every room keeps the contract of lm/protocols.py. A new file is tested without a change here."""

import dataclasses
import functools
import itertools
import math
import types

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_corpus import Ids, Tokens, config, numbers, quick_compilation, random_store

from lm import lookup, mesh, program
from lm.attention.mask import Mask
from lm.data.documents import Document, Tally
from lm.layers import Scope
from lm.lookup import UserError
from lm.optimizers import _groups
from lm.scores import Score
from lm.transformer import TransformerConfig

LENGTH, VOCABULARY = 32, 64
ROOMS = ("attention", "data.sources", "models", "objectives", "optimizers", "tasks")
PLUG_INS = [(room, name) for room in ROOMS for name in lookup.names(room)]
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


@functools.cache
def corpus():
    """A stand-in for lm.data.corpus.Corpus, with labels."""

    def split(documents: int, seed: int) -> Tokens:
        store = random_store(VOCABULARY, documents, seed)
        store.labels = [("red", "green", "blue")[number % 3] for number in range(documents)]
        return store

    stores = {"train": split(90, 1), "validation": split(40, 2), "test": split(60, 3)}
    return types.SimpleNamespace(tokenizer=Ids(VOCABULARY), stores=stores)


@functools.cache
def build(objective: str, model: str = "") -> program.Program:
    section = config(objective, model={"layers": 1} | ({"name": model} if model else {}))
    return program.Program(section, corpus().tokenizer, jax.devices()[:1])


@pytest.mark.parametrize(("room", "name"), PLUG_INS)
def test_every_plug_in_says_what_it_is(room, name):
    module = lookup.find(room, name)
    assert module.__doc__ and len(module.__doc__.strip()) > 20


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, name in PLUG_INS if room not in ("attention", "models")])
def test_options_are_a_frozen_dataclass_with_defaults(room, name):
    cls = lookup.find(room, name).Config
    assert dataclasses.is_dataclass(cls) and cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), "say what the options are"
    made = lookup.configure(cls, {}, f"config.{room}")
    assert made == cls()
    for field in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, None)
    with pytest.raises(UserError, match="zzz=1 is not known"):
        lookup.configure(cls, {"zzz": 1}, f"config.{room}")


# Objectives.

OBJECTIVES = lookup.names("objectives")


def objective(name: str):
    module = lookup.find("objectives", name)
    return module.Objective(module.Config(), corpus().tokenizer, LENGTH)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_declares_itself(name):
    made = objective(name)
    for attribute in ("models", "terms", "scores"):
        value = getattr(made, attribute)
        assert isinstance(value, tuple) and value and all(isinstance(part, str) for part in value), attribute
    assert set(made.models) <= set(lookup.names("models"))
    assert 0 <= made.head_positions() <= LENGTH


@pytest.mark.parametrize("name", OBJECTIVES)
def test_examples_have_one_shape(name):
    examples = objective(name).dataset(corpus().stores["train"], seed=0)
    assert isinstance(examples, grain.MapDataset) and len(examples) > 0
    first = {key: (np.shape(value), np.asarray(value).dtype) for key, value in examples[0].items()}
    assert first["tokens"][0] == (LENGTH,)
    assert {dtype for _, dtype in first.values()} <= {np.dtype(np.int32), np.dtype(np.float32)}
    for index in range(len(examples)):
        example = examples[index]
        assert {key: (np.shape(value), np.asarray(value).dtype) for key, value in example.items()} == first
        assert 0 <= example["tokens"].min() and example["tokens"].max() < VOCABULARY
        assert (example["tokens"][example["segments"] == 0] == Ids.pad).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_store_too_small_is_refused_or_gives_no_example(name):
    try:
        assert len(objective(name).dataset(Tokens([]), seed=0)) == 0
    except UserError as error:
        assert str(error)


@pytest.mark.parametrize(("name", "model"), [(name, model) for name in OBJECTIVES for model in objective(name).models])
def test_losses_and_gradients(name, model):
    built = build(name, model)
    examples = built.objective.dataset(corpus().stores["train"], 0)
    batch = {key: np.stack([examples[index][key] for index in range(4)]) for key in examples[0]}
    params = numbers(built.shapes["params"])

    @jax.jit
    def compute(params):
        def loss(params):
            terms, metrics = built.objective.loss(built.model(params), batch, None)
            return sum(value / weight for value, weight in terms.values()), (terms, metrics)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (terms, metrics) = jax.device_get(compute(params))
    assert set(terms) == set(built.terms) and not set(terms) & set(metrics)
    for key, (value, weight) in (terms | metrics).items():
        assert np.shape(value) == np.shape(weight) == () and value.dtype == weight.dtype == np.float32, key
        assert math.isfinite(value) and weight > 0, key
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    idle = [path for path, leaf in jax.tree_util.tree_leaves_with_path(gradients) if not leaf.any()]
    assert not idle, "parameters that no loss reaches"


# Models.


@pytest.mark.parametrize("name", lookup.names("models"))
def test_a_model(name):
    shape = TransformerConfig(
        vocab_size=VOCABULARY, width=16, heads=2, layers=2, max_length=LENGTH, types=2, positions="relative", tied=False
    )  # fmt: skip
    cls = lookup.find("models", name).Model
    graph, abstract = nnx.split(nnx.eval_shape(lambda: cls(shape, Scope(jax.random.key(0)))))
    for path, param in nnx.to_flat_state(abstract):
        axes = param.get_metadata("axes")
        assert all(axis is None or axis in mesh.RULES for axis in axes), path
        assert 0 <= len(param.shape) - len(axes) <= 1, "one leading axis more where layers are stacked"
        assert param.dtype == jnp.float32
        assert len(axes) > 1 or _groups.is_vector(path), f"{path} has one axis, and would be decayed"

    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, VOCABULARY, (2, LENGTH)), jnp.int32)
    given = {"segments_BT": jnp.ones_like(tokens), "positions_BT": jnp.broadcast_to(jnp.arange(LENGTH)[None], tokens.shape)}

    @jax.jit
    def run(params):
        model, more = nnx.merge(graph, params), {}
        assert model.__doc__ and hasattr(model, "heads") and hasattr(model, "embedding")
        if hasattr(model, "encode"):
            memory = model.encode(tokens, segments_BS=given["segments_BT"], positions_BS=given["positions_BT"])
            more = {"memory_BSD": memory, "memory_segments_BS": given["segments_BT"]}
        hidden = model.hidden(tokens, **given, **more)
        return hidden, model.logits(hidden)

    hidden, logits = run(numbers(nnx.to_pure_dict(abstract)))
    assert hidden.shape == (2, LENGTH, 16) and logits.shape == (2, LENGTH, VOCABULARY)
    assert np.isfinite(hidden).all() and np.std(hidden) > 0


# Attention.


@pytest.mark.parametrize(("kind", "biased"), [("bidirectional", False), ("causal", True), ("prefix", False)])
@pytest.mark.parametrize("name", lookup.names("attention"))
def test_attention_is_the_reference(name, kind, biased):
    rng = np.random.default_rng(0)
    B, T, N, K, H = 2, 24, 4, 2, 8
    q = jnp.asarray(rng.normal(size=(B, T, N, H)), jnp.float32)
    k, v = (jnp.asarray(rng.normal(size=(B, T, K, H)), jnp.float32) for _ in range(2))
    segments = jnp.asarray(np.repeat([[1, 1, 2, 0], [1, 2, 2, 3]], T // 4, axis=1), jnp.int32)
    prefix = jnp.asarray(np.arange(T)[None] % 12 < 5, bool) & (segments > 0) if kind == "prefix" else None
    bias = jnp.asarray(rng.normal(size=(1, N, T, T)), jnp.float32) if biased else None
    mask = Mask(segments, segments, prefix, kind)
    kinds = [functools.partial(lookup.find("attention", each).attend, scale=0.3) for each in (name, "reference")]
    found, expected = (jax.jit(attend)(q, k, v, mask, bias=bias) for attend in kinds)
    used = np.asarray(segments > 0)
    np.testing.assert_allclose(np.asarray(found)[used], np.asarray(expected)[used], atol=1e-5)


# Optimisers.


@pytest.mark.parametrize("name", lookup.names("optimizers"))
def test_an_optimiser(name):
    module = lookup.find("optimizers", name)
    shapes = build("clm").shapes["params"]
    target, start = numbers(shapes, 1), numbers(shapes, 2)
    rates = {field.name: 0.5 for field in dataclasses.fields(module.Config) if field.name == "weight_decay"}

    def loss(params):
        return sum(jnp.square(a - b).sum() for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(target), strict=True))

    @functools.partial(jax.jit, static_argnums=1)
    def step(params, decay):
        transformation = module.make(module.Config(**(rates if decay else {})), 1e-3, lambda step: 1.0)
        updates, _ = transformation.update(jax.grad(loss)(params), transformation.init(params), params)
        return optax.apply_updates(params, updates)

    after = step(start, False)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), start)
    value = jax.jit(loss)
    assert value(after) < value(start)
    if rates:
        moved = jax.tree.map(lambda one, two: bool(np.abs(one - two).max() > 1e-7), after, step(start, True))
        decayed = [path for path, value in jax.tree_util.tree_leaves_with_path(moved) if value]
        assert decayed and not any(map(_groups.is_vector, decayed)), "weight decay must leave norms and biases alone"


# Sources.

SMALL = {"python_docs": {"packages": ("json",)}}  # options for sources that give much without any


@pytest.mark.parametrize("name", lookup.names("data.sources"))
def test_a_source(name):
    """Asked without options it yields documents, or says what it needs."""
    module = lookup.find("data.sources", name)
    source_config, tally = module.Config(**SMALL.get(name, {})), Tally()
    try:
        assert module.signature(source_config) == module.signature(source_config) != ""
        for document in itertools.islice(module.documents(source_config, tally), 3):
            assert isinstance(document, Document) and document.name
            assert document.paragraphs and all(paragraph and all(paragraph) for paragraph in document.paragraphs)
        assert tally.documents > 0
    except UserError as error:
        assert len(str(error)) > 20


# Tasks.


@pytest.mark.parametrize("name", lookup.names("tasks"))
def test_a_task(name):
    module = lookup.find("tasks", name)
    task = module.Task(module.Config(), corpus(), "test", LENGTH)
    suited = [each for each in OBJECTIVES if task.suits(objective(each))]
    assert suited, "a task that nothing can be asked"
    built = build(suited[0])
    scores = task.score(built, numbers(built.shapes["params"]))
    assert scores
    baselines = task.baselines(built)
    assert baselines
    for metrics in (scores, *baselines.values()):
        assert set(metrics) <= set(scores), "a baseline that the model is not asked"
        for metric, score in metrics.items():
            assert isinstance(score, Score) and math.isfinite(score.value) and score.count > 0
            assert score.better in ("lower", "higher") and score.unit
            asked = scores[metric]
            assert (score.better, score.unit, score.count) == (asked.better, asked.unit, asked.count), "not the same question"
            assert score.unit != "share" or 0.0 <= score.value <= 1.0
