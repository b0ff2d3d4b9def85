"""The layers of a stack as a pipeline: stage s of the mesh holds every S-th group of layers and computes them for one microbatch at a time.

The schedule is circular (GPipe, Huang et al. 2019, where each microbatch goes round once; Narayanan et al. 2021 where it goes round several
times): in turn t stage s works on item t - s; item i is microbatch i mod M in its round i div M. After each turn every stage hands its
result to the next, the last one to the first. Of the M·R + S - 1 turns a stage works in M·R: the rest is the bubble. The backward pass is
the same schedule backwards, by differentiation.

All stages run the same program, as one vectorised over an axis that the mesh splits. So a pipeline only changes where layers are computed.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.core.plugins import UserError
from lm.parallel import mesh as meshes

AXIS = "layers"  # what is split over the stages


def bubble(stages: int, microbatches: int, repeats: int) -> float:
    """Share of a stage's turns in which it has nothing to do."""
    return (stages - 1) / (microbatches * repeats + stages - 1)


def schedule(
    config: meshes.MeshConfig, mesh: jax.sharding.Mesh | None = None
) -> tuple[int, int, int]:
    """Stages S, microbatches M and repeats R; (1, 1, 1) without a pipeline."""
    stages = meshes.parts(AXIS, mesh)
    return (
        (stages, config.pipeline_microbatches or stages, config.pipeline_repeats)
        if stages > 1
        else (1, 1, 1)
    )


def check(config: meshes.MeshConfig, mesh: jax.sharding.Mesh, layers: int, batch_size: int) -> None:
    """Refuses a pipeline that the layers or the batch do not fill.

    Args:
      layers: of each stack. batch_size: rows that go through the pipeline together.

    Raises:
      UserError: of config.mesh, naming the numbers.
    """
    stages, microbatches, repeats = schedule(config, mesh)
    if stages == 1:
        if config.pipeline_microbatches > 1 or config.pipeline_repeats > 1:
            raise UserError(
                f"config.mesh.pipeline_microbatches={config.pipeline_microbatches} and pipeline_repeats={config.pipeline_repeats} are of a"
                " pipeline, but config.mesh.stage=1; set config.mesh.stage, or leave them at 0 and 1"
            )
        return
    if layers % (stages * repeats):
        raise UserError(
            f"config.model.layers={layers} is not a multiple of config.mesh.stage × pipeline_repeats = {stages} × {repeats}; choose such"
            " sizes"
        )
    if repeats > 1 and microbatches < stages:
        raise UserError(
            f"config.mesh.pipeline_microbatches={microbatches} is below config.mesh.stage={stages}: with pipeline_repeats={repeats} a"
            " microbatch would be back before its turn; raise it"
        )
    rows = math.prod(mesh.shape[axis] for axis in _outside())
    if batch_size % (microbatches * rows):
        raise UserError(
            f"{batch_size} rows are not a multiple of config.mesh.pipeline_microbatches × {' × '.join(_outside())} = {microbatches} ×"
            f" {rows}; choose another config.training.batch_size or other microbatches"
        )


def fit(batch_size: int) -> int:
    """Microbatches of a batch on the mesh in use: as many as the config says, or the most below that which divide the batch (evaluation
    chooses its own batches); 0 where there is no pipeline, or none that the batch fills."""
    stages, microbatches, repeats = schedule(meshes.options())
    rows = meshes.parts("batch") // stages
    fewest = stages if repeats > 1 else 1
    return (
        next(
            (
                count
                for count in range(microbatches, fewest - 1, -1)
                if batch_size % (count * rows) == 0
            ),
            0,
        )
        if stages > 1
        else 0
    )


def _outside() -> tuple[str, ...]:
    """Mesh axes that split a microbatch: those of the batch without the stages."""
    return tuple(axis for axis in meshes.axes("batch") if axis not in meshes.axes(AXIS))


