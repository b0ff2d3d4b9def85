"""The parts of a report, and their text as Markdown. `web` writes the same parts as HTML, so the two cannot disagree.

All text is plain text: each writer escapes it for its own format.
"""

import re
from dataclasses import dataclass


class Strong(str):
    """The text of a table's cell that stands out."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str
    role: str = ""  # "", "lead", "headline", "small", "warning", or "markdown": for Markdown alone


@dataclass(frozen=True, slots=True)
class Items:
    texts: list[str]
    role: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """`columns` are (head, alignment "l" or "r"); `rows` hold as many cells as there are columns.

    What follows a line break in a cell is of less weight, an interval below its mean: smaller on the page.
    """

    columns: list[tuple[str, str]]
    rows: list[list[str]]
    caption: str = ""
    head: bool = True  # a table of names and values needs no head
    stack: bool = (
        False  # on a narrow screen each row is shown as a block, not a line that has to be scrolled
    )

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(
                f"each row of {self.caption or 'a table'!r} should have {len(self.columns)} cells"
            )


@dataclass(frozen=True, slots=True)
class Figure:
    """Pictures side by side where there is room: (SVG markup, alternative text) each.

    Markdown shows `file` instead, or where there is none the text `elsewhere`, which says where the picture is. `small` panels are many.
    """

    pictures: list[tuple[str, str]]
    caption: str
    file: str = ""
    elsewhere: str = ""
    small: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Details:
    """Parts that open on demand. `printed`: on paper they stand open."""

    summary: str
    parts: "list[Part]"
    printed: bool = False


@dataclass(frozen=True, slots=True)
class Tabs:
    """Views of one thing, of which the page shows one at a time, paper and Markdown all."""

    name: str
    views: "list[tuple[str, Figure]]"


Part = Heading | Paragraph | Items | Table | Figure | Code | Details | Tabs


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    parts: list[Part]


def markdown(page: Page) -> str:
    """The page as GitHub-flavoured Markdown."""
    return "\n\n".join([f"# {escape(page.title)}", *filter(None, map(_part, page.parts))]) + "\n"


def escape(text: str) -> str:
    """Plain text as Markdown text on one line."""
    text = re.sub(r"\s+", " ", str(text)).strip()
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Underscores within words are left alone by GitHub, but not by every reader.
    return re.sub(r"([\\`*_\[\]|~#$!])", r"\\\1", text)


def _part(part: Part) -> str:
    match part:
        case Heading():
            return f"{'#' * part.level} {escape(part.text)}"
        case Paragraph():
            # A sign or number at the start of a line would make a list of it.
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
    # The fence has to be longer than any run of backticks inside.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code.text)), default=0))
    return f"{fence}{code.language}\n{code.text}\n{fence}"
