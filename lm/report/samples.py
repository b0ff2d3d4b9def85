"""What each arm is asked, and what its first finished seed writes: read from a run's samples.json where it is."""

import json
from pathlib import Path
from typing import Any

from lm.report.page import Code, Details, Heading, Paragraph, Part
from lm.report.results import Results

_MOST = 5  # samples an arm
_LONGEST = 600  # characters of each


def section(results: Results) -> list[Part]:
    """Nothing where there are no samples."""
    comparison, parts = results.comparison, list[Part]()
    for arm in comparison.arms:
        found: list[Part] = []
        for run in comparison.of(arm)[:1]:
            left = _read(results.workdir / "runs" / f"{arm}-seed{run.seed}" / "samples.json", dict)
            if isinstance(left.get("asked"), str):
                found += [Paragraph("What it is asked:"), Code(_cut(left["asked"]))]
            texts = left["samples"] if isinstance(left.get("samples"), list) else []
            pairs = [
                (str(each.get("prompt") or ""), str(each.get("text") or ""))
                for each in texts
                if isinstance(each, dict)
            ]
            if pairs:
                found.append(
                    Paragraph(
                        f"What seed {run.seed} writes after “▸”, greedily; “«»” mark what was hidden:"
                    )
                )
                found += [Code(f"{_cut(prompt)}\n▸ {_cut(text)}") for prompt, text in pairs[:_MOST]]
        if found:
            parts.append(Details(comparison.label(arm), found, printed=True))
    return [Heading("Samples"), *parts] if parts else []


def _read(path: Path, kind: type) -> Any:
    """The file's content where it is of a kind; else an empty one: samples are no result, and a report is not refused for want of them."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return kind()
    return found if isinstance(found, kind) else kind()


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + " …"
