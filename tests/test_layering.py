"""Which module may import which, read from the source: imports inside functions count too."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lm
from lm.parallel import mesh

ROOT = Path(lm.__file__).parent

PLUG_INS = (
    "nn.attention",
    "data.formats",
    "data.sources",
    "models",
    "objectives",
    "optimizers",
    "tasks",
    "tokenizers",
)
MODEL_CODE = ("nn", "models")


def table() -> dict[str, int]:
    """The layer of each room, from the table in CONTRIBUTING.md."""
    text = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
    return {room: int(layer) for layer, rooms in rows for room in re.findall(r"`(\w+)`", rooms)}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """The source of every module, by its name below `lm` ("" for lm itself)."""
    sources = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        sources[name] = ast.parse(path.read_text(encoding="utf-8"))
    return sources


@functools.cache
def imports(module: str) -> frozenset[str]:
    """Full names of all modules that a module imports, except for annotations only."""
    names = set()
    for node in _executed(modules()[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, (
                f"lm.{module} has a relative import, which this test does not resolve"
            )
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = name.startswith("lm.") and name.removeprefix("lm.") in modules()
                names.add(name if is_module else node.module)
    return frozenset(names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The node and its descendants, without the bodies of `if TYPE_CHECKING`."""
    yield node
    if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
        for child in ast.iter_child_nodes(node):
            yield from _executed(child)


def inner(module: str) -> set[str]:
    """Names below `lm` of the modules of `lm` that a module imports."""
    return {
        name.removeprefix("lm").removeprefix(".")
        for name in imports(module)
        if name.split(".")[0] == "lm"
    }


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room(module: str) -> str:
    """The first part of a module's name: "nn" of "nn.attention.mask"."""
    return module.split(".")[0]


def test_the_table_names_all_rooms():
    assert set(table()) == {room(module) for module in modules() if module}


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_downward(module):
    layers = table()
    for imported in inner(module):
        assert imported in modules(), f"lm.{module} imports lm.{imported}, which does not exist"
        own, other = room(module), room(imported)
        if not module or own == other:  # `lm` is the public API, above all rooms
            continue
        assert imported, f"lm.{module} imports the public API"
        assert layers[other] < layers[own], (
            f"lm.{module} (layer {layers[own]}) imports lm.{imported} (layer {layers[other]})"
        )


@pytest.mark.parametrize("module", sorted(modules()))
def test_underscore_modules_stay_in_their_room(module):
    for imported in inner(module):
        *package, name = imported.split(".")
        if name.startswith("_"):
            assert within(module, ".".join(package)), f"lm.{module} imports lm.{imported}"


def test_there_are_no_import_cycles():
    graph = {module: inner(module) - {module} for module in modules()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


@pytest.mark.parametrize("package", PLUG_INS)
def test_plug_ins_do_not_import_their_siblings(package):
    from lm.core import plugins

    plug_ins = {f"{package}.{name}" for name in plugins.names(package)}
    assert plug_ins
    for module in plug_ins:
        assert not (inner(module) & plug_ins) - {module}, f"lm.{module} imports a sibling"
    for module in modules():
        if not within(module, package):
            imported = inner(module) & plug_ins
            assert not imported, f"lm.{module} imports {imported} by name; use plugins.find"


def test_one_module_imports_orbax():
    assert [
        module
        for module in modules()
        if any(name.split(".")[0] == "orbax" for name in imports(module))
    ] == ["training.checkpoint"]


def test_model_code_names_no_mesh_axis():
    for module, source in modules().items():
        if any(within(module, package) for package in MODEL_CODE):
            constants = {
                node.value
                for node in ast.walk(source)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not constants & set(mesh.AXES), f"lm.{module}"
            assert not any(name.startswith("jax.sharding") for name in imports(module)), (
                f"lm.{module}"
            )


def test_nothing_unpickles():
    for module in modules():
        assert not {"pickle", "dill", "cloudpickle", "marshal", "shelve"} & imports(module), (
            f"lm.{module}"
        )


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    ).stdout


def test_lm_alone_loads_nothing_heavy():
    code = (
        "import sys, time; t = time.perf_counter(); import lm;"
        " print(time.perf_counter() - t); print(*sys.modules)"
    )
    # The fastest of three, since other processes may slow one down.
    outputs = [python(code).splitlines() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in outputs) < 0.3
    loaded = {name.split(".")[0] for name in outputs[0][1].split()}
    assert "lm" in loaded and not loaded & {
        "jax",
        "numpy",
        "flax",
        "grain",
        "sentencepiece",
        "absl",
    }


def commands() -> list[str]:
    """Modules that are run with python -m."""
    return [
        module
        for module, source in modules().items()
        if any(
            isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
            for node in source.body
        )
    ]


@pytest.mark.parametrize("command", commands())
def test_commands_load_nothing_heavy_before_they_run(command):
    loaded = {
        name.split(".")[0]
        for name in python(f"import sys, lm.{command}; print(*sys.modules)").split()
    }
    assert "lm" in loaded and not loaded & {
        "jax",
        "flax",
        "grain",
        "orbax",
        "sentencepiece",
        "matplotlib",
        "sklearn",
        "pyarrow",
    }


def test_commands_are_found():
    assert {"train", "evaluate", "compare", "sweep", "preview"} <= set(commands())
