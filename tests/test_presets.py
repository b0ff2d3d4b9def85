"""Parameter counts of the published shapes, and impossible values of TransformerConfig."""

import dataclasses
import math
import subprocess
import sys

import jax
import pytest
from flax import nnx

from lm import presets
from lm.core import plugins
from lm.data.corpus import DataConfig
from lm.nn import heads
from lm.nn.config import TransformerConfig
from lm.nn.layers import Scope
from lm.optimizers.config import OptimizerConfig
from lm.optimizers.schedules import ScheduleConfig
from lm.tokenizers.config import TokenizerConfig

FAMILIES = {"bert": presets.BERT, "gpt2": presets.GPT2, "t5": presets.T5, "llama": presets.LLAMA}


def configured(section) -> TransformerConfig:
    return plugins.configure(TransformerConfig, section, "config.model", skip={"name"})


def parameters(section, masked: bool = False, pair: bool = False) -> int:
    """Parameters of the preset, without allocating any."""
    config = configured(section)

    def build():
        scope = Scope(jax.random.key(0))
        model = plugins.find("models", section["name"]).Model(config, scope)
        if masked:
            model.heads["masked"] = heads.MaskedHead(config, scope)
        if pair:
            model.heads["pair"] = heads.PairHead(config, scope, "first")
        return model

    return sum(math.prod(x.shape) for x in jax.tree.leaves(nnx.state(nnx.eval_shape(build))))


def test_bert_base():
    assert parameters(presets.bert("base"), masked=True) == 109_514_298  # BertForMaskedLM
    assert (
        parameters(presets.bert("base"), masked=True, pair=True) == 110_106_428
    )  # BertForPreTraining


@pytest.mark.parametrize(
    ("family", "size", "expected"),
    [
        ("gpt2", "base", 124_439_808),
        ("gpt2", "large", 354_823_168),
        ("t5", "small", 60_506_624),
        ("t5", "base", 222_903_552),
        ("llama", "small", 134_515_008),  # SmolLM2 135M
        ("llama", "base", 1_235_814_400),  # Llama 3.2 1B
        ("llama", "large", 8_030_261_248),  # Llama 3 8B
    ],
)
def test_parameter_counts(family, size, expected):
    assert parameters(getattr(presets, family)(size)) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [("small", 110_119_680), ("1b", 1_208_027_136), ("base", 1_208_027_136)]
)
def test_parameter_counts_of_the_peers_shapes(size, expected):
    """Layers of 4 D² + 2 D F, or 3 D F with a gate; one or two tables of 32,768 rows; two norms per
    layer and one at the end."""
    assert parameters(presets.peers_run(size, {"name": "clm"}).model) == expected


@pytest.mark.parametrize(
    ("family", "size"), [(family, size) for family, table in FAMILIES.items() for size in table]
)
def test_every_preset_is_a_full_config(family, size):
    section = getattr(presets, family)(size)
    config = configured(section)
    assert section["name"] in plugins.names("models")
    assert set(section) - {"name"} == set(
        {field.name for field in dataclasses.fields(TransformerConfig)}
    )  # so that the command line can set each
    assert config.attention in plugins.names("nn.attention")


def test_options_that_parameter_counts_do_not_show():
    """As in the published configs; golden models of tiny width do not show every epsilon."""
    bert, gpt2, t5, llama = (configured(getattr(presets, family)("base")) for family in FAMILIES)
    assert (bert.norm_place, bert.norm_epsilon, bert.activation, bert.dropout) == (
        "post",
        1e-12,
        "gelu",
        0.1,
    )
    assert (gpt2.norm_place, gpt2.norm_epsilon, gpt2.activation, gpt2.residual_scaled) == (
        "pre",
        1e-5,
        "gelu_tanh",
        True,
    )
    assert (t5.norm, t5.norm_epsilon, t5.activation, t5.relative_buckets, t5.relative_distance) == (
        "rms",
        1e-6,
        "relu",
        32,
        128,
    )
    assert (
        llama.norm,
        llama.norm_epsilon,
        llama.activation,
        llama.rotary_base,
        llama.kv_heads,
    ) == ("rms", 1e-5, "swiglu", 500000.0, 8)


def test_laptop_and_unknown_sizes():
    for name in plugins.names("models"):
        assert (
            parameters(presets.laptop(name).to_dict() | {"vocab_size": 100, "max_length": 16})
            < 2_000_000
        )
    with pytest.raises(ValueError, match="'huge' is not one of tiny, small, base, large"):
        presets.bert("huge")


