"""Prints records of `tpu.measure` as tables."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lm.core.plugins import UserError
from lm.parallel.mesh import describe

MODEL, COMPILER = "[dim]m[/]", "[dim]c[/]"
_LEGEND = (
    "m: computed from the config and lm/parallel/chips.py by formula; c: reported by the compiler;"
    " mc: computed from both"
)


@contextlib.contextmanager
def spinner(what: str) -> Iterator[None]:
    """Context manager: shows a spinner on standard error, if it is a terminal."""
    console = Console(file=sys.stderr)
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield


@contextlib.contextmanager
def progress(what: str, most: int) -> Iterator[Callable[[str], None]]:
    """Context manager: a progress bar on standard error.

    Args:
      what: title of the bar.
      most: the number of steps of the bar.

    Yields:
      A function that advances the bar by one step and prints a line above it.
    """
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 160)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=most)

        def report(line: str) -> None:
            console.print(f"  {line}", highlight=False, markup=False)
            bar.advance(task)

        yield report


def write(path: str, text: str) -> None:
    """Writes a file that the user named.

    Args:
      path: path of the file.
      text: content of the file, without the final newline.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path!r} cannot be written: {error.strerror}") from error


def print_records(records: Sequence[Mapping[str, Any]], title: Mapping[str, Any]) -> None:
    """Prints one table of all slices, then collectives and largest buffers of each slice.

    Args:
      records: records from `measure.measure`, one for each slice.
      title: run config, which the title of the table describes.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    model = title["model"]
    shape = f"{model['layers']} layers of width {model['width']}, {title['data']['length']} tokens"
    heading = f"{title['objective']['name']} on {model['name']}, {shape}"
    table = Table(title=heading, title_justify="left", caption=_LEGEND, caption_justify="left")
    table.add_column("")
    table.add_column("")
    for record in records:
        table.add_column(record["tpu"], justify="right")
    for name, mark, cells in _rows(records):
        if name.endswith("unscanned") and set(cells) == {"–"}:
            continue
        table.add_row(name, mark, *cells, end_section=name in _ENDS)
    console.print(table)
    for record in records:
        if "error" in record:
            console.print(f"[bold]{record['tpu']}[/] error: {record['error']}", highlight=False)
        elif record["fits"]:
            console.print(_collectives(record))
            console.print(_largest(record))
        else:
            console.print(_too_large(record), highlight=False)


_ENDS = ("dtype, remat", "fits", "code", "collectives, sent per device", "model FLOPs per device")


def _rows(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[str]]]:
    def row(name: str, mark: str, value: Any) -> tuple[str, str, list[str]]:
        return name, mark, [_cell(value, record) for record in records]

    bounds = [
        ("compute", "mc", "FLOPs at peak"), ("hbm", "mc", "bytes of HBM"),
        ("schedule", "c", "estimated cycles"), ("ici", "mc", "ICI"), ("dcn", "mc", "DCN"),
    ]  # fmt: skip
    return [
        row("chips, devices, hosts", "m", lambda r: f"{r['chips']}, {r['devices']}, {r['hosts']}"),
        row(
            "topology",
            "m",
            lambda r: f"{r['slices']} × {r['topology']}" if r["slices"] > 1 else r["topology"],
        ),
        row("mesh", "m", lambda r: describe(r["mesh"])),
        row(
            "batch: rows, tokens, microbatches",
            "m",
            lambda r: f"{r['batch_size']:,}, {r['tokens_per_step']:,}, {r['microbatches']}",
        ),
        row("parameters", "m", lambda r: f"{r['parameters']:,}"),
        row("dtype, remat", "m", lambda r: f"{r['dtype']}, {r['remat']}"),
        row("fits", "c", lambda r: "[green]yes[/]" if r["fits"] else f"[red]no, {_over(r)}[/]"),
        row(
            "peak HBM per device",
            "c",
            lambda r: f"{_gib(r['memory']['peak'])} of {_gib(r['usable_gib'])}",
        ),
        row("  parameters", "m", lambda r: _gib(r["held"]["parameters"])),
        row("  optimizer", "m", lambda r: _gib(r["held"]["optimizer"])),
        row("  batch", "m", lambda r: _gib(r["held"]["batch"])),
        row("  padding of these", "c", lambda r: _gib(r["memory"]["padding"])),
        row(
            "  gradients, activations, all else",
            "c",
            lambda r: _gib(max(0.0, r["memory"]["peak"] - r["memory"]["arguments"])),
        ),
        row("code", "c", lambda r: _gib(r["memory"]["code"])),
        row("collectives, sent per device", "c", lambda r: f"{r['wire_mib']:,.0f} MiB"),
        row("model FLOPs per device", "m", lambda r: f"{r['model_flops'] / 1e12:,.3f} TFLOP"),
        row("FLOPs per device, loops × trips", "c", lambda r: f"{r['flops'] / 1e12:,.3f} TFLOP"),
        row("HBM traffic per device, loops × trips", "c", lambda r: f"{r['traffic_gb']:,.1f} GB"),
        row(
            "FLOPs, bytes accessed, unscanned",
            "c",
            lambda r: (
                f"{r['unscanned']['flops'] / 1e12:,.3f} T, {r['unscanned']['bytes'] / 1e9:,.1f} GB"
            ),
        ),
        *(
            row(f"  {label}", mark, lambda r, name=name: _ms(r["ceilings"][name]))
            for name, mark, label in bounds
        ),
        row("roofline step", "mc", lambda r: f"{_ms(r['step_seconds'])} ({r['bound']})"),
        row("MFU that it allows", "mc", lambda r: f"{100 * r['mfu']:.1f} %"),
        row("tokens/s per chip", "mc", lambda r: f"{r['tokens_per_second_per_chip']:,.0f}"),
        row("compile time", "c", lambda r: f"{r['compile_seconds']:.0f} s"),
    ]


def _cell(value: Any, record: Mapping[str, Any]) -> str:
    try:
        return value(record)
    except (KeyError, TypeError):  # the step does not fit, or was compiled without costs
        return "–"


def _gib(value: float) -> str:
    return f"{value:.2f} GiB" if value >= 0.1 else f"{1024 * value:.1f} MiB"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f} ms" if seconds >= 0.01 else f"{1e3 * seconds:.3f} ms"


def _over(record: Mapping[str, Any]) -> str:
    return (
        f"{record['needs_gib'] - record['has_gib']:.2f} GiB too much"
        if record["needs_gib"]
        else "too large"
    )


def _too_large(record: Mapping[str, Any]) -> str:
    needs = (
        f"needs {record['needs_gib']:.2f} GiB per device, has {record['has_gib']:.2f}"
        if record["needs_gib"]
        else record["compiler_says"]
    )
    return "\n".join(
        [
            f"[bold]{record['tpu']}[/] does not fit: {needs}. What would help:",
            *(f"  {flags}" for flags in record["advice"]),
        ]
    )


def _collectives(record: Mapping[str, Any]) -> Table:
    table = Table(title=f"{record['tpu']}: collectives of a step \\[c]", title_justify="left")
    columns = (
        ("kind", "left"), ("mesh axes", "left"), ("over", "left"), ("times", "right"),
        ("buffers MiB", "right"), ("sent per device MiB", "right"), ("at full bandwidth", "right"),
        ("most of it from", "left"),
    )  # fmt: skip
    for name, side in columns:
        table.add_column(name, justify=side, no_wrap=name == "kind")  # type: ignore[arg-type]
    for row in record["collectives"]:
        if row["buffer_mib"] >= 0.05:
            table.add_row(
                row["kind"], "×".join(row["axes"]) or "–", row["network"], f"{row['count']:,}",
                f"{row['buffer_mib']:,.1f}", f"{row['wire_mib']:,.1f}", _ms(row["seconds"]),
                _escaped(row["largest"]),
            )  # fmt: skip
    small = sum(row["count"] for row in record["collectives"] if row["buffer_mib"] < 0.05)
    table.caption = f"and {small} of a few bytes" if small else None
    return table


def _largest(record: Mapping[str, Any]) -> Table:
    table = Table(title=f"{record['tpu']}: what takes the most memory \\[c]", title_justify="left")
    for name, side in (("memory", "right"), ("buffer", "left"), ("from", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    state = record["held"]["parameters"] + record["held"]["optimizer"]
    rows = [(state, "parameters and optimizer", "held between steps")] + [
        (buffer["gib"], buffer["shape"], _escaped(buffer["from"])) for buffer in record["largest"]
    ]
    for gib, what, source in sorted(rows, reverse=True):
        table.add_row(_gib(gib), what.replace("[", "\\["), source)
    return table


def _escaped(source: str) -> str:
    """The end of a source, without Rich's markup."""
    return source.replace("[", "\\[")[-70:]


