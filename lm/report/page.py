"""The parts of a report, and the Markdown writer. `lm.report.web` writes the same parts as HTML.

All text is plain text: each writer escapes it for its own format.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


class Strong(str):
    """Text of a table cell in bold."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a section."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph.

    Attributes:
      text: text of the paragraph.
      role: "", "lead", "headline", "small", "warning", or "markdown" (omitted from HTML).
    """

    text: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """A list of texts; `role` is "" or "warning"."""

    texts: list[str]
    role: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
      columns: (header, alignment "l" or "r") of each column.
      rows: the cells of each row. Text after a line break in a cell, such as an interval below its
        mean, is smaller on the page.
      caption: text below the table.
      head: whether to show the headers; a table of names and values has none.
      stack: whether a narrow screen shows each row as a block instead of a line that scrolls.
    """

    columns: list[tuple[str, str]]
    rows: list[list[str]]
    caption: str = ""
    head: bool = True
    stack: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(
                f"each row of {self.caption or 'a table'!r} must have {len(self.columns)} cells"
            )


@dataclass(frozen=True, slots=True)
class Figure:
    """Pictures, side by side if there is room.

    Attributes:
      pictures: (SVG markup, alternative text) of each picture.
      caption: text below the pictures.
      file: file name of the picture that Markdown shows instead; "" for none.
      elsewhere: text that Markdown shows if `file` is "".
      small: whether there are many small panels.
    """

    pictures: list[tuple[str, str]]
    caption: str
    file: str = ""
    elsewhere: str = ""
    small: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """Preformatted text."""

    text: str
    language: str = ""


Leaf = Heading | Paragraph | Items | Table | Figure | Code


@dataclass(frozen=True, slots=True)
class Details:
    """Collapsed parts; if `printed` is true, they are expanded on paper."""

    summary: str
    parts: Sequence[Leaf]
    printed: bool = False


@dataclass(frozen=True, slots=True)
class Tabs:
    """Views of one thing: the page shows one at a time, paper and Markdown show all."""

    name: str
    views: list[tuple[str, Figure]]


Part = Leaf | Details | Tabs


@dataclass(frozen=True, slots=True)
class Page:
    """A report."""

    title: str
    parts: list[Part]


def markdown(page: Page) -> str:
    """Returns the page as GitHub-flavoured Markdown."""
    return "\n\n".join([f"# {escape(page.title)}", *filter(None, map(_part, page.parts))]) + "\n"


def escape(text: str) -> str:
    """Returns plain text escaped for Markdown, on one line."""
    text = re.sub(r"\s+", " ", str(text)).strip()
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # GitHub does not treat underscores within words as emphasis, but other readers do.
    return re.sub(r"([\\`*_\[\]|~#$!])", r"\\\1", text)


def _part(part: Part) -> str:
    match part:
        case Heading():
            return f"{'#' * part.level} {escape(part.text)}"
        case Paragraph():
            # A sign or number at the start of a line would start a list.
            text = re.sub(r"^(\d*)([-+=.])", r"\1\\\2", escape(part.text))
            return (
                f"**{text}**"
                if part.role == "headline"
                else f"> {text}"
                if part.role == "warning"
                else text
            )
        case Items():
            mark = "> - " if part.role == "warning" else "- "
            return "\n".join(mark + escape(text) for text in part.texts)
        case Table():
            return _table(part)
        case Figure():
            caption = f"*{escape(part.caption)}*"
            return (
                f"![{escape(part.caption)}]({part.file})\n\n{caption}"
                if part.file
                else escape(part.elsewhere)
            )
        case Code():
            return _code(part)
        case Details():
            inner = "\n\n".join(filter(None, map(_part, part.parts)))
            return f"<details><summary>{escape(part.summary)}</summary>\n\n{inner}\n\n</details>"
        case Tabs():
            return "\n\n".join(filter(None, (_part(figure) for _, figure in part.views)))


def _table(table: Table) -> str:
    lines = [
        "| " + " | ".join(escape(head) if table.head else "" for head, _ in table.columns) + " |",
        "| " + " | ".join("---:" if align == "r" else "---" for _, align in table.columns) + " |",
        *("| " + " | ".join(map(_cell, row)) + " |" for row in table.rows),
    ]
    return "\n".join(lines) + (f"\n\n*{escape(table.caption)}*" if table.caption else "")


def _cell(text: str) -> str:
    return f"**{escape(text)}**" if isinstance(text, Strong) else escape(text)


def _code(code: Code) -> str:
    # The fence must be longer than any run of backticks inside.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code.text)), default=0))
    return f"{fence}{code.language}\n{code.text}\n{fence}"
