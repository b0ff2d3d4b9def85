"""Plain text and Markdown files (.txt, .text, .md, .markdown; also gzipped).

Blank lines separate paragraphs. A file of up to 10,000 words is one document. A longer file is
split at the highest level of headings that occurs more than once, and parts that are still too long
are split in the same way. A book thus becomes its chapters, and a dump of articles its articles: a
corpus needs enough documents, as each belongs to one split. A long part without headings is cut
between paragraphs, into pieces of about 2,000 words. Markdown headings and, in every file, WikiText
headings (" = Title = ") are recognized and left out of the text.
"""

import dataclasses
import html
import re
from collections.abc import Iterable, Iterator

from lm.data import files, text
from lm.data.documents import Collector, Document, Tally
from lm.data.documents import signature as identity

CHAPTER = 10_000  # maximum number of words of a part that is not split
PIECE = 2_000  # words of a piece that is cut without headings
SMALL = 200  # words; shorter parts are joined to the next one (title pages, two-line poems)
MAX_INVALID = 0.01  # maximum fraction of invalid characters

_SUFFIXES = (".md", ".markdown", ".txt", ".text")
_FRONT_MATTER = re.compile(r"\s*(---|\+\+\+)[ ]*\n(?:[^\n]*\n){0,200}?\1[ ]*(?:\n|$)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FENCED = re.compile(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1[`~]*[ ]*$", re.DOTALL | re.MULTILINE)
_ATX = re.compile(r" {0,3}(#{1,6})(?:\s+(.*?))?\s*#*\s*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)\s*$")
_WIKI = re.compile(r"\s?((?:= ?){1,6})[^=\s].*?\s?((?:= ?){1,6})\s*$")
_RULE = re.compile(r"\s*(?:[-*_=~]\s*){3,}$")
_TABLE = re.compile(r"\s*\|.*\|\s*$|\s*:?-{2,}:?\s*\|")
_QUOTE = re.compile(r"\s{0,3}(?:>\s?)+")
_BULLET = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+(?=\S)")
_DEFINITION = re.compile(r"\s{0,3}\[[^\]]+\]:\s*\S+")  # of a link or a footnote
_INLINE = [
    (re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])"), ""),
    (re.compile(r"\[\^[^\]]+\]"), ""),
    (
        re.compile(r"\[([^\[\]]+)\](?:\((?:[^()\s]|\([^()]*\))*(?:\s+\"[^\"]*\")?\)|\[[^\]]*\])"),
        r"\1",
    ),
    (re.compile(r"<(?:https?|mailto)[^>\s]*>|https?://[^\s)>\]]+"), ""),
    (re.compile(r"</?[A-Za-z][^<>]*>"), ""),
    (re.compile(r"`+([^`]+)`+"), r"\1"),
    (re.compile(r"(?<![\\\w*])(\*{1,3})(?=\S)([^*]+?)(?<=\S)\1(?![\w*])"), r"\2"),
    (re.compile(r"(?<![\\\w])(_{1,3})(?=\S)([^_]+?)(?<=\S)\1(?!\w)"), r"\2"),
    (re.compile(r"\\([\\`*_{}\[\]()#+.!|>~-])"), r"\1"),
    (re.compile(r"\s{2,}"), " "),
]

