"""Published shapes, and the run config that they go into.

Light by intent: config files import this before anything heavy is loaded.
"""

from ml_collections import ConfigDict, config_dict

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


# Options of objectives, so that any can be overridden on the command line; lm/objectives says what they mean.
LOSS = {"label_smoothing": 0.0, "z_loss": 0.0}
PACKED = {"packing": "greedy", **LOSS}
MASKED = {
    "rate": 0.15, "final_rate": 0.0, "mask_share": 0.8, "random_share": 0.1, "max_predictions": 0, "unit": "token", "span_p": 0.2,
    "span_most": 10, "head": "transform", "format": "packed", **LOSS,
}  # fmt: skip


def _size(table: dict, size: str):
    if size not in table:
        raise ValueError(
            f"size {size!r} is not one of {', '.join(table)} (given after the colon of --config=FILE:SIZE)"
        )
    return table[size]


def bert(size: str) -> ConfigDict:
    """BERT's encoder: post-norm, learned positions, two types, 30,522 words; 512 positions."""
    layers, width, heads, feedforward = _size(BERT, size)
    return _model(
        "encoder", layers=layers, width=width, heads=heads, feedforward=feedforward, vocab_size=30522, max_length=512,
        norm_place="post", norm_epsilon=1e-12, embedding_norm=True, types=2, dropout=0.1,
    )  # fmt: skip


def gpt2(size: str) -> ConfigDict:
    """GPT-2's decoder: pre-norm, learned positions, 50,257 words; 1,024 positions."""
    layers, width, heads, feedforward = _size(GPT2, size)
    return _model(
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
    return _model(
        "encoder_decoder", layers=layers, width=width, heads=heads, head_width=64, feedforward=feedforward, vocab_size=32128,
        positions="relative", norm="rms", norm_epsilon=1e-6, activation="relu", bias=False, attention_scaled=False,
        logits_scaled=True, init_std=0.0, embedding_std=1.0, dropout=0.1,
    )  # fmt: skip


def llama(size: str) -> ConfigDict:
    """Llama's decoder: RMS pre-norm, rotary positions, SwiGLU, grouped queries, no biases; untied head from 8B on."""
    layers, width, heads, kv_heads, feedforward, vocab_size = _size(LLAMA, size)
    return _model(
        "decoder", layers=layers, width=width, heads=heads, kv_heads=kv_heads, feedforward=feedforward, vocab_size=vocab_size,
        positions="rotary", rotary_base=10000.0 if size in ("tiny", "small") else 500000.0, norm="rms", norm_epsilon=1e-5,
        activation="swiglu", bias=False, tied=size != "large",
    )  # fmt: skip


def peers_run(size: str, objective: dict) -> ConfigDict:
    """The Llama-style block without grouped queries, at the shapes of PEERS: bfloat16, each block computed again in the backward pass."""
    layers, width, heads, feedforward, activation, tied, length, rows = _size(PEERS, size)
    model = _model(
        "decoder", layers=layers, width=width, heads=heads, feedforward=feedforward, vocab_size=32768, positions="rotary", norm="rms",
        norm_epsilon=1e-5, activation=activation, bias=False, tied=tied, dtype="bfloat16", remat="full", attention="blocked", head_chunks=8,
    )  # fmt: skip
    return run(
        model, objective, data={"length": length}, tokenizer={"kind": "bpe", "vocab_size": 32768},
        optimizer={"learning_rate": 3e-4, "b2": 0.95, "weight_decay": 0.1, "warmup": 0.01, "final": 0.1},
        training={"batch_size": rows, "steps": 100_000}, mesh={"data": 1, "fsdp": -1},
    )  # fmt: skip


def laptop(name: str) -> ConfigDict:
    """The `:tiny` shape of the shipped recipes: what learns most in a minute on one CPU core (experiments/LOG.md).

    Embeddings start at norm √D and kernels small, so that at first a token's own identity fills the residual stream; W_k starts at W_q, so
    that attention first looks for like tokens.
    """
    return _model(
        name, layers=2, width=64, heads=2, feedforward=256, positions="rotary", norm="rms", bias=False, activation="gelu_tanh",
        embedding_scaled=True, embedding_std=0.125, init_std=0.02, query_key_start="same", types=2 if name == "encoder" else 0,
        scan=False, head_chunks=4,
    )  # fmt: skip


def _model(name: str, **fields) -> ConfigDict:
    """A model section with every field, so that any can be overridden on the command line."""
    import dataclasses

    from lm.nn.config import TransformerConfig

    section = {field.name: field.default for field in dataclasses.fields(TransformerConfig)}
    return ConfigDict({"name": name, **section, **fields})


# Options of single optimisers; one that the chosen optimiser does not know is refused when set.
OPTIMIZER_OPTIONS = (
    "b1",
    "b2",
    "epsilon",
    "weight_decay",
    "embedding_rate",
    "beta",
    "adam_rate",
    "adam_b1",
    "adam_b2",
)

# Options of single sources, likewise.
SOURCE_OPTIONS = {
    int: (
        "seed",
        "documents",
        "pairs",
        "queries",
        "slots",
        "keys",
        "values",
        "noise",
        "kinds",
        "depth",
    ),
    float: ("power", "push", "stop", "sentences"),
}


def run(model: ConfigDict, objective: dict, **sections) -> ConfigDict:
    """A whole run: the model, the objective, and defaults for all else; keyword arguments update sections by name."""
    config = ConfigDict(
        {
            "seed": 0,
            "model": model,
            "objective": objective,
            # An empty string means: the source's default.
            "data": {
                "source": "python_docs", "path": "", "field": "", "packages": "", "name": "", "subset": "", "length": 128,
                "validation": 0.05, "test": 0.05, "cache": "", "workers": 0,
                **{name: config_dict.placeholder(kind) for kind, names in SOURCE_OPTIONS.items() for name in names},
            },
            "tokenizer": {"kind": "unigram", "vocab_size": 4096, "path": "", "sentinels": 100},
            "optimizer": {
                "name": "adamw", "learning_rate": 1e-3, "schedule": "cosine", "warmup": 0.05, "cooldown": 0.3, "final": 0.0,
                "clip": 1.0, **{name: config_dict.placeholder(float) for name in OPTIMIZER_OPTIONS},
            },
            "training": {
                "batch_size": 16, "steps": 0, "tokens": 0, "microbatches": 1, "log_every": 20, "evaluate_every": 0,
                "evaluate_tokens": 65536, "checkpoint_every": 0, "keep": 2, "tensorboard": True, "wandb": False,
            },
            "mesh": {
                "slice": 1, "data": -1, "fsdp": 1, "stage": 1, "context": 1, "tensor": 1, "pipeline_microbatches": 0,
                "pipeline_repeats": 1, "context_attention": "gather",
            },
        }
    )  # fmt: skip
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
