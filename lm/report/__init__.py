"""Writes the report of a comparison: report.md, report.html and picture.png.

The comparison may be unfinished.
"""

from dataclasses import dataclass
from pathlib import Path

from lm.core import files
from lm.report import content, curves, hypothesis_section, page, pictures, verdicts, web
from lm.report.compare_workdirs import diff
from lm.report.read import read
from lm.report.results import Results
from lm.report.verdicts import HypothesisResult

__all__ = ["Report", "diff", "write"]


@dataclass(frozen=True, slots=True)
class Report:
    """The written files and the main results.

    Attributes:
      html: path of report.html.
      markdown: path of report.md.
      picture: path of picture.png; None if there is nothing to plot yet.
      headline: the verdicts in one sentence.
      hypotheses: the result of each hypothesis.
      problems: descriptions of missing and skipped inputs.
    """

    html: Path
    markdown: Path
    picture: Path | None
    headline: str
    hypotheses: list[HypothesisResult]
    problems: list[str]


def write(workdir: str | Path) -> Report:
    """Writes the report of the comparison in `workdir` to that directory.

    Runs that are missing, failed or diverged are listed and excluded.

    Args:
      workdir: directory of a comparison; an older report there is replaced.

    Raises:
      UserError: the directory contains no comparison, or one of its files is malformed.
    """
    workdir = Path(workdir)
    comparison = read(workdir)
    results = Results(comparison, workdir)
    tested, charts = verdicts.evaluate_all(comparison), content.charts(results)
    panels = [curves.draw(panel, "tokens", "tokens seen") for panel in charts.panels if panel.seeds]
    wide = [chart for chart in (charts.dots, *(forest for _, forest in charts.forest[:1])) if chart]
    picture = workdir / "picture.png" if panels or wide else None
    document = content.page(results, tested, charts, picture.name if picture else "")
    # All files are rendered before any is replaced.
    markdown, html = workdir / "report.md", workdir / "report.html"
    texts = {markdown: page.markdown(document), html: web.page(document)}
    if picture:
        pictures.png(picture, panels, wide)
    for path, text in texts.items():
        with files.replacing(path) as file:
            file.write(text)
    headline = hypothesis_section.headline(tested)
    return Report(html, markdown, picture, headline, tested, comparison.problems)
