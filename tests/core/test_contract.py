"""Every plug-in conforms to its protocol (lm/core/protocols.py). New plug-ins are found by name."""

import dataclasses
import functools
import itertools
import math

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import stand_ins
from flax import nnx
from small_corpus import (
    Ids,
    Tokens,
    compatible_pairs,
    config,
    numbers,
    quick_compilation,
    random_store,
)
from task_files import FILES, task_options

from lm.core import compatibility, plugins, protocols
from lm.core.plugins import UserError
from lm.data import corpus as corpora
from lm.data import loader
from lm.data.documents import Document, Tally
from lm.data.pairs import RELATIONS
from lm.nn import flops
from lm.nn.attention.mask import Mask
from lm.nn.config import TransformerConfig
from lm.nn.layers import Scope
from lm.optimizers import groups
from lm.parallel import sharding
from lm.stats.scores import Score
from lm.training.program import Program

LENGTH, VOCABULARY, SENTINELS = 32, 96, 20
TEXT = VOCABULARY - SENTINELS - 3  # ids from here on are mode tokens and sentinels
MASKS = {"bidirectional", "causal", "prefix", "cross"}
ROOMS = (
    "nn.attention",
    "data.formats",
    "data.sources",
    "models",
    "objectives",
    "optimizers",
    "tasks",
)
PLUG_INS = [(room, name) for room in ROOMS for name in plugins.names(room)]
WITHOUT_OPTIONS = ("nn.attention", "data.formats", "models")
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


@functools.cache
def corpus():
    """A stand-in for lm.data.corpus.Corpus, with labels."""

    def split(documents: int, seed: int) -> Tokens:
        store = random_store(TEXT, documents, seed)
        store.labels = [("red", "green", "blue")[number % 3] for number in range(documents)]
        return store

    stores = {"train": split(90, 1), "validation": split(40, 2), "test": split(60, 3)}
    return stand_ins.corpus(Ids(VOCABULARY, SENTINELS), stores)


@functools.cache
def build(objective: str, model: str = "", tokenizer=None) -> Program:
    section = config(objective, model={"layers": 1} | ({"name": model} if model else {}))
    return Program(section, tokenizer or corpus().tokenizer, jax.devices()[:1])


def corpus_for(task, directory):
    """The stand-in; for tasks on one synthetic source a small corpus of that source."""
    source = getattr(task, "source", "")
    if not source:
        return corpus()
    data = {
        "source": source,
        "cache": str(directory),
        "documents": 200,
        "validation": 0.2,
        "test": 0.2,
        "workers": 1,
    }
    return corpora.prepare(
        data | SMALL.get(source, {}), {"kind": "word", "sentinels": SENTINELS}, progress=False
    )


@pytest.mark.parametrize(("room", "name"), PLUG_INS)
def test_every_plug_in_has_a_docstring(room, name):
    module = plugins.find(room, name)
    assert module.__doc__ and len(module.__doc__.strip()) > 20


@pytest.mark.parametrize(
    ("room", "name"), [(room, name) for room, name in PLUG_INS if room not in WITHOUT_OPTIONS]
)
def test_options_are_a_frozen_dataclass_with_defaults(room, name):
    cls = plugins.find(room, name).Config
    assert (
        dataclasses.is_dataclass(cls)
        and cls.__doc__
        and not cls.__doc__.startswith(f"{cls.__name__}(")
    ), "the docstring describes the options"
    made = plugins.configure(cls, {}, f"config.{room}")
    assert made == cls()
    for field in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, None)
    with pytest.raises(UserError, match="zzz=1 is not known"):
        plugins.configure(cls, {"zzz": 1}, f"config.{room}")


# Formats.


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def kinds(example: dict) -> dict:
    """Shape and dtype of each field."""
    return {name: (np.shape(value), np.asarray(value).dtype) for name, value in example.items()}


