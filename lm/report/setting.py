"""The report's end: how to run it again, on what data and machine it ran, and how to read it."""

import json
from typing import Any

from lm.core.plain import flat
from lm.report import figures
from lm.report.page import Code, Details, Heading, Items, Paragraph, Part, Table
from lm.report.read import Comparison

_UNKNOWN = "not recorded"


def reproduce(comparison: Comparison) -> list[Part]:
    """The command, and the config of one run of each arm: the first in full, of the others what differs from it."""
    command, about = comparison.about.get("command"), comparison.about
    parts: list[Part] = [
        Heading("Reproduce"),
        Code(str(command), "sh") if command else Paragraph("The command is not recorded."),
    ]
    if about.get("hypotheses") and about.get("started"):
        when = figures.moment(about["started"])
        parts.append(
            Paragraph(
                f"The hypotheses and their thresholds were written to comparison.json at {when} UTC, before the first run began."
            )
        )
    first: dict[str, Any] = {}
    whose = ""
    for arm in comparison.arms:
        runs = [run for run in comparison.runs if run.arm == arm and run.record.get("config")]
        if not runs:
            continue
        run = min(runs, key=lambda run: not run.done)
        name, config = f"{comparison.label(arm)}, seed {run.seed}", run.record["config"]
        if not first:
            first, whose = flat(config), name
            parts.append(
                Details(
                    f"Full config of {name}",
                    [Code(json.dumps(config, indent=2, ensure_ascii=False), "json")],
                )
            )
        else:
            lines = _differences(first, flat(config)) or ["nothing"]
            parts.append(
                Details(
                    f"Config of {name}: what differs from {whose}", [Code("\n".join(lines), "")]
                )
            )
    return parts


def _differences(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """A line for each field that is not the same in both."""
    shown = {field: json.dumps(value, ensure_ascii=False) for field, value in other.items()}
    found = [
        f"{field} = {shown[field]}"
        for field in sorted(other)
        if field not in first or first[field] != other[field]
    ]
    return found + [f"{field}: there is none" for field in sorted(first.keys() - other.keys())]


def data(comparison: Comparison) -> list[Part]:
    """Sizes by split, tokenizer and fingerprint."""
    about = comparison.about.get("data") or {}
    tokenizer = about.get("tokenizer") or {}
    kind, size = tokenizer.get("kind"), tokenizer.get("size")
    facts = [
        ["Source", _said(about.get("source"))],
        [
            "Tokenizer",
            f"SentencePiece {kind}, {figures.count(size)} pieces" if kind and size else _UNKNOWN,
        ],
        ["Fingerprint", _said(about.get("fingerprint"))],
    ]
    keys = ("documents", "words", "bytes", "tokens")
    rows = [
        [split, *(figures.count(sizes.get(key)) for key in keys)]
        for split, sizes in (about.get("splits") or {}).items()
    ]
    columns = [("Split", "l"), *((key.capitalize(), "r") for key in keys)]
    caption = "Documents go to a split by a hash of their content, never by their position."
    return [
        Heading("Data"),
        *([Table(columns, rows, caption)] if rows else []),
        Table([("", "l"), ("", "l")], facts, head=False),
    ]


def machine(comparison: Comparison) -> list[Part]:
    """Device, versions, revision and time."""
    about = comparison.about
    found, versions = about.get("machine") or {}, about.get("versions") or {}
    memory, seconds, devices = found.get("memory_gib"), about.get("seconds"), found.get("devices")
    facts = [
        ["Device", (f"{devices} × " if devices else "") + _said(found.get("device"))],
        ["Cores", _said(found.get("cores"))],
        ["Memory", _UNKNOWN if memory is None else f"{figures.plain(memory)} GiB"],
        ["Platform", _said(found.get("platform"))],
        ["Python", _said(found.get("python"))],
        [
            "Packages",
            ", ".join(f"{name} {version}" for name, version in versions.items()) or _UNKNOWN,
        ],
        ["Git revision", _said(about.get("git"))],
        ["Wall time", "not finished" if seconds is None else figures.duration(seconds)],
        ["Runs side by side", _said(about.get("workers"))],
    ]
    return [Heading("Machine and versions"), Table([("", "l"), ("", "l")], facts, head=False)]


def reading(comparison: Comparison) -> list[Part]:
    """What the intervals cover, and what may be compared."""
    return [
        Heading("How to read this"),
        Items(
            [
                "On the shared yardstick each model reads under its own mask: a causal decoder from left to right; a decoder that was "
                "trained with a prefix sees the whole text, as an encoder does.",
                "Never rank objectives by their own cross-entropy. Predicting the next token, a masked token or the next sentence are "
                "different questions; only the shared yardstick and the differences on it compare arms.",
                "An interval covers other seeds: other initial values and another order of the data. It is two-sided, 95 %, by Student's t "
                f"over the seeds. {_factor(len(comparison.seeds))} It takes scores to be roughly normal, which so few seeds cannot show.",
                "Where it is known what stands behind a score example by example, the interval covers other test examples of the same kind "
                "too, by a bootstrap over seeds and examples at once (Multi-Bootstrap, Sellam et al. 2022); differences are then taken "
                "example by example on examples that both were asked.",
                "Where it is not known, only shares, such as accuracies, cover other test examples, by Wilson's interval added in "
                "quadrature, with examples taken as independent; losses (nats, bits, perplexity) cover the seeds only. Texts of one "
                "document resemble each other, so the part of the examples may be too narrow.",
                "p is two-sided and below 0.05 exactly where the 95 % interval leaves out what is tested. Holm's adjustment counts the "
                "hypotheses; tables of differences are not adjusted and are there to look, not to conclude.",
                "Nothing here covers another corpus, split, tokenizer, model size or set of hyper-parameters.",
                "Baselines depend on no seed: at most other test examples make them uncertain.",
                "Paired differences are between runs of one seed, which share initial values, and the order of the data where the "
                "objectives read the same rows: objectives that pack alike read the same rows in the same order (CLM with MLM), and pair "
                "objectives theirs (NSP with MLM + NSP).",
                "A score from one seed has no interval, and its hypothesis is inconclusive.",
            ]
        ),
    ]


def _factor(seeds: int) -> str:
    """How far the interval reaches for this number of seeds, in words."""
    if seeds < 2:
        return "With one seed there is none."
    from scipy import stats

    factor = float(stats.t.ppf(0.975, seeds - 1))
    return f"With {seeds} seeds it reaches {figures.plain(factor)} standard errors each way; with many it would be 1.96."


def _said(value: Any) -> str:
    return _UNKNOWN if value is None or value == "" else str(value)
