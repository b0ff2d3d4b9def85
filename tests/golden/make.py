"""Writes the golden files of tests/nn/test_golden.py, from Hugging Face `transformers`.

The models are tiny, with random weights. Run this by hand, only when a golden model changes; the
tests need neither torch nor transformers:

    python3.11 -m venv golden-venv
    golden-venv/bin/pip install torch==2.13.0 transformers==5.23.0 numpy==2.4.6
    golden-venv/bin/python tests/golden/make.py

The files here were written with exactly these versions (CPU builds) and Python 3.11. Nothing is
downloaded: each model is made from a config. Every parameter is random, norms and biases too, so
that a zero or a one hides no wrong mapping. Weights are rounded to float16 before the model runs in
float32: the files are half as large and hold them exactly.

The arrays of a file have one of three prefixes: `param/…` with the parameter's path in lm (layers
stacked), `input/…` and `expect/…`. Segments are numbered as in lm: from 1; 0 is padding.
"""

import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers

LAYERS, WIDTH, HEADS, VOCABULARY, LENGTH, ROWS = 2, 32, 4, 67, 16, 2
BUCKETS = ((32, 128), (8, 20), (16, 64), (64, 256))  # (relative_buckets, relative_distance)
HERE = Path(__file__).parent
# Parameters by path, inputs, and expected outputs.
Parts = tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, torch.Tensor]]
IGNORED = -100  # targets that the losses of transformers skip


def main() -> None:
    for name, make in {"bert": bert, "gpt2": gpt2, "t5": t5, "llama": llama}.items():
        torch.manual_seed(0)
        params, inputs, expected = make()
        arrays = {f"param/{key}": value.astype(np.float16) for key, value in params.items()}
        arrays |= {f"input/{key}": value for key, value in inputs.items()}
        arrays |= {f"expect/{key}": value.detach().numpy() for key, value in expected.items()}
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
        size = (HERE / f"{name}.npz").stat().st_size
        parameters = sum(x.size for x in params.values())
        print(f"{name}.npz: {size:,} bytes, {parameters:,} parameters")


