"""Our train step beside another codebase's, by the same TPU compiler and without a TPU.

  python -m benchmarks.peers [--rows=small-v5e,1b-v5e] [--workdir=runs/peers] [--scan]

Prints Markdown: a line of ours, one of theirs and their ratio for each row; then the best of our own choices of remat and mesh for the same
model, slice and rows a step. Theirs are PEERS below. BERT's rows (masked language model, as many tokens a step as `small`) have no peer:
nobody has published such figures. What was compiled is kept in the workdir by config and source, so the same command
goes on where it stopped. A row takes 3 to 10 minutes of a free core unrolled, as theirs were compiled; less with --scan (layers in a loop,
counted as often as it runs).

est s is the sum of the backend's estimated cycles at the chip's clock: a ratio between programs, no measured time; collectives that run
beside other work are not in it, so their bytes stand beside it. TFLOP are those of matrix products, loops by their trips.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags

from lm.core import command

_ROWS = flags.DEFINE_list("rows", [], "rows to compile, by name; by default all")
_WORKDIR = flags.DEFINE_string("workdir", "runs/peers", "where records are kept")
_SCAN = flags.DEFINE_bool("scan", False, "compile the layers as a loop, as runs do: quick")


@dataclasses.dataclass(frozen=True)
class Row:
    """A setting, and what the peer's step takes there.

    Attributes:
      size: of configs/peers.py. tpu: slice. rows: of a step. mesh, model: fields that differ from the config's.
      peak: GiB of HBM on a device. tflop, seconds, wire (MiB sent): of a step on a device, as the compiler has it.
    """

    size: str
    tpu: str
    rows: int
    mesh: Mapping[str, int]
    model: Mapping[str, Any]
    peak: float
    tflop: float
    seconds: float
    wire: float


FSDP, DATA = {"data": 1, "fsdp": -1}, {"data": -1, "fsdp": 1}
# MaxText, August 2026, compiled by jax 0.10.2 with libtpu 0.0.42.1: unscanned layers, dot-product attention, the same compiler options.
PEERS = {
    "small-v5e": Row("small", "v5e-4", 32, FSDP, {"remat": "full"}, 1.07, 7.715, 0.1698, 505),
    "small-v5e-data": Row("small", "v5e-4", 32, DATA, {"remat": "none"}, 14.58, 6.436, 0.1567, 387),
    "small-v6e": Row("small", "v6e-4", 32, FSDP, {"remat": "full"}, 1.54, 7.725, 0.0659, 505),
    "1b-v5e": Row("1b", "v5e-16", 64, FSDP, {"remat": "full"}, 4.26, 78.51, 0.797, 8341),
    "1b-v5p": Row("1b", "v5p-16", 32, FSDP, {"remat": "full"}, 5.12, 78.50, 0.357, 7785),
}
# What else we would run there: the fastest that fits is the row's best. Unrolled, whatever --scan says: a loop copies what the backward
# pass needs into stacks and out of them.
_QUICK = {"scan": False, "head_chunks": 1}
CHOICES = {
    "small-v5e": [(FSDP, {**_QUICK, "remat": "minimal"})],
    "1b-v5e": [(FSDP, {**_QUICK, "remat": "minimal"})],
}
# Row -> size of configs/mlm.py, slice.
BERT = {
    f"bert-{size}-{tpu.partition('-')[0]}": (size, tpu)
    for size, tpu in itertools.product(("base", "large"), ("v5e-4", "v6e-4"))
}
_BERT_ROWS = 64  # of 512 tokens


def main() -> None:
    from lm.core.plugins import UserError

    known = [*PEERS, *BERT]
    names = _ROWS.value or known
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"--rows={','.join(unknown)}: there is no such row; there are {', '.join(known)}"
        )

    from tpu import environment

    environment.prepare()
    environment.hush()

    from tpu import cache

    kept = cache.Cache(_WORKDIR.value)
    print(
        "| row | | remat | mesh | peak GiB | wire MiB | TFLOP | est s |\n|---|---|---|---|---|---|---|---|"
    )
    for name in names:
        for line in lines(name, kept) if name in PEERS else bert_lines(name, kept):
            print(line, flush=True)


def lines(name: str, kept: Any) -> Iterator[str]:
    """Ours at the peer's setting, the peer's, the ratio; our best choice and its ratio."""
    row = PEERS[name]
    ours = measured(row, row.mesh, row.model, kept)
    theirs = (row.peak, row.wire, row.tflop, row.seconds)
    yield _line(name, "ours", ours, figures(ours))
    yield _line("", "peer", None, theirs)
    yield _line("", "ours / peer", None, ratios(figures(ours), theirs))
    found = [measured(row, mesh, row.model | model, kept) for mesh, model in CHOICES.get(name, [])]
    fitting = [record for record in [*found, ours] if record["fits"]]
    if found and fitting:
        best = min(fitting, key=lambda record: figures(record)[-1])
        yield _line("", "our best", best, figures(best))
        yield _line("", "our best / peer", None, ratios(figures(best), theirs))


def bert_lines(name: str, kept: Any) -> Iterator[str]:
    """BERT with each block computed again in the backward pass, and with nothing computed again."""
    from configs import mlm
    from lm.core.plain import plain

    size, tpu = BERT[name]
    for remat in ("full", "none"):
        config = plain(mlm.get_config(size))
        config["model"] |= {"scan": _SCAN.value, "dtype": "bfloat16", "remat": remat}
        config["mesh"] |= FSDP
        config["training"]["batch_size"] = _BERT_ROWS
        record = _record(config, tpu, kept)
        yield _line(name if remat == "full" else "", "ours", record, figures(record))


def settings(
    row: Row, mesh: Mapping[str, int], model: Mapping[str, Any], scan: bool
) -> dict[str, Any]:
    """The plain config of a row."""
    from configs import peers
    from lm.core.plain import plain

    config = plain(peers.get_config(row.size))
    config["model"] |= {"scan": scan, **model}
    config["mesh"] |= mesh
    config["training"]["batch_size"] = row.rows
    return config


def measured(
    row: Row, mesh: Mapping[str, int], model: Mapping[str, Any], kept: Any
) -> dict[str, Any]:
    """The record of our step at a row."""
    return _record(settings(row, mesh, model, _SCAN.value), row.tpu, kept)


def _record(config: Mapping[str, Any], tpu: str, kept: Any) -> dict[str, Any]:
    """The record (tpu/measure.py) of a config's step, from the cache where it is there."""
    from tpu import cache, measure, slices

    of = slices.parse(tpu)
    options = measure.options(of, [])
    print(
        f"{tpu}: {config['objective']['name']}, {config['model']['layers']} layers, remat {config['model']['remat']}",
        file=sys.stderr,
    )
    return kept.get(
        cache.key(config, of.name, options), lambda: measure.measure(config, of, options)
    )


def figures(record: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Peak GiB, wire MiB, TFLOP and estimated seconds of a record; None where it does not fit."""
    if not record["fits"]:
        return None
    return (
        record["memory"]["peak"],
        record["wire_mib"],
        record["flops"] / 1e12,
        record["ceilings"]["schedule"],
    )


def ratios(ours: tuple[float, ...] | None, theirs: tuple[float, ...]) -> tuple[float, ...] | None:
    return (
        None
        if ours is None
        else tuple(own / other for own, other in zip(ours, theirs, strict=True))
    )


def _line(
    name: str, what: str, record: Mapping[str, Any] | None, values: tuple[float, ...] | None
) -> str:
    from lm.parallel.mesh import describe

    split = describe(record["mesh"]) if record else ""
    shown = (
        ["does not fit", "", "", ""]
        if values is None
        else [f"{value:,.{0 if value >= 100 else 3}f}" for value in values]
    )
    return "| " + " | ".join([name, what, record["remat"] if record else "", split, *shown]) + " |"


if __name__ == "__main__":
    command.run(main)
