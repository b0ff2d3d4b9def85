"""An example of each arm's objective, and samples of its first finished seed."""

import json
from pathlib import Path
from typing import Any

from lm.report.page import Code, Details, Heading, Leaf, Paragraph, Part
from lm.report.results import Results

_MAX_SAMPLES = 5  # maximum number of samples per arm
_MAX_CHARACTERS = 600  # maximum number of characters per sample


def section(results: Results) -> list[Part]:
    """Returns the section from the runs' samples.json; empty without samples."""
    comparison, parts = results.comparison, list[Part]()
    for arm in comparison.arms:
        inner: list[Leaf] = []
        for run in comparison.finished(arm)[:1]:
            record = _read(
                results.workdir / "runs" / f"{arm}-seed{run.seed}" / "samples.json", dict
            )
            if isinstance(record.get("asked"), str):
                inner += [
                    Paragraph("Example of the objective's inputs and targets:"),
                    Code(_cut(record["asked"])),
                ]
            samples = record["samples"] if isinstance(record.get("samples"), list) else []
            pairs = [
                (str(sample.get("prompt") or ""), str(sample.get("text") or ""))
                for sample in samples
                if isinstance(sample, dict)
            ]
            if pairs:
                inner.append(
                    Paragraph(f"Greedy output of seed {run.seed} after “▸”; “«»” mark masked text:")
                )
                inner += [
                    Code(f"{_cut(prompt)}\n▸ {_cut(text)}") for prompt, text in pairs[:_MAX_SAMPLES]
                ]
        if inner:
            parts.append(Details(comparison.label(arm), inner, printed=True))
    return [Heading("Samples"), *parts] if parts else []


def _read(path: Path, kind: type) -> Any:
    """The file's content if it is of a type, otherwise an empty one: samples are optional."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return kind()
    return content if isinstance(content, kind) else kind()


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS].rstrip() + " …"
