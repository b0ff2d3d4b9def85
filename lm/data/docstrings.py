"""From docstrings to prose: reStructuredText, and the conventions of Google and numpy."""

import inspect
import re

from lm.data import text

_RULE = re.compile(r"^\s*([-=~^\"'`#*+.:_<>])\1{2,}\s*$")
_TABLE = re.compile(r"^\s*(?:[=-]{2,}(?:\s+[=-]{2,})+|\+[-=+]{3,}\+?|\|.*\|)\s*$")
_FIELD = re.compile(r"^\s*:(\w+)(?:\s+[^:`]*)?:(?:\s+(.*)|)$")
_DIRECTIVE = re.compile(r"^(\s*)\.\.\s+([\w:-]+)::\s*(.*)$")
_COMMENT = re.compile(r"^(\s*)\.\.(?:\s+[_\[|].*|\s+\w.*|\s*)$")
_OPTION = re.compile(r"^\s*:[\w-]+:(\s.*)?$")
_BULLET = re.compile(r"^\s*(?:[-*+\u2022]|\(?(?:\d{1,2}|[a-z]|#)[.)])\s+(?=\S)")
_ENTRY = re.compile(
    r"^\s*\*{0,2}[\w.`*\\/, |\[\]'\"-]{1,60}(?:\s*\([^()]*(?:\([^()]*\)[^()]*)*\))?\s*:\s+(?=\S)"
    r"|^\s*\*{0,2}[\w.`*\\, ]+:\s*$"
)
_GOOGLE = re.compile(r"^\s*(?:[A-Z][\w -]{2,28}):\s*$")
_DROPPED_SECTIONS = frozenset(
    "see also|references|reference|bibliography|citation|citations|usage|call signature"
    "|call signatures".split("|")
)
_LISTED_SECTIONS = frozenset(
    "parameters|other parameters|returns|return|yields|receives|raises|warns|attributes|methods"
    "|args|arguments|keyword arguments|keyword args|params|kwargs|fields|properties|static args"
    "|class attributes|input|inputs|output|outputs|required parameters|optional parameters"
    "|functions|classes|constants|exceptions".split("|")
)
_PROSE_DIRECTIVES = frozenset(
    "note warning important tip hint caution attention danger admonition topic epigraph".split()
)
_LEGAL = (
    "copyright;(c) 19;(c) 20;all rights reserved;under the terms of;licensed under;licenced under"
    ";license agreement;permission is hereby;redistribution and use;without warranty;warranties"
    ";spdx-;public license;apache license;bsd license;mit license;psf license"
).split(";")
_MATH = re.compile(r"\$[^$\n]*\$|:math:`[^`]*`")
_ROLE = re.compile(r"(?<![\w`]):(?:[\w.+-]+:)?[\w.+-]+:`{1,2}([^`]+)`{1,2}")
_MARKUP = re.compile(r"[`*|\[_\\~<]|://|\s\s|\s[.,;:!?)]|doi:|arXiv|\(\)")
_ADDRESS = r"<?(?:https?|ftp)://[^\s>]+>?|\b(?:doi|arXiv):\s?\S+"
_REFERENCE = r"\[(?:\d{1,2}|[A-Z][\w+]*\d{2,4}\w?|#\w*|\*)\]_(?!\w)"
_INLINE = [
    (re.compile(r"`([^`<>]+?)\s*<[^`<>]+>`_{0,2}"), r"\1"),
    (re.compile(r"(?<![\w\])])\[([^\[\]]+)\]\((?:[^()\s]|\([^()]*\))+\)"), r"\1"),
    (re.compile(r"(?<![\w\])])\[([^\[\]]+)\]\[[^\[\]]*\]"), r"\1"),
    # A sentence makes no sense without such a reference: the mark removes it.
    (
        re.compile(
            rf"(?<=\s)(?:in|by|from|see|at|to|of)\s+(?:{_REFERENCE}|{_ADDRESS})", re.IGNORECASE
        ),
        "\uffff",
    ),
    (re.compile(_ADDRESS, re.IGNORECASE), ""),
    (re.compile(rf"\s?{_REFERENCE}|\s\[\d{{1,2}}\](?!\w)"), ""),
    (re.compile(r"`{1,3}([^`]+)`{1,3}_{0,2}"), r"\1"),
    (re.compile(r"(?<![\w*])\*{1,2}([^\s*](?:[^*]*[^\s*])?)\*{1,2}(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w|])\|([\w ]+)\|(?![\w|])"), r"\1"),
    (re.compile(r"\\([*_`|\\])"), r"\1"),
    (re.compile(r"(?<=\w)\\(?=s\b|\s)"), ""),
    (re.compile(r"(?<!\w)~\.?(?:\w+\.)*(\w+)"), r"\1"),
    (re.compile(r"(?<=\s)[(\[]\s*[)\]]|``"), ""),
    (re.compile(r"\s+([,;:!?](?:\s|$)|\.(?:\s|$)|\))"), r"\1"),
    (re.compile(r"\s{2,}"), " "),
]
_WORD = re.compile(r"[(\"']*[A-Za-z][a-z']*(?:-[a-z]+)*[.,;:!?)\"']*$|[AIa]$")
_COMMON = frozenset(
    "the a an of to in is are be and or for with that this it as by from on if not can will when"
    " which at has used using than its you your may must should all any one two each into only no"
    " other returns return".split()
)


