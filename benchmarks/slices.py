"""Tables of configs on TPU slices, by the TPU compiler and without a TPU.

  python -m benchmarks.slices --workdir=runs/slices [--tables=configs,fits,growth,depth,planned]

configs: every config at :base on slices named -16 (chips or TensorCores), in bfloat16, parameters
  split over all chips. Tries the config as it is, remat=full, then 2, 4, 8, … microbatches, and
  shows the first that fits.
fits: the smallest slice of each generation that holds a decoder of 1B and one of 8B.
growth: a 1B decoder from 4 to 1,024 chips, four rows per chip.
depth: seconds to compile 12 and 48 layers.
planned: the planner's best plan for a 1B decoder on v5e-16, and ten hand-picked meshes.

Compiled records are kept in the workdir, so the same command resumes. Prints Markdown and writes it
to WORKDIR/slices.md. Takes some hours on two cores, most of them for the first table. For one
config alone: --only=llama.
"""

import copy
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from lm.core import command
from tpu.cache import Cache

_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/slices", "folder of the compiled records and of slices.md"
)
_TABLES = flags.DEFINE_list(
    "tables", ["configs", "fits", "growth", "depth", "planned"], "tables to print"
)
_TPU = flags.DEFINE_list("tpu", ["v5e-16", "v6e-16", "v5p-16"], "slices of the first table")
_ONLY = flags.DEFINE_list("only", [], "configs of the first table; default: all")
_CONFIGS = Path(__file__).parent.parent / "configs"


def main() -> None:
    """Prints the tables and writes slices.md."""
    from tpu import environment

    environment.prepare()
    environment.silence_stderr()

    from tpu import cache

    records = cache.Cache(_WORKDIR.value)
    document = []
    for name in _TABLES.value:
        lines = [f"### {name}", "", *TABLES[name](records), ""]
        print("\n".join(lines), flush=True)
        document += lines
    (Path(_WORKDIR.value) / "slices.md").write_text("\n".join(document) + "\n", encoding="utf-8")


def configs(records: Cache) -> Iterator[str]:
    """Yields a row for every config at :base and every slice."""
    yield from _head(
        "config", "slice", "parameters", "rows", "what fits first", "peak GiB", "model TFLOP",
        "wire MiB", "compute ms", "HBM ms", "schedule ms", "ICI ms", "bound", "MFU %",
        "tokens/s/chip", "compile s",
    )  # fmt: skip
    for name in _ONLY.value or sorted(path.stem for path in _CONFIGS.glob("*.py")):
        for tpu in _TPU.value:
            record, how = first_that_fits(_config(name, "base"), tpu, records)
            shown = [
                f"{name}:base",
                tpu,
                f"{record['parameters'] / 1e6:,.0f} M",
                str(record["batch_size"]),
                how,
            ]
            yield "| " + " | ".join([*shown, *_costs(record)]) + " |"


def fits(records: Cache) -> Iterator[str]:
    """Yields slices up to the smallest that holds each decoder, four rows per chip."""
    from tpu import slices

    yield from _head(
        "decoder",
        "slice",
        "chips",
        "fits",
        "what fits first",
        "peak GiB",
        "state GiB per device",
        "MFU %",
        "tokens/s/chip",
    )
    for size, decoder in (("base", "1B"), ("large", "8B")):
        for generation in ("v4", "v5e", "v5p", "v6e", "tpu7x"):
            for name in slices.names(generation):
                slice_ = slices.parse(name)
                if slice_.devices < 4:
                    continue
                config = _config("llama", size)
                config["training"]["batch_size"] = 4 * slice_.devices
                record, how = first_that_fits(config, name, records, most=4)
                state = f"{record['held']['parameters'] + record['held']['optimizer']:.2f}"
                if record["fits"]:
                    speed = [
                        f"{record['memory']['peak']:.2f}",
                        state,
                        f"{100 * record['mfu']:.1f}",
                        f"{record['tokens_per_second_per_chip']:,.0f}",
                    ]
                    yield (
                        "| "
                        + " | ".join([decoder, name, str(slice_.chips), "yes", how, *speed])
                        + " |"
                    )
                    break
                over = (
                    f"no, {record['needs_gib'] - record['has_gib']:.1f} GiB too much"
                    if record["needs_gib"]
                    else "no"
                )
                yield (
                    "| "
                    + " | ".join(
                        [decoder, name, str(slice_.chips), over, how, "–", state, "–", "–"]
                    )
                    + " |"
                )