@pytest.mark.parametrize("ends", [None, (Ids.bos, Ids.eos)], ids=["default", "bos-eos"])
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", plugins.names("data.formats"))
def test_a_format(name, relation, ends):
    module, store = plugins.find("data.formats", name), corpus().stores["train"]
    form = module.Format(corpus().tokenizer, LENGTH, relation, ends)
    assert isinstance(form, protocols.Format)
    first, last = ends or (Ids.cls, Ids.sep)
    plan = form.plan(store)
    assert isinstance(plan.note, str) and len(plan) > 0
    expected = {
        field: ((LENGTH,), np.dtype(np.int32))
        for field in ("tokens", "segments", "positions", "types")
    }
    if module.PAIRS:
        expected |= {
            "labels": ((form.slots,), np.dtype(np.int32)),
            "label_weights": ((form.slots,), np.dtype(np.float32)),
        }
    for index in range(len(plan)):
        row = form.row(store, plan, index, np.random.default_rng(index))
        assert kinds(row) == expected
        assert same(row, form.row(store, plan, index, np.random.default_rng(index))), (
            "randomness that is not from the generator"
        )
        tokens, segments = row["tokens"], row["segments"]
        used = int((segments > 0).sum())
        assert segments[:used].all() and not segments[used:].any(), (
            "padding is segment 0, at the end"
        )
        assert (
            (tokens[used:] == Ids.pad).all()
            and not row["positions"][used:].any()
            and not row["types"][used:].any()
        )
        count = int(segments.max())
        assert (
            count > 0 and segments[0] == 1 and set(np.diff(segments[:used]).tolist()) <= {0, 1}
        ), "numbered from 1, in order"
        assert 0 <= tokens.min() and tokens.max() < TEXT
        for segment in range(1, count + 1):
            places = np.flatnonzero(segments == segment)
            types = row["types"][places]
            assert row["positions"][places].tolist() == list(range(len(places)))
            assert tokens[places[0]] == first and tokens[places[-1]] == (
                Ids.sep if module.PAIRS else last
            )
            assert types.tolist() == sorted(types.tolist()) and set(types.tolist()) == (
                {0, 1} if module.PAIRS else {0}
            )
        if module.PAIRS:
            assert row["label_weights"].tolist() == [1.0] * count + [0.0] * (form.slots - count)
            assert set(row["labels"].tolist()) <= {0, 1} and not row["labels"][count:].any()


@pytest.mark.parametrize("name", plugins.names("data.formats"))
def test_a_format_of_no_text_is_refused_or_has_no_row(name):
    try:
        assert (
            len(
                plugins.find("data.formats", name)
                .Format(corpus().tokenizer, LENGTH)
                .plan(Tokens([]))
            )
            == 0
        )
    except UserError as error:
        assert str(error)


# Objectives.

OBJECTIVES = plugins.names("objectives")
pairs = pytest.mark.parametrize(("name", "model"), compatible_pairs())


def objective(name: str, model: str):
    return compatibility.make({"name": name}, corpus().tokenizer, LENGTH, model)


def dataset(made, steps: int = 0) -> grain.MapDataset:
    """One epoch, or the examples of a run of `steps` steps of 8 rows."""
    store = corpus().stores["train"]
    return loader.examples(made, store, made.plan(store), 0, 8 if steps else 0, steps)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_runs_on_its_models_and_no_others(name):
    masks = plugins.find("objectives", name).Objective.masks
    assert isinstance(masks, tuple) and masks and set(masks) <= MASKS
    assert compatibility.models(name), "an objective that runs on no model"
    assert any(paired == name for paired, _ in compatible_pairs())
    for model in plugins.names("models"):
        if (name, model) not in compatible_pairs():
            with pytest.raises(UserError, match="needs a mask that is"):
                objective(name, model)


@pairs
def test_an_objective_declares_itself(name, model):
    made = objective(name, model)
    assert isinstance(made, protocols.Objective)
    assert made.mask in made.masks and made.mask in plugins.find("models", model).Model.masks
    assert (
        isinstance(made.scores, tuple)
        and made.scores
        and all(isinstance(part, str) for part in made.scores)
    )
    assert made.terms and all(
        isinstance(term, str) and factor > 0 for term, factor in made.terms.items()
    )
    assert isinstance(made.positions, int) and made.positions >= LENGTH
    assert isinstance(made.standard, bool) and isinstance(made.composed, bool)
    program = build(name, model)
    count = made.flops(program.architecture, program.config)
    assert isinstance(count, int) and count >= flops.stack(program.config, LENGTH)


