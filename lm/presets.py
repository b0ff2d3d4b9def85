"""Published model shapes and training recipes, from which config files are made.

A shape (`bert`, `gpt2`, `t5`, `llama`, `laptop`) is the `model` section of a config. A recipe
(`bert_run`, `gpt2_run`, `t5_run`, `peers_run`, `laptop_run`) is a full config: a shape, an
objective, and how to train. `run` makes a full config from any model section.
"""

import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from lm.core import plugins
from lm.data.corpus import DataConfig
from lm.nn.config import TransformerConfig
from lm.optimizers.config import OptimizerConfig
from lm.optimizers.schedules import ScheduleConfig
from lm.parallel.mesh import MeshConfig
from lm.tokenizers.config import TokenizerConfig
from lm.training.program import TrainingConfig


def _table(columns: str, **rows: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
    """Returns the options of shapes by size.

    Args:
      columns: names of the options, separated by spaces.
      **rows: values of the options for each size.
    """
    return {size: dict(zip(columns.split(), row, strict=True)) for size, row in rows.items()}


# base, large: Devlin et al. 2019. tiny, small: Turc et al. 2019.
BERT = _table(
    "layers width heads feedforward",
    tiny=(2, 128, 2, 512),
    small=(4, 512, 8, 2048),
    base=(12, 768, 12, 3072),
    large=(24, 1024, 16, 4096),
)

# Radford et al. 2019: base is GPT-2 (124M), large is GPT-2 medium (355M). They have the depth and
# the width of BERT base and large.
GPT2 = BERT

# Raffel et al. 2020; layers are counted per stack. tiny is ours.
T5 = _table(
    "layers width heads head_width feedforward",
    tiny=(2, 128, 2, 64, 512),
    small=(6, 512, 8, 64, 2048),
    base=(12, 768, 12, 64, 3072),
    large=(24, 1024, 16, 64, 4096),
)

# small: SmolLM2 135M (Allal et al. 2025). base, large: Llama 3.2 1B and Llama 3 8B (Dubey et al.
# 2024). tiny is ours.
LLAMA = _table(
    "layers width heads kv_heads feedforward vocab_size rotary_base tied",
    tiny=(2, 128, 2, 1, 384, 0, 10_000.0, True),
    small=(30, 576, 9, 3, 1536, 49_152, 10_000.0, True),
    base=(16, 2048, 32, 8, 8192, 128_256, 500_000.0, True),
    large=(32, 4096, 32, 8, 14_336, 128_256, 500_000.0, False),
)

# Shapes at which train steps of other codebases were compiled, to compare them with ours
# (benchmarks/peers.py), with the length and the batch size. tiny and large are ours.
PEERS = _table(
    "length batch_size layers width heads feedforward activation tied",
    tiny=(128, 16, 2, 128, 2, 512, "gelu_tanh", True),
    small=(1024, 32, 12, 768, 12, 3072, "gelu_tanh", True),
    base=(2048, 64, 16, 2048, 16, 8192, "swiglu", False),
    large=(2048, 64, 32, 4096, 32, 14_336, "swiglu", False),
)
PEERS["1b"] = PEERS["base"]


def _row(table: dict[str, dict[str, Any]], size: str) -> dict[str, Any]:
    if size not in table:
        raise ValueError(
            f"size {size!r} is not one of {', '.join(table)}"
            " (given after the colon of --config=FILE:SIZE)"
        )
    return table[size]


# Shapes.


def model(name: str, **fields: Any) -> ConfigDict:
    """Makes a model section with all options, so that flags can override each of them.

    Args:
      name: name of a plug-in of lm/models.
      **fields: values of options that differ from the defaults.
    """
    config = plugins.find("models", name).Model.Config
    return ConfigDict({"name": name, **plugins.defaults(config), **fields})


def bert(size: str) -> ConfigDict:
    """BERT's encoder: post-norm, learned positions, two segment types; 512 positions.

    Args:
      size: size of the model, a row of BERT.
    """
    return model(
        "encoder", **_row(BERT, size), vocab_size=30_522, max_length=512, norm_place="post",
        norm_epsilon=1e-12, embedding_norm=True, types=2, dropout=0.1,
    )  # fmt: skip


def gpt2(size: str) -> ConfigDict:
    """GPT-2's decoder: pre-norm, learned positions; 1,024 positions.

    Args:
      size: size of the model, a row of GPT2.
    """
    return model(
        "decoder", **_row(GPT2, size), vocab_size=50_257, max_length=1024, norm_epsilon=1e-5,
        activation="gelu_tanh", residual_scaled=True, dropout=0.1,
    )  # fmt: skip


def t5(size: str) -> ConfigDict:
    """T5 1.0's encoder-decoder: RMS pre-norm, relative positions, no biases.

    Args:
      size: size of the model, a row of T5.
    """
    return model(
        "encoder_decoder", **_row(T5, size), vocab_size=32_128, positions="relative", norm="rms",
        norm_epsilon=1e-6, activation="relu", bias=False, attention_scaled=False,
        logits_scaled=True, init_std=0.0, embedding_std=1.0, dropout=0.1,
    )  # fmt: skip


def llama(size: str) -> ConfigDict:
    """Llama's decoder: RMS pre-norm, rotary positions, SwiGLU, grouped-query attention, no biases.

    Args:
      size: size of the model, a row of LLAMA.
    """
    return model(
        "decoder", **_row(LLAMA, size), positions="rotary", norm="rms", norm_epsilon=1e-5,
        activation="swiglu", bias=False,
    )  # fmt: skip


def laptop(name: str) -> ConfigDict:
    """The `:tiny` shape of the shipped configs, which learns the most in a minute on one CPU core.

    experiments/LOG.md has the measurements. Embeddings start with norm √D, and kernels start small,
    so that initially the residual stream represents mostly the token itself. W_k is initialized as
    W_q, so that tokens initially attend to similar tokens.

    Args:
      name: name of a plug-in of lm/models.
    """
    return model(
        name, layers=2, width=64, heads=2, feedforward=256, positions="rotary", norm="rms",
        bias=False, activation="gelu_tanh", embedding_scaled=True, embedding_std=0.125,
        init_std=0.02, query_key_start="same", types=2 if name == "encoder" else 0, scan=False,
        head_chunks=4,
    )  # fmt: skip


# Objectives.


def objective(name: str, **options: Any) -> dict[str, Any]:
    """Makes an objective section with every option of the plug-in.

    Args:
      name: name of a plug-in of lm/objectives.
      **options: values of options that differ from the defaults.

    Raises:
      UserError: there is no such objective, or it has no such option.
    """
    config = plugins.find("objectives", name).Config
    plugins.configure(config, options, f"objective {name!r}")
    return {"name": name, **plugins.defaults(config), **options}


def masking(**options: Any) -> dict[str, Any]:
    """Makes options of masking, head and loss for a masked-token member of an objective.

    Args:
      **options: values of options that differ from mntp's defaults.

    Raises:
      UserError: there is no such option.
    """
    section = objective("mntp", **options)
    del section["name"]
    return section


# Recipes.


def run(model: ConfigDict, objective: Mapping[str, Any], **sections: Any) -> ConfigDict:
    """Makes a full config.

    Args:
      model: a model section, as from `bert`, `gpt2`, `t5`, `llama` or `laptop`.
      objective: an objective section, as from `objective`.
      **sections: options of other sections that differ from the defaults, such as
        training={"steps": 100}; or a top-level value, such as seed=1.

    Returns:
      A config with every option of every section. The value "" or None means "not set".
    """
    config = ConfigDict(
        {
            "seed": 0,
            "model": model,
            "objective": objective,
            "data": {**_unset(_plug_in_kinds("data.sources")), **plugins.defaults(DataConfig)},
            "tokenizer": {
                **_unset(_plug_in_kinds("tokenizers")),
                **plugins.defaults(plugins.find("tokenizers", TokenizerConfig.kind).Config),
                **plugins.defaults(TokenizerConfig),
            },
            "optimizer": {
                **_unset(_plug_in_kinds("optimizers")),
                **plugins.defaults(ScheduleConfig),
                **plugins.defaults(OptimizerConfig),
            },
            "training": plugins.defaults(TrainingConfig),
            "mesh": plugins.defaults(MeshConfig),
        }
    )
    for name, fields in sections.items():
        if isinstance(fields, dict):
            config[name].update(fields)
        else:
            config[name] = fields
    return config


def laptop_run(name: str, objective: Mapping[str, Any], learning_rate: float) -> ConfigDict:
    """A `:tiny` run, the same for all objectives except for the learning rate.

    Args:
      name: name of a plug-in of lm/models.
      objective: an objective section, as from `objective`.
      learning_rate: Muon's peak learning rate, that of the matrices.
    """
    return run(
        laptop(name), objective,
        tokenizer={"vocab_size": 2048},
        training={"tokens": 1_200_000, "batch_size": 8},
        optimizer={"name": "muon", "learning_rate": learning_rate, "adam_rate": 0.1,
                   "embedding_rate": 3.0, "schedule": "linear", "warmup": 0.05},
    )  # fmt: skip


def bert_run(size: str, objective: Mapping[str, Any]) -> ConfigDict:
    """BERT's published training: a million steps of 256 × 512 tokens.

    Devlin et al. 2019, appendix A.2: Adam at 1e-4 with linear decay.

    Args:
      size: size of the model, a row of BERT.
      objective: an objective section, as from `objective`.
    """
    return run(
        bert(size), objective,
        data={"length": 512},
        tokenizer={"vocab_size": 30_522},
        training={"batch_size": 256, "steps": 1_000_000},
        optimizer={"learning_rate": 1e-4, "weight_decay": 0.01, "warmup": 0.01,
                   "schedule": "linear"},
    )  # fmt: skip


def gpt2_run(size: str, objective: Mapping[str, Any]) -> ConfigDict:
    """A GPT-2 shape trained for 100,000 steps of 512 × 1,024 tokens.

    The recipe is ours: GPT-2's own training was not published.

    Args:
      size: size of the model, a row of GPT2.
      objective: an objective section, as from `objective`.
    """
    return run(
        gpt2(size), objective,
        data={"length": 1024},
        tokenizer={"kind": "bpe", "vocab_size": 50_257},
        training={"batch_size": 512, "steps": 100_000},
        optimizer={"learning_rate": 6e-4, "b2": 0.95, "weight_decay": 0.1, "warmup": 0.01,
                   "final": 0.1},
    )  # fmt: skip


def t5_run(size: str, objective: Mapping[str, Any]) -> ConfigDict:
    """T5's published amount of training: 2^19 steps of 128 inputs of 512 tokens.

    Raffel et al. 2020, section 3.1.2. The optimizer is AdamW; T5 used Adafactor.

    Args:
      size: size of the model, a row of T5.
      objective: an objective section, as from `objective`.
    """
    return run(
        t5(size), objective,
        data={"length": 512},
        tokenizer={"vocab_size": 32_100},
        training={"batch_size": 128, "steps": 2**19},
        optimizer={"learning_rate": 1e-3, "warmup": 0.02},
    )  # fmt: skip


def peers_run(size: str, objective: Mapping[str, Any]) -> ConfigDict:
    """A Llama-style model without grouped-query attention, for comparison with other codebases.

    In bfloat16; the backward pass recomputes each block.

    Args:
      size: size of the model, a row of PEERS.
      objective: an objective section, as from `objective`.
    """
    row = dict(_row(PEERS, size))
    length, batch_size = row.pop("length"), row.pop("batch_size")
    shape = model(
        "decoder", **row, vocab_size=32_768, positions="rotary", norm="rms",
        norm_epsilon=1e-5, bias=False, dtype="bfloat16", remat="full", attention="blocked",
        head_chunks=8,
    )  # fmt: skip
    return run(
        shape, objective,
        data={"length": length},
        tokenizer={"kind": "bpe", "vocab_size": 32_768},
        training={"batch_size": batch_size, "steps": 100_000},
        optimizer={"learning_rate": 3e-4, "b2": 0.95, "weight_decay": 0.1, "warmup": 0.01,
                   "final": 0.1},
        mesh={"data": 1, "fsdp": -1},
    )  # fmt: skip


# Options that flags can set.


def overrides() -> dict[str, dict[str, Any]]:
    """Returns the options, all unset, that an experiment's `shared` section may set for all arms.

    The result excludes options that differ between arms or follow from the budget.
    """
    sections = {
        "data": _plug_in_kinds("data.sources") | _kinds(DataConfig),
        "tokenizer": _plug_in_kinds("tokenizers") | _kinds(TokenizerConfig),
        "model": {
            name: kind
            for name, kind in _kinds(TransformerConfig).items()
            if name in ("dtype", "attention", "remat", "head_chunks", "scan", "dropout")
        },
        "training": {
            name: kind
            for name, kind in _kinds(TrainingConfig).items()
            if name not in ("steps", "tokens", "wandb")
        },
        "mesh": _kinds(MeshConfig),
    }
    return {
        section: {name: config_dict.placeholder(kind) for name, kind in kinds.items()}
        for section, kinds in sections.items()
    }


def _kind(hint: Any) -> type:
    """Type of an option as flags give it; a list is a string such as "a,b"."""
    arms = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((arm for arm in arms if arm in (bool, int, float)), str)


def _kinds(config: type) -> dict[str, type]:
    """Types of a dataclass's options as flags give them."""
    hints = typing.get_type_hints(config)
    return {name: _kind(hints[name]) for name in plugins.defaults(config)}


def _plug_in_kinds(room: str) -> dict[str, type]:
    """Types of the options of all plug-ins of a room.

    Raises:
      TypeError: two plug-ins have an option of the same name but of different types.
    """
    kinds: dict[str, type] = {}
    for name in plugins.names(room):
        for option, kind in _kinds(plugins.find(room, name).Config).items():
            if kinds.setdefault(option, kind) is not kind:
                raise TypeError(f"{room}: plug-ins disagree on the type of option {option!r}")
    return kinds


def _unset(kinds: Mapping[str, type]) -> dict[str, Any]:
    """Options without a value, which flags can set."""
    return {
        name: "" if kind is str else config_dict.placeholder(kind) for name, kind in kinds.items()
    }