def growth(records: Cache) -> Iterator[str]:
    """Yields a 1B decoder on more and more chips."""
    from lm.parallel.mesh import describe
    from tpu import slices

    yield from _head(
        "slice", "chips", "mesh", "rows", "peak GiB", "wire MiB per chip", "over DCN MiB",
        "compute ms", "HBM ms", "schedule ms", "ICI ms", "DCN ms", "roofline step ms", "MFU %",
    )  # fmt: skip
    for name in ("v5e-4", "v5e-8", "v5e-16", "v5e-32", "v5e-64", "v5e-128", "v5e-256", "4xv5e-256"):
        slice_ = slices.parse(name)
        config = _config("llama", "base")
        config["training"]["batch_size"] = 4 * slice_.devices
        config["model"] |= {"remat": "full", "head_chunks": 8}
        record = _measured(config, name, records)
        mesh = describe(record["mesh"])
        if not record["fits"]:
            yield (
                f"| {name} | {slice_.chips} | {mesh} | {record['batch_size']} | does not fit |"
                + " – |" * 9
            )
            continue
        outside = sum(row["wire_mib"] for row in record["collectives"] if row["network"] == "DCN")
        times = [
            f"{1e3 * record['ceilings'][name]:,.0f}"
            for name in ("compute", "hbm", "schedule", "ici", "dcn")
        ]
        shown = [
            name,
            str(slice_.chips),
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


def depth(records: Cache) -> Iterator[str]:
    """Yields seconds to trace and compile few and many scanned layers."""
    yield from _head("layers", "trace and compile s", "peak GiB", "estimated cycles")
    seconds = {}
    for layers in (12, 48):
        config = _config("clm", "base")
        config["model"] |= {"layers": layers, "remat": "full", "head_chunks": 8}
        config["training"]["batch_size"] = 64
        record = _measured(config, "v5e-16", records)
        seconds[layers] = record["compile_seconds"]
        peak = f"{record['memory']['peak']:.2f}"
        yield f"| {layers} | {seconds[layers]:.1f} | {peak} | {record['cycles']:,} |"
    yield ""
    yield f"48 layers take {seconds[48] / seconds[12]:.2f} times as long as 12."


def _head(*names: str) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)


# Meshes one would try by hand on 16 chips, with remat=full.
BY_HAND = (
    {"fsdp": 16}, {"data": 16}, {"data": 2, "fsdp": 8}, {"data": 4, "fsdp": 4},
    {"fsdp": 8, "tensor": 2}, {"fsdp": 4, "tensor": 4}, {"fsdp": 2, "tensor": 8},
    {"data": 2, "fsdp": 4, "tensor": 2}, {"fsdp": 8, "context": 2}, {"fsdp": 4, "stage": 4},
)  # fmt: skip


def planned(records: Cache) -> Iterator[str]:
    """Yields ten meshes by hand and the planner's, whose roofline step should be no longer."""
    from lm.nn.config import TransformerConfig
    from lm.parallel.mesh import describe
    from tpu import measure, search, slices

    slice_ = slices.parse("v5e-16")
    config = _config("llama", "base")
    config["training"]["batch_size"] = 64
    yield from _head(
        "mesh", "remat", "microbatches", "head_chunks", "peak GiB", "roofline step ms", "bound"
    )
    steps = []
    for axes in BY_HAND:
        own = copy.deepcopy(config)
        own["mesh"] |= {"data": 1, "fsdp": 1, **axes}
        own["model"] |= {"remat": "full", "head_chunks": 8}
        record = _measured(own, slice_.name, records)
        mesh = describe(axes)
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
    planner = search.Search(config, slice_, measure.options(slice_, []), records)
    planner.run(
        [name for name in TransformerConfig.CHOICES["remat"] if name != "offload"],
        [8],
        3,
        40,
        lambda line: print(f"  {line}", file=sys.stderr),
    )
    seconds, plan, record = planner.results[0]
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
    yield (
        f"{planner.compiled} compiled. The planner's step, {1e3 * seconds:,.1f} ms,"
        f" is {verdict} {best}."
    )


