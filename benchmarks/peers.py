"""Compares our train step with another codebase's, by the same TPU compiler and without a TPU.

  python -m benchmarks.peers [--rows=small-v5e,1b-v5e] [--workdir=runs/peers] [--scan]

Prints Markdown. Each row has a line for our step, one for theirs and one for the ratio. Where we
would choose another rematerialization or mesh for the same model, slice and rows per step, the best
of our choices follows. Their figures are PEERS below. BERT's rows (masked language modeling, as
many tokens per step as `small`) have no peer: no such figures are published.

Compiled records are kept in the workdir by config and source, so the same command resumes. A row
takes 3 to 10 minutes of a free core unrolled, as theirs were compiled. --scan is faster (layers in
a loop, multiplied by its trip count).

est s is the sum of the backend's estimated cycles at the chip's clock. It compares programs and is
not a measured time. It omits collectives that overlap with other work, so their bytes are
listed separately. TFLOP are those of matmuls; a loop's body is multiplied by its trip count.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags

from lm.core import command
from tpu.cache import Cache

_ROWS = flags.DEFINE_list("rows", [], "names of rows to compile; default: all")
_WORKDIR = flags.DEFINE_string("workdir", "runs/peers", "folder of the compiled records")
_SCAN = flags.DEFINE_bool("scan", False, "compile the layers as a loop, as runs do; faster")


@dataclasses.dataclass(frozen=True)
class Row:
    """A setting and the figures of the peer's step.

    Attributes:
      size: size of configs/peers.py.
      tpu: name of the slice.
      rows: rows per step.
      mesh: fields of config.mesh that differ from the config's.
      model: fields of config.model that differ from the config's.
      peak: peak HBM of a device, in GiB.
      tflop: TFLOP of a step on a device, by the compiler.
      seconds: estimated seconds of a step, by the compiler.
      wire: MiB that a device sends in a step, by the compiler.
    """

    size: str
    tpu: str
    rows: int
    mesh: Mapping[str, int]
    model: dict[str, Any]
    peak: float
    tflop: float
    seconds: float
    wire: float


FSDP, DATA = {"data": 1, "fsdp": -1}, {"data": -1, "fsdp": 1}
# MaxText, August 2026, compiled by jax 0.10.2 with libtpu 0.0.42.1: unscanned layers, dot-product
# attention, the same compiler options.
PEERS = {
    "small-v5e": Row("small", "v5e-4", 32, FSDP, {"remat": "full"}, 1.07, 7.715, 0.1698, 505),
    "small-v5e-data": Row("small", "v5e-4", 32, DATA, {"remat": "none"}, 14.58, 6.436, 0.1567, 387),
    "small-v6e": Row("small", "v6e-4", 32, FSDP, {"remat": "full"}, 1.54, 7.725, 0.0659, 505),
    "1b-v5e": Row("1b", "v5e-16", 64, FSDP, {"remat": "full"}, 4.26, 78.51, 0.797, 8341),
    "1b-v5p": Row("1b", "v5p-16", 32, FSDP, {"remat": "full"}, 5.12, 78.50, 0.357, 7785),
}
# Our other choices for a row; the fastest that fits is its best. Unrolled even with --scan, because
# a loop copies what the backward pass needs into stacks and out of them.
_UNROLLED = {"scan": False, "head_chunks": 1}
CHOICES = {
    "small-v5e": [(FSDP, {**_UNROLLED, "remat": "minimal"})],
    "1b-v5e": [(FSDP, {**_UNROLLED, "remat": "minimal"})],
}
# Row → (size of configs/mlm.py, slice).
BERT = {
    f"bert-{size}-{tpu.partition('-')[0]}": (size, tpu)
    for size, tpu in itertools.product(("base", "large"), ("v5e-4", "v6e-4"))
}
_BERT_ROWS = 64  # of 512 tokens


def main() -> None:
    """Prints the table."""
    from lm.core.plugins import UserError

    known = [*PEERS, *BERT]
    names = _ROWS.value or known
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--rows={','.join(unknown)} is unknown; give rows of: {', '.join(known)}")

    from tpu import environment

    environment.prepare()
    environment.silence_stderr()

    from tpu import cache

    records = cache.Cache(_WORKDIR.value)
    print(
        "| row | | remat | mesh | peak GiB | wire MiB | TFLOP | est s |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for name in names:
        for line in lines(name, records) if name in PEERS else bert_lines(name, records):
            print(line, flush=True)


def lines(name: str, records: Cache) -> Iterator[str]:
    """Yields our step at the peer's setting, the peer's, their ratio, our best and its ratio."""
    row = PEERS[name]
    ours = measured(row, row.mesh, row.model, records)
    theirs = (row.peak, row.wire, row.tflop, row.seconds)
    yield _line(name, "ours", ours, figures(ours))
    yield _line("", "peer", None, theirs)
    yield _line("", "ours / peer", None, ratios(figures(ours), theirs))
    others = [
        measured(row, mesh, row.model | model, records) for mesh, model in CHOICES.get(name, [])
    ]
    fitting = [record for record in [*others, ours] if record["fits"]]
    if others and fitting:
        best = min(fitting, key=lambda record: record["ceilings"]["schedule"])
        yield _line("", "our best", best, figures(best))
        yield _line("", "our best / peer", None, ratios(figures(best), theirs))


def bert_lines(name: str, records: Cache) -> Iterator[str]:
    """Yields BERT with full rematerialization and without."""
    from configs import mlm
    from lm.core.plain import plain

    size, tpu = BERT[name]
    for remat in ("full", "none"):
        config = plain(mlm.get_config(size))
        config["model"] |= {"scan": _SCAN.value, "dtype": "bfloat16", "remat": remat}
        config["mesh"] |= FSDP
        config["training"]["batch_size"] = _BERT_ROWS
        record = _record(config, tpu, records)
        yield _line(name if remat == "full" else "", "ours", record, figures(record))


def settings(
    row: Row, mesh: Mapping[str, int], model: Mapping[str, Any], scan: bool
) -> dict[str, Any]:
    """The config of a row, as nested dicts."""
    from configs import peers
    from lm.core.plain import plain

    config = plain(peers.get_config(row.size))
    config["model"] |= {"scan": scan, **model}
    config["mesh"] |= mesh
    config["training"]["batch_size"] = row.rows
    return config


def measured(
    row: Row, mesh: Mapping[str, int], model: Mapping[str, Any], records: Cache
) -> dict[str, Any]:
    """The record of our step for a row."""
    return _record(settings(row, mesh, model, _SCAN.value), row.tpu, records)


def _record(config: Mapping[str, Any], tpu: str, records: Cache) -> dict[str, Any]:
    """The record (tpu/measure.py) of a config's step, from the cache if it is there."""
    from tpu import cache, measure, slices

    slice_ = slices.parse(tpu)
    options = measure.options(slice_, [])
    print(
        f"{tpu}: {config['objective']['name']}, {config['model']['layers']} layers,"
        f" remat {config['model']['remat']}",
        file=sys.stderr,
    )
    return records.get(
        cache.key(config, slice_.name, options),
        lambda: measure.measure(config, slice_, options),
    )


def figures(record: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Peak GiB, wire MiB, TFLOP and estimated seconds of a record; None if it does not fit."""
    if not record["fits"]:
        return None
    return (
        record["memory"]["peak"],
        record["wire_mib"],
        record["flops"] / 1e12,
        record["ceilings"]["schedule"],
    )


def ratios(ours: tuple[float, ...] | None, theirs: tuple[float, ...]) -> tuple[float, ...] | None:
    """Our figures over theirs; None if ours do not fit."""
    return (
        None
        if ours is None
        else tuple(own / other for own, other in zip(ours, theirs, strict=True))
    )


def _line(
    name: str, side: str, record: Mapping[str, Any] | None, values: tuple[float, ...] | None
) -> str:
    from lm.parallel.mesh import describe

    split = describe(record["mesh"]) if record else ""
    shown = (
        ["does not fit", "", "", ""]
        if values is None
        else [f"{value:,.{0 if value >= 100 else 3}f}" for value in values]
    )
    return "| " + " | ".join([name, side, record["remat"] if record else "", split, *shown]) + " |"


if __name__ == "__main__":
    command.run(main)
