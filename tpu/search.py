"""Searches for the fastest plans of a config on a slice.

First all meshes with one rematerialization policy, in the order of their estimated time; then all
policies on the best meshes.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lm.core.plugins import UserError
from lm.parallel.mesh import describe
from tpu import abstract, cache, compiling, estimate, measure
from tpu.estimate import ModelSizes, Plan
from tpu.slices import Slice

PATIENCE = 8  # the search ends after this many meshes that fit without beating the best
# Rematerialization policies, the one that needs the least memory on the device first.
_MEMORY = ("full", "dots", "minimal", "attention", "none", "offload")
AXES = ("data", "fsdp", "stage", "context", "tensor")


def factorizations(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Yields all tuples of `parts` factors whose product is `number`.

    Args:
      number: the product, at least 1.
      parts: number of factors, at least 1.
    """
    if parts == 1:
        yield (number,)
        return
    for first in (divisor for divisor in range(1, number + 1) if number % divisor == 0):
        for rest in factorizations(number // first, parts - 1):
            yield (first, *rest)


def meshes(sizes: ModelSizes, tpu: Slice, streams: Sequence[int]) -> Iterator[Plan]:
    """Yields every mesh that divides heads, layers, width, vocabulary, sequences and rows.

    Args:
      sizes: sizes of the model.
      tpu: the slice.
      streams: lengths of the token streams of a row.

    Yields:
      Plans with one microbatch outside pipelines.
    """
    for factors in factorizations(tpu.devices // tpu.slices, len(AXES)):
        data, fsdp, stage, context, tensor = factors
        plan = Plan(
            slice=tpu.slices, data=data, fsdp=fsdp, stage=stage, context=context, tensor=tensor
        )
        split_by_tensor = (sizes.heads, sizes.kv_heads, sizes.feedforward, sizes.vocabulary)
        if (
            any(size % plan.tensor for size in split_by_tensor)
            or sizes.width % plan.fsdp
            or sizes.rows % plan.split
        ):
            continue
        if sizes.layers % plan.stage or any(
            length % (plan.context * plan.tensor)
            for length in streams
            if plan.context * plan.tensor > 1
        ):
            continue
        if plan.stage == 1:
            yield plan
            continue
        for turns in (1, 2, 4):
            if sizes.rows % (plan.split * turns) == 0:
                yield replace(plan, pipeline_microbatches=plan.stage * turns)


def candidates(
    sizes: ModelSizes,
    tpu: Slice,
    streams: Sequence[int],
    remats: Sequence[str],
    chunks: Sequence[int],
) -> list[Plan]:
    """Returns every plan that may fit, with the smallest number of microbatches that may fit.

    Args:
      sizes: sizes of the model.
      tpu: the slice.
      streams: lengths of the token streams of a row.
      remats: rematerialization policies to try.
      chunks: values of head_chunks to try.
    """
    plans = []
    for mesh, remat, head_chunks in itertools.product(meshes(sizes, tpu, streams), remats, chunks):
        plan: Plan | None = replace(mesh, remat=remat, head_chunks=head_chunks)
        while plan is not None and estimate.memory(sizes, plan) > tpu.chip.usable:
            plan = halved(sizes, plan)
        if plan is not None:
            plans.append(plan)
    return plans


def halved(sizes: ModelSizes, plan: Plan, times: int = 1) -> Plan | None:
    """Returns the plan with 2**times as many microbatches; None if the rows do not divide.

    Args:
      sizes: sizes of the model.
      plan: the plan to change.
      times: number of times to double the microbatches.
    """
    parts = 2**times * plan.microbatches
    rows = plan.split * max(1, plan.pipeline_microbatches // plan.stage) * parts
    return replace(plan, microbatches=parts) if sizes.rows % rows == 0 else None


def configured(config: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Returns a copy of the config with the plan's fields.

    Args:
      config: a run config as a dict.
      plan: the plan, which overrides the config's fields.
    """
    own = copy.deepcopy(dict(config))
    for section, fields in plan.sections().items():
        own[section].update(fields)
    return own


class Search:
    """The search for plans of one config on one slice.

    Args:
      config: a run config as a dict.
      tpu: the slice.
      options: compiler options.
      records: the cache of records.

    Attributes:
      results: (step seconds, plan, record) of the plans that fit, best first.
      compiled: the number of programs examined.
      remaining: the number of plans that were not examined.
      complete: whether all policies were tried on the best meshes before the limit of programs.
      sizes: sizes of the model.
      streams: lengths of the token streams of a row.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tpu: Slice,
        options: Mapping[str, str],
        records: cache.Cache,
    ):
        self.config, self.tpu, self.options, self.records = config, tpu, options, records
        self.results: list[tuple[float, Plan, dict[str, Any]]] = []
        self.compiled, self.remaining, self.complete = 0, 0, False
        self._done: dict[tuple, set[tuple[str, int]]] = {}
        # Model sizes do not depend on the mesh, so one device is enough.
        program = abstract.build(
            {**config, "mesh": _one_device(config)}, compiling.devices(tpu)[:1]
        )
        batch = abstract.batch(program, config["tokenizer"])
        self.sizes = ModelSizes.from_program(program, batch)
        self.streams = sorted(
            {
                shape.shape[1]
                for name, shape in batch.items()
                if name.endswith("tokens") and len(shape.shape) > 1
            }
        )

    def ideal(self, plan: Plan) -> float:
        """Seconds of an ideal step."""
        return max(estimate.seconds(self.sizes, plan, self.tpu).values())

    def rank(self, plan: Plan) -> float:
        """Returns the sort key of plans; the lowest are compiled first.

        The key is the largest time bound plus a fraction of the others, so that among equal plans
        the plan with less traffic comes first.
        """
        bounds = estimate.seconds(self.sizes, plan, self.tpu).values()
        return max(bounds) + 0.2 * (sum(bounds) - max(bounds))

    def run(
        self,
        remats: Sequence[str],
        chunks: Sequence[int],
        top: int,
        most: int,
        report: Callable[[str], None],
    ) -> None:
        """Searches meshes first, then rematerialization policies on the best meshes.

        First the meshes are compiled with the policy that needs the least memory, in the order of
        their ideal step, until PATIENCE that fit have not improved on the best. Then all other
        policies are tried on the best meshes. A plan that does not fit, or cannot fit judging by
        the memory of plans with the same policy, is replaced by a plan with more microbatches.

        Args:
          remats: rematerialization policies to try.
          chunks: values of head_chunks to try.
          top: the number of plans to find, and of meshes on which all policies are tried.
          most: the maximum number of programs to compile.
          report: function to call with a line on each program.

        Raises:
          UserError: the rows or the model cannot be divided over the slice.
        """
        queue = candidates(self.sizes, self.tpu, self.streams, remats, chunks)
        if not queue:
            raise UserError(
                f"{self.tpu.name}: no mesh divides {self.sizes.rows} rows, {self.sizes.heads}"
                f" heads, {self.sizes.layers} layers over {self.tpu.devices} devices and fits"
                f" their memory; set --global_batch to a multiple of {self.tpu.devices}, or take a"
                " larger slice"
            )
        # Policy → smallest factor by which a plan took more memory than its lower bound.
        needs: dict[str, float] = {}
        seen: set[Plan] = set()
        lowest_memory = min(
            {plan.remat for plan in queue},
            key=lambda remat: (remat == "offload", _MEMORY.index(remat)),
        )
        meshes = [
            plan for plan in queue if plan.remat == lowest_memory and plan.head_chunks == chunks[0]
        ]
        first = max(1, 2 * most // 3)  # leaves some programs for the policies
        complete = self._compile(
            meshes,
            needs,
            seen,
            first,
            report,
            lambda fitted: fitted >= PATIENCE and len(self.results) >= top,
        )
        while self.compiled < most:
            best = list(dict.fromkeys(_mesh(plan) for _, plan, _ in self.results))[:top]
            others = [
                plan
                for plan in queue
                if _mesh(plan) in best
                and (plan.remat, plan.head_chunks) not in self._tried(_mesh(plan))
            ]
            if not others:
                self.complete = complete
                break
            self._compile(others, needs, seen, most, report, lambda fitted: False)
            if self.compiled >= most:
                break
        self.remaining = len(queue) - len(seen)

    def _tried(self, mesh: tuple[int, ...]) -> set[tuple[str, int]]:
        """(policy, head_chunks) that were compiled on a mesh, or cannot be."""
        return self._done.setdefault(mesh, set())

    def _compile(
        self,
        plans: list[Plan],
        needs: dict[str, float],
        seen: set[Plan],
        most: int,
        report: Callable[[str], None],
        enough: Callable[[int], bool],
    ) -> bool:
        """Compiles plans in the order of `rank`.

        Args:
          plans: the plans.
          needs: memory factors by policy; updated.
          seen: plans that were compiled; updated.
          most: the maximum number of programs in the search.
          report: function to call with a line on each program.
          enough: maps the number of plans that fitted since the best one to whether to stop.

        Returns:
          Whether it ended before `most` programs.
        """
        waiting = sorted(plans, key=self.rank)
        fitted = 0
        while waiting:
            if self.compiled >= most:
                return False
            plan = waiting.pop(0)
            self._tried(_mesh(plan)).add((plan.remat, plan.head_chunks))
            if (
                estimate.memory(self.sizes, plan) * needs.get(plan.remat, 1.0)
                > self.tpu.chip.usable
            ):
                if (smaller := halved(self.sizes, plan)) is not None:
                    waiting = sorted([*waiting, smaller], key=self.rank)
                    continue
            record = self.record(plan)
            self.compiled += 1
            seen.add(plan)
            if taken := record["memory"]["peak"] if record.get("fits") else record.get("needs_gib"):
                needs[plan.remat] = min(
                    needs.get(plan.remat, math.inf), taken / estimate.memory(self.sizes, plan)
                )
            report(_summary(plan, record))
            if record.get("fits"):
                seconds = record["step_seconds"]
                fitted = 0 if not self.results or seconds < self.results[0][0] else fitted + 1
                self.results.append((seconds, plan, record))
                self.results.sort(key=lambda result: result[0])
                if enough(fitted):
                    break
            elif "error" not in record:
                # Half the rows at once need at least half the memory.
                excess = record["needs_gib"] / record["has_gib"] if record["needs_gib"] else 2.0
                smaller = halved(self.sizes, plan, max(1, math.ceil(math.log2(excess))))
                if smaller is not None:
                    waiting = sorted([*waiting, smaller], key=self.rank)
        return True

    def record(self, plan: Plan) -> dict[str, Any]:
        """Returns the record of a plan from the cache or the compiler.

        Returns:
          A record of `measure.measure`; it has "error" if the plan is invalid.
        """
        config = configured(self.config, plan)

        def make() -> dict[str, Any]:
            try:
                return measure.measure(config, self.tpu, self.options)
            except UserError as error:
                return {"tpu": self.tpu.name, "fits": False, "error": str(error)}

        return self.records.get(cache.key(config, self.tpu.name, self.options), make)


def _mesh(plan: Plan) -> tuple[int, ...]:
    """The mesh and the schedule of its pipeline."""
    return *plan.mesh, plan.pipeline_microbatches, plan.pipeline_repeats


def merge_flags(given: Sequence[str], planned: Sequence[str]) -> list[str]:
    """Returns the user's flags without those that a plan sets, followed by the plan's flags.

    Args:
      given: the user's flags, --name=value.
      planned: the plan's flags.
    """
    names = {flag.partition("=")[0] for flag in planned}
    return [flag for flag in given if flag.partition("=")[0] not in names] + list(planned)


def _one_device(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config's section `mesh` for one device."""
    sizes = {name: 1 for name in ("slice", *AXES)}
    return {**config["mesh"], **sizes, "pipeline_microbatches": 0, "pipeline_repeats": 1}


def _summary(plan: Plan, record: Mapping[str, Any]) -> str:
    mesh = describe(plan.sections()["mesh"])
    name = f"{mesh}, remat {plan.remat}, microbatches {plan.microbatches}"
    if "error" in record:
        return f"{name}: invalid: {record['error']}"
    if not record["fits"]:
        return f"{name}: does not fit" + (
            f", needs {record['needs_gib']:.1f} GiB" if record["needs_gib"] else ""
        )
    milliseconds, peak = 1e3 * record["step_seconds"], record["memory"]["peak"]
    return f"{name}: {milliseconds:,.0f} ms ({record['bound']}), {peak:.1f} GiB"
