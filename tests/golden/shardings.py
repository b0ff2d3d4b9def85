"""Writes the golden files of shardings: how a mesh splits the parameters and optimizer state.

There is one file for each config at its size "base".

    PYTHONPATH=tests python -m golden.shardings

tests/parallel/test_shardings.py compares. Write the files again when a rule, a layer or a config
changes; `git diff` then shows which arrays moved.
"""

import runpy
from pathlib import Path

import jax
from small_corpus import Ids

from lm.core.plain import plain
from lm.parallel import mesh as meshes
from lm.training.checkpoint import flatten
from lm.training.program import Program

HERE = Path(__file__).parent / "shardings"
CONFIGS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs").glob("*.py"))
MESH = {"slice": 1, "data": 1, "fsdp": 2, "stage": 2, "context": 1, "tensor": 2}


def table(name: str) -> str:
    """A line for each array: path, shape, mesh axes that split each dimension ("-": none)."""
    get_config = runpy.run_path(str(Path(__file__).parents[2] / "configs" / f"{name}.py"))[
        "get_config"
    ]
    config = plain(get_config("base"))
    config["mesh"] |= MESH
    # Round the vocabulary up so that "tensor" divides it; GPT-2's 50,257 is odd.
    words = -(-max(config["model"]["vocab_size"], config["tokenizer"]["vocab_size"]) // 128) * 128
    config["model"]["vocab_size"] = words
    program = Program(config, Ids(words, config["tokenizer"]["sentinels"]), jax.devices()[:8])
    mesh = ", ".join(f"{axis} {size}" for axis, size in program.mesh.shape.items() if size > 1)
    lines = [f"# {name}:base on {mesh}"]
    shapes, shardings = flatten(program.shapes), flatten(program.shardings)
    follows = 0
    for path, leaf in shapes.items():
        parameter = "params/" + path.partition("/mu/" if "/mu/" in path else "/nu/")[2]
        if (
            path.startswith("opt_state")
            and parameter in shapes
            and shardings[parameter] == shardings[path]
        ):
            follows += 1
            continue
        spec = [
            entry if isinstance(entry, tuple) else (entry,) if entry else ()
            for entry in shardings[path].spec
        ]
        spec += [()] * (len(leaf.shape) - len(spec))
        split = [
            " × ".join(axis for axis in axes if program.mesh.shape[axis] > 1) or "-"
            for axes in spec
        ]
        lines.append(f"{path}  [{', '.join(map(str, leaf.shape))}]  ({', '.join(split)})")
    lines.append(
        f"# {follows} arrays of the optimizer are sharded like their parameters;"
        " the others are above"
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    assert set(MESH) == set(meshes.AXES)
    for name in CONFIGS:
        (HERE / f"{name}.txt").write_text(table(name), encoding="utf-8")
        print(HERE / f"{name}.txt")


if __name__ == "__main__":
    main()
