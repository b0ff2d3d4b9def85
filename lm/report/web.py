"""A page as one HTML file: no network, no script, inline style and pictures; light, dark, phone and print."""

import html
import re

from lm.report import figures, style
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

# Cells that start with one of these are verdicts: sign and word carry the meaning, the colour only helps.
_TONES = {"✓": "good", "✗": "bad", "?": "open"}


def page(page: Page) -> str:
    """The page as HTML."""
    parts = "\n".join(_part(part, str(number)) for number, part in enumerate(page.parts))
    title = html.escape(page.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{style.sheet()}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{parts}\n</main>\n</body>\n</html>\n"
    )


def _part(part: Part, number: str) -> str:
    match part:
        case Heading():
            return f"<h{part.level}>{_text(part.text)}</h{part.level}>"
        case Paragraph(role="markdown"):
            return ""  # it tells readers of the Markdown what only the page has
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
            inner = "".join(
                _part(each, f"{number}-{place}") for place, each in enumerate(part.parts)
            )
            return f"<details{_class('printed' if part.printed else '')}><summary>{_text(part.summary)}</summary>{inner}</details>"
        case Tabs():
            return _tabs(part, number)


def _figure(figure: Figure) -> str:
    shown = "".join(f'<div class="picture">{svg}</div>' for svg, _ in figure.pictures)
    kind = ("small " if figure.small else "") + ("panels" if len(figure.pictures) > 1 else "single")
    return f'<figure class="{kind}"><div class="row">{shown}</div><figcaption>{_text(figure.caption)}</figcaption></figure>'


def _tabs(tabs: Tabs, number: str) -> str:
    """Radio buttons and a rule of style show one view: no script. They work by keyboard, and paper shows every view."""
    heads, bodies = [], []
    for place, (name, figure) in enumerate(tabs.views):
        key, chosen = f"tab{number}-{place}", "" if place else " checked"
        heads.append(
            f'<input type="radio" name="tabs{number}" id="{key}" class="view{place}"{chosen}><label for="{key}">{_text(name)}</label>'
        )
        bodies.append(
            f'<section class="view view{place}"><h3>{_text(name)}</h3>{_figure(figure)}</section>'
        )
    return f'<div class="tabs" role="group" aria-label="{_text(tabs.name)}">{"".join(heads)}{"".join(bodies)}</div>'


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
    # A wide table scrolls by itself on a phone, and by keyboard.
    return f'<div class="scroll" tabindex="0" role="region" {named}><table{kind}>{head}<tbody>{body}</tbody></table></div>{caption}'


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
    kind += " none" if text == figures.MISSING else ""
    return f'<td class="{kind}" data-name="{_text(name)}">{shown}</td>'


def _code(code: Code) -> str:
    return f'<pre tabindex="0"><code>{html.escape(code.text)}</code></pre>'


def _class(role: str) -> str:
    return f' class="{role}"' if role else ""


def _text(text: str) -> str:
    """Escaped; a number and its per cent sign stay on one line, as does a number with what it is below."""
    return re.sub(r"(?<=\d) (?=%)|(?<=&[lg]t;) (?=\d)", "\u00a0", html.escape(text))
