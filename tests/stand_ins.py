"""A corpus, an objective and a program without text or compilation, for tests of tasks."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from small_corpus import Ids

from lm.core import compatibility, plugins
from lm.core.protocols import Objective, Tokenizer
from lm.data.corpus import Corpus
from lm.data.store import Store
from lm.parallel import mesh as meshes
from lm.training.program import Program


def corpus(tokenizer: Tokenizer, stores: Mapping[str, Store], source: str = "") -> Corpus:
    """A corpus of these stores, without text."""
    return Corpus(source, tokenizer, dict(stores), {}, "", Path())


def objective(mask: str, scores: tuple[str, ...]) -> Objective:
    """An objective of this mask and these scores."""
    made: Any = copy.copy(compatibility.make({"name": "clm"}, Ids(), 32, "decoder"))
    made.mask, made.scores = mask, scores
    return made


class StandInProgram(Program):
    """As much of a program as laying out rows takes: nothing is compiled.

    Args:
      mask: of the objective.
      model: name of the model plug-in.
      scores: of the objective.
    """

    def __init__(
        self, mask: str = "causal", model: str = "decoder", scores: tuple[str, ...] = ("causal",)
    ):
        self.objective = objective(mask, scores)
        self.model_name, self.architecture = model, plugins.find("models", model).Model
        self.mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:1])
        self.batch_sharding = jax.NamedSharding(self.mesh, jax.P())
