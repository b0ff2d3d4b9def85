"""The compiled step on meshes, with microbatches and dropout; refused configs."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from small_corpus import Ids, config, numbers, quick_compilation, random_store, state

from lm.core.plugins import UserError
from lm.data import loader
from lm.training.program import Program, TrainingConfig, divide_sums, total_loss

VOCABULARY, STEPS = 64, 5
MESHES = {
    "data": {"data": 8},
    "fsdp": {"data": 1, "fsdp": 8},
    "mixed": {"data": 2, "fsdp": 2, "tensor": 2},
}
PLAIN = {"head": "plain", "pooling": "segments"}  # fewer parameters to compile for
quick = pytest.fixture(quick_compilation, scope="module", autouse=True)


@pytest.fixture(scope="module")
def store():
    return random_store(VOCABULARY, 60)


def build(objective: str, mesh: str = "", options: dict | None = None, **sections) -> Program:
    """A program; without a mesh, on one device.

    Adam's epsilon is large: otherwise rounding errors of tiny gradients become full-sized updates.
    """
    sections = {
        "model": {"layers": 1, "head_chunks": 1},
        "optimizer": {"warmup": 0.0, "learning_rate": 0.01, "epsilon": 1e-3},
    } | sections
    section = config(objective, options=options, mesh=MESHES.get(mesh, {}), **sections)
    return Program(section, Ids(VOCABULARY), jax.devices()[: 8 if mesh else 1])


def batches(program: Program, store, count: int) -> list:
    examples = loader.examples(program.objective, store, program.objective.plan(store), 0).repeat(
        None
    )
    source = loader.Loader(examples, program.training.batch_size, program.mesh)
    return [next(source) for _ in range(count)]


def curve(program: Program, store) -> list[dict[str, float]]:
    trained, means = state(program), []
    for batch in batches(program, store, STEPS):
        trained, sums = program.step(trained, batch)
        means.append(divide_sums(jax.device_get(sums)))
    return means


@pytest.fixture(scope="module")
def one_device(store):
    program = {name: build(name) for name in ("clm", "mlm_nsp")}
    return {name: curve(part, store) for name, part in program.items()}


@pytest.mark.parametrize(
    ("objective", "mesh"),
    [("clm", "data"), ("clm", "fsdp"), ("clm", "mixed"), ("mlm_nsp", "mixed")],
)
def test_any_mesh_gives_the_curve_of_one_device(store, one_device, objective, mesh):
    steps = curve(build(objective, mesh), store)
    assert len(steps) == STEPS
    assert steps[-1][objective.split("_")[0]] < steps[0][objective.split("_")[0]]
    for step, expected in zip(steps, one_device[objective], strict=True):
        assert step == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_initial_parameters_are_the_same_to_the_bit_on_any_mesh():
    expected = jax.device_get(build("clm").init())
    for mesh in ("fsdp", "mixed"):
        initial = jax.device_get(build("clm", mesh).init())
        jax.tree.map(np.testing.assert_array_equal, initial, expected)
    flat = jax.tree.leaves(expected["params"])
    assert any(np.std(leaf) > 0 for leaf in flat) and not any(
        np.any(leaf) for leaf in jax.tree.leaves(expected["opt_state"])
    )


def test_placement_follows_the_rule_table():
    program = build("mlm_nsp", "mixed", model={"layers": 2, "scan": True, "bias": True})

    def spec(*path):
        leaf = program.shardings["params"]
        for key in path:
            leaf = leaf[key]
        return leaf.spec

    batch, width, tensor, layers = (
        ("slice", "data", "fsdp", "stage"),
        ("fsdp",),
        ("tensor",),
        ("stage",),
    )
    attention, feedforward = ("stack", "blocks", "attention"), ("stack", "blocks", "feedforward")
    assert spec("embedding", "tokens") == PartitionSpec(tensor, width)
    # The leading axis is that of the stacked layers.
    assert spec(*attention, "query") == PartitionSpec(layers, width, tensor, None)
    assert spec(*attention, "out") == PartitionSpec(layers, tensor, None, width)
    assert spec(*attention, "query_bias") == PartitionSpec(layers, tensor, None)
    assert spec(*feedforward, "up") == PartitionSpec(layers, width, tensor)
    assert spec(*feedforward, "down") == PartitionSpec(layers, tensor, width)
    assert spec("stack", "norm", "scale") == PartitionSpec(None)
    assert spec("heads", "masked", "kernel") == PartitionSpec(width, None)
    assert spec("heads", "masked", "output_bias") == PartitionSpec(tensor)
    assert program.batch_sharding.spec == PartitionSpec(batch)


def test_optimizer_state_is_placed_like_its_parameters():
    program = build("clm", "mixed")
    params = jax.tree.leaves(program.shardings["params"])

    def is_adam(node):
        return isinstance(node, optax.ScaleByAdamState)

    parts = jax.tree.leaves(program.shardings["opt_state"], is_leaf=is_adam)
    adam = next(part for part in parts if is_adam(part))
    assert jax.tree.leaves(adam.mu) == params and jax.tree.leaves(adam.nu) == params
    assert adam.count.spec == PartitionSpec()
    trained = state(program)
    tokens = trained["params"]["embedding"]["tokens"]
    assert tokens.addressable_shards[0].data.shape == (VOCABULARY // 2, 32 // 2)


@pytest.mark.parametrize("parts", [2, 4])
def test_microbatches_change_nothing(store, full_batch, parts):
    batch, expected, _ = full_batch
    program = build("mlm_nsp", options=PLAIN, training={"microbatches": parts})
    result = jax.device_get(program.step(state(program), batch))
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5, atol=2e-6),
        result,
        expected,
    )


def test_dropout_is_the_same_in_microbatches(store):
    programs = [
        build("mlm_nsp", options=PLAIN, model={"dropout": 0.3}, training={"microbatches": parts})
        for parts in (1, 4)
    ]
    batch = batches(programs[0], store, 1)[0]
    one, four = (jax.device_get(program.step(state(program), batch)) for program in programs)
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5, atol=2e-6), one, four
    )


@pytest.fixture(scope="module")
def full_batch(store):
    """A batch whose microbatches differ much in weight, one step's result on it, the program."""
    program = build("mlm_nsp", options=PLAIN)
    batch = {name: np.array(values) for name, values in batches(program, store, 1)[0].items()}
    # Row r goes to microbatch r mod parts. Rows 1, 3, 5 and 7 keep one of several targets.
    batch["weights"][1::2, 1:] = 0.0
    batch = {name: jax.numpy.asarray(values) for name, values in batch.items()}
    return batch, jax.device_get(program.step(state(program), batch)), program


