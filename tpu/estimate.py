"""What a step on a mesh costs at least, by formula: for choosing what to compile, never for what is reported.

Memory is a lower bound: nothing that could fit is refused. Times are of an ideal program: products at peak, every collective once and at
the bandwidth of all links of two dimensions. P parameters, B rows, T tokens, D width, L layers; each formula is of one device.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from lm.nn import flops
from lm.parallel import pipeline
from lm.parallel.chips import Chip
from lm.training.program import Program
from tpu.slices import Slice

GIB = 2**30
# Policies of lm/nn/remat.py that keep the results of products, or more; the others compute all products of a layer again.
_KEEPS_PRODUCTS = ("none", "attention", "minimal", "dots")


@dataclasses.dataclass(frozen=True)
class Facts:
    """Of a config, whatever the mesh.

    Attributes:
      parameters: P. inner: of them in layers. state: bytes of parameters and optimiser. forward: FLOPs of a step's forward pass, all rows.
      stack: of them in layers. streams: tokens a row that the layers see. layers, width, feedforward, heads, kv_heads, head_width: of the
        model. predictions: tokens a row of which the scores are computed. vocabulary: V. itemsize: bytes of an activation.
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
    def of(cls, program: Program, batch: Mapping[str, Any]) -> "Facts":
        """The facts of a program on any mesh."""
        import jax
        import numpy as np

        config = program.config
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
            program.parameters, inner, state, forward * rows, max(forward - head, 0.5 * forward) * rows, rows, program.row_tokens, program.length,
            config.layers, config.width, config.feedforward, config.heads, config.kv_heads, config.head_width, predictions,
            config.vocab_size, 2 if config.dtype == "bfloat16" else 4,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the planner chooses: devices along each mesh axis, and how the step is computed."""

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
        """Ways that the rows are split."""
        return self.slice * self.data * self.fsdp * self.stage

    def sections(self) -> dict[str, dict[str, Any]]:
        """The config's fields, by section."""
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
        """As command-line flags; fields that `base` has already are left out, but for the mesh's sizes."""
        sections = self.sections()
        said = []
        for section, fields in sections.items():
            for name, value in fields.items():
                same = base is not None and base[section].get(name) == value
                if not same or (section == "mesh" and value not in (0, 1)):
                    said.append(f"--config.{section}.{name}={value}")
        return said


def memory(facts: Facts, plan: Plan) -> float:
    """GiB that a device needs at least: its part of the state, and the larger of gradients and what the backward pass starts from."""
    spread = plan.fsdp * plan.tensor * plan.stage
    rows = facts.rows / (plan.split * plan.microbatches)
    # Outside of the pipeline its stages split the rows; inside each holds its own layers for all of them: the same.
    cell = rows * facts.streams / (plan.context * plan.tensor) * facts.itemsize
    kept = facts.layers * cell * facts.width
    if plan.remat in _KEEPS_PRODUCTS:
        inner = facts.feedforward + (facts.heads + facts.kv_heads) * facts.head_width
        kept += facts.layers * cell * inner
    scores = (
        rows
        * facts.predictions
        / (plan.context * plan.head_chunks)
        * facts.vocabulary
        / plan.tensor
        * facts.itemsize
    )
    gradients = 4 * facts.parameters / spread
    if plan.remat == "offload":  # to the host's memory
        kept = 0.0
    return (facts.state / spread + max(gradients, kept + scores)) / GIB


def seconds(facts: Facts, plan: Plan, of: Slice) -> dict[str, float]:
    """Ceilings of an ideal step: {"schedule", "ici", "dcn"}."""
    chip, devices = of.chip, of.devices
    again = 0.0 if plan.remat in _KEEPS_PRODUCTS else 1.0
    bubble = (
        pipeline.bubble(plan.stage, plan.pipeline_microbatches or plan.stage, plan.pipeline_repeats)
        if plan.stage > 1
        else 0.0
    )
    work = (3 * facts.forward + again * facts.stack / (1 - bubble)) + 3 * facts.stack * bubble / (
        1 - bubble
    )
    schedule = work / devices / chip.peak
    # Parameters, gradients and two moments are read or written about ten times a step, in float32, and more with every microbatch.
    schedule += (
        4
        * (8 + 2 * plan.microbatches)
        * facts.parameters
        / (plan.fsdp * plan.tensor * plan.stage)
        / _bandwidth(chip)
    )
    ici, dcn = _traffic(facts, plan)
    return {
        "schedule": schedule,
        "ici": ici / (4 * chip.link * 1e9 / chip.devices),
        "dcn": dcn / (chip.dcn * 1e9 / chip.devices),
    }


def _bandwidth(chip: Chip) -> float:
    return chip.bandwidth * 1e12 / chip.devices


def _traffic(facts: Facts, plan: Plan) -> tuple[float, float]:
    """Bytes that a device sends over ICI and over DCN."""
    mine = facts.parameters / (plan.tensor * plan.stage)  # parameters that the fsdp axis splits
    rows = facts.rows / plan.split
    around = (
        rows * facts.streams / plan.context * facts.width * facts.itemsize
    )  # activations of one layer
    ici = _ring(plan.data) * 2 * 4 * mine / plan.fsdp
    # Gathered for the forward and the backward pass, gradients scattered once, with every microbatch.
    ici += plan.microbatches * _ring(plan.fsdp) * (2 * facts.itemsize + 4) * mine
    # Two pairs of gather and scatter a layer, forward and backward; again what is computed again.
    passes = 2 if plan.remat in _KEEPS_PRODUCTS else 3
    ici += passes * facts.layers * 2 * 2 * _ring(plan.tensor) * around
    keys = around / facts.width * 2 * facts.kv_heads * facts.head_width / plan.tensor
    ici += passes * facts.layers * (plan.context - 1) * keys
    if plan.stage > 1:
        ici += 2 * around * plan.stage * plan.pipeline_repeats
    dcn = _ring(plan.slice) * 2 * 4 * mine / plan.fsdp
    return ici, dcn


def _ring(size: int) -> float:
    return (size - 1) / size