@pairs
def test_examples_have_one_shape(name, model):
    made = objective(name, model)
    plan = made.plan(corpus().stores["train"])
    assert isinstance(plan.note, str)
    examples = dataset(made)
    assert isinstance(examples, grain.MapDataset) and len(examples) == len(plan) > 0
    first = kinds(examples[0])
    assert (
        sum(np.size(examples[0][key]) for key in ("segments", "input_segments") if key in first)
        == made.positions
    )
    assert {dtype for _, dtype in first.values()} <= {np.dtype(np.int32), np.dtype(np.float32)}
    run = dataset(made, steps=3)
    for example in (
        *(examples[index] for index in range(len(examples))),
        *(run[index] for index in range(24)),
    ):
        assert kinds(example) == first
        for key in [key for key in example if key.split("/")[-1] in ("tokens", "input_tokens")]:
            tokens, segments = example[key], example[key.replace("tokens", "segments")]
            assert (
                tokens.shape == segments.shape
                and 0 <= tokens.min()
                and tokens.max() < VOCABULARY
                and segments.min() >= 0
            )
            assert (tokens[segments == 0] == Ids.pad).all()


@pairs
def test_a_store_too_small_is_refused_or_gives_no_example(name, model):
    try:
        assert len(objective(name, model).plan(Tokens([]))) == 0
    except UserError as error:
        assert str(error)


@pairs
def test_losses_and_gradients(name, model):
    """On the first and the last batch of a run, which covers all phases of an objective."""
    program, steps = build(name, model), 4
    examples = dataset(program.objective, steps)
    batches = [
        {key: np.stack([examples[8 * step + row][key] for row in range(8)]) for key in examples[0]}
        for step in (0, steps)
    ]
    params = numbers(program.shapes["params"])

    @jax.jit
    def compute(params, batch):
        def loss(params):
            terms, metrics = program.objective.loss(program.model(params), batch, None)
            means = {
                term: value / jnp.where(weight > 0, weight, 1.0)
                for term, (value, weight) in terms.items()
            }
            return sum(program.terms[term] * mean for term, mean in means.items()), (terms, metrics)

        return jax.grad(loss, has_aux=True)(params)

    both = [jax.device_get(compute(params, batch)) for batch in batches]
    for gradients, (terms, metrics) in both:
        assert set(terms) == set(program.terms) and not set(terms) & set(metrics)
        for key, (value, weight) in (terms | metrics).items():
            assert (
                np.shape(value) == np.shape(weight) == ()
                and value.dtype == weight.dtype == np.float32
            ), key
            assert math.isfinite(value) and (weight > 0 or weight == value == 0), key
        assert any(weight > 0 for _, weight in terms.values())
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    (first, one), (second, two) = both
    for key in one[0] | one[1]:
        assert any((terms | metrics)[key][1] > 0 for terms, metrics in (one, two)), (
            f"{key} has no weight in either batch"
        )
    reached = jax.tree.map(lambda a, b: bool(a.any() or b.any()), first, second)
    idle = [path for path, leaf in jax.tree_util.tree_leaves_with_path(reached) if not leaf]
    assert not idle, "parameters that no loss reaches"


# Models.