def run(
    layers: Callable[[Any, Array, Any], Array], blocks: Any, x_BTD: Float[Array, "B T D"], rows: Any
) -> Float[Array, "B T D"]:
    """Runs stacked blocks on a batch.

    Args:
      layers: (blocks of one group [L / (S R), …], x [b, T, D], rows of the microbatch) → x after these layers.
      blocks: parameters of all layers, [L, …]. x_BTD: what goes in; `fit` of its rows is not 0. rows: arrays [B, …] that a layer needs
        beside x.
    """
    S, _, R = schedule(meshes.options())
    M = fit(len(x_BTD))
    stage = meshes.axes(AXIS)
    with meshes.rules(batch=_outside(), layers=()):
        # [L, …] → [S, R, L / (S R), …]: group r of stage s holds layers from (r S + s) L / (S R) on.
        blocks_SR = jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf.reshape(R, S, -1, *leaf.shape[1:]), 1, 0), blocks
        )
        blocks_SR = jax.tree.map(lambda leaf: _lay(leaf, stage), blocks_SR)
        x_MbTD, rows_M = meshes.split_rows(x_BTD, M), meshes.split_rows(rows, M)
        x_MbTD = meshes.constrain(x_MbTD, None, "batch", "sequence", None)
        rows_M = jax.tree.map(
            lambda leaf: meshes.constrain(leaf, None, "batch", *[None] * (leaf.ndim - 2)), rows_M
        )

        def one_stage(groups, x, item):
            """A stage's work on its item."""
            turn, number = item // M % R, item % M
            group = jax.tree.map(lambda leaf: leaf[0] if R == 1 else leaf[turn], groups)
            mine = jax.tree.map(lambda leaf: leaf[number], rows_M)
            return layers(group, x, mine)

        stages_S = jnp.arange(S)
        all_stages = jax.vmap(one_stage, spmd_axis_name=stage if len(stage) > 1 else stage[0])

        def store(waiting, handed, turn):
            """What comes back to the first stage takes its microbatch's place; the others' copies are never read."""
            place = (turn - S) % M
            old = jax.lax.dynamic_index_in_dim(waiting, place, 1, keepdims=False)
            return jax.lax.dynamic_update_index_in_dim(
                waiting, jnp.where(turn >= S, handed, old), place, 1
            )

        def turn(carry, t):
            waiting, handed = carry
            waiting = store(waiting, handed, t)
            fresh = jax.lax.dynamic_index_in_dim(waiting, t % M, 1, keepdims=False)
            first = (stages_S == 0).reshape(S, *[1] * (handed.ndim - 1))
            x_SbTD = _lay(jnp.where(first, fresh, handed), stage, "batch", "sequence")
            # In the bubble an item's number is outside of 0 … M R - 1: what it gives is never stored where anything reads it.
            y_SbTD = all_stages(blocks_SR, x_SbTD, t - stages_S)
            y_SbTD = _lay(y_SbTD, stage, "batch", "sequence")
            return (waiting, _hand_on(y_SbTD)), None

        waiting = _lay(
            jnp.broadcast_to(x_MbTD, (S, *x_MbTD.shape)), stage, None, "batch", "sequence"
        )
        turns = M * R + S - 1
        (waiting, handed), _ = jax.lax.scan(turn, (waiting, waiting[:, 0]), jnp.arange(turns))
        y_MbTD = store(waiting, handed, jnp.asarray(turns))[0]
    return meshes.constrain(meshes.join_rows(y_MbTD), "batch", "sequence", None)


@jax.custom_vjp
def _hand_on(x: Array) -> Array:
    """From each stage to the next; the gradient the other way. (That of jnp.roll crosses twice.)"""
    return jnp.roll(x, 1, axis=0)


_hand_on.defvjp(
    lambda x: (jnp.roll(x, 1, axis=0), None), lambda _, gradient: (jnp.roll(gradient, -1, axis=0),)
)


def _lay(x: Array, stage: tuple[str, ...], *names: str | None) -> Array:
    """Puts axis 0 on the stages, the next ones where they belong; without names the partitioner decides on the rest."""
    rest = [meshes.axes(name) or None if name else None for name in names]
    free = [None if names else jax.sharding.PartitionSpec.UNCONSTRAINED] * (x.ndim - 1 - len(rest))
    return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec(stage, *rest, *free))