Section = tuple[int, list[str]]  # the level of the heading before it (0: none) and its paragraphs


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      path: files, directories or globs.
    """

    path: tuple[str, ...] = ()


def documents(config: Config, tally: Tally) -> Iterator[Document]:
    """Yields the documents of all files, sorted by name; labels are file names without suffixes.

    Raises:
      UserError: a path is missing or matches nothing, or a file cannot be read.
    """
    return _documents(files.find(config.path, _SUFFIXES, "text"), tally)


def signature(config: Config) -> str:
    """An identity of the names, sizes and times of the files."""
    return identity(
        files.identity(files.find(config.path, _SUFFIXES, "text")), code=(__file__, files.__file__)
    )


def _documents(matches: list[tuple[str, str]], tally: Tally) -> Iterator[Document]:
    collector = Collector(tally, near=True)
    for path, name in matches:
        content, invalid = text.decode(files.read(path))
        if invalid > MAX_INVALID:
            tally.drop(f"files of which over {MAX_INVALID:.0%} is no UTF-8 text")
            continue
        tally.drop("invalid bytes, replaced by U+FFFD", content.count("\ufffd"))
        if not content.strip():
            tally.drop("empty files")
            continue
        is_markdown = name.lower().removesuffix(".gz").endswith((".md", ".markdown"))
        sections = list(_sections(text.normalize(content), is_markdown))
        tally.drop("headings, which begin documents", sum(level > 0 for level, _ in sections))
        parts = list(_parts(sections))
        for number, (paragraphs, uncut) in enumerate(parts, start=1):
            part = name if len(parts) == 1 else f"{name}#{number}"
            yield from collector.collect(part, paragraphs, files.stem(name), 0 if uncut else PIECE)


def _sections(content: str, is_markdown: bool) -> Iterator[Section]:
    """Yields the text between headings."""
    if is_markdown:
        content = _FENCED.sub("\n", _COMMENT.sub("", _FRONT_MATTER.sub("", content, count=1)))
    level = 0
    block: list[str] = []
    for line in content.split("\n"):
        next_level = _wiki_level(line)
        if is_markdown and not next_level:
            if heading := _ATX.match(line):
                next_level = len(heading[1])
            elif (
                _SETEXT.match(line)
                and block
                and block[-1].strip()
                and (len(block) == 1 or not block[-2].strip())
            ):
                block.pop()
                next_level = 1 if "=" in line else 2
            elif _TABLE.match(line) or _DEFINITION.match(line):
                continue
            else:
                line = _QUOTE.sub("", line)
                if item := _BULLET.match(line):
                    block.append("")
                    line = line[item.end() :]
        if next_level:
            yield level, _paragraphs(block, is_markdown)
            level, block = next_level, []
        else:
            block.append("" if _RULE.match(line) else line)
    yield level, _paragraphs(block, is_markdown)


def _wiki_level(line: str) -> int:
    """The level of a heading such as " = = Life cycle = = "; 0 for another line."""
    if "=" not in line or not (heading := _WIKI.match(line)):
        return 0
    level = heading[1].count("=")
    return level if level == heading[2].count("=") else 0


def _paragraphs(lines: list[str], is_markdown: bool) -> list[str]:
    paragraphs = list(text.paragraphs("\n".join(lines)))
    if not is_markdown:
        return paragraphs
    return [plain for plain in map(_inline, paragraphs) if plain]


def _inline(paragraph: str) -> str:
    for pattern, replacement in _INLINE:
        paragraph = pattern.sub(replacement, paragraph)
    return html.unescape(paragraph).strip()


def _parts(sections: list[Section]) -> Iterator[tuple[list[str], bool]]:
    """Yields (paragraphs, whether to leave them uncut) of each document."""
    words = [sum(map(text.count_words, paragraphs)) for _, paragraphs in sections]
    if sum(words) <= CHAPTER:
        yield _joined(sections), True
        return
    # The heading of the first section is above all of them.
    levels = [level for level, _ in sections[1:] if level]
    for level in sorted(set(levels)):
        parts: list[list[Section]] = [[]]
        size = 0
        for section, count in zip(sections, words, strict=True):
            if 0 < section[0] <= level and size >= SMALL:
                parts.append([])
                size = 0
            parts[-1].append(section)
            size += count
        if len(parts) > 1 and levels.count(level) > 1:
            for part in parts:
                yield from _parts(part)
            return
    yield _joined(sections), False


def _joined(sections: Iterable[Section]) -> list[str]:
    return [paragraph for _, paragraphs in sections for paragraph in paragraphs]