def bert() -> Parts:
    """BertForPreTraining on pairs with types, and padding at the end of the second row."""
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, intermediate_size=64, max_position_embeddings=LENGTH + 4,
        attn_implementation="eager",
    )  # fmt: skip
    model, w = randomised(transformers.BertForPreTraining(config))
    params = {
        "embedding/tokens": w["bert.embeddings.word_embeddings.weight"],
        "embedding/positions": w["bert.embeddings.position_embeddings.weight"],
        "embedding/types": w["bert.embeddings.token_type_embeddings.weight"],
        **norm(w, "embedding/norm", "bert.embeddings.LayerNorm"),
        "heads/masked/kernel": w["cls.predictions.transform.dense.weight"].T,
        "heads/masked/bias": w["cls.predictions.transform.dense.bias"],
        **norm(w, "heads/masked/norm", "cls.predictions.transform.LayerNorm"),
        "heads/masked/output_bias": w["cls.predictions.bias"],
        "heads/pair/kernel": w["bert.pooler.dense.weight"].T,
        "heads/pair/bias": w["bert.pooler.dense.bias"],
        "heads/pair/output": w["cls.seq_relationship.weight"].T,
        "heads/pair/output_bias": w["cls.seq_relationship.bias"],
    }
    for index in range(LAYERS):
        prefix = f"bert.encoder.layer.{index}."
        block: dict[str, np.ndarray] = {}
        for ours, theirs in (("query", "query"), ("key", "key"), ("value", "value")):
            block[f"attention/{ours}"] = into_heads(
                w[f"{prefix}attention.self.{theirs}.weight"].T, HEADS
            )
            block[f"attention/{ours}_bias"] = w[f"{prefix}attention.self.{theirs}.bias"].reshape(
                HEADS, -1
            )
        block["attention/out"] = out_of_heads(w[prefix + "attention.output.dense.weight"].T, HEADS)
        block["attention/out_bias"] = w[prefix + "attention.output.dense.bias"]
        block |= norm(w, "attention_norm", prefix + "attention.output.LayerNorm")
        block["feedforward/up"] = w[prefix + "intermediate.dense.weight"].T
        block["feedforward/up_bias"] = w[prefix + "intermediate.dense.bias"]
        block["feedforward/down"] = w[prefix + "output.dense.weight"].T
        block["feedforward/down_bias"] = w[prefix + "output.dense.bias"]
        block |= norm(w, "feedforward_norm", prefix + "output.LayerNorm")
        stack(params, "stack/blocks", block)

    tokens = ids(ROWS, LENGTH)
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[1, -5:] = 0
    types = np.zeros((ROWS, LENGTH), np.int32)
    types[0, 7:], types[1, 4:11] = 1, 1
    targets, weights = ids(ROWS, LENGTH), np.zeros((ROWS, LENGTH), np.float32)
    weights[0, [1, 8, 15]], weights[1, [2, 9]] = 1, 1
    pair_targets = np.asarray([1, 0], np.int32)
    out = model(
        input_ids=tensor(tokens), attention_mask=tensor(segments > 0), token_type_ids=tensor(types),
        labels=tensor(np.where(weights > 0, targets, IGNORED)),
        next_sentence_label=tensor(pair_targets),
    )  # fmt: skip
    inputs = dict(
        tokens=tokens,
        segments=segments,
        types=types,
        targets=targets,
        weights=weights,
        pair_targets=pair_targets,
    )
    expected = dict(
        logits=out.prediction_logits, pair_logits=out.seq_relationship_logits, loss=out.loss
    )

    def masked(sentence: list[int], position: int) -> torch.Tensor:
        row = [1, *sentence[:position], 3, *sentence[position + 1 :], 2]  # [CLS] … [MASK] … [SEP]
        return model(input_ids=torch.tensor([row])).prediction_logits.log_softmax(-1)[
            0, position + 1, sentence[position]
        ]

    scores = [
        sum(masked(sentence, position) for position in range(len(sentence)))
        for sentence in sentences(tokens)
    ]
    return params, inputs | ragged(tokens), expected | dict(sentence_scores=torch.stack(scores))


