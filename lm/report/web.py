"""Writes a page as one HTML file with inline style and pictures, without scripts or network.

The page supports light and dark mode, phones and print.
"""

import html
import re

from lm.report import number_format, style
from lm.report.page import (
    Code,
    Details,
    Figure,
    Heading,
    Items,
    Page,
    Paragraph,
    Part,
    Strong,
    Table,
    Tabs,
)

# Cells that start with one of these signs are verdicts; their color repeats sign and word.
_TONES = {"✓": "good", "✗": "bad", "?": "open"}


def page(page: Page) -> str:
    """Returns the page as HTML."""
    parts = "\n".join(_part(part, str(number)) for number, part in enumerate(page.parts))
    title = html.escape(page.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{style.sheet()}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{parts}\n</main>\n</body>\n</html>\n"
    )


def _part(part: Part, number: str) -> str:
    match part:
        case Heading():
            return f"<h{part.level}>{_text(part.text)}</h{part.level}>"
        case Paragraph(role="markdown"):
            return ""  # for readers of the Markdown
        case Paragraph():
            return f"<p{_class(part.role)}>{_text(part.text)}</p>"
        case Items():
            return (
                f"<ul{_class(part.role)}>"
                + "".join(f"<li>{_text(text)}</li>" for text in part.texts)
                + "</ul>"
            )
        case Table():
            return _table(part, number)
        case Figure():
            return _figure(part)
        case Code():
            return _code(part)
        case Details():
            parts = "".join(
                _part(inner, f"{number}-{place}") for place, inner in enumerate(part.parts)
            )
            opening = f"<details{_class('printed' if part.printed else '')}>"
            return f"{opening}<summary>{_text(part.summary)}</summary>{parts}</details>"
        case Tabs():
            return _tabs(part, number)


def _figure(figure: Figure) -> str:
    shown = "".join(f'<div class="picture">{svg}</div>' for svg, _ in figure.pictures)
    kind = ("small " if figure.small else "") + ("panels" if len(figure.pictures) > 1 else "single")
    caption = f"<figcaption>{_text(figure.caption)}</figcaption>"
    return f'<figure class="{kind}"><div class="row">{shown}</div>{caption}</figure>'


def _tabs(tabs: Tabs, number: str) -> str:
    """Radio buttons and CSS show one view. They work by keyboard, and paper shows every view."""
    heads, bodies = [], []
    for place, (name, figure) in enumerate(tabs.views):
        key, checked = f"tab{number}-{place}", "" if place else " checked"
        heads.append(
            f'<input type="radio" name="tabs{number}" id="{key}" class="view{place}"{checked}>'
            f'<label for="{key}">{_text(name)}</label>'
        )
        bodies.append(
            f'<section class="view view{place}"><h3>{_text(name)}</h3>{_figure(figure)}</section>'
        )
    opening = f'<div class="tabs" role="group" aria-label="{_text(tabs.name)}">'
    return f"{opening}{''.join(heads)}{''.join(bodies)}</div>"


def _table(table: Table, number: str) -> str:
    kinds = ["r" if align == "r" else "l" for _, align in table.columns]
    head = ""
    if table.head:
        cells = (
            f'<th scope="col" class="{kind}">{_text(text)}</th>'
            for kind, (text, _) in zip(kinds, table.columns, strict=True)
        )
        head = "<thead><tr>" + "".join(cells) + "</tr></thead>"
    names = [text for text, _ in table.columns]
    body = "".join(
        "<tr>" + "".join(map(_cell, row, kinds, names, range(len(row)))) + "</tr>"
        for row in table.rows
    )
    caption = (
        f'<p class="caption" id="table{number}">{_text(table.caption)}</p>' if table.caption else ""
    )
    named = f'aria-labelledby="table{number}"' if caption else 'aria-label="table"'
    kind = ' class="stack"' if table.stack else "" if table.head else ' class="facts"'
    # On a phone, a wide table scrolls on its own; tabindex makes it scroll by keyboard.
    opening = f'<div class="scroll" tabindex="0" role="region" {named}>'
    return f"{opening}<table{kind}>{head}<tbody>{body}</tbody></table></div>{caption}"


def _cell(text: str, kind: str, name: str, place: int) -> str:
    if place == 0:
        return f'<th scope="row" class="{kind}">{_text(text)}</th>'
    if tone := _TONES.get(text[:1]) if text[1:2] == " " else None:
        sign, _, reason = text.partition(" (")
        shown = f'<span class="verdict {tone}">{_text(sign)}</span>' + (
            f" ({_text(reason)}" if reason else ""
        )
    else:
        first, _, second = text.partition("\n")
        shown = f"<strong>{_text(first)}</strong>" if isinstance(text, Strong) else _text(first)
        shown += f" <small>{_text(second)}</small>" if second else ""
    kind += " none" if text == number_format.MISSING else ""
    return f'<td class="{kind}" data-name="{_text(name)}">{shown}</td>'


def _code(code: Code) -> str:
    return f'<pre tabindex="0"><code>{html.escape(code.text)}</code></pre>'


def _class(role: str) -> str:
    return f' class="{role}"' if role else ""


def _text(text: str) -> str:
    """Escapes text; no line break within "12 %" or "< 0.8"."""
    return re.sub(r"(?<=\d) (?=%)|(?<=&[lg]t;) (?=\d)", "\u00a0", html.escape(text))
