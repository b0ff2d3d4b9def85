"""FLOPs by formula against the compiler's count, for every objective on every model it runs on."""

import jax
import numpy as np
import pytest
from flax import nnx
from small_corpus import Ids, config, random_store

from lm.comparison import accounting
from lm.core import compatibility, plugins
from lm.core.plugins import UserError
from lm.data import loader
from lm.nn import flops
from lm.nn.config import TransformerConfig
from lm.nn.layers import Scope
from lm.training.program import Program

LENGTH, BATCH, VOCABULARY, SENTINELS = 64, 2, 768, 40
CONFIG = TransformerConfig(
    vocab_size=VOCABULARY,
    width=256,
    layers=1,
    heads=2,
    max_length=LENGTH,
    scan=False,
    norm="rms",
    bias=False,
    activation="relu",
)
NAMES = [name for name in plugins.names("objectives") if name != "biphasic"]
PAIRS = [(name, model) for name in NAMES for model in compatibility.models(name)]
# Members for the models that the default mixture does not run on.
OPTIONS = {
    ("mixture", "encoder"): {"members": {"mlm": {}, "nsp": {}, "rtd": {}}},
    ("mixture", "encoder_decoder"): {"members": {"span_corruption": {}, "prefix_lm": {}}},
}
VARIANTS = [
    ("rtd", "encoder", {"variant": "replace_mlm"}),
    ("rtd", "encoder", {"variant": "all_tokens_mlm"}),
    ("mlm", "encoder", {"head": "plain", "rate": 0.4}),
    ("mixture", "encoder", {"members": {"mlm": {"head": "plain"}, "mntp": {}}}),
]


@pytest.fixture(scope="module")
def store():
    return random_store(VOCABULARY - SENTINELS - 3, 60)


def make(name: str, model: str, **options):
    return compatibility.make(
        {"name": name, **OPTIONS.get((name, model), {}), **options},
        Ids(VOCABULARY, SENTINELS),
        LENGTH,
        model,
    )


def architecture(model: str):
    return plugins.find("models", model).Model


def counted(objective, model: str, store, backward: bool = False) -> float:
    """FLOPs of a row as the compiler counts them."""

    def build():
        scope = Scope(jax.random.key(0))
        made = plugins.find("models", model).Model(CONFIG, scope)
        made.heads = nnx.Dict(objective.heads(CONFIG, scope / "heads"))
        return made

    graph, params = nnx.split(nnx.eval_shape(build))
    plan = objective.plan(store)
    row = loader.examples(objective, store, plan, 0)[0]
    batch = {
        name: jax.ShapeDtypeStruct((BATCH, *np.shape(value)), value.dtype)
        for name, value in row.items()
    }

    def loss(params, batch):
        terms, _ = objective.loss(nnx.merge(graph, params), batch, None)
        return sum(
            objective.terms[name] * value / weight for name, (value, weight) in terms.items()
        )

    function = jax.grad(loss) if backward else loss
    # Skips optimisation of machine code, which is not run; FLOPs are counted on the optimised
    # graph.
    quick = {"xla_backend_optimization_level": 0}
    return jax.jit(function).lower(params, batch).compile(quick).cost_analysis()["flops"] / BATCH


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_forward(store, name, model):
    objective = make(name, model)
    assert objective.flops(architecture(model), CONFIG) == pytest.approx(
        counted(objective, model, store), rel=0.03
    )


@pytest.mark.parametrize(("name", "model", "options"), VARIANTS)
def test_forward_of_variants(store, name, model, options):
    objective = make(name, model, **options)
    assert objective.flops(architecture(model), CONFIG) == pytest.approx(
        counted(objective, model, store), rel=0.03
    )


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("clm", "decoder"),
        ("mlm", "encoder"),
        ("span_corruption", "encoder_decoder"),
        ("rtd", "encoder"),
    ],
)
def test_forward_and_backward(store, name, model):
    objective = make(name, model)
    assert flops.training(objective.flops(architecture(model), CONFIG)) == pytest.approx(
        counted(objective, model, store, backward=True), rel=0.03
    )


@pytest.mark.parametrize(
    ("model", "first", "second"),
    [
        ("decoder", "clm", "mlm"),
        ("encoder", "mlm", "rtd"),
        ("encoder_decoder", "prefix_lm", "span_corruption"),
    ],
)
def test_biphasic_is_the_weighted_sum_of_its_members(model, first, second):
    both = make("biphasic", model, first=first, second=second, share=0.3)
    assert both.flops(architecture(model), CONFIG) == round(
        0.3 * make(first, model).flops(architecture(model), CONFIG)
        + 0.7 * make(second, model).flops(architecture(model), CONFIG)
    )


def test_targets_are_counted_to_the_given_precision(monkeypatch):
    """Rows of the hybrid have all tokens as targets, or some: few rows do not give the mean."""
    program = Program(config("hybrid", model={"layers": 1}), Ids(VOCABULARY), jax.devices()[:1])
    rows = random_store(VOCABULARY - 3, 200)
    expected = accounting._targets(program, rows, 5_000).mean()
    assert accounting.loss_tokens(program, rows, 0.02) == pytest.approx(expected, rel=0.06)
    # A run with a first phase of CLM and a second of MLM: the difference between them is no error.
    phases = Program(config("biphasic", model={"layers": 1}), Ids(VOCABULARY), jax.devices()[:1])
    assert (
        0
        < accounting.loss_tokens(phases, rows, 0.02)
        < accounting.loss_tokens(phases, rows, 0.5) * 1.1
    )
    assert accounting._relative_error(accounting._targets(program, rows, accounting.ROWS)) > 0.02
    monkeypatch.setattr(accounting, "MAX_ROWS", 1024)
    with pytest.raises(
        UserError,
        match=r"1,024 rows do not give its mean to 0\.01%; set a larger config\.budget\.tolerance",
    ):
        accounting.loss_tokens(program, rows, 1e-4)
    causal = Program(config("clm", model={"layers": 1}), Ids(VOCABULARY), jax.devices()[:1])
    assert accounting.loss_tokens(causal, rows) == pytest.approx(
        accounting._targets(causal, rows, 2048).mean(), rel=0.02
    )
