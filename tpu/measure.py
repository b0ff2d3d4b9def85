"""The record of one config on one slice: `tpu.aot` prints it, `tpu.plan` compares records."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lm.core.plugins import UserError
from tpu import compiling, hlo, hlo_cost, roofline
from tpu import flags as compiler_flags
from tpu.slices import Slice

GIB = 2**30


def measure(
    config: Mapping[str, Any],
    tpu: Slice,
    options: Mapping[str, str],
    costs: bool = False,
    save: str = "",
) -> dict[str, Any]:
    """Compiles the step and analyzes the program.

    Args:
      config: a run config as a dict.
      tpu: the slice.
      options: compiler options.
      costs: whether to call `compiling.cost` too, which compiles twice more.
      save: path of a file for the program's text; "" writes no file.

    Returns:
      A record. If "fits" is true, it has "memory", "collectives", "ceilings" and so on; otherwise
      it has "needs_gib", "has_gib", "compiler_says" and "advice".

    Raises:
      UserError: the config does not fit the slice's devices, or the file cannot be written.
    """
    traced = compiling.build(config, tpu)
    program = traced.program
    rows, devices = program.training.batch_size, tpu.devices
    record: dict[str, Any] = {
        "tpu": tpu.name, "topology": tpu.topology, "slices": tpu.slices, "chips": tpu.chips,
        "devices": devices, "hosts": tpu.hosts,
        "mesh": {axis: int(size) for axis, size in program.mesh.shape.items()},
        "dtype": program.config.dtype, "remat": getattr(program.config, "remat", "none"),
        "batch_size": rows, "microbatches": program.training.microbatches,
        "tokens_per_step": rows * program.row_tokens, "parameters": program.parameters,
        "layers": program.config.layers, "options": dict(options),
        "model_flops": program.flops_per_row * rows / devices, "held": resident_gib(traced),
        "usable_gib": tpu.chip.usable,
    }  # fmt: skip
    compiled, record["compile_seconds"] = compiling.compile_step(traced, options)
    if isinstance(compiled, compiling.OutOfMemory):
        record |= {
            "fits": False,
            "needs_gib": compiled.needs,
            "has_gib": compiled.has or tpu.chip.usable,
            "compiler_says": compiled.message,
        }
        return record | {"advice": advice(record, config, tpu)}
    text = compiled.as_text() or ""
    if save:
        try:
            with open(save, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UserError(f"--save={save!r} cannot be written: {error.strerror}") from error
    module = hlo.Module(text)
    collectives = module.collectives(traced.layout)
    total = hlo_cost.Cost(module)
    bounds = roofline.time_bounds(
        tpu.chip, total.flops, total.traffic, module.cycles(), collectives
    )
    seconds, bound = roofline.step(bounds)
    record |= {
        "fits": True, "memory": memory(compiled, record["held"]),
        "largest": [
            {"shape": shape, "gib": size / GIB, "from": source}
            for shape, size, source in module.largest()
        ],
        "collectives": roofline.by_kind(collectives),
        "wire_mib": sum(item.count * item.wire for item in collectives) / 2**20,
        "flops": total.flops, "traffic_gb": total.traffic / 1e9,
        "unscanned": compiling.cost(config, tpu, options) if costs else None,
        "unknown_kernels": total.unknown, "unknown_loops": module.loops.count(None),
        "cycles": module.cycles(), "ceilings": bounds, "step_seconds": seconds, "bound": bound,
        "mfu": record["model_flops"] / tpu.chip.peak / seconds,
        "tokens_per_second_per_chip": record["tokens_per_step"] / seconds / tpu.chips,
    }  # fmt: skip
    return record


def resident_gib(traced: compiling.Traced) -> dict[str, float]:
    """Returns the GiB resident on a device between steps, from the shardings.

    Args:
      traced: the traced program.

    Returns:
      {"parameters", "optimizer", "batch"}.
    """
    state, shardings = traced.program.shapes, traced.program.shardings
    return {
        "parameters": _gib(state["params"], shardings["params"]),
        "optimizer": _gib(state["opt_state"], shardings["opt_state"]),
        "batch": _gib(traced.batch, {name: shape.sharding for name, shape in traced.batch.items()}),
    }


def _gib(shapes: Any, shardings: Any) -> float:
    total = 0
    for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True):
        total += math.prod(sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
    return total / GIB


def memory(compiled: jax.stages.Compiled, state: Mapping[str, float]) -> dict[str, float]:
    """Returns a device's memory in GiB, as the compiler reports it.

    Args:
      compiled: the compiled step.
      state: result of `resident_gib`, in GiB.

    Returns:
      "peak"; parts of it: "arguments" (state and batch in their layouts), "temporary" (gradients,
      activations and all else inside the step) and "code"; and "padding": the arguments beyond what
      the shardings imply.
    """
    analysis: Any = compiled.memory_analysis()
    arguments = analysis.argument_size_in_bytes / GIB
    return {
        "peak": analysis.peak_memory_in_bytes / GIB,
        "arguments": arguments,
        "padding": max(0.0, arguments - sum(state.values())),
        "temporary": analysis.temp_size_in_bytes / GIB,
        "code": analysis.generated_code_size_in_bytes / GIB,
    }


def advice(record: Mapping[str, Any], config: Mapping[str, Any], tpu: Slice) -> list[str]:
    """Returns flags that would make a step smaller, the most effective first.

    Args:
      record: the record of a step that does not fit.
      config: run config of the step as a dict.
      tpu: the slice.
    """
    mesh, model, training = record["mesh"], config["model"], config["training"]
    state = record["held"]["parameters"] + record["held"]["optimizer"]
    spread = mesh.get("fsdp", 1) * mesh.get("tensor", 1) * mesh.get("stage", 1)
    flags = []
    split = mesh.get("data", 1) * mesh.get("fsdp", 1)
    if mesh.get("data", 1) > 1 and state > 0.2 * record["usable_gib"]:
        flags.append(
            f"--config.mesh.data=1 --config.mesh.fsdp={split} (parameters and optimizer take"
            f" {state:.2f} GiB of each device)"
        )
    if model.get("remat", "none") != "full":
        flags.append("--config.model.remat=full (keeps less of the forward pass)")
    parts, rows = training.get("microbatches", 1), training["batch_size"]
    device_rows = rows // max(1, split * mesh.get("slice", 1))
    if device_rows > parts and device_rows % (2 * parts) == 0:
        flags.append(
            f"--config.training.microbatches={2 * parts} (half the rows at once;"
            f" {device_rows // parts} per device now)"
        )
    if model.get("head_chunks", 1) < 8:
        flags.append("--config.model.head_chunks=8 (logits in parts)")
    if model.get("dtype") == "float32":
        flags.append("--config.model.dtype=bfloat16 (half the activations)")
    vocabulary = model["vocab_size"] or config["tokenizer"]["vocab_size"]
    if (
        mesh.get("tensor", 1) == 1
        and spread < record["devices"]
        and not any(size % 2 for size in (vocabulary, model["heads"], model["kv_heads"]))
    ):
        flags.append("--config.mesh.tensor=2 (splits activations, too)")
    larger = tpu.larger()
    if larger:
        flags.append(f"--tpu={larger} (the next larger slice)")
    return flags


def options(tpu: Slice, given: Sequence[str]) -> dict[str, str]:
    """Returns the compiler options of a slice's generation, overridden by the user's.

    Args:
      tpu: the slice.
      given: the user's options, "name=value"; an empty value removes the option.

    Raises:
      UserError: an option has no "=".
    """
    return compiler_flags.options(tpu.generation, given)
