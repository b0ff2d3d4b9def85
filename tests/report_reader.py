"""Parses a report for tests: tables of the page and of its Markdown."""

import html
import re
from html.parser import HTMLParser


class Reader(HTMLParser):
    """Collects a page's tables (rows of cell texts), loaded addresses, ids and unclosed tags."""

    EMPTY = ("meta", "br", "path", "use", "input", "circle", "rect")

    def __init__(self, text):
        super().__init__()
        self.tables, self.loads, self.ids, self.open, self.cell, self.tags = (
            [],
            [],
            [],
            [],
            None,
            [],
        )
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        for name, value in attrs:
            if name in (
                "src",
                "href",
                "xlink:href",
                "data",
                "srcset",
                "action",
                "poster",
            ) and not value.startswith("#"):
                self.loads.append(value)
            if name == "id":
                self.ids.append(value)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = ""

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag in self.EMPTY:
            return
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data


def markdown_tables(text):
    """The tables of a Markdown text, unescaped, without empty headers."""
    tables, inside = [], False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            tables.append([])
        inside = True
        plain = [
            re.sub(r"^\*\*(.*)\*\*$", r"\1", cell.strip())
            for cell in re.split(r"(?<!\\)\|", line)[1:-1]
        ]
        cells = [html.unescape(re.sub(r"\\(.)", r"\1", cell)) for cell in plain]
        if any(cells) and not all(re.fullmatch("-+:?", cell) for cell in cells):
            tables[-1].append(cells)
    return tables


def flat(tables):
    return [[[" ".join(cell.split()) for cell in row] for row in table] for table in tables]


def section(text, title):
    return text.split(f"## {title}\n")[1].split("\n## ")[0]