@pytest.mark.parametrize("name", plugins.names("models"))
def test_a_model(name):
    shape = TransformerConfig(
        vocab_size=VOCABULARY,
        width=16,
        heads=2,
        layers=2,
        max_length=LENGTH,
        types=2,
        positions="relative",
        tied=False,
    )
    cls = plugins.find("models", name).Model
    assert isinstance(cls.masks, tuple) and cls.masks and set(cls.masks) <= MASKS
    graph, abstract = nnx.split(nnx.eval_shape(lambda: cls(shape, Scope(jax.random.key(0)))))
    for path, param in nnx.to_flat_state(abstract):
        axes = param.get_metadata("axes")
        assert all(axis is None or axis in sharding.RULES for axis in axes), path
        assert 0 <= len(param.shape) - len(axes) <= 1, "one more leading axis for stacked layers"
        assert param.dtype == jnp.float32
        assert len(axes) > 1 or groups.is_vector(path), (
            f"{path} has one axis, but weight decay applies to it"
        )

    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, VOCABULARY, (2, LENGTH)), jnp.int32)
    given = {
        "segments_BT": jnp.ones_like(tokens),
        "positions_BT": jnp.broadcast_to(jnp.arange(LENGTH)[None], tokens.shape),
    }

    @jax.jit
    def run(params):
        model, more = nnx.merge(graph, params), {}
        assert model.__doc__ and isinstance(model, protocols.Model)
        if hasattr(model, "encode"):
            memory = model.encode(
                tokens, segments_BS=given["segments_BT"], positions_BS=given["positions_BT"]
            )
            more = {"memory_BSD": memory, "memory_segments_BS": given["segments_BT"]}
        hidden = model.hidden(tokens, **given, **more)
        batch = {
            "tokens": tokens,
            "segments": given["segments_BT"],
            "positions": given["positions_BT"],
        }
        batch |= {f"input_{key}": value for key, value in batch.items()}
        assert model.embed(batch).shape == (2, LENGTH, 16)
        same = model.states(batch), hidden
        features = model.features(batch), more.get("memory_BSD", hidden)
        if "prefix" in cls.masks:
            # With an empty prefix the mask is causal; with the full row as prefix it is not.
            none, full = (
                model.hidden(tokens, prefix_BT=jnp.full_like(tokens, value), **given)
                for value in (0, 1)
            )
        else:
            none, full = hidden, hidden + 1
        return hidden, model.logits(hidden), none, full, same, features

    hidden, logits, none, full, *twins = run(numbers(nnx.to_pure_dict(abstract)))
    for ours, theirs in twins:
        np.testing.assert_array_equal(ours, theirs)
    assert hidden.shape == (2, LENGTH, 16) and logits.shape == (2, LENGTH, VOCABULARY)
    assert np.isfinite(hidden).all() and np.std(hidden) > 0
    np.testing.assert_allclose(none, hidden, rtol=0, atol=1e-5)
    assert np.abs(full - hidden).max() > 1e-3


# Attention.


@pytest.mark.parametrize(
    ("kind", "biased"), [("bidirectional", False), ("causal", True), ("prefix", False)]
)
@pytest.mark.parametrize("name", plugins.names("nn.attention"))
def test_attention_is_the_reference(name, kind, biased):
    assert isinstance(plugins.find("nn.attention", name), protocols.Attention)
    rng = np.random.default_rng(0)
    B, T, N, K, H = 2, 24, 4, 2, 8
    q = jnp.asarray(rng.normal(size=(B, T, N, H)), jnp.float32)
    k, v = (jnp.asarray(rng.normal(size=(B, T, K, H)), jnp.float32) for _ in range(2))
    segments = jnp.asarray(np.repeat([[1, 1, 2, 0], [1, 2, 2, 3]], T // 4, axis=1), jnp.int32)
    prefix = (
        jnp.asarray(np.arange(T)[None] % 12 < 5, bool) & (segments > 0)
        if kind == "prefix"
        else None
    )
    bias = jnp.asarray(rng.normal(size=(1, N, T, T)), jnp.float32) if biased else None
    mask = Mask(segments, segments, prefix, kind)
    functions = [
        functools.partial(plugins.find("nn.attention", kind).attend, scale=0.3)
        for kind in (name, "reference")
    ]
    output, expected = (jax.jit(attend)(q, k, v, mask, bias=bias) for attend in functions)
    used = np.asarray(segments > 0)
    np.testing.assert_allclose(np.asarray(output)[used], np.asarray(expected)[used], atol=1e-5)


# Optimizers.


@pytest.mark.parametrize("name", plugins.names("optimizers"))
def test_an_optimizer(name):
    module = plugins.find("optimizers", name)
    assert isinstance(module, protocols.Optimizer)
    shapes = build("clm").shapes["params"]
    target, start = numbers(shapes, 1), numbers(shapes, 2)
    rates = {
        field.name: 0.5
        for field in dataclasses.fields(module.Config)
        if field.name == "weight_decay"
    }

    def loss(params):
        return sum(
            jnp.square(a - b).sum()
            for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(target), strict=True)
        )

    @functools.partial(jax.jit, static_argnums=1)
    def step(params, decay):
        transformation = module.make(
            module.Config(**(rates if decay else {})), 1e-3, lambda step: 1.0
        )
        updates, _ = transformation.update(
            jax.grad(loss)(params), transformation.init(params), params
        )
        return optax.apply_updates(params, updates)

    after = step(start, False)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), start
    )
    value = jax.jit(loss)
    assert value(after) < value(start)
    if rates:
        moved = jax.tree.map(
            lambda one, two: bool(np.abs(one - two).max() > 1e-7), after, step(start, True)
        )
        decayed = [path for path, value in jax.tree_util.tree_leaves_with_path(moved) if value]
        assert decayed and not any(map(groups.is_vector, decayed)), (
            "weight decay must not apply to norms and biases"
        )


