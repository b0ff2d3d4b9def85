"""Pipeline parallelism over the layers of a stack.

Of S stages, stage s holds every S-th group of layers, starting with group s, and computes one
microbatch at a time.

The schedule is circular. Each of M microbatches passes through the stages R times; R = 1 is GPipe
(Huang et al. 2019), R > 1 is interleaved (Narayanan et al. 2021). In turn t, stage s works on item
t - s, where item i is microbatch i mod M in round i div M. After each turn, every stage hands its
result to the next stage, and the last stage to the first. A stage works in M·R of the M·R + S - 1
turns; its idle turns are the bubble. The backward pass, obtained by differentiation, runs the
schedule in reverse.

All stages run the same program, vectorized over an axis that the mesh splits. A pipeline thus
changes where layers are computed, not what they compute.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.parallel import mesh as meshes
from lm.parallel import sharding

AXIS = "layers"  # the logical axis that the stages split


def bubble(stages: int, microbatches: int, repeats: int) -> float:
    """Returns the fraction of turns in which a stage is idle.

    Args:
      stages: S, number of stages.
      microbatches: M, number of microbatches.
      repeats: R, number of passes of each microbatch through the stages.
    """
    return (stages - 1) / (microbatches * repeats + stages - 1)


def schedule(
    config: meshes.MeshConfig, mesh: jax.sharding.Mesh | None = None
) -> tuple[int, int, int]:
    """Returns the numbers of stages S, microbatches M and repeats R; (1, 1, 1) without a pipeline.

    Args:
      config: the config of the mesh.
      mesh: the mesh; by default the mesh in use.
    """
    stages = sharding.parts(AXIS, mesh)
    if stages == 1:
        return 1, 1, 1
    return stages, config.pipeline_microbatches or stages, config.pipeline_repeats


def check(config: meshes.MeshConfig, mesh: jax.sharding.Mesh, layers: int, batch_size: int) -> None:
    """Checks that the layers and the batch fill the pipeline.

    Args:
      config: the config of the mesh.
      mesh: the mesh.
      layers: number of layers of each stack.
      batch_size: number of rows that pass through the pipeline together.

    Raises:
      DeviceMismatch: the layers or rows cannot be divided evenly; the message states the numbers.
    """
    stages, microbatches, repeats = schedule(config, mesh)
    if stages == 1:
        if config.pipeline_microbatches > 1 or config.pipeline_repeats > 1:
            raise meshes.DeviceMismatch(
                f"config.mesh.pipeline_microbatches={config.pipeline_microbatches} and"
                f" pipeline_repeats={config.pipeline_repeats} are of a pipeline, but"
                " config.mesh.stage=1; set config.mesh.stage, or leave them at 0 and 1"
            )
        return
    if layers % (stages * repeats):
        raise meshes.DeviceMismatch(
            f"config.model.layers={layers} is not a multiple of config.mesh.stage ×"
            f" pipeline_repeats = {stages} × {repeats}; choose such sizes"
        )
    if repeats > 1 and microbatches < stages:
        raise meshes.DeviceMismatch(
            f"config.mesh.pipeline_microbatches={microbatches} is below config.mesh.stage={stages}:"
            f" with pipeline_repeats={repeats} a microbatch would be back before its turn; raise it"
        )
    rows = math.prod(mesh.shape[axis] for axis in _microbatch_axes())
    if batch_size % (microbatches * rows):
        raise meshes.DeviceMismatch(
            f"{batch_size} rows are not a multiple of config.mesh.pipeline_microbatches ×"
            f" {' × '.join(_microbatch_axes())} = {microbatches} × {rows}; choose another"
            " config.training.batch_size or other microbatches"
        )


def num_microbatches(batch_size: int) -> int:
    """Returns the number of microbatches that a pipeline on the mesh in use cuts a batch into.

    This is the config's number or, because evaluation chooses its own batch sizes, the largest
    smaller number that divides the batch. It is 0 without a pipeline, or if the batch cannot fill
    the pipeline.

    Args:
      batch_size: number of rows of the batch.
    """
    stages, microbatches, repeats = schedule(meshes.options())
    if stages == 1:
        return 0
    rows = sharding.parts("batch") // stages
    fewest = stages if repeats > 1 else 1
    counts = range(microbatches, fewest - 1, -1)
    return next((count for count in counts if batch_size % (count * rows) == 0), 0)


def _microbatch_axes() -> tuple[str, ...]:
    """The mesh axes that split a microbatch: the mesh axes of the batch except the stages."""
    return tuple(axis for axis in sharding.axes("batch") if axis not in sharding.axes(AXIS))


def run(
    layers: Callable[[Any, Array, Any], Array], blocks: Any, x_BTD: Float[Array, "B T D"], rows: Any
) -> Float[Array, "B T D"]:
    """Runs stacked blocks on a batch.

    Args:
      layers: function (blocks of one group [L / (S R), …], x [b, T, D], rows of the microbatch) →
        x after these layers.
      blocks: parameters of all layers, [L, …].
      x_BTD: input of the first layer; `num_microbatches(B)` is not 0.
      rows: tree of arrays [B, …] that each layer reads in addition to x.

    Returns:
      Activations after the last layer, [B, T, D].
    """
    S, _, R = schedule(meshes.options())
    M = num_microbatches(len(x_BTD))
    stage = sharding.axes(AXIS)
    with sharding.override_rules(batch=_microbatch_axes(), layers=()):
        # [L, …] → [S, R, L / (S R), …]: group r of stage s starts at layer (r S + s) L / (S R).
        blocks_SR = jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf.reshape(R, S, -1, *leaf.shape[1:]), 1, 0), blocks
        )
        blocks_SR = jax.tree.map(lambda leaf: _split_stages(leaf, stage), blocks_SR)
        x_MbTD, rows_M = sharding.split_rows(x_BTD, M), sharding.split_rows(rows, M)
        x_MbTD = sharding.constrain(x_MbTD, None, "batch", "sequence", None)
        rows_M = jax.tree.map(
            lambda leaf: sharding.constrain(leaf, None, "batch", *[None] * (leaf.ndim - 2)), rows_M
        )

        def one_stage(groups: Any, x_bTD: Array, item: Array) -> Array:
            """A stage's work on its item."""
            turn, number = item // M % R, item % M
            group = jax.tree.map(lambda leaf: leaf[0] if R == 1 else leaf[turn], groups)
            rows_b = jax.tree.map(lambda leaf: leaf[number], rows_M)
            return layers(group, x_bTD, rows_b)

        stages_S = jnp.arange(S)
        all_stages = jax.vmap(one_stage, spmd_axis_name=stage if len(stage) > 1 else stage[0])

        def store(waiting_SMbTD: Array, passed_SbTD: Array, turn: Array) -> Array:
            """Stores the activations that return to the first stage, at their microbatch's index.

            The copies on the other stages are never read.
            """
            place = (turn - S) % M
            old = jax.lax.dynamic_index_in_dim(waiting_SMbTD, place, 1, keepdims=False)
            return jax.lax.dynamic_update_index_in_dim(
                waiting_SMbTD, jnp.where(turn >= S, passed_SbTD, old), place, 1
            )

        def turn(carry: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
            waiting_SMbTD, passed_SbTD = carry
            waiting_SMbTD = store(waiting_SMbTD, passed_SbTD, t)
            fresh = jax.lax.dynamic_index_in_dim(waiting_SMbTD, t % M, 1, keepdims=False)
            first = (stages_S == 0).reshape(S, *[1] * (passed_SbTD.ndim - 1))
            x_SbTD = jnp.where(first, fresh, passed_SbTD)
            x_SbTD = _split_stages(x_SbTD, stage, "batch", "sequence")
            # In the bubble an item's number is outside 0 … M R - 1, and its result is never read.
            y_SbTD = all_stages(blocks_SR, x_SbTD, t - stages_S)
            y_SbTD = _split_stages(y_SbTD, stage, "batch", "sequence")
            return (waiting_SMbTD, _to_next_stage(y_SbTD)), None

        waiting_SMbTD = _split_stages(
            jnp.broadcast_to(x_MbTD, (S, *x_MbTD.shape)), stage, None, "batch", "sequence"
        )
        turns = M * R + S - 1
        (waiting_SMbTD, passed_SbTD), _ = jax.lax.scan(
            turn, (waiting_SMbTD, waiting_SMbTD[:, 0]), jnp.arange(turns)
        )
        y_MbTD = store(waiting_SMbTD, passed_SbTD, jnp.asarray(turns))[0]
    return sharding.constrain(sharding.join_rows(y_MbTD), "batch", "sequence", None)


@jax.custom_vjp
def _to_next_stage(x: Array) -> Array:
    """Passes arrays to the next stage, and gradients to the previous stage.

    The gradient of jnp.roll would cross the network twice.
    """
    return jnp.roll(x, 1, axis=0)


_to_next_stage.defvjp(
    lambda x: (jnp.roll(x, 1, axis=0), None), lambda _, gradient: (jnp.roll(gradient, -1, axis=0),)
)


def _split_stages(x: Array, stage: tuple[str, ...], *names: str | None) -> Array:
    """Splits axis 0 over the stages and later axes by `names`; without names XLA decides."""
    rest = [sharding.axes(name) or None if name else None for name in names]
    free = [None if names else jax.sharding.PartitionSpec.UNCONSTRAINED] * (x.ndim - 1 - len(rest))
    return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec(stage, *rest, *free))