TABLES = {"configs": configs, "fits": fits, "growth": growth, "depth": depth, "planned": planned}


def first_that_fits(
    config: Mapping[str, Any], tpu: str, records: Cache, most: int = 64
) -> tuple[dict[str, Any], str]:
    """The record of the first setting that fits, and its description; the last if none fits."""
    tries: list[tuple[str, int]] = [("none", 1), ("full", 1)]
    parts = 2
    while parts <= most:
        tries.append(("full", parts))
        parts *= 2
    record: dict[str, Any] = {}
    rows = config["training"]["batch_size"]
    devices = _devices(tpu)
    tries = [(remat, parts) for remat, parts in tries if rows % (parts * devices) == 0]
    possible = _possible(config, tpu)
    for remat, microbatches in tries:
        # Settings that cannot fit by formula are not compiled, except the last.
        if not possible(remat, microbatches) and (remat, microbatches) != tries[-1]:
            continue
        own = copy.deepcopy(dict(config))
        own["model"]["remat"], own["training"]["microbatches"] = remat, microbatches
        record = _measured(own, tpu, records)
        how = f"remat {remat}" + (f", {microbatches} microbatches" if microbatches > 1 else "")
        if record["fits"]:
            break
    return record, how


def _possible(config: Mapping[str, Any], tpu: str) -> Callable[[str, int], bool]:
    """Returns whether remat and microbatches may fit, by the lower bound of tpu/estimate.py."""
    from tpu import compiling, estimate, slices

    slice_ = slices.parse(tpu)
    traced = compiling.build(config, slice_)
    sizes = estimate.ModelSizes.from_program(traced.program, traced.batch)
    mesh = {axis: int(size) for axis, size in traced.program.mesh.shape.items()}
    chunks = traced.program.config.head_chunks

    def possible(remat: str, microbatches: int) -> bool:
        plan = estimate.Plan(**mesh, remat=remat, microbatches=microbatches, head_chunks=chunks)
        return estimate.memory(sizes, plan) <= slice_.chip.usable

    return possible


def _devices(tpu: str) -> int:
    from tpu import slices

    return slices.parse(tpu).devices


def _measured(config: Mapping[str, Any], tpu: str, records: Cache) -> dict[str, Any]:
    from tpu import cache, measure, slices

    slice_ = slices.parse(tpu)
    options = measure.options(slice_, [])
    print(
        f"{tpu}: {config['objective']['name']}, {config['model']['layers']} layers,"
        f" remat {config['model']['remat']}, {config['training']['microbatches']} microbatches",
        file=sys.stderr,
    )
    return records.get(
        cache.key(config, slice_.name, options), lambda: measure.measure(config, slice_, options)
    )


def _config(name: str, size: str) -> dict[str, Any]:
    """A config in bfloat16, with its parameters split over all devices of a slice."""
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
        f"{1e3 * record['ceilings'][name]:,.0f}" for name in ("compute", "hbm", "schedule", "ici")
    ]
    return [
        f"{record['memory']['peak']:.2f}",
        f"{record['model_flops'] / 1e12:.2f}",
        f"{record['wire_mib']:,.0f}",
        *times,
        record["bound"],
        f"{100 * record['mfu']:.1f}",
        f"{record['tokens_per_second_per_chip']:,.0f}",
        f"{record['compile_seconds']:.0f}",
    ]


if __name__ == "__main__":
    command.run(main)
