"""Our models with the weights of the golden files (tests/golden/make.py)."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm import presets
from lm.core import plugins
from lm.nn import heads, layers
from lm.nn.config import TransformerConfig

SIZES = {"width": 32, "layers": 2, "heads": 4, "vocab_size": 67, "max_length": 20}
# Golden file → preset and the options that differ from it and from SIZES.
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (presets.bert("tiny"), {"feedforward": 64}),
    "gpt2": (presets.gpt2("tiny"), {"feedforward": 128}),
    "t5": (presets.t5("tiny"), {"feedforward": 48, "head_width": 8}),
    # "large" is the size with an untied head.
    "llama": (presets.llama("large"), {"feedforward": 48, "kv_heads": 2}),
}


def load(name: str, **options: Any) -> tuple[Any, dict[str, jax.Array], dict[str, np.ndarray]]:
    """Returns our model of a preset with the golden file's weights.

    Args:
      name: the golden file, a key of MODELS.
      options: further options of the model.

    Returns:
      (model, inputs, expected outputs).
    """
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as file:
        parts: dict[str, dict] = {"param": {}, "input": {}, "expect": {}}
        for key in file.files:
            part, path = key.split("/", 1)
            parts[part][path] = file[key]
    preset, sizes = MODELS[name]
    section = preset.to_dict() | SIZES | sizes | options
    config = plugins.configure(TransformerConfig, section, "config.model", skip={"name"})
    model = nnx.eval_shape(lambda: build(section["name"], config, with_heads=name == "bert"))
    graphdef, state = nnx.split(model)
    params = {
        tuple(path.split("/")): jnp.asarray(value, jnp.float32)
        for path, value in parts["param"].items()
    }
    shapes = {path: variable.shape for path, variable in nnx.to_flat_state(state)}
    # Parameters and golden values match one to one: a wrong option would add or drop some.
    assert shapes == {path: value.shape for path, value in params.items()}
    inputs = {key: jnp.asarray(value) for key, value in parts["input"].items()}
    return nnx.merge(graphdef, nnx.traversals.unflatten_mapping(params)), inputs, parts["expect"]


def build(architecture: str, config: TransformerConfig, with_heads: bool) -> Any:
    """A model with parameters of key 0; `with_heads` adds BERT's two heads."""
    scope = layers.Scope(jax.random.key(0))
    model = plugins.find("models", architecture).Model(config, scope)
    if with_heads:
        model.heads = nnx.Dict(
            masked=heads.MaskedHead(config, scope / "masked"),
            pair=heads.PairHead(config, scope / "pair", "first"),
        )
    return model
