"""The last sections of the report: reproduction, data, machine, and how to read it."""

import json
from typing import Any

from lm.core.plain import flat
from lm.report import number_format
from lm.report.comparison import Comparison
from lm.report.page import Code, Details, Heading, Items, Paragraph, Part, Table

_UNKNOWN = "not recorded"


def reproduce(comparison: Comparison) -> list[Part]:
    """Returns the section with the command and configs.

    The first arm's config is shown in full; other arms show only their differences from it.
    """
    record = comparison.record
    command = record.get("command")
    parts: list[Part] = [
        Heading("Reproduce"),
        Code(str(command), "sh") if command else Paragraph("The command is not recorded."),
    ]
    if record.get("hypotheses") and record.get("started"):
        when = number_format.timestamp(record["started"])
        parts.append(
            Paragraph(
                f"The hypotheses and their thresholds were written to comparison.json at {when}"
                " UTC, before the first run started."
            )
        )
    first: dict[str, Any] = {}
    first_name = ""
    for arm in comparison.arms:
        runs = [run for run in comparison.runs if run.arm == arm and run.record.get("config")]
        if not runs:
            continue
        run = min(runs, key=lambda run: not run.done)
        name, config = f"{comparison.label(arm)}, seed {run.seed}", run.record["config"]
        if not first:
            first, first_name = flat(config), name
            parts.append(
                Details(
                    f"Full config of {name}",
                    [Code(json.dumps(config, indent=2, ensure_ascii=False), "json")],
                )
            )
        else:
            lines = _differences(first, flat(config)) or ["none"]
            parts.append(
                Details(
                    f"Config of {name}: differences from {first_name}",
                    [Code("\n".join(lines), "")],
                )
            )
    return parts


def _differences(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """A line for each field that differs."""
    shown = {field: json.dumps(value, ensure_ascii=False) for field, value in other.items()}
    lines = [
        f"{field} = {shown[field]}"
        for field in sorted(other)
        if field not in first or first[field] != other[field]
    ]
    return lines + [f"{field}: not set" for field in sorted(first.keys() - other.keys())]


def data(comparison: Comparison) -> list[Part]:
    """Returns the section with source, tokenizer, fingerprint and sizes by split."""
    record = comparison.record.get("data") or {}
    tokenizer = record.get("tokenizer") or {}
    kind, size = tokenizer.get("kind"), tokenizer.get("size")
    facts = [
        ["Source", _text(record.get("source"))],
        [
            "Tokenizer",
            f"SentencePiece {kind}, {number_format.count(size)} pieces"
            if kind and size
            else _UNKNOWN,
        ],
        ["Fingerprint", _text(record.get("fingerprint"))],
    ]
    keys = ("documents", "words", "bytes", "tokens")
    rows = [
        [split, *(number_format.count(sizes.get(key)) for key in keys)]
        for split, sizes in (record.get("splits") or {}).items()
    ]
    columns = [("Split", "l"), *((key.capitalize(), "r") for key in keys)]
    caption = "Documents are assigned to splits by a hash of their content, never by position."
    return [
        Heading("Data"),
        *([Table(columns, rows, caption)] if rows else []),
        Table([("", "l"), ("", "l")], facts, head=False),
    ]


def machine(comparison: Comparison) -> list[Part]:
    """Returns the section with device, versions, revision and time."""
    record = comparison.record
    machine, versions = record.get("machine") or {}, record.get("versions") or {}
    memory, seconds = machine.get("memory_gib"), record.get("seconds")
    devices = machine.get("devices")
    facts = [
        ["Device", (f"{devices} × " if devices else "") + _text(machine.get("device"))],
        ["Cores", _text(machine.get("cores"))],
        ["Memory", _UNKNOWN if memory is None else f"{number_format.plain(memory)} GiB"],
        ["Platform", _text(machine.get("platform"))],
        ["Python", _text(machine.get("python"))],
        [
            "Packages",
            ", ".join(f"{name} {version}" for name, version in versions.items()) or _UNKNOWN,
        ],
        ["Git revision", _text(record.get("git"))],
        ["Wall time", "not finished" if seconds is None else number_format.duration(seconds)],
        ["Concurrent runs", _text(record.get("workers"))],
    ]
    return [Heading("Machine and versions"), Table([("", "l"), ("", "l")], facts, head=False)]


def reading(comparison: Comparison) -> list[Part]:
    """Returns the section on what the intervals cover and what can be compared."""
    return [
        Heading("How to read this report"),
        Items(
            [
                "An arm is one configuration of a comparison, trained with every seed. A row is one"
                " sequence of a training batch; it may hold several documents.",
                "On a shared evaluation task, each model has its own attention mask: a causal"
                " decoder reads from left to right; a decoder that was trained with a prefix sees"
                " the whole text, as an encoder does.",
                "Never rank objectives by their own cross-entropy. Predicting the next token, a"
                " masked token and the next sentence are different tasks; only scores on a shared"
                " task, and differences between them, compare arms.",
                "An interval covers other seeds, which means other initial values and another order"
                " of the data. It is a two-sided 95 % interval by Student's t over the seeds."
                f" {_factor(len(comparison.seeds))} It assumes that scores are roughly normal,"
                " which so few seeds cannot confirm.",
                "If per-example values of a score are known, its interval also covers other test"
                " examples of the same kind, by a bootstrap over both seeds and examples"
                " (Multi-Bootstrap, Sellam et al. 2022). Differences are then computed example by"
                " example on the examples that both sides were evaluated on.",
                "If they are not known, only the intervals of fractions, such as accuracies, cover"
                " other test examples, by Wilson's interval added in quadrature, which treats"
                " examples as independent; those of losses (nats, bits, perplexity) cover the seeds"
                " only. Texts from one document are similar, so the part due to test examples may"
                " be too narrow.",
                "p is two-sided and below 0.05 exactly when the 95 % interval excludes the tested"
                " value. Holm's adjustment is for the number of hypotheses. Tables of differences"
                " are not adjusted; they are for exploration, not for conclusions.",
                "No interval covers another corpus, split, tokenizer, model size or set of"
                " hyperparameters.",
                "Baselines do not depend on a seed: at most, other test examples make them"
                " uncertain.",
                "Paired differences are between runs with the same seed, which share initial"
                " values, and the order of the data if the objectives read the same rows."
                " Objectives that pack text in the same way read the same rows in the same order"
                " (CLM and MLM), and so do pair objectives (NSP and MLM + NSP).",
                "A score from one seed has no interval, and its hypothesis is inconclusive.",
            ]
        ),
    ]


def _factor(seeds: int) -> str:
    """The width of the interval for this number of seeds, as text."""
    if seeds < 2:
        return "With one seed there is no interval."
    from scipy import stats

    factor = float(stats.t.ppf(0.975, seeds - 1))
    return (
        f"With {seeds} seeds it extends {number_format.plain(factor)} standard errors to each side;"
        " with many seeds it would be 1.96."
    )


def _text(value: Any) -> str:
    return _UNKNOWN if value is None or value == "" else str(value)
