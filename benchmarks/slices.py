"""Tables of configs on TPU slices, by the TPU compiler and without a TPU.

  python -m benchmarks.slices --workdir=runs/slices [--tables=configs,fits,growth,depth,planned]

configs: every config at :base on slices of 16 of the cloud's units, bfloat16, parameters split over all chips; the first that fits of:
    as it is, remat=full, and 2, 4, 8, … microbatches. fits: the smallest slice of each kind that holds a decoder of 1B and one of 8B.
    growth: a 1B decoder from 4 to 1,024 chips, four rows a chip. depth: seconds to compile 12 and 48 layers. planned: the planner's best
    for a 1B decoder on v5e-16 against ten meshes by hand.

What was compiled is kept in the workdir, so the same command goes on where it stopped. Prints Markdown, and writes it to WORKDIR/slices.md.
Some hours on two cores, most of them for the first table; for one config alone: --only=llama.
"""

import copy
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from lm.core import command

_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/slices", "where records are kept and slices.md is written"
)
_TABLES = flags.DEFINE_list(
    "tables", ["configs", "fits", "growth", "depth", "planned"], "which tables to make"
)
_TPU = flags.DEFINE_list("tpu", ["v5e-16", "v6e-16", "v5p-16"], "slices of the first table")
_ONLY = flags.DEFINE_list("only", [], "configs of the first table; by default all")
_CONFIGS = Path(__file__).parent.parent / "configs"


def main() -> None:
    from tpu import environment

    environment.prepare()
    environment.hush()

    from tpu import cache

    kept = cache.Cache(_WORKDIR.value)
    made = []
    for name in _TABLES.value:
        lines = [f"### {name}", "", *TABLES[name](kept), ""]
        print("\n".join(lines), flush=True)
        made += lines
    (Path(_WORKDIR.value) / "slices.md").write_text("\n".join(made) + "\n", encoding="utf-8")


def configs(kept: Any) -> Iterator[str]:
    """Every config at :base."""
    yield from _head(
        "config", "slice", "parameters", "rows", "what fits first", "peak GiB", "model TFLOP", "wire MiB", "compute ms", "HBM ms",
        "schedule ms", "ICI ms", "bound", "MFU %", "tokens/s/chip", "compile s",
    )  # fmt: skip
    for name in _ONLY.value or sorted(path.stem for path in _CONFIGS.glob("*.py")):
        for tpu in _TPU.value:
            record, how = first_that_fits(_config(name, "base"), tpu, kept)
            shown = [
                f"{name}:base",
                tpu,
                f"{record['parameters'] / 1e6:,.0f} M",
                str(record["batch_size"]),
                how,
            ]
            yield "| " + " | ".join([*shown, *_costs(record)]) + " |"


def fits(kept: Any) -> Iterator[str]:
    """The smallest slice that holds each decoder, four rows a chip."""
    from tpu import slices

    yield from _head(
        "decoder",
        "slice",
        "chips",
        "fits",
        "what fits first",
        "peak GiB",
        "state GiB a device",
        "MFU %",
        "tokens/s/chip",
    )
    for size, told in (("base", "1B"), ("large", "8B")):
        for generation in ("v4", "v5e", "v5p", "v6e", "tpu7x"):
            for name in slices.names(generation):
                of = slices.parse(name)
                if of.devices < 4:
                    continue
                config = _config("llama", size)
                config["training"]["batch_size"] = 4 * of.devices
                record, how = first_that_fits(config, name, kept, most=4)
                state = f"{record['held']['parameters'] + record['held']['optimizer']:.2f}"
                if record["fits"]:
                    speed = [
                        f"{record['memory']['peak']:.2f}",
                        state,
                        f"{100 * record['mfu']:.1f}",
                        f"{record['tokens_per_second_per_chip']:,.0f}",
                    ]
                    yield "| " + " | ".join([told, name, str(of.chips), "yes", how, *speed]) + " |"
                    break
                over = (
                    f"no, {record['needs_gib'] - record['has_gib']:.1f} GiB too much"
                    if record["needs_gib"]
                    else "no"
                )
                yield (
                    "| "
                    + " | ".join([told, name, str(of.chips), over, how, "–", state, "–", "–"])
                    + " |"
                )


