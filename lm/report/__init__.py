"""Writes a comparison's report: report.md, report.html and picture.png, from what is in the workdir, finished or not."""

import os
from dataclasses import dataclass
from pathlib import Path

from lm.report import content, curves, hypotheses, page, pictures, web
from lm.report.diff import diff
from lm.report.read import read
from lm.report.results import Results
from lm.report.scores import Judged

__all__ = ["Report", "diff", "write"]


@dataclass(frozen=True, slots=True)
class Report:
    """Where the files are, and what they say first. `picture` is None while there is nothing to draw."""

    html: Path
    markdown: Path
    picture: Path | None
    headline: str
    hypotheses: list[Judged]
    problems: list[str]


def write(workdir: str | Path) -> Report:
    """Writes the report of the comparison in `workdir` there, replacing an older one.

    Runs that are missing, failed or diverged are listed and not counted; the rest gives a report all the same.

    Raises:
      UserError: the directory holds no comparison, or one of its files is not what lm.compare writes.
    """
    workdir = Path(workdir)
    comparison = read(workdir)
    results = Results(comparison, workdir)
    judged, drawn = hypotheses.judge(results), content.drawn(results)
    panels = [curves.draw(panel, "tokens", "tokens seen") for panel in drawn.panels if panel.seeds]
    wide = [each for each in (drawn.dots, *(chart for _, chart in drawn.forest[:1])) if each]
    picture = workdir / "picture.png" if panels or wide else None
    whole = content.page(results, judged, drawn, picture.name if picture else "")
    # Everything is made before anything is replaced.
    texts = {workdir / "report.md": page.markdown(whole), workdir / "report.html": web.page(whole)}
    if picture:
        pictures.png(picture, panels, wide)
    for path, text in texts.items():
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    markdown, document = texts
    return Report(
        document, markdown, picture, hypotheses.headline(judged), judged, comparison.problems
    )
