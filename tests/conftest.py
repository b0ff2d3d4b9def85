"""Eight CPU devices, warnings as errors, implicit rank promotion refused: for every test."""

import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

sys.path.insert(0, str(Path(__file__).parent))  # helper modules of the tests lie beside this file

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
