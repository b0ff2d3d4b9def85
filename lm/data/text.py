"""From bytes to clean text, paragraphs and sentences, in English and Chinese."""

import codecs
import re
import unicodedata
from collections.abc import Iterator, Sequence

# Maximum number of characters of a sentence. Text without punctuation is cut here, so that
# no "sentence" exceeds every buffer.
MAX_SENTENCE = 2_000

# Ideographs and kana, which have no spaces between words.
_WIDE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\U00020000-\U0003ffff"
_WIDE_CHARACTER = re.compile(f"[{_WIDE}]")
# The same and their punctuation: lines that meet here are joined without a space.
_WIDE_EDGE = f"{_WIDE}\u3000-\u303f\uff00-\uff65\u2018-\u201d\u2026"
_WIDE_BREAK = re.compile(f"(?<=[{_WIDE_EDGE}])[ \\t]*\\n[ \\t]*(?=[{_WIDE_EDGE}])")

# Invisible characters without a meaning.
_ODD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]"
)
_SPACES = re.compile("[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+")
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")

# Where a sentence may end: Western marks with closing quotes and brackets before a space, and
# Chinese marks anywhere.
_CLOSERS = "\"'\u201d\u2019\u00bb)\\]\u300d\u300f\uff09\u300b\u3011\u3009*_"
_OPENERS = "\"'\u201c\u2018\u00ab([{\u300c\u300e\uff08\u300a\u3010\u3008*_`-\u2013\u2014\u2026. "
_END = re.compile(
    f"(?P<western>[.!?\u2026]+)[{_CLOSERS}]*(?:\\s+|$)"
    f"|[\u3002\uff01\uff1f\uff1b]+[{_CLOSERS}\u3002\uff01\uff1f\u2026]*\\s*"
    f"|(?<=[{_WIDE}])[!?;]+[{_CLOSERS}]*(?=[{_WIDE}])"
)
# The same for ASCII text, three times as fast.
_ASCII_END = re.compile(r"(?P<western>[.!?]+)[\"')\]*_]*(?:\s+|$)")
_LAST_WORD = re.compile(r"[^\s(\[{\"'\u201c\u2018\u2014/]*$")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]$")  # e.g, i.e, U.S, before the last dot
_LIST_MARK = re.compile(r"[\"'\u201c(\[]*(?:\d{1,3}|[ivxlcIVXLC]{1,6}|[A-Za-z])[.)\]]*$")
_NEVER = frozenset(
    "mr mrs ms messrs mm mme mlle dr prof st mt ft gen col capt cpt lt sgt maj cmdr adm gov sen rep"
    " rev hon pres esq fr sr jr vs cf viz al approx resp incl eq ex ca est dept univ assn bros ed"
    " eds trans repr def abbr misc abs vol".split()
) - {"sr", "jr", "al", "ex"}
_BEFORE_NUMBER = frozenset(
    "no nos fig figs eqn eqs sec secs ch chap chaps p pp art ref refs al ver jan feb mar apr jun"
    " jul aug sep sept oct nov dec".split()
)


def decode(raw: bytes) -> tuple[str, float]:
    """Decodes UTF-8, or UTF-16 with a byte order mark.

    Returns:
      The text, with U+FFFD for invalid bytes, and the fraction of characters that are U+FFFD. Bytes
      that are not text give "" and 1.0.
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = raw.decode("utf-16", errors="replace")
    elif b"\0" in raw[:65_536]:
        return "", 1.0
    else:
        content = raw.decode("utf-8-sig", errors="replace")
    return content, content.count("\ufffd") / max(1, len(content))


def normalize(content: str) -> str:
    """Text in NFC with \\n as line end, single spaces and no invisible characters."""
    content = (
        content.replace("\r\n", "\n")
        .replace("\r", "\n")
        .replace("\x0c", "\n")
        .replace("\u2028", "\n")
        .replace("\u2029", "\n\n")
    )
    if not content.isascii():
        content = unicodedata.normalize("NFC", content)
    return _SPACES.sub(" ", _ODD.sub("", content))


def paragraphs(content: str) -> Iterator[str]:
    """Yields the blocks between blank lines, each joined into one line.

    If lines have over 200 characters on average, the text is not wrapped: each line is a paragraph.
    """
    for block in _BLANK_LINES.split(content):
        lines = [line for line in map(str.strip, block.split("\n")) if line]
        if len(lines) > 1 and sum(map(len, lines)) > 200 * len(lines):
            yield from lines
        elif lines:
            yield unwrap(lines)


def unwrap(lines: Sequence[str]) -> str:
    """Joins the lines of a paragraph, Chinese ones without a space."""
    joined = "\n".join(lines)
    if not joined.isascii():
        joined = _WIDE_BREAK.sub("", joined)
    return joined.replace("\n", " ")


def sentences(paragraph: str) -> tuple[str, ...]:
    """The sentences of a paragraph; a line break always ends one.

    Abbreviations, initials, decimals, list numbers and quoted speech that continues ("Stop!" he
    said) do not end it. The Chinese marks \u3002\uff01\uff1f\uff1b, with closing quotes, do.
    """
    pieces: list[str] = []
    for line in paragraph.split("\n"):
        start = 0
        for end in (_ASCII_END if line.isascii() else _END).finditer(line):
            if (
                end.end() < len(line)
                and _is_boundary(line, start, end)
                and any(map(str.isalnum, line[start : end.start()]))
            ):
                pieces.append(line[start : end.end()])
                start = end.end()
        rest = line[start:]
        if start and not any(map(str.isalnum, rest)):
            pieces[-1] += rest  # the rest of ". . ."
        else:
            pieces.append(rest)
    return tuple(piece for sentence in pieces for piece in _bounded(sentence.strip()) if piece)


def _is_boundary(line: str, start: int, end: re.Match[str]) -> bool:
    """Whether the marks at `end` close a sentence that began at `start`."""
    marks = end["western"]
    if marks is None:
        return True
    after = line[end.end() : end.end() + 8].lstrip(_OPENERS)[:1]
    if after.islower() or not after:
        return False
    if marks != ".":
        return True
    last = _LAST_WORD.search(line, start, end.start("western"))
    word = last[0] if last else ""
    lower = word.lower()
    if lower in _NEVER or (lower in _BEFORE_NUMBER and (after.isdigit() or line[end.end()] == "(")):
        return False
    if len(word) == 1 and word.isupper() and word != "I":
        return False  # an initial; "I." is mostly the pronoun
    if _DOTTED.match(word):
        return lower in ("a.m", "p.m")
    return not _LIST_MARK.match(line[start : end.start("western")].strip())


def _bounded(sentence: str) -> Iterator[str]:
    while len(sentence) > MAX_SENTENCE:
        cut = sentence.rfind(" ", MAX_SENTENCE // 2, MAX_SENTENCE)
        cut = cut if cut > 0 else MAX_SENTENCE
        yield sentence[:cut]
        sentence = sentence[cut:].strip()
    yield sentence


def count_words(content: str) -> int:
    """Number of words between spaces; each Chinese or Japanese character is a word."""
    if content.isascii():
        return len(content.split())
    rest, wide = _WIDE_CHARACTER.subn(" ", content)
    if not wide:
        return len(content.split())
    return wide + sum(any(map(str.isalnum, word)) for word in rest.split())