def gpt2() -> Parts:
    """GPT2LMHeadModel on two full rows."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=LENGTH + 4,
        bos_token_id=0, eos_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    model, w = randomised(transformers.GPT2LMHeadModel(config))
    params = {
        "embedding/tokens": w["transformer.wte.weight"],
        "embedding/positions": w["transformer.wpe.weight"],
        **norm(w, "stack/norm", "transformer.ln_f"),
    }
    for index in range(LAYERS):
        prefix = f"transformer.h.{index}."
        block: dict[str, np.ndarray] = {}
        kernels = np.split(w[prefix + "attn.c_attn.weight"], 3, axis=1)
        biases = np.split(w[prefix + "attn.c_attn.bias"], 3)
        for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
            block[f"attention/{name}"], block[f"attention/{name}_bias"] = (
                into_heads(kernel, HEADS),
                bias.reshape(HEADS, -1),
            )
        block["attention/out"] = out_of_heads(w[prefix + "attn.c_proj.weight"], HEADS)
        block["attention/out_bias"] = w[prefix + "attn.c_proj.bias"]
        block |= norm(w, "attention_norm", prefix + "ln_1") | norm(
            w, "feedforward_norm", prefix + "ln_2"
        )
        for ours, theirs in (("up", "c_fc"), ("down", "c_proj")):
            block[f"feedforward/{ours}"] = w[f"{prefix}mlp.{theirs}.weight"]
            block[f"feedforward/{ours}_bias"] = w[f"{prefix}mlp.{theirs}.bias"]
        stack(params, "stack/blocks", block)
    tokens = ids(ROWS, LENGTH)
    out = model(input_ids=tensor(tokens), labels=tensor(tokens))

    def causal(sentence: list[int]) -> torch.Tensor:
        row = [0, *sentence[:-1]]  # 0 is bos
        log_p = model(input_ids=torch.tensor([row])).logits.log_softmax(-1)[0]
        return log_p[torch.arange(len(sentence)), torch.tensor(sentence)].sum()

    scores = torch.stack([causal(sentence) for sentence in sentences(tokens)])
    return (
        params,
        dict(tokens=tokens) | ragged(tokens),
        dict(logits=out.logits, loss=out.loss, sentence_scores=scores),
    )


def t5() -> Parts:
    """T5ForConditionalGeneration, version 1.0.

    The inputs are long enough for the logarithmic buckets; the second one is padded.
    """
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=8, d_ff=48, num_layers=LAYERS, num_heads=HEADS,
        decoder_start_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    assert (
        config.scale_decoder_outputs
        and config.tie_word_embeddings
        and config.feed_forward_proj == "relu"
    )
    model, w = randomised(transformers.T5ForConditionalGeneration(config))
    params = {"embedding/tokens": w["shared.weight"]}
    for ours, theirs in (("encoder", "encoder"), ("stack", "decoder")):
        bias = f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        params |= norm(w, f"{ours}/norm", f"{theirs}.final_layer_norm") | {
            f"{ours}/relative/table": w[bias]
        }
        for index in range(LAYERS):
            block: dict[str, np.ndarray] = {}
            parts = (
                ["SelfAttention", "DenseReluDense"]
                if ours == "encoder"
                else ["SelfAttention", "EncDecAttention", "DenseReluDense"]
            )
            for number, part in enumerate(parts):
                prefix = f"{theirs}.block.{index}.layer.{number}."
                name = {
                    "SelfAttention": "attention",
                    "EncDecAttention": "cross",
                    "DenseReluDense": "feedforward",
                }[part]
                block |= norm(w, f"{name}_norm", prefix + "layer_norm")
                if name == "feedforward":
                    block |= {
                        "feedforward/up": w[f"{prefix}{part}.wi.weight"].T,
                        "feedforward/down": w[f"{prefix}{part}.wo.weight"].T,
                    }
                    continue
                for kernel, short in (("query", "q"), ("key", "k"), ("value", "v")):
                    block[f"{name}/{kernel}"] = into_heads(
                        w[f"{prefix}{part}.{short}.weight"].T, HEADS
                    )
                block[f"{name}/out"] = out_of_heads(w[f"{prefix}{part}.o.weight"].T, HEADS)
            stack(params, f"{ours}/blocks", block)

    sources, targets = ids(ROWS, 48), ids(ROWS, 24)
    segments = np.ones(sources.shape, np.int32)
    segments[1, -9:] = 0
    tokens = np.concatenate(
        [np.zeros((ROWS, 1), np.int32), targets[:, :-1]], axis=1
    )  # T5 starts from the padding id
    out = model(
        input_ids=tensor(sources),
        attention_mask=tensor(segments > 0),
        decoder_input_ids=tensor(tokens),
        labels=tensor(targets),
    )
    offsets = torch.arange(-300, 301)
    buckets = {
        f"buckets_{name}": torch.stack(
            [
                model.encoder.block[0]
                .layer[0]
                .SelfAttention._relative_position_bucket(offsets, name == "both", count, distance)
                for count, distance in BUCKETS
            ]
        ).to(torch.int8)
        for name in ("both", "causal")
    }
    inputs = dict(
        sources=sources,
        source_segments=segments,
        tokens=tokens,
        targets=targets,
        buckets=np.asarray(BUCKETS, np.int32),
    )
    return (
        params,
        inputs,
        dict(memory=out.encoder_last_hidden_state, logits=out.logits, loss=out.loss, **buckets),
    )


def llama() -> Parts:
    """LlamaForCausalLM with grouped queries and an untied head."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=2, max_position_embeddings=64,
        rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        attn_implementation="eager",
    )  # fmt: skip
    model, w = randomised(transformers.LlamaForCausalLM(config))
    params = {
        "embedding/tokens": w["model.embed_tokens.weight"],
        "embedding/unembed": w["lm_head.weight"],
        **norm(w, "stack/norm", "model.norm"),
    }
    for index in range(LAYERS):
        prefix = f"model.layers.{index}."
        block: dict[str, np.ndarray] = {}
        for ours, theirs, heads in (("query", "q", HEADS), ("key", "k", 2), ("value", "v", 2)):
            block[f"attention/{ours}"] = into_heads(
                w[f"{prefix}self_attn.{theirs}_proj.weight"].T, heads
            )
        block["attention/out"] = out_of_heads(w[prefix + "self_attn.o_proj.weight"].T, HEADS)
        block |= norm(w, "attention_norm", prefix + "input_layernorm")
        block |= norm(w, "feedforward_norm", prefix + "post_attention_layernorm")
        block |= {
            f"feedforward/{name}": w[f"{prefix}mlp.{name}_proj.weight"].T
            for name in ("up", "gate", "down")
        }
        stack(params, "stack/blocks", block)
    tokens = ids(ROWS, LENGTH)
    out = model(input_ids=tensor(tokens), labels=tensor(tokens))
    return params, dict(tokens=tokens), dict(logits=out.logits, loss=out.loss)


