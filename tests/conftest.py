"""For every test: eight CPU devices, warnings as errors, no implicit rank promotion, checked types."""

import os
import sys
from pathlib import Path

import jaxtyping

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

sys.path.insert(0, str(Path(__file__).parent))  # helper modules of the tests are beside this file

# Rooms whose annotations are checked at run time.
CHECKED = ["lm.parallel"]

jaxtyping.install_import_hook(
    CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)  # before any import of lm

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
