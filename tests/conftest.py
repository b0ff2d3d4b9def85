"""For every test: eight CPU devices, no implicit rank promotion, run-time type checks."""

import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

sys.path.insert(0, str(Path(__file__).parent))  # helper modules of the tests are beside this file

import jax
import jaxtyping

jax.config.update("jax_numpy_rank_promotion", "raise")

# Rooms whose annotations, with the shapes of arrays, are checked in every call.
#
# - The hook must be installed before any import of lm. It wraps every function and method, and
#   `__init__` of dataclasses; making a NamedTuple is not checked. The wrapper is below other
#   decorators, so under jit it runs while tracing, at no cost later.
# - An annotation that is a string and cannot be resolved counts as Any: nothing is checked, and
#   nothing is reported. So annotations name real classes, imported at module level.
# - Protocols need @runtime_checkable. Only the presence of their members is checked, in every call
#   (properties are evaluated). Test doubles must be subclasses, or complete for a protocol.
# - Generics come from collections.abc: beartype warns of typing's, and warnings are errors.
# - JAX rebuilds a dataclass of jax.tree_util.register_dataclass through `__init__`, with any
#   leaves: shapes, None, specs (tree.map, eval_shape, in_axes of vmap). Where that happens its
#   array fields must allow it (Any), or the class is marked with typing.no_type_check.
# - Cost: not measurable where functions are traced (tests/nn/test_layers.py with lm.nn); 20 to
#   100 µs for a call, 200 µs with a Tokenizer: tests of code that runs in Python for each row take
#   1.5 times as long (tests/data/test_loader.py with the rooms below it).
CHECKED = [
    "lm.comparison",
    "lm.core.command",
    "lm.core.compatibility",
    "lm.core.files",
    "lm.core.plain",
    "lm.core.plugins",
    "lm.data",
    "lm.evaluation",
    "lm.finetuning",
    "lm.inference",
    "lm.models",
    "lm.nn",
    "lm.objectives",
    "lm.optimizers",
    "lm.parallel",
    "lm.presets",
    "lm.report",
    "lm.stats",
    "lm.tasks",
    "lm.tokenizers",
    "lm.training",
]
jaxtyping.install_import_hook(CHECKED, "type_checks.checked")