# Sources.

# Options for sources that yield much by default, or whose documents exceed the rows of this test.
SMALL = {
    "python_docs": {"packages": ("json",)},
    "recall": {"pairs": 3, "queries": 2, "slots": 5, "keys": 8, "values": 8, "noise": 2},
}


@pytest.mark.parametrize("name", plugins.names("data.sources"))
def test_a_source(name):
    """Without options it yields documents, or reports what it needs."""
    module = plugins.find("data.sources", name)
    assert isinstance(module, protocols.Source)
    source_config, tally = module.Config(**SMALL.get(name, {})), Tally()
    try:
        assert module.signature(source_config) == module.signature(source_config) != ""
        for document in itertools.islice(module.documents(source_config, tally), 3):
            assert isinstance(document, Document) and document.name
            assert document.paragraphs and all(
                paragraph and all(paragraph) for paragraph in document.paragraphs
            )
        assert tally.documents > 0
    except UserError as error:
        assert len(str(error)) > 20


# Tasks.


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_a_task(name, tmp_path):
    module = plugins.find("tasks", name)
    of = corpus_for(module.Task, tmp_path)
    if of is not corpus():
        with pytest.raises(UserError, match="--config.data.source="):
            module.Task(module.Config(), corpus(), "test", LENGTH)
    if name in FILES:
        with pytest.raises(UserError, match="path"):
            module.Task(module.Config(), corpus(), "test", LENGTH)
    task = module.Task(module.Config(**task_options(name, tmp_path)), of, "test", LENGTH)
    assert isinstance(task, protocols.Task)
    suited = {
        model: each
        for each, model in reversed(compatible_pairs())
        if task.suits(objective(each, model))
    }
    assert suited, "a task that suits no objective"
    # One program on each architecture.
    programs = [build(each, model, of.tokenizer) for model, each in suited.items()]
    every = [task.score(program, numbers(program.shapes["params"])) for program in programs]
    scores = {metric: score for metrics in every for metric, score in metrics.items()}
    # Some metrics exist for some models only; metrics of a subset are called metric/…
    assert all(next(iter(metrics)) == task.metrics[0] for metrics in every)
    assert {metric.split("/")[0] for metric in scores} <= set(task.metrics)
    baselines = task.baselines(programs[0])
    assert baselines
    for metrics in (*every, *baselines.values()):
        assert set(metrics) <= set(scores), "a baseline's metric that no model has"
        for metric, score in metrics.items():
            assert isinstance(score, Score) and math.isfinite(score.value) and score.count > 0
            assert score.better in ("lower", "higher") and score.unit
            model = scores[metric]
            assert (score.better, score.unit, score.count) == (
                model.better,
                model.unit,
                model.count,
            ), "not the same examples"
            assert score.unit != "share" or 0.0 <= score.value <= 1.0
