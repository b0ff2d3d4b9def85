"""Searches the ways to run a config on a slice: what a formula finds quickest is compiled first, until nothing that is left can win."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lm.lookup import UserError
from tpu import abstract, cache, compiling, estimate, measure
from tpu.estimate import Facts, Plan
from tpu.slices import Slice

PATIENCE = 8  # plans that fit, one after another, of which none is better: then the best stands
AXES = ("data", "fsdp", "stage", "context", "tensor")


def factorizations(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All tuples of `parts` factors with this product."""
    if parts == 1:
        yield (number,)
        return
    for first in (each for each in range(1, number + 1) if number % each == 0):
        for rest in factorizations(number // first, parts - 1):
            yield (first, *rest)


def meshes(facts: Facts, of: Slice, streams: Sequence[int]) -> Iterator[Plan]:
    """Every mesh of the slice that divides heads, layers, width, vocabulary, sequences and rows; each with as few microbatches as it can.

    Args:
      streams: lengths of the token streams of a row.
    """
    for sizes in factorizations(of.devices // of.slices, len(AXES)):
        data, fsdp, stage, context, tensor = sizes
        plan = Plan(slice=of.slices, data=data, fsdp=fsdp, stage=stage, context=context, tensor=tensor)
        split_by_tensor = (facts.heads, facts.kv_heads, facts.feedforward, facts.vocabulary)
        if any(size % plan.tensor for size in split_by_tensor) or facts.width % plan.fsdp or facts.rows % plan.split:
            continue
        if facts.layers % plan.stage or any(length % (plan.context * plan.tensor) for length in streams if plan.context * plan.tensor > 1):
            continue
        if plan.stage == 1:
            yield plan
            continue
        for turns in (1, 2, 4):
            if facts.rows % (plan.split * turns) == 0:
                yield replace(plan, pipeline_microbatches=plan.stage * turns)


def candidates(facts: Facts, of: Slice, streams: Sequence[int], remats: Sequence[str], chunks: Sequence[int]) -> list[Plan]:
    """Every plan that may fit, with the fewest microbatches with which it may."""
    found = []
    for mesh, remat, head_chunks in itertools.product(meshes(facts, of, streams), remats, chunks):
        plan: Plan | None = replace(mesh, remat=remat, head_chunks=head_chunks)
        while plan is not None and estimate.memory(facts, plan) > of.chip.usable:
            plan = halved(facts, plan)
        if plan is not None:
            found.append(plan)
    return found


def halved(facts: Facts, plan: Plan, times: int = 1) -> Plan | None:
    """The plan with twice the microbatches, so many times; None where the rows cannot be divided further."""
    parts = 2**times * plan.microbatches
    rows = plan.split * max(1, plan.pipeline_microbatches // plan.stage) * parts
    return replace(plan, microbatches=parts) if facts.rows % rows == 0 else None


def configured(config: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The config with the plan in it."""
    own = copy.deepcopy(dict(config))
    for section, fields in plan.sections().items():
        own[section].update(fields)
    return own


class Search:
    """The search for one config on one slice.

    Attributes:
      found: (step seconds, plan, record) of what fits, best first. compiled: programs looked at. left: plans that were not.
      settled: whether the best has stood for PATIENCE plans that fit, or none that is left can beat it.
    """

    def __init__(self, config: Mapping[str, Any], of: Slice, options: Mapping[str, str], kept: cache.Cache):
        self.config, self.of, self.options, self.kept = config, of, options, kept
        self.found: list[tuple[float, Plan, dict[str, Any]]] = []
        self.compiled, self.left, self.settled = 0, 0, False
        # Facts do not depend on the mesh: one device will do.
        program = abstract.build({**config, "mesh": _alone(config)}, compiling.devices(of)[:1])
        batch = abstract.batch(program, config["tokenizer"])
        self.facts = Facts.of(program, batch)
        self.streams = sorted({shape.shape[1] for name, shape in batch.items() if name.endswith("tokens") and len(shape.shape) > 1})

    def ideal(self, plan: Plan) -> float:
        """Seconds of an ideal step."""
        return max(estimate.seconds(self.facts, plan, self.of).values())

    def rank(self, plan: Plan) -> float:
        """What is compiled first: ideal seconds, and a part of what they hide, so that of equals the one with less traffic comes first."""
        found = estimate.seconds(self.facts, plan, self.of)
        return max(found.values()) + 0.2 * (sum(found.values()) - max(found.values()))

    def run(self, remats: Sequence[str], chunks: Sequence[int], top: int, most: int, told: Callable[[str], None]) -> None:
        """Compiles plans, the most promising first, until the best stands (PATIENCE) or none that is left promises to beat it.

        What a plan promises is its ideal time, times the smallest factor by which the compiler has found plans of the same mesh, and plans
        that recompute the same, slower than ideal. What the memory that plans of the same policy took leaves no room for is tried with more
        microbatches instead. A mesh that has not been tried promises the smallest factor of all, a way to recompute
        that has not been tried the ideal itself. Plans that do not fit come back with more microbatches.

        Args:
          top: how many should be found. most: programs to compile at most. told: is called with what happens.

        Raises:
          UserError: the rows or the model cannot be divided over the slice at all.
        """
        queue = candidates(self.facts, self.of, self.streams, remats, chunks)
        if not queue:
            raise UserError(
                f"{self.of.name}: no mesh divides {self.facts.rows} rows, {self.facts.heads} heads, {self.facts.layers} layers over"
                f" {self.of.devices} devices and leaves room; set --global_batch to a multiple of {self.of.devices}, or take a larger slice"
            )
        ranks = {plan: self.rank(plan) for plan in queue}
        factors: dict[Any, float] = {}  # of each mesh and each policy that was compiled, and of all
        needs: dict[str, float] = {}  # of each policy: the smallest factor by which a plan took more memory than its lower bound
        waited = 0  # plans that fitted since the best was found
        while queue and self.compiled < most and not self.settled:
            plan = min(queue, key=lambda each: ranks[each] * _factor(each, factors))
            if len(self.found) >= top and self.ideal(plan) * _factor(plan, factors) > self.found[0][0]:
                self.settled = True
                break
            queue.remove(plan)
            if estimate.memory(self.facts, plan) * needs.get(plan.remat, 1.0) > self.of.chip.usable:
                if (smaller := halved(self.facts, plan)) is not None:
                    queue.append(smaller)
                    ranks[smaller] = self.rank(smaller)
                    continue
            record = self.record(plan)
            self.compiled += 1
            if taken := record["memory"]["peak"] if record.get("fits") else record.get("needs_gib"):
                needs[plan.remat] = min(needs.get(plan.remat, math.inf), taken / estimate.memory(self.facts, plan))
            if record.get("fits"):
                seconds = record["step_seconds"]
                for kind in (plan.remat, plan.mesh, None):
                    factors[kind] = min(factors.get(kind, math.inf), seconds / self.ideal(plan))
                waited = 0 if not self.found or seconds < self.found[0][0] else waited + 1
                self.found.append((seconds, plan, record))
                self.found.sort(key=lambda each: each[0])
                self.settled = len(self.found) >= top and waited >= PATIENCE
            elif "error" not in record:
                # Half the rows at once need half the memory at best.
                over = record["needs_gib"] / record["has_gib"] if record["needs_gib"] else 2.0
                smaller = halved(self.facts, plan, max(1, math.ceil(math.log2(over))))
                if smaller is not None:
                    queue.append(smaller)
                    ranks[smaller] = self.rank(smaller)
            told(_said(plan, record))
        self.left = len(queue)
        self.settled = self.settled or not queue

    def record(self, plan: Plan) -> dict[str, Any]:
        """What the compiler says of a plan, kept or new; {"error"} where the program refuses it."""
        config = configured(self.config, plan)

        def make() -> dict[str, Any]:
            try:
                return measure.measure(config, self.of, self.options)
            except UserError as error:
                return {"tpu": self.of.name, "fits": False, "error": str(error)}

        return self.kept.get(cache.key(config, self.of.name, self.options), make)


def _factor(plan: Plan, factors: Mapping[Any, float]) -> float:
    """By how much a plan is slower than ideal, as far as is known."""
    if plan.remat not in factors:
        return 1.0
    return max(factors[plan.remat], factors.get(plan.mesh, factors[None]))


def _alone(config: Mapping[str, Any]) -> dict[str, Any]:
    alone = {name: 1 for name in ("slice", *AXES)}
    return {**config["mesh"], **alone, "pipeline_microbatches": 0, "pipeline_repeats": 1}


def _said(plan: Plan, record: Mapping[str, Any]) -> str:
    mesh = (
        " × ".join(f"{axis} {size}" for axis, size in plan.sections()["mesh"].items() if axis in ("slice", *AXES) and size > 1)
        or "one device"
    )
    what = f"{mesh}, remat {plan.remat}, microbatches {plan.microbatches}"
    if "error" in record:
        return f"{what}: refused: {record['error']}"
    if not record["fits"]:
        return f"{what}: does not fit" + (f", needs {record['needs_gib']:.1f} GiB" if record["needs_gib"] else "")
    return f"{what}: {1e3 * record['step_seconds']:,.0f} ms ({record['bound']}), {record['memory']['peak']:.1f} GiB"