def growth(kept: Any) -> Iterator[str]:
    """A 1B decoder on more and more chips."""
    from lm.parallel.mesh import describe
    from tpu import slices

    yield from _head(
        "slice", "chips", "mesh", "rows", "peak GiB", "wire MiB a chip", "over DCN MiB", "compute ms", "HBM ms", "schedule ms", "ICI ms",
        "DCN ms", "roofline step ms", "MFU %",
    )  # fmt: skip
    for name in ("v5e-4", "v5e-8", "v5e-16", "v5e-32", "v5e-64", "v5e-128", "v5e-256", "4xv5e-256"):
        of = slices.parse(name)
        config = _config("llama", "base")
        config["training"]["batch_size"] = 4 * of.devices
        config["model"] |= {"remat": "full", "head_chunks": 8}
        record = _measured(config, name, kept)
        mesh = describe(record["mesh"])
        if not record["fits"]:
            yield (
                f"| {name} | {of.chips} | {mesh} | {record['batch_size']} | does not fit |"
                + " – |" * 9
            )
            continue
        outside = sum(row["wire_mib"] for row in record["collectives"] if row["network"] == "DCN")
        times = [
            f"{1e3 * record['ceilings'][each]:,.0f}"
            for each in ("compute", "hbm", "schedule", "ici", "dcn")
        ]
        shown = [
            name,
            str(of.chips),
            mesh,
            str(record["batch_size"]),
            f"{record['memory']['peak']:.2f}",
            f"{record['wire_mib']:,.0f}",
        ]
        yield (
            "| "
            + " | ".join(
                [
                    *shown,
                    f"{outside:,.0f}",
                    *times,
                    f"{1e3 * record['step_seconds']:,.0f}",
                    f"{100 * record['mfu']:.1f}",
                ]
            )
            + " |"
        )


def depth(kept: Any) -> Iterator[str]:
    """Seconds to trace and compile scanned layers, few and many."""
    yield from _head("layers", "trace and compile s", "peak GiB", "estimated cycles")
    seconds = {}
    for layers in (12, 48):
        config = _config("clm", "base")
        config["model"] |= {"layers": layers, "remat": "full", "head_chunks": 8}
        config["training"]["batch_size"] = 64
        record = _measured(config, "v5e-16", kept)
        seconds[layers] = record["compile_seconds"]
        yield f"| {layers} | {seconds[layers]:.1f} | {record['memory']['peak']:.2f} | {record['cycles']:,} |"
    yield ""
    yield f"48 layers take {seconds[48] / seconds[12]:.2f} times as long as 12."


def _head(*names: str) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)


# What one would try by hand on 16 chips, with remat=full: pure and mixed.
HANDS = (
    {"fsdp": 16}, {"data": 16}, {"data": 2, "fsdp": 8}, {"data": 4, "fsdp": 4}, {"fsdp": 8, "tensor": 2}, {"fsdp": 4, "tensor": 4},
    {"fsdp": 2, "tensor": 8}, {"data": 2, "fsdp": 4, "tensor": 2}, {"fsdp": 8, "context": 2}, {"fsdp": 4, "stage": 4},
)  # fmt: skip


def planned(kept: Any) -> Iterator[str]:
    """Ten meshes by hand, and what the planner finds: its roofline step should be no longer than the best of theirs."""
    from lm.nn.config import CHOICES
    from lm.parallel.mesh import describe
    from tpu import measure, search, slices

    of = slices.parse("v5e-16")
    config = _config("llama", "base")
    config["training"]["batch_size"] = 64
    yield from _head(
        "mesh", "remat", "microbatches", "head_chunks", "peak GiB", "roofline step ms", "bound"
    )
    steps = []
    for hand in HANDS:
        own = copy.deepcopy(config)
        own["mesh"] |= {"data": 1, "fsdp": 1, **hand}
        own["model"] |= {"remat": "full", "head_chunks": 8}
        record = _measured(own, of.name, kept)
        mesh = describe(hand)
        if record["fits"]:
            steps.append(record["step_seconds"])
            shown = [
                f"{record['memory']['peak']:.2f}",
                f"{1e3 * record['step_seconds']:,.1f}",
                record["bound"],
            ]
        else:
            shown = ["does not fit", "–", "–"]
        yield "| " + " | ".join([mesh, "full", "1", "8", *shown]) + " |"
    looking = search.Search(config, of, measure.options(of, []), kept)
    looking.run(
        [name for name in CHOICES["remat"] if name != "offload"],
        [8],
        3,
        40,
        lambda line: print(f"  {line}", file=sys.stderr),
    )
    seconds, plan, record = looking.found[0]
    mesh = describe(record["mesh"])
    shown = [
        mesh,
        plan.remat,
        str(plan.microbatches),
        str(plan.head_chunks),
        f"{record['memory']['peak']:.2f}",
        f"{1e3 * seconds:,.1f}",
    ]
    yield "| **planned:** " + " | ".join([*shown, record["bound"]]) + " |"
    yield ""
    verdict = "no longer than" if seconds <= min(steps) else "LONGER than"
    best = f"the best by hand, {1e3 * min(steps):,.1f} ms"
    yield f"{looking.compiled} compiled. The planner's step, {1e3 * seconds:,.1f} ms, is {verdict} {best}."


