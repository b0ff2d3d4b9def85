"""The TPU compiler on a machine without a TPU: environment, installation check, quiet output.

Call `prepare` before the first import of jax.
"""

import importlib.metadata
import os
import sys

from lm.core.plugins import UserError

INSTALL = "pip install -e '.[tpu]' -c constraints.txt"
# TPU_SKIP_MDS_QUERY, TPU_WORKER_HOSTNAMES: do not query the cloud's metadata server.
# ALLOW_MULTIPLE_LIBTPU_LOAD: parallel compilations would otherwise collide on a lock.
# TPU_ACCELERATOR_TYPE: any valid type; libtpu warns without one. Topologies name their own type.
VARIABLES = {
    "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_MIN_LOG_LEVEL": "3", "TF_CPP_MIN_LOG_LEVEL": "3",
}  # fmt: skip


def prepare() -> None:
    """Sets the environment and checks the installation.

    Raises:
      UserError: libtpu is missing, or is not the version that this jax requires.
    """
    os.environ.update(VARIABLES)
    check_installed()


def check_installed() -> None:
    """Checks the installed versions.

    Raises:
      UserError: libtpu is missing, or is not the version that this jax requires.
    """
    check(_version("jax"), _version("libtpu"), _required())


def check(jax: str | None, libtpu: str | None, required: str | None) -> None:
    """Checks that these versions can compile for a TPU.

    Args:
      jax: the installed version of jax; None if missing.
      libtpu: the installed version of libtpu; None if missing.
      required: the version of libtpu that jax's `tpu` extra requires, for example "0.0.42.*"; None
        if unknown.

    Raises:
      UserError: libtpu is missing or has another version; the message has the command that installs
        the required version.
    """
    if libtpu is None:
        raise UserError(
            "libtpu, which holds the TPU compiler, is not installed (no TPU is needed to use it);"
            f" {INSTALL}"
        )
    if required is not None and not _satisfies(libtpu, required):
        raise UserError(
            f"libtpu {libtpu} does not work with jax {jax}, which requires libtpu {required};"
            f" {INSTALL}"
        )


def _satisfies(version: str, required: str) -> bool:
    if required.endswith(".*"):
        return version == required[:-2] or version.startswith(required[:-1])
    return version == required


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _required() -> str | None:
    """The version of libtpu that jax's metadata requires, for example "0.0.42.*"."""
    for requirement in importlib.metadata.requires("jax") or ():
        name, _, rest = requirement.partition("==")
        if name.strip() == "libtpu":
            return rest.split(";")[0].strip()
    return None


def silence_stderr() -> None:
    """Discards what libtpu writes to the standard error's file descriptor, until the process ends.

    Python's `sys.stderr` still reaches the user.
    """
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    os.close(devnull)


def versions() -> dict[str, str | None]:
    """Versions of the packages that turn a config into a compiled program."""
    return {package: _version(package) for package in ("jax", "jaxlib", "libtpu", "flax", "optax")}