def print_plans(result: Mapping[str, Any], source: str) -> None:
    """Prints the plans for a slice, and the flags of each plan.

    Args:
      result: the result for one slice, as `tpu.plan` writes it.
      source: origin of the prices.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    status = "complete" if result["settled"] else "stopped by --most"
    count = f"{result['compiled']} compiled, {result['left']} left"
    title = (
        f"{result['tpu']}, {result['global_batch']:,} rows, {result['dtype']}: {count}; {status}"
    )
    if not result["plans"]:
        console.print(
            f"[bold]{title}[/]\nnothing fits; a larger slice, fewer rows, or --head_chunks=1,8,32",
            highlight=False,
        )
        return
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = (
        f"{result['price']:g} USD per chip-hour ({source}); times are rooflines of the compiled"
        " program, not measurements"
    )
    for name in (
        "",
        "mesh",
        "remat",
        "micro- batches",
        "roofline step",
        "bound",
        "tokens/s per chip",
        "MFU",
        "peak HBM",
        "USD per 1e9 tokens",
    ):
        table.add_column(name, justify="left" if name in ("mesh", "remat", "bound") else "right")
    for number, plan in enumerate(result["plans"], 1):
        mesh = describe(plan["mesh"])
        table.add_row(
            str(number), mesh, plan["remat"], str(plan["microbatches"]), _ms(plan["step_seconds"]),
            plan["bound"], f"{plan['tokens_per_second_per_chip']:,.0f}",
            f"{100 * plan['mfu']:.1f} %", _gib(plan["memory"]["peak"]),
            f"{plan['usd_per_billion_tokens']:,.2f}",
        )  # fmt: skip
    console.print(table)
    for number, plan in enumerate(result["plans"], 1):
        console.print(f"{number}: {' '.join(plan['flags'])}", highlight=False, soft_wrap=True)