def test_a_config_takes_no_device():
    """A process that only starts others must leave the chips to them."""
    code = (
        "import sys, lm.presets as p; p.bert_run('base', p.objective('mlm'));"
        " from jax._src import xla_bridge; sys.exit(xla_bridge.backends_are_initialized())"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_sizes_that_are_0_are_derived():
    config = TransformerConfig(width=24, heads=6)
    assert (config.kv_heads, config.head_width, config.feedforward) == (6, 4, 96)
    config = TransformerConfig(width=24, heads=5, kv_heads=1, head_width=7, feedforward=11)
    assert (config.kv_heads, config.head_width, config.feedforward) == (1, 7, 11)


@pytest.mark.parametrize("field", TransformerConfig.CHOICES)
def test_unknown_choices(field):
    with pytest.raises(
        ValueError,
        match=f"{field}='nonsense' is not one of {', '.join(TransformerConfig.CHOICES[field])}",
    ):
        TransformerConfig(**{field: "nonsense"})


REFUSED = [
    ({"width": 0}, "width=0 must be at least 1"),
    ({"layers": 0}, "layers=0 must be at least 1"),
    ({"heads": -1}, "heads=-1 must be at least 1"),
    ({"head_chunks": 0}, "head_chunks=0 must be at least 1"),
    ({"vocab_size": -5}, "vocab_size=-5 must not be negative"),
    ({"feedforward": -5}, "feedforward=-5 must not be negative"),
    ({"max_length": -1}, "max_length=-1 must not be negative"),
    ({"types": -1}, "types=-1 must not be negative"),
    ({"init_std": -0.1}, "init_std=-0.1 must not be negative"),
    ({"embedding_std": -0.1}, "embedding_std=-0.1 must not be negative"),
    ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
    ({"dropout": -0.1}, r"dropout=-0.1 must be in \[0, 1\)"),
    ({"dropout": math.nan}, r"dropout=nan must be in \[0, 1\)"),
    ({"width": 100, "heads": 3}, "width=100 is not a multiple of heads=3.*head_width"),
    ({"heads": 4, "kv_heads": 3}, "heads=4 is not a multiple of kv_heads=3"),
    ({"heads": 4, "kv_heads": 8}, "heads=4 is not a multiple of kv_heads=8"),
    ({"positions": "rotary", "width": 30, "heads": 2}, "even head_width, not 15"),
    ({"positions": "rotary", "rotary_base": 0.0}, "rotary_base=0.0 must be above 1"),
    ({"positions": "relative", "relative_buckets": 2}, "relative_buckets ≥ 4"),
    (
        {"positions": "relative", "relative_distance": 16},
        "relative_distance > relative_buckets / 2",
    ),
    ({"norm_epsilon": 0.0}, "norm_epsilon=0.0 must be above 0"),
    ({"norm_epsilon": -1e-6}, "norm_epsilon=-1e-06 must be above 0"),
    (
        {"query_key_start": "same", "heads": 4, "kv_heads": 2},
        "query_key_start='same' needs kv_heads=4",
    ),
]


@pytest.mark.parametrize(
    ("fields", "message"),
    REFUSED,
    ids=["-".join(f"{k}={v}" for k, v in fields.items()) for fields, _ in REFUSED],
)
def test_impossible_values(fields, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**fields)
    # Through a config it is a user's error, and the message names the section.
    with pytest.raises(plugins.UserError, match=r"config\.model(: |\.dropout=)"):
        configured(fields)


def test_unknown_attention_lists_the_kinds():
    with pytest.raises(plugins.UserError, match="'flush'.*reference, xla"):
        plugins.find("nn.attention", "flush")


@pytest.mark.parametrize(
    ("room", "sections"),
    [
        ("data.sources", [DataConfig]),
        ("tokenizers", [TokenizerConfig]),
        ("optimizers", [OptimizerConfig, ScheduleConfig]),
    ],
)
def test_options_of_plug_ins_do_not_hide_those_of_the_section(room, sections):
    own = {field.name for section in sections for field in dataclasses.fields(section)}
    kinds: dict[str, type] = {}
    for name in plugins.names(room):
        for option, kind in presets._kinds(plugins.find(room, name).Config).items():
            assert option not in own, f"{room}.{name} has the section's option {option}"
            assert kinds.setdefault(option, kind) is kind, f"{option} has two types"
    assert kinds


def test_every_option_of_a_plug_in_is_a_flag():
    run = presets.run(presets.laptop("decoder"), presets.objective("clm"))
    shared = presets.overrides()
    for room, section in (("data.sources", "data"), ("tokenizers", "tokenizer")):
        for name in plugins.names(room):
            options = set(plugins.defaults(plugins.find(room, name).Config))
            assert options <= set(run[section]) and options <= set(shared[section])
    for name in plugins.names("optimizers"):
        assert set(plugins.defaults(plugins.find("optimizers", name).Config)) <= set(run.optimizer)
    assert "split" in run.data and "limit" in shared["data"], "huggingface's own"
