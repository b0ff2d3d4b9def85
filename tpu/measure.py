"""All that is said of one config on one slice, as plain values: what `tpu.aot` prints and `tpu.plan` compares."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lm.core.plugins import UserError
from tpu import compiling, flags, hlo, roofline, work
from tpu.slices import Slice

GIB = 2**30


def measure(
    config: Mapping[str, Any],
    of: Slice,
    options: Mapping[str, str],
    costs: bool = False,
    save: str = "",
) -> dict[str, Any]:
    """Compiles the step and reads the program.

    Args:
      config: plain. options: of the compiler. costs: also count by `compiling.cost`, which compiles twice more. save: a
        file for the program.

    Returns:
      A record; "fits" says whether there is one of "memory", "collectives", "ceilings" and so on.

    Raises:
      UserError: the config does not fit the slice's devices.
    """
    traced = compiling.build(config, of)
    program = traced.program
    rows, devices = program.training.batch_size, of.devices
    record: dict[str, Any] = {
        "tpu": of.name, "topology": of.topology, "slices": of.slices, "chips": of.chips, "devices": devices, "hosts": of.hosts,
        "mesh": {axis: int(size) for axis, size in program.mesh.shape.items()}, "dtype": program.config.dtype,
        "remat": program.config.remat,
        "batch_size": rows, "microbatches": program.training.microbatches, "tokens_per_step": rows * program.row_tokens,
        "parameters": program.parameters, "layers": program.config.layers, "options": dict(options),
        "model_flops": program.flops_per_row * rows / devices, "held": held(traced), "usable_gib": of.chip.usable,
    }  # fmt: skip
    compiled, record["compile_seconds"] = compiling.compile_step(traced, options)
    if isinstance(compiled, compiling.OutOfMemory):
        record |= {
            "fits": False,
            "needs_gib": compiled.needs,
            "has_gib": compiled.has or of.chip.usable,
            "compiler_says": compiled.message,
        }
        return record | {"advice": advice(record, config, of)}
    text = compiled.as_text()
    if save:
        try:
            with open(save, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UserError(f"--save={save!r} cannot be written: {error.strerror}") from error
    module = hlo.Module(text)
    found = module.collectives(traced.layout)
    done = work.Work(module)
    ceilings = roofline.ceilings(of.chip, done.flops, done.traffic, module.cycles(), found)
    seconds, bound = roofline.step(ceilings)
    record |= {
        "fits": True, "memory": memory(compiled, record["held"]),
        "largest": [{"shape": shape, "gib": size / GIB, "from": source} for shape, size, source in module.largest()],
        "collectives": roofline.by_kind(found), "wire_mib": sum(each.count * each.wire for each in found) / 2**20,
        "flops": done.flops, "traffic_gb": done.traffic / 1e9, "unscanned": compiling.cost(config, of, options) if costs else None,
        "unknown_kernels": done.unknown, "unknown_loops": module.loops.count(None), "cycles": module.cycles(),
        "ceilings": ceilings, "step_seconds": seconds, "bound": bound, "mfu": record["model_flops"] / of.chip.peak / seconds,
        "tokens_per_second_per_chip": record["tokens_per_step"] / seconds / of.chips,
    }  # fmt: skip
    return record


def held(traced: compiling.Traced) -> dict[str, float]:
    """GiB that a device holds between steps, and the batch, from the shardings: {"parameters", "optimizer", "batch"}."""
    state, places = traced.program.shapes, traced.program.shardings
    return {
        "parameters": _gib(state["params"], places["params"]),
        "optimizer": _gib(state["opt_state"], places["opt_state"]),
        "batch": _gib(
            traced.batch, {name: shape.sharding for name, shape in traced.batch.items()}
        ),
    }


def _gib(shapes: Any, places: Any) -> float:
    total = 0
    for leaf, place in zip(jax.tree.leaves(shapes), jax.tree.leaves(places), strict=True):
        total += math.prod(place.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
    return total / GIB


def memory(compiled: Any, kept: Mapping[str, float]) -> dict[str, float]:
    """The compiler's account of a device, GiB: "peak"; of it "arguments" (state and batch as they are laid out), "temporary" (gradients,
    activations and all else that lives inside the step), "code"; and "padding" of the arguments over what the shardings say."""
    analysis = compiled.memory_analysis()
    arguments = analysis.argument_size_in_bytes / GIB
    return {
        "peak": analysis.peak_memory_in_bytes / GIB,
        "arguments": arguments,
        "padding": max(0.0, arguments - sum(kept.values())),
        "temporary": analysis.temp_size_in_bytes / GIB,
        "code": analysis.generated_code_size_in_bytes / GIB,
    }


def advice(record: Mapping[str, Any], config: Mapping[str, Any], of: Slice) -> list[str]:
    """What would make a step that does not fit smaller, the most likely first, as flags."""
    mesh, model, training = record["mesh"], config["model"], config["training"]
    state = record["held"]["parameters"] + record["held"]["optimizer"]
    spread = mesh.get("fsdp", 1) * mesh.get("tensor", 1) * mesh.get("stage", 1)
    said = []
    split = mesh.get("data", 1) * mesh.get("fsdp", 1)
    if mesh.get("data", 1) > 1 and state > 0.2 * record["usable_gib"]:
        said.append(
            f"--config.mesh.data=1 --config.mesh.fsdp={split} (parameters and optimiser take {state:.2f} GiB of each device)"
        )
    if model.get("remat", "none") != "full":
        said.append("--config.model.remat=full (keeps less of the forward pass)")
    parts, rows = training.get("microbatches", 1), training["batch_size"]
    each = rows // max(1, split * mesh.get("slice", 1))
    if each > parts and each % (2 * parts) == 0:
        said.append(
            f"--config.training.microbatches={2 * parts} (half the rows at once; {each // parts} a device now)"
        )
    if model.get("head_chunks", 1) < 8:
        said.append("--config.model.head_chunks=8 (scores over the vocabulary in parts)")
    if model.get("dtype") == "float32":
        said.append("--config.model.dtype=bfloat16 (half the activations)")
    words = model["vocab_size"] or config["tokenizer"]["vocab_size"]
    if (
        mesh.get("tensor", 1) == 1
        and spread < record["devices"]
        and not any(size % 2 for size in (words, model["heads"], model["kv_heads"]))
    ):
        said.append("--config.mesh.tensor=2 (splits activations, too)")
    larger = of.larger()
    if larger:
        said.append(f"--tpu={larger} (the next larger slice)")
    return said


def options(of: Slice, given: list[str]) -> dict[str, str]:
    """The compiler options of a slice's generation with the user's."""
    return flags.options(of.generation, given)