def clean(docstring: str) -> list[str]:
    """The paragraphs of prose of a docstring, or of a page of reStructuredText.

    Code, doctests, tables, formulas, references, headings, type annotations and markup are removed.
    Descriptions of parameters are joined to paragraphs. A line break in a paragraph separates list
    items, and ends a sentence.
    """
    return ["\n".join(items) for items in _Reader(inspect.cleandoc(docstring)).paragraphs]


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is English: mostly words, some common, no legal text, no template."""
    lower = paragraph.lower()
    words = paragraph.split()
    return (
        not _COMMON.isdisjoint(lower.split())
        and sum(1 for word in words if word.isalpha() or _WORD.match(word)) >= 0.65 * len(words)
        and "%(" not in paragraph
        and not any(phrase in lower for phrase in _LEGAL)
    )


class _Reader:
    """Reads the lines of a docstring once.

    Attributes:
      paragraphs: lists of items, each on one line.
      items: items of the current paragraph.
      lines: lines of the current item.
      words: number of words in `items`.
      section: "listed" or "dropped" inside a section of that kind, "" outside.
      base: indentation of the heading of the section.
      google: whether the section is in Google's style: the section ends at the next line that is
        not indented, and the name and text of an entry are on one line.
      entry: indentation of the section's entries; -1 before the first entry.
      brackets: number of open brackets in the name and type of a parameter.
      skip: lines with a deeper indentation are a block to remove; None outside.
    """

    def __init__(self, docstring: str):
        self.paragraphs: list[list[str]] = []
        self.items: list[str] = []
        self.lines: list[str] = []
        self.words = 0
        self.section = ""
        self.base = 0
        self.google = False
        self.entry = -1
        self.brackets = 0
        self.skip: int | None = None
        lines = docstring.split("\n")
        # In pairs: an odd last fence opens nothing.
        fences = sum(line.lstrip().startswith("```") for line in lines) // 2 * 2
        # Lines up to the closing fence, or up to the next blank line, are removed.
        fenced = until_blank = False
        for number, line in enumerate(lines):
            stripped = line.strip()
            if stripped.startswith("```") and fences:
                fences -= 1
                fenced = not fenced
                self.end_item()
            elif fenced:
                continue
            elif not stripped:
                until_blank = False
                self.brackets = 0
                self.end_paragraph()
            elif until_blank or _RULE.match(line):
                continue
            elif stripped.startswith((">>>", "In [", "$ ", "% ")) or _TABLE.match(line):
                self.end_item()
                until_blank = True
            else:
                indent = len(line) - len(line.lstrip())
                if self.skip is not None and indent > self.skip:
                    continue
                self.skip = None
                if self.google and indent <= self.base:
                    self.end_section()
                if (
                    not self.heading(line, stripped, indent, lines, number)
                    and self.section != "dropped"
                ):
                    if not self.markup(line, stripped, indent):
                        self.text(
                            line,
                            stripped,
                            indent,
                            lines[number + 1] if number + 1 < len(lines) else "",
                        )
        self.section = ""
        self.end_paragraph()

    def heading(self, line: str, stripped: str, indent: int, lines: list[str], number: int) -> bool:
        """Whether the line is a heading: underlined, or a known one such as "Args:"."""
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if _RULE.match(following) and len(following.strip()) >= 0.6 * len(stripped):
            self.begin_section(stripped.lower(), indent, google=False)
            return True
        if not _GOOGLE.match(line):
            return False
        name = stripped[:-1].lower()
        if (
            name not in _LISTED_SECTIONS
            and name not in _DROPPED_SECTIONS
            and not name.startswith(("example", "note"))
        ):
            return False
        after = next((line for line in lines[number + 1 :] if line.strip()), "")
        if len(after) - len(after.lstrip()) <= indent:
            return False
        self.begin_section(name, indent, google=True)
        return True

    def markup(self, line: str, stripped: str, indent: int) -> bool:
        """Whether the line is markup, a comment, a grammar rule or columns; only text is kept."""
        if directive := _DIRECTIVE.match(line):
            self.end_paragraph()
            if directive[2] in _PROSE_DIRECTIVES:
                self.lines.append(directive[3])
            else:
                self.skip = indent
        elif _COMMENT.match(line):
            self.end_paragraph()
            self.skip = indent
        elif field := _FIELD.match(line):
            self.end_item()
            if field[1] not in ("type", "rtype", "vartype", "meta") and field[2]:
                self.lines.append(field[2])
        elif (
            _OPTION.match(line)
            or "   " in stripped
            or "::=" in stripped
            or stripped.startswith("# ")
        ):
            self.end_item()
        elif stripped.endswith("::"):
            self.lines.append(stripped[:-1])
            self.skip = indent
        else:
            return False
        return True

    def text(self, line: str, stripped: str, indent: int, following: str) -> None:
        """Reads an ordinary line, and removes the name and type of a parameter."""
        if self.section == "listed":
            self.entry = indent if self.entry < 0 else self.entry
            deeper = len(following) - len(following.lstrip()) > indent
            if indent <= self.entry and self.google and (entry := _ENTRY.match(line)):
                self.end_item()
                stripped = line[entry.end() :]
            elif self.brackets or (
                indent <= self.entry
                and not self.google
                and (deeper or " : " in line or not following.strip())
            ):
                self.end_item()
                self.brackets = max(
                    0,
                    self.brackets
                    + sum(map(stripped.count, "{(["))
                    - sum(map(stripped.count, "])}")),
                )
                return
        if _BULLET.match(line):
            self.end_item()
            stripped = _BULLET.sub("", line)
        self.lines.append(stripped.strip())

    def begin_section(self, name: str, indent: int, google: bool) -> None:
        self.end_section()
        name = name.strip(" :*`")
        self.section = (
            "listed" if name in _LISTED_SECTIONS else "dropped" if name in _DROPPED_SECTIONS else ""
        )
        self.base, self.google, self.entry, self.brackets = (
            indent,
            google and bool(self.section),
            -1,
            0,
        )

    def end_section(self) -> None:
        self.section, self.google = "", False
        self.end_paragraph()

    def end_item(self) -> None:
        if self.lines:
            item = inline(" ".join(self.lines))
            self.lines = []
            if item and item[-1].isalnum() and (self.section or self.items):
                item += "."
            words = item.count(" ") + 1
            if item and (
                is_prose(item) if words >= 8 else not item.endswith("optional.")
            ):  # "int, optional." is a type
                self.items.append(item)
                self.words += words
        if self.section == "listed" and self.words >= 60:
            self.close()

    def end_paragraph(self) -> None:
        """Ends a paragraph at a blank line, except in a list of parameters."""
        self.end_item()
        if self.section != "listed":
            self.close()

    def close(self) -> None:
        if self.items:
            self.paragraphs.append(self.items)
        self.items, self.words = [], 0


def inline(item: str) -> str:
    """Text without inline markup, addresses and formulas, or sentences with long formulas."""
    if "`" in item or "$" in item:
        item = _MATH.sub(_formula, item)
        item = _ROLE.sub(_role, item)
    if not item.isascii() or _MARKUP.search(item):
        item = text.normalize(item)
        for pattern, replacement in _INLINE:
            item = pattern.sub(replacement, item)
    if "\uffff" in item:
        item = " ".join(sentence for sentence in text.sentences(item) if "\uffff" not in sentence)
    return " ".join(item.replace("`", "").split())


def _role(match: re.Match[str]) -> str:
    """Text of a role: "b" of :func:`~a.b`, "this" of :ref:`this <label>`, "a.b" of :class:`a.b`."""
    label = match[1].split("<")[0].strip() or match[1].strip("<> ")
    if label.startswith("sphx_glr"):
        return "\uffff"  # the label of a gallery page, without its title
    return label[1:].rsplit(".", 1)[-1] if label.startswith("~") else label.lstrip("!")


def _formula(match: re.Match[str]) -> str:
    """A short formula as plain text; a mark that removes the sentence for a long one."""
    formula = match[0].removeprefix(":math:").strip("$` ")
    formula = re.sub(
        r"\\(?:math\w+|text\w*|operatorname|bm|hat|bar|tilde|vec|left|right|quad|[,;!: ])|[{}]",
        "",
        formula,
    ).replace("\\", "")
    return formula if len(formula) <= 24 else "\uffff"
