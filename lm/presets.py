"""Published shapes and run recipes, which config files are made of."""

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

# (layers, width, heads, feed-forward). BERT: Devlin et al. 2019 (base, large), Turc et al. 2019 (tiny, small).
BERT = {
    "tiny": (2, 128, 2, 512),
    "small": (4, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
}
# GPT-2, Radford et al. 2019: its smallest (124M) and its medium (355M), which have BERT-base's and -large's depth and width.
GPT2 = BERT
# T5, Raffel et al. 2020, with (layers of each stack, width, heads, feed-forward); head width 64. tiny is ours.
T5 = {
    "tiny": (2, 128, 2, 512),
    "small": (6, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
}
# Llama style: (layers, width, heads, key-value heads, feed-forward, vocabulary). base and large are Llama 3.2 1B and
# Llama 3 8B (Dubey et al. 2024), small is SmolLM2 135M (Allal et al. 2025), tiny is ours.
LLAMA = {
    "tiny": (2, 128, 2, 1, 384, 0),
    "small": (30, 576, 9, 3, 1536, 49152),
    "base": (16, 2048, 32, 8, 8192, 128256),
    "large": (32, 4096, 32, 8, 14336, 128256),
}

# Shapes at which other codebases' train steps were compiled, to be compared with ours (benchmarks/peers.py): (layers, width, heads,
# feed-forward, activation, tied, positions of a row, rows a step). All heads have keys and values of their own. tiny and large are ours.
PEERS = {
    "tiny": (2, 128, 2, 512, "gelu_tanh", True, 128, 16),
    "small": (12, 768, 12, 3072, "gelu_tanh", True, 1024, 32),
    "base": (16, 2048, 16, 8192, "swiglu", False, 2048, 64),
    "large": (32, 4096, 32, 14336, "swiglu", False, 2048, 64),
}
PEERS["1b"] = PEERS["base"]


def _size(table: dict, size: str):
    if size not in table:
        raise ValueError(
            f"size {size!r} is not one of {', '.join(table)} (given after the colon of --config=FILE:SIZE)"
        )
    return table[size]


def bert(size: str) -> ConfigDict:
    """BERT's encoder: post-norm, learned positions, two types, 30,522 words; 512 positions."""
    layers, width, heads, feedforward = _size(BERT, size)
    return model(
        "encoder", layers=layers, width=width, heads=heads, feedforward=feedforward, vocab_size=30522, max_length=512,
        norm_place="post", norm_epsilon=1e-12, embedding_norm=True, types=2, dropout=0.1,
    )  # fmt: skip


def gpt2(size: str) -> ConfigDict:
    """GPT-2's decoder: pre-norm, learned positions, 50,257 words; 1,024 positions."""
    layers, width, heads, feedforward = _size(GPT2, size)
    return model(
        "decoder", layers=layers, width=width, heads=heads, feedforward=feedforward, vocab_size=50257, max_length=1024,
        norm_epsilon=1e-5, activation="gelu_tanh", residual_scaled=True, dropout=0.1,
    )  # fmt: skip


def gpt2_run(size: str, objective: dict) -> ConfigDict:
    """A GPT-2 shape in 100,000 steps of 512 × 1,024 tokens; GPT-2's own training was not published."""
    return run(
        gpt2(size), objective, data={"length": 1024}, tokenizer={"kind": "bpe", "vocab_size": 50257},
        optimizer={"learning_rate": 6e-4, "b2": 0.95, "weight_decay": 0.1, "warmup": 0.01, "final": 0.1},
        training={"batch_size": 512, "steps": 100_000},
    )  # fmt: skip


def t5_run(size: str, objective: dict) -> ConfigDict:
    """T5's published amount (Raffel et al. 2020, section 3.1.2): 2^19 steps of 128 inputs of 512; by AdamW, where T5 had Adafactor."""
    return run(
        t5(size), objective, data={"length": 512}, tokenizer={"vocab_size": 32100}, training={"batch_size": 128, "steps": 2**19},
        optimizer={"learning_rate": 1e-3, "warmup": 0.02},
    )  # fmt: skip


def t5(size: str) -> ConfigDict:
    """T5 1.0's encoder-decoder: RMS pre-norm, relative positions, no biases, 32,128 words."""
    layers, width, heads, feedforward = _size(T5, size)
    return model(
        "encoder_decoder", layers=layers, width=width, heads=heads, head_width=64, feedforward=feedforward, vocab_size=32128,
        positions="relative", norm="rms", norm_epsilon=1e-6, activation="relu", bias=False, attention_scaled=False,
        logits_scaled=True, init_std=0.0, embedding_std=1.0, dropout=0.1,
    )  # fmt: skip


def llama(size: str) -> ConfigDict:
    """Llama's decoder: RMS pre-norm, rotary positions, SwiGLU, grouped queries, no biases; untied head from 8B on."""
    layers, width, heads, kv_heads, feedforward, vocab_size = _size(LLAMA, size)
    return model(
        "decoder", layers=layers, width=width, heads=heads, kv_heads=kv_heads, feedforward=feedforward, vocab_size=vocab_size,
        positions="rotary", rotary_base=10000.0 if size in ("tiny", "small") else 500000.0, norm="rms", norm_epsilon=1e-5,
        activation="swiglu", bias=False, tied=size != "large",
    )  # fmt: skip


def peers_run(size: str, objective: dict) -> ConfigDict:
    """The Llama-style block without grouped queries, at the shapes of PEERS: bfloat16, each block computed again in the backward pass."""
    layers, width, heads, feedforward, activation, tied, length, rows = _size(PEERS, size)
    shape = model(
        "decoder", layers=layers, width=width, heads=heads, feedforward=feedforward, vocab_size=32768, positions="rotary", norm="rms",
        norm_epsilon=1e-5, activation=activation, bias=False, tied=tied, dtype="bfloat16", remat="full", attention="blocked", head_chunks=8,
    )  # fmt: skip
    return run(
        shape, objective, data={"length": length}, tokenizer={"kind": "bpe", "vocab_size": 32768},
        optimizer={"learning_rate": 3e-4, "b2": 0.95, "weight_decay": 0.1, "warmup": 0.01, "final": 0.1},
        training={"batch_size": rows, "steps": 100_000}, mesh={"data": 1, "fsdp": -1},
    )  # fmt: skip


def laptop(name: str) -> ConfigDict:
    """The `:tiny` shape of the shipped recipes: what learns most in a minute on one CPU core (experiments/LOG.md).

    Embeddings start at norm √D and kernels small, so that at first a token's own identity fills the residual stream; W_k starts at W_q, so
    that attention first looks for like tokens.
    """
    return model(
        name, layers=2, width=64, heads=2, feedforward=256, positions="rotary", norm="rms", bias=False, activation="gelu_tanh",
        embedding_scaled=True, embedding_std=0.125, init_std=0.02, query_key_start="same", types=2 if name == "encoder" else 0,
        scan=False, head_chunks=4,
    )  # fmt: skip


def model(name: str, **fields: Any) -> ConfigDict:
    """A model section with every option, so that each can be overridden on the command line.

    Args:
      name: a plug-in of lm/models.
      **fields: values other than the defaults.
    """
    config = plugins.find("models", name).Model.Config
    return ConfigDict({"name": name, **plugins.defaults(config), **fields})


def objective(name: str, **options: Any) -> dict[str, Any]:
    """An objective section with every option of the plug-in.

    Args:
      name: a plug-in of lm/objectives.
      **options: values other than the defaults.

    Raises:
      UserError: there is no such objective, or it has no such option.
    """
    config = plugins.find("objectives", name).Config
    plugins.configure(config, options, f"objective {name!r}")
    return {"name": name, **plugins.defaults(config), **options}


def masking(**options: Any) -> dict[str, Any]:
    """Options of an objective on masked tokens (lm/objectives/_masked.py), for a member of others."""
    section = objective("mntp", **options)
    del section["name"]
    return section


def _kinds(config: type) -> dict[str, type]:
    """Types of a dataclass's options as a flag gives them; lists are typed as "a,b"."""
    hints = typing.get_type_hints(config)
    return {
        name: hints[name] if hints[name] in (bool, int, float) else str
        for name in plugins.defaults(config)
    }


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


def overrides() -> dict[str, dict[str, Any]]:
    """Fields that an experiment's `shared` section may set for all arms, none set.

    Left out is what differs between arms or follows from the budget.
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


def run(model: ConfigDict, objective: Mapping[str, Any], **sections: Any) -> ConfigDict:
    """A whole run.

    Args:
      model: a section as from `bert`, `gpt2`, `t5`, `llama` or `laptop`.
      objective: a section as from `objective`.
      **sections: fields of other sections to set, as training={"steps": 100}; or a top-level value.

    Returns:
      A config with every option of every section. An option whose value is "" or None is not set.
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


def laptop_run(name: str, objective: dict, learning_rate: float) -> ConfigDict:
    """A `:tiny` run: the laptop shape on the model `name`, trained alike for every objective but for the learning rate."""
    return run(
        laptop(name), objective, tokenizer={"vocab_size": 2048}, training={"tokens": 1_200_000, "batch_size": 8},
        optimizer={
            "name": "muon", "learning_rate": learning_rate, "adam_rate": 0.1, "embedding_rate": 3.0, "schedule": "linear", "warmup": 0.05,
        },
    )  # fmt: skip


def bert_run(size: str, objective: dict) -> ConfigDict:
    """BERT's published training (Devlin et al. 2019, appendix A.2): a million steps of 256 × 512 tokens, Adam at 1e-4 with linear decay."""
    return run(
        bert(size), objective, data={"length": 512}, tokenizer={"vocab_size": 30522}, training={"batch_size": 256, "steps": 1_000_000},
        optimizer={"learning_rate": 1e-4, "weight_decay": 0.01, "warmup": 0.01, "schedule": "linear"},
    )  # fmt: skip