def randomised(model: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """The model in evaluation mode with random parameters, and these as NumPy arrays by name."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = (
                1.0
                if "norm" in name.lower()
                and name.endswith("weight")
                or ".ln_" in name
                and name.endswith("weight")
                else 0.0
            )
            values = centre + 0.2 * torch.randn(parameter.shape)
            parameter.copy_(values.to(torch.float16).to(torch.float32))
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    return model.eval(), weights


def norm(weights: dict[str, np.ndarray], ours: str, theirs: str) -> dict[str, np.ndarray]:
    """Scale and, if there is one, bias of a norm."""
    scale = {f"{ours}/scale": weights[f"{theirs}.weight"]}
    return scale | (
        {f"{ours}/bias": weights[f"{theirs}.bias"]} if f"{theirs}.bias" in weights else {}
    )


def into_heads(kernel: np.ndarray, heads: int) -> np.ndarray:
    """[D, heads · H] → [D, heads, H]."""
    return kernel.reshape(kernel.shape[0], heads, -1)


def out_of_heads(kernel: np.ndarray, heads: int) -> np.ndarray:
    """[heads · H, D] → [heads, H, D]."""
    return kernel.reshape(heads, -1, kernel.shape[1])


def stack(params: dict[str, np.ndarray], where: str, block: dict[str, np.ndarray]) -> None:
    """Appends a layer's arrays to those of the earlier layers."""
    for name, value in block.items():
        path = f"{where}/{name}"
        params[path] = (
            np.concatenate([params[path], value[None]]) if path in params else value[None]
        )


SIZES = (
    3,
    9,
    14,
)  # lengths of sentences: prefixes of rows, so that no more random numbers are used


def sentences(tokens: np.ndarray) -> list[list[int]]:
    """Sentences of SIZES tokens, scored one at a time."""
    return [tokens[index % ROWS, :size].tolist() for index, size in enumerate(SIZES)]


def ragged(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """The sentences as arrays: rows that hold them, and their lengths."""
    rows = np.stack([tokens[index % ROWS] for index in range(len(SIZES))])
    return {"sentences": rows, "sentence_lengths": np.asarray(SIZES, np.int32)}


def ids(rows: int, length: int) -> np.ndarray:
    """Random token ids, without the padding id 0."""
    return torch.randint(1, VOCABULARY, (rows, length)).numpy().astype(np.int32)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).long()


if __name__ == "__main__":
    main()
