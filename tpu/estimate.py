"""Lower bounds of a step's memory and time by formula.

The bounds are used only to order candidates, and are never reported as results.

Memory is a lower bound, so that no plan that could fit is rejected. Times assume an ideal program:
matmuls at peak, every collective once, at the bandwidth of all links of two dimensions. P
parameters, B rows, T tokens, D width, L layers. Every formula is for one device.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

from lm.core.plugins import UserError
from lm.nn import flops
from lm.nn.config import TransformerConfig
from lm.parallel import pipeline
from lm.parallel.chips import Chip
from lm.training.program import Program
from tpu.slices import Slice

GIB = 2**30
# Policies of lm/nn/remat.py that keep the results of matmuls, or more. The others recompute all
# matmuls of a layer.
_KEEPS_MATMULS = ("none", "attention", "minimal", "dots")


@dataclasses.dataclass(frozen=True)
class ModelSizes:
    """Properties of a config that do not depend on the mesh.

    Attributes:
      parameters: number of parameters, P.
      inner: number of parameters in the layers.
      state: bytes of parameters and optimizer state.
      forward: FLOPs of a step's forward pass over all rows.
      stack: FLOPs of `forward` in the layers.
      rows: number of rows of a batch, B.
      streams: number of tokens per row that pass through the layers.
      length: number of tokens per row of data.
      layers: number of layers, L.
      width: width of the hidden states, D.
      feedforward: width of the feed-forward layer.
      heads: number of attention heads.
      kv_heads: number of key-value heads.
      head_width: width of an attention head.
      predictions: number of tokens per row for which logits are computed.
      vocabulary: size of the vocabulary, V.
      itemsize: bytes of one element of an activation.
    """

    parameters: int
    inner: int
    state: int
    forward: float
    stack: float
    rows: int
    streams: int
    length: int
    layers: int
    width: int
    feedforward: int
    heads: int
    kv_heads: int
    head_width: int
    predictions: int
    vocabulary: int
    itemsize: int

    @classmethod
    def from_program(cls, program: Program, batch: Mapping[str, Any]) -> Self:
        """Returns the sizes of a program, on any mesh.

        Args:
          program: program of a config.
          batch: shapes of the program's batch.

        Raises:
          UserError: the model is not a Transformer.
        """
        import jax
        import numpy as np

        config = program.config
        if not isinstance(config, TransformerConfig):
            raise UserError(
                f"the planner's formulas hold for Transformers only, but config.model.name="
                f"{program.model_name!r} is not one; use tpu.aot"
            )
        leaves = jax.tree_util.tree_leaves_with_path(program.shapes["params"])
        inner = sum(
            math.prod(leaf.shape) for path, leaf in leaves if "blocks" in jax.tree_util.keystr(path)
        )
        state = sum(
            math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
            for part in ("params", "opt_state")
            for leaf in jax.tree.leaves(program.shapes[part])
        )
        forward = program.flops_per_row / flops.training(1)
        predictions = max(
            (shape.shape[1] for name, shape in batch.items() if name.endswith("targets")), default=0
        )
        rows = program.training.batch_size
        head = flops.head(config, predictions)
        return cls(
            program.parameters, inner, state, forward * rows,
            max(forward - head, 0.5 * forward) * rows, rows, program.row_tokens, program.length,
            config.layers, config.width, config.feedforward, config.heads, config.kv_heads,
            config.head_width, predictions, config.vocab_size,
            2 if config.dtype == "bfloat16" else 4,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
    """The planner's choices: devices along each mesh axis, and how the step is computed.

    The attributes are fields of the config's sections mesh, model and training.
    """

    slice: int = 1
    data: int = 1
    fsdp: int = 1
    stage: int = 1
    context: int = 1
    tensor: int = 1
    pipeline_microbatches: int = 0
    pipeline_repeats: int = 1
    remat: str = "none"
    microbatches: int = 1
    head_chunks: int = 1

    @property
    def mesh(self) -> tuple[int, ...]:
        """Devices along each axis."""
        return self.slice, self.data, self.fsdp, self.stage, self.context, self.tensor

    @property
    def split(self) -> int:
        """The number of parts into which the rows are split."""
        return self.slice * self.data * self.fsdp * self.stage

    def sections(self) -> dict[str, dict[str, Any]]:
        """The fields of the config that the plan sets, by section."""
        mesh = {
            name: getattr(self, name)
            for name in ("slice", "data", "fsdp", "stage", "context", "tensor")
        }
        mesh |= {
            "pipeline_microbatches": self.pipeline_microbatches,
            "pipeline_repeats": self.pipeline_repeats,
        }
        model = {"remat": self.remat, "head_chunks": self.head_chunks}
        return {"mesh": mesh, "model": model, "training": {"microbatches": self.microbatches}}

    def flags(self, base: Mapping[str, Mapping[str, Any]] | None = None) -> list[str]:
        """Returns the plan as command-line flags.

        Args:
          base: sections of a config; fields of the plan that agree with it are omitted, except mesh
            sizes above 1.
        """
        sections = self.sections()
        flags = []
        for section, fields in sections.items():
            for name, value in fields.items():
                same = base is not None and base[section].get(name) == value
                if not same or (section == "mesh" and value not in (0, 1)):
                    flags.append(f"--config.{section}.{name}={value}")
        return flags


def memory(sizes: ModelSizes, plan: Plan) -> float:
    """Returns a lower bound of the memory that a device needs, in GiB.

    The bound is the device's part of the state, plus the larger of gradients and residuals of the
    backward pass.

    Args:
      sizes: sizes of the model.
      plan: the plan.
    """
    spread = plan.fsdp * plan.tensor * plan.stage
    rows = sizes.rows / (plan.split * plan.microbatches)
    # Outside the pipeline the stages split the rows. Inside it each stage holds its own layers for
    # all rows. Both give the same bytes.
    cell = rows * sizes.streams / (plan.context * plan.tensor) * sizes.itemsize
    kept = sizes.layers * cell * sizes.width
    if plan.remat in _KEEPS_MATMULS:
        inner = sizes.feedforward + (sizes.heads + sizes.kv_heads) * sizes.head_width
        kept += sizes.layers * cell * inner
    logits = (
        rows
        * sizes.predictions
        / (plan.context * plan.head_chunks)
        * sizes.vocabulary
        / plan.tensor
        * sizes.itemsize
    )
    gradients = 4 * sizes.parameters / spread
    if plan.remat == "offload":  # to the host's memory
        kept = 0.0
    return (sizes.state / spread + max(gradients, kept + logits)) / GIB


def seconds(sizes: ModelSizes, plan: Plan, tpu: Slice) -> dict[str, float]:
    """Returns the time bounds of an ideal step in seconds: {"schedule", "ici", "dcn"}.

    Args:
      sizes: sizes of the model.
      plan: the plan.
      tpu: the slice.
    """
    chip, devices = tpu.chip, tpu.devices
    recomputed = 0.0 if plan.remat in _KEEPS_MATMULS else 1.0
    bubble = (
        pipeline.bubble(plan.stage, plan.pipeline_microbatches or plan.stage, plan.pipeline_repeats)
        if plan.stage > 1
        else 0.0
    )
    work = (
        3 * sizes.forward + recomputed * sizes.stack / (1 - bubble)
    ) + 3 * sizes.stack * bubble / (1 - bubble)
    schedule = work / devices / chip.peak
    # Parameters, gradients and two moments are read or written about ten times per step, in
    # float32, and more often with every microbatch.
    schedule += (
        4
        * (8 + 2 * plan.microbatches)
        * sizes.parameters
        / (plan.fsdp * plan.tensor * plan.stage)
        / _bandwidth(chip)
    )
    ici, dcn = _traffic(sizes, plan)
    return {
        "schedule": schedule,
        "ici": ici / (4 * chip.link * 1e9 / chip.devices),
        "dcn": dcn / (chip.dcn * 1e9 / chip.devices),
    }


def _bandwidth(chip: Chip) -> float:
    return chip.bandwidth * 1e12 / chip.devices


def _traffic(sizes: ModelSizes, plan: Plan) -> tuple[float, float]:
    """Bytes that a device sends over ICI and over DCN."""
    parameters = sizes.parameters / (plan.tensor * plan.stage)  # those that the fsdp axis splits
    rows = sizes.rows / plan.split
    # Bytes of one layer's activations.
    activations = rows * sizes.streams / plan.context * sizes.width * sizes.itemsize
    ici = _ring(plan.data) * 2 * 4 * parameters / plan.fsdp
    # For every microbatch, parameters are gathered in both passes and gradients scattered once.
    ici += plan.microbatches * _ring(plan.fsdp) * (2 * sizes.itemsize + 4) * parameters
    # Two pairs of gather and scatter per layer in each pass, and again in a recomputed one.
    passes = 2 if plan.remat in _KEEPS_MATMULS else 3
    ici += passes * sizes.layers * 2 * 2 * _ring(plan.tensor) * activations
    keys = activations / sizes.width * 2 * sizes.kv_heads * sizes.head_width / plan.tensor
    ici += passes * sizes.layers * (plan.context - 1) * keys
    if plan.stage > 1:
        ici += 2 * activations * plan.stage * plan.pipeline_repeats
    dcn = _ring(plan.slice) * 2 * 4 * parameters / plan.fsdp
    return ici, dcn


def _ring(size: int) -> float:
    """The fraction of a buffer that each device sends in a ring."""
    return (size - 1) / size
