"""The commands from a shell: errors, exit status, imported modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lm.core.plugins import UserError
from tpu import environment

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess:
    environ = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=ROOT, env=environ
    )


@pytest.mark.parametrize("module", ["aot", "plan"])
def test_help_loads_nothing_heavy(module):
    code = f"import sys, tpu.{module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert f"tpu.{module}" in loaded and not {name.split(".")[0] for name in loaded} & {
        "jax",
        "flax",
        "grain",
        "orbax",
        "sentencepiece",
    }


def test_lm_does_not_import_tpu():
    for path in (ROOT / "lm").rglob("*.py"):
        assert "from tpu" not in path.read_text(encoding="utf-8"), path


def test_a_missing_compiler_is_an_error_that_names_the_remedy(tmp_path):
    # libtpu seems not to be installed.
    code = (
        "import importlib.metadata as m, runpy, sys\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'libtpu': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "sys.argv = ['tpu.aot', '--config=configs/clm.py:tiny', '--tpu=v5e-4']\n"
        "runpy.run_module('tpu.aot', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (
        done.returncode == 2
        and "libtpu" in done.stderr
        and "pip install -e '.[tpu]' -c constraints.txt" in done.stderr
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tpu.aot", "--tpu=v5e-15"), "Nearest: v5e-16"),
        (("tpu.aot", "--tpu=v5e-4", "--config.mesh.fsdp=3"), "the product must be 4"),
        (
            ("tpu.aot", "--tpu=v5e-4", "--config.mesh.tensor=4", "--config.mesh.data=1"),
            "is not a multiple of 4",
        ),
        (
            ("tpu.aot", "--tpu=v5e-4", "--config.training.batch_size=6"),
            "is not a multiple of the 4 parts",
        ),
        (("tpu.plan", "--tpu=v5e-4", "--price=v5e"), "USD per chip-hour"),
    ],
)
def test_mistakes(arguments, message):
    try:
        environment.check_installed()
    except UserError as error:
        pytest.skip(str(error))
    done = run(arguments[0], "--config=configs/clm.py:tiny", *arguments[1:])
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not done.stdout
