"""The TPU compiler on a machine without a TPU: its environment, what must be installed, and its chatter kept off the terminal.

`prepare` comes before the first import of jax.
"""

import importlib.metadata
import os
import sys

from lm.core.plugins import UserError

INSTALL = "pip install -e '.[tpu]' -c constraints.txt"
# TPU_SKIP_MDS_QUERY, TPU_WORKER_HOSTNAMES: ask no cloud who we are. ALLOW_MULTIPLE_LIBTPU_LOAD: compiles side by side would collide on a
# lock. TPU_ACCELERATOR_TYPE: any known one; without it libtpu warns, and each topology says itself what it is.
VARIABLES = {
    "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16", "TPU_MIN_LOG_LEVEL": "3", "TF_CPP_MIN_LOG_LEVEL": "3",
}  # fmt: skip


def prepare() -> None:
    """Sets the environment and checks what is installed.

    Raises:
      UserError: libtpu is missing, or it is not the version that this jax was built with; the message says what to install.
    """
    os.environ.update(VARIABLES)
    check_installed()


def check_installed() -> None:
    """Checks what is installed; raises as `check`."""
    check(_version("jax"), _version("libtpu"), _wanted())


def check(jax: str | None, libtpu: str | None, wanted: str | None) -> None:
    """Refuses a machine on which programs cannot be compiled for a TPU.

    Args:
      jax, libtpu: installed versions, None where there is none. wanted: the libtpu that jax names in its `tpu` extra, as "0.0.42.*".
    """
    if libtpu is None:
        raise UserError(
            f"libtpu, which holds the TPU compiler, is not installed (no TPU is needed to use it); {INSTALL}"
        )
    if wanted is not None and not _satisfies(libtpu, wanted):
        raise UserError(
            f"libtpu {libtpu} does not go with jax {jax}, which wants libtpu {wanted}; {INSTALL}"
        )


def _satisfies(version: str, wanted: str) -> bool:
    if wanted.endswith(".*"):
        return version == wanted[:-2] or version.startswith(wanted[:-1])
    return version == wanted


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _wanted() -> str | None:
    """What jax's own metadata pin libtpu to, as "0.0.42.*"."""
    for requirement in importlib.metadata.requires("jax") or ():
        name, _, rest = requirement.partition("==")
        if name.strip() == "libtpu":
            return rest.split(";")[0].strip()
    return None


def hush() -> None:
    """For the rest of the process, keeps what libtpu writes to the standard error's file descriptor from the user; Python's own goes on."""
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def versions() -> dict[str, str | None]:
    """Of what turns a config into a program."""
    return {package: _version(package) for package in ("jax", "jaxlib", "libtpu", "flax", "optax")}
