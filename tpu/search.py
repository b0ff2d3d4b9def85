"""Searches the ways to run a config on a slice: meshes by one policy, what a formula finds quickest first; then policies on the best."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lm.core.plugins import UserError
from lm.parallel.mesh import describe
from tpu import abstract, cache, compiling, estimate, measure
from tpu.estimate import Facts, Plan
from tpu.slices import Slice

PATIENCE = 8  # meshes that fit, one after another, of which none is better: then the best stands
_MEMORY = (
    "full",
    "dots",
    "minimal",
    "attention",
    "none",
    "offload",
)  # policies, the one that needs least memory on the device first
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
        plan = Plan(
            slice=of.slices, data=data, fsdp=fsdp, stage=stage, context=context, tensor=tensor
        )
        split_by_tensor = (facts.heads, facts.kv_heads, facts.feedforward, facts.vocabulary)
        if (
            any(size % plan.tensor for size in split_by_tensor)
            or facts.width % plan.fsdp
            or facts.rows % plan.split
        ):
            continue
        if facts.layers % plan.stage or any(
            length % (plan.context * plan.tensor)
            for length in streams
            if plan.context * plan.tensor > 1
        ):
            continue
        if plan.stage == 1:
            yield plan
            continue
        for turns in (1, 2, 4):
            if facts.rows % (plan.split * turns) == 0:
                yield replace(plan, pipeline_microbatches=plan.stage * turns)


def candidates(
    facts: Facts, of: Slice, streams: Sequence[int], remats: Sequence[str], chunks: Sequence[int]
) -> list[Plan]:
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
      settled: whether all policies were tried on the meshes that did best, before there were too many programs.
    """

    def __init__(
        self, config: Mapping[str, Any], of: Slice, options: Mapping[str, str], kept: cache.Cache
    ):
        self.config, self.of, self.options, self.kept = config, of, options, kept
        self.found: list[tuple[float, Plan, dict[str, Any]]] = []
        self.compiled, self.left, self.settled = 0, 0, False
        self._done: dict[tuple, set[tuple[str, int]]] = {}
        # Facts do not depend on the mesh: one device will do.
        program = abstract.build({**config, "mesh": _alone(config)}, compiling.devices(of)[:1])
        batch = abstract.batch(program, config["tokenizer"])
        self.facts = Facts.of(program, batch)
        self.streams = sorted(
            {
                shape.shape[1]
                for name, shape in batch.items()
                if name.endswith("tokens") and len(shape.shape) > 1
            }
        )

    def ideal(self, plan: Plan) -> float:
        """Seconds of an ideal step."""
        return max(estimate.seconds(self.facts, plan, self.of).values())

    def rank(self, plan: Plan) -> float:
        """What is compiled first: ideal seconds, and a part of what they hide, so that of equals the one with less traffic comes first."""
        found = estimate.seconds(self.facts, plan, self.of)
        return max(found.values()) + 0.2 * (sum(found.values()) - max(found.values()))

    def run(
        self,
        remats: Sequence[str],
        chunks: Sequence[int],
        top: int,
        most: int,
        told: Callable[[str], None],
    ) -> None:
        """Meshes first, then how to recompute on the best of them.

        First every mesh is computed in one way, the one that needs least memory: those with the shortest ideal step come first, until the
        best has stood for PATIENCE that fit. Then, on the meshes that did best, all other policies. What does not fit, and what the memory
        that plans of the same policy took leaves no room for, is tried with more microbatches instead.

        Args:
          top: how many should be found, and on how many meshes all policies are tried. most: programs to compile at most. told: is called
            with what happens.

        Raises:
          UserError: the rows or the model cannot be divided over the slice at all.
        """
        queue = candidates(self.facts, self.of, self.streams, remats, chunks)
        if not queue:
            raise UserError(
                f"{self.of.name}: no mesh divides {self.facts.rows} rows, {self.facts.heads} heads, {self.facts.layers} layers over"
                f" {self.of.devices} devices and leaves room; set --global_batch to a multiple of {self.of.devices}, or take a larger slice"
            )
        needs: dict[
            str, float
        ] = {}  # of each policy: the smallest factor by which a plan took more memory than its lower bound
        seen: set[Plan] = set()
        least = min(
            {plan.remat for plan in queue},
            key=lambda remat: (remat == "offload", _MEMORY.index(remat)),
        )
        meshes = [plan for plan in queue if plan.remat == least and plan.head_chunks == chunks[0]]
        first = max(1, 2 * most // 3)  # leaves some programs for the policies
        whole = self._compile(
            meshes,
            needs,
            seen,
            first,
            told,
            lambda fitted: fitted >= PATIENCE and len(self.found) >= top,
        )
        while self.compiled < most:
            best = list(dict.fromkeys(_where(plan) for _, plan, _ in self.found))[:top]
            others = [
                plan
                for plan in queue
                if _where(plan) in best
                and (plan.remat, plan.head_chunks) not in self._tried(_where(plan))
            ]
            if not others:
                self.settled = whole
                break
            self._compile(others, needs, seen, most, told, lambda fitted: False)
            if self.compiled >= most:
                break
        self.left = len(queue) - len(seen)

    def _tried(self, where: tuple) -> set[tuple[str, int]]:
        """Policies and head_chunks that were compiled on a mesh, or could not be."""
        return self._done.setdefault(where, set())

    def _compile(
        self,
        plans: list[Plan],
        needs: dict[str, float],
        seen: set[Plan],
        most: int,
        told: Callable[[str], None],
        enough: Callable[[int], bool],
    ) -> bool:
        """Compiles plans in the order of their ideal times. Returns whether it came to its end before `most` programs.

        Args:
          enough: whether to stop, of the number of plans that fitted since the best was found.
        """
        waiting = sorted(plans, key=self.rank)
        fitted = 0
        while waiting:
            if self.compiled >= most:
                return False
            plan = waiting.pop(0)
            self._tried(_where(plan)).add((plan.remat, plan.head_chunks))
            if estimate.memory(self.facts, plan) * needs.get(plan.remat, 1.0) > self.of.chip.usable:
                if (smaller := halved(self.facts, plan)) is not None:
                    waiting = sorted([*waiting, smaller], key=self.rank)
                    continue
            record = self.record(plan)
            self.compiled += 1
            seen.add(plan)
            if taken := record["memory"]["peak"] if record.get("fits") else record.get("needs_gib"):
                needs[plan.remat] = min(
                    needs.get(plan.remat, math.inf), taken / estimate.memory(self.facts, plan)
                )
            told(_said(plan, record))
            if record.get("fits"):
                seconds = record["step_seconds"]
                fitted = 0 if not self.found or seconds < self.found[0][0] else fitted + 1
                self.found.append((seconds, plan, record))
                self.found.sort(key=lambda each: each[0])
                if enough(fitted):
                    break
            elif "error" not in record:
                # Half the rows at once need half the memory at best.
                over = record["needs_gib"] / record["has_gib"] if record["needs_gib"] else 2.0
                smaller = halved(self.facts, plan, max(1, math.ceil(math.log2(over))))
                if smaller is not None:
                    waiting = sorted([*waiting, smaller], key=self.rank)
        return True

    def record(self, plan: Plan) -> dict[str, Any]:
        """What the compiler says of a plan, kept or new; {"error"} where the program refuses it."""
        config = configured(self.config, plan)

        def make() -> dict[str, Any]:
            try:
                return measure.measure(config, self.of, self.options)
            except UserError as error:
                return {"tpu": self.of.name, "fits": False, "error": str(error)}

        return self.kept.get(cache.key(config, self.of.name, self.options), make)


def _where(plan: Plan) -> tuple[int, ...]:
    """The mesh, and how its pipeline is run."""
    return *plan.mesh, plan.pipeline_microbatches, plan.pipeline_repeats


def joined(given: Sequence[str], found: Sequence[str]) -> list[str]:
    """The user's own flags but for those that a plan sets, and then the plan's."""
    decided = {flag.partition("=")[0] for flag in found}
    return [flag for flag in given if flag.partition("=")[0] not in decided] + list(found)


def _alone(config: Mapping[str, Any]) -> dict[str, Any]:
    alone = {name: 1 for name in ("slice", *AXES)}
    return {**config["mesh"], **alone, "pipeline_microbatches": 0, "pipeline_repeats": 1}


def _said(plan: Plan, record: Mapping[str, Any]) -> str:
    what = f"{describe(plan.sections()['mesh'])}, remat {plan.remat}, microbatches {plan.microbatches}"
    if "error" in record:
        return f"{what}: refused: {record['error']}"
    if not record["fits"]:
        return f"{what}: does not fit" + (
            f", needs {record['needs_gib']:.1f} GiB" if record["needs_gib"] else ""
        )
    return f"{what}: {1e3 * record['step_seconds']:,.0f} ms ({record['bound']}), {record['memory']['peak']:.1f} GiB"