TABLES = {"configs": configs, "fits": fits, "growth": growth, "depth": depth, "planned": planned}


def first_that_fits(
    config: Mapping[str, Any], tpu: str, kept: Any, most: int = 64
) -> tuple[dict[str, Any], str]:
    """The record of the first way that fits, and what it is; of the last one, where none does."""
    tries: list[tuple[str, int]] = [("none", 1), ("full", 1)]
    parts = 2
    while parts <= most:
        tries.append(("full", parts))
        parts *= 2
    record: dict[str, Any] = {}
    rows = config["training"]["batch_size"]
    tries = [each for each in tries if rows % (each[1] * _devices(tpu)) == 0]
    possible = _possible(config, tpu)
    for remat, microbatches in tries:
        # What the formula says can never fit is not compiled, but for the last.
        if not possible(remat, microbatches) and (remat, microbatches) != tries[-1]:
            continue
        own = copy.deepcopy(dict(config))
        own["model"]["remat"], own["training"]["microbatches"] = remat, microbatches
        record = _measured(own, tpu, kept)
        how = f"remat {remat}" + (f", {microbatches} microbatches" if microbatches > 1 else "")
        if record["fits"]:
            break
    return record, how


def _possible(config: Mapping[str, Any], tpu: str) -> Callable[[str, int], bool]:
    """Whether a policy and a number of microbatches may fit, by the lower bound of tpu/estimate.py."""
    from tpu import compiling, estimate, slices

    of = slices.parse(tpu)
    traced = compiling.build(config, of)
    facts = estimate.Facts.of(traced.program, traced.batch)
    mesh = {axis: int(size) for axis, size in traced.program.mesh.shape.items()}
    chunks = traced.program.config.head_chunks

    def possible(remat: str, microbatches: int) -> bool:
        plan = estimate.Plan(**mesh, remat=remat, microbatches=microbatches, head_chunks=chunks)
        return estimate.memory(facts, plan) <= of.chip.usable

    return possible


def _devices(tpu: str) -> int:
    from tpu import slices

    return slices.parse(tpu).devices


def _measured(config: Mapping[str, Any], tpu: str, kept: Any) -> dict[str, Any]:
    from tpu import cache, measure, slices

    of = slices.parse(tpu)
    options = measure.options(of, [])
    print(f"{tpu}: {config['objective']['name']}, {config['model']['layers']} layers, remat {config['model']['remat']},"
          f" {config['training']['microbatches']} microbatches", file=sys.stderr)  # fmt: skip
    return kept.get(
        cache.key(config, of.name, options), lambda: measure.measure(config, of, options)
    )


def _config(name: str, size: str) -> dict[str, Any]:
    """A config in bfloat16, its parameters split over all devices of a slice."""
    from lm.core.plain import plain

    config = plain(importlib.import_module(f"configs.{name}").get_config(size))
    config["model"]["dtype"] = "bfloat16"
    config["mesh"] |= {"data": 1, "fsdp": -1}
    return config


def _costs(record: Mapping[str, Any]) -> list[str]:
    if not record["fits"]:
        over = (
            f"{record['needs_gib'] - record['has_gib']:.1f} too much"
            if record["needs_gib"]
            else "too much"
        )
        return [
            over,
            f"{record['model_flops'] / 1e12:.2f}",
            *["–"] * 8,
            f"{record['compile_seconds']:.0f}",
        ]
    times = [
        f"{1e3 * record['ceilings'][each]:,.0f}" for each in ("compute", "hbm", "schedule", "ici")
    ]
    return [
        f"{record['memory']['peak']:.2f}", f"{record['model_flops'] / 1e12:.2f}", f"{record['wire_mib']:,.0f}", *times, record["bound"],
        f"{100 * record['mfu']:.1f}", f"{record['tokens_per_second_per_chip']:,.0f}", f"{record['compile_seconds']:.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    command.run(main)