def test_a_mean_of_means_would_fail(full_batch):
    """The gradient of the microbatches' averaged means differs clearly from the true gradient."""
    batch, (_, sums), program = full_batch
    params = numbers(program.shapes["params"])
    parts = [{name: values[first::2] for name, values in batch.items()} for first in (0, 1)]

    @jax.jit
    def gradients(params):
        def losses(params):
            terms = [program.objective.loss(program.model(params), part, None)[0] for part in parts]
            full = sum(
                sum(part[name][0] for part in terms) / sum(part[name][1] for part in terms)
                for name in terms[0]
            )
            return full, sum(
                value / weight for part in terms for value, weight in part.values()
            ) / 2

        return jax.jacrev(losses)(params)

    full, averaged = jax.device_get(gradients(params))
    assert float(optax.tree.norm(full)) == pytest.approx(float(sums["gradient_norm"][0]), rel=1e-5)
    tokens, other = (tree["embedding"]["tokens"] for tree in (full, averaged))
    assert np.linalg.norm(tokens - other) > 0.02 * np.linalg.norm(tokens)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"mesh": {"data": 3}},
            r"config\.mesh asks for data=3, but there are 8 cpu device\(s\); the product must",
        ),
        ({"mesh": {"data": -1, "fsdp": 3}}, r"data=-1 × fsdp=3, but there are 8"),
        ({"mesh": {"data": -1, "fsdp": -1}}, r"config\.mesh: sizes .* at most one is -1"),
        ({"mesh": {"data": 0}}, r"config\.mesh: sizes .* each is a positive number"),
        (
            {"mesh": {"data": 1, "tensor": 8}},
            r"splits stack/blocks/attention/\w+ \(2, 32, 2, 16\) 8 ways along tensor, but 2 is not",
        ),
        (
            {"mesh": {"data": 1, "fsdp": 8}, "model": {"width": 36}},
            r"8 ways along fsdp, but 36 is not a multiple of 8; choose sizes of",
        ),
        (
            {"model": {"vocab_size": 60}},
            r"config\.model\.vocab_size=60 is below the tokenizer's 64",
        ),
        (
            {"model": {"max_length": 16}},
            r"config\.data\.length=32 is longer than config\.model\.max_length=16",
        ),
        (
            {"model": {"name": "encoder"}},
            r"objective 'clm' does not run on model 'encoder': .* is causal or prefix,"
            r" and the model has bidirectional; it runs on: decoder$",
        ),
        (
            {"model": {"name": "decodr"}},
            r"no models plug-in is called 'decodr' \(did you mean 'decoder'\?\)",
        ),
        ({"model": {"heads": 3}}, r"config\.model: width=32 is not a multiple of heads=3"),
        ({"model": {"attention": "xl"}}, r"no attention plug-in is called 'xl'"),
        ({"model": {"attention": "mask"}}, r"no attention plug-in is called 'mask'"),
        ({"data": {"length": 8}}, r"config\.data\.length=8 is too short; rows need at least 16"),
        ({"training": {"steps": 0}}, r"config\.training: set exactly one of steps=0 and tokens=0"),
        ({"training": {"microbatches": 3}}, r"batch_size=8 is not a multiple of microbatches=3"),
        (
            {"optimizer": {"clip": -1.0}},
            r"config\.optimizer: clip=-1\.0 must be finite and not negative",
        ),
        ({"optimizer": {"beta9": 1.0}}, r"config\.optimizer\.beta9=1\.0 is not known"),
    ],
)
def test_impossible_configs_are_refused(sections, message):
    with pytest.raises(UserError, match=message):
        Program(config("clm", **sections), Ids(VOCABULARY))


def test_an_option_of_another_objective_is_refused():
    with pytest.raises(UserError, match=r"config\.objective\.rate=0\.2 is not known"):
        Program(config("clm", options={"rate": 0.2}), Ids(VOCABULARY))


@pytest.mark.parametrize(
    ("steps", "tokens", "expected"), [(7, 0, 7), (0, 256, 1), (0, 257, 2), (0, 1, 1)]
)
def test_total_steps(steps, tokens, expected):
    assert TrainingConfig(batch_size=8, steps=steps, tokens=tokens).total_steps(32) == expected


def test_means():
    assert divide_sums({"a": (6.0, 4.0), "none": (0.0, 0.0)}) == {"a": 1.5}


def test_the_loss_is_the_sum_of_factors_and_means():
    assert total_loss(
        {"a": 1.0, "b": 50.0, "none": 2.0}, {"a": 1.5, "b": 0.1, "accuracy": 0.5}
    ) == pytest.approx(6.5)
