"""A page as one HTML file: no network, no script, inline style and pictures; light, dark, phone and print."""

import html

from lm.report import pictures
from lm.report.page import Code, Details, Figure, Heading, Items, Page, Paragraph, Part, Table

# Cells that start with one of these are verdicts: sign and word carry the meaning, the colour only helps.
_TONES = {"✓": "good", "✗": "bad", "?": "open"}


def page(page: Page) -> str:
    """The page as HTML."""
    parts = "\n".join(_part(part, number) for number, part in enumerate(page.parts))
    title = html.escape(page.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{_style()}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{parts}\n</main>\n</body>\n</html>\n"
    )


def _part(part: Part, number: int) -> str:
    match part:
        case Heading():
            return f"<h2>{html.escape(part.text)}</h2>"
        case Paragraph():
            return f"<p{_class(part.role)}>{html.escape(part.text)}</p>"
        case Items():
            return f"<ul{_class(part.role)}>" + "".join(f"<li>{html.escape(text)}</li>" for text in part.texts) + "</ul>"
        case Table():
            return _table(part, number)
        case Figure():
            shown = "".join(f'<div class="picture">{svg}</div>' for svg, _ in part.pictures)
            kind = "panels" if len(part.pictures) > 1 else "single"
            return f'<figure class="{kind}"><div class="row">{shown}</div><figcaption>{html.escape(part.caption)}</figcaption></figure>'
        case Code():
            return _code(part)
        case Details():
            return f"<details><summary>{html.escape(part.summary)}</summary>{_code(part.code)}</details>"


def _table(table: Table, number: int) -> str:
    kinds = ["r" if align == "r" else "l" for _, align in table.columns]
    head = ""
    if table.head:
        cells = (f'<th scope="col" class="{kind}">{html.escape(text)}</th>' for kind, (text, _) in zip(kinds, table.columns, strict=True))
        head = "<thead><tr>" + "".join(cells) + "</tr></thead>"
    names = [text for text, _ in table.columns]
    body = "".join("<tr>" + "".join(map(_cell, row, kinds, names, range(len(row)))) + "</tr>" for row in table.rows)
    caption = f'<p class="caption" id="table{number}">{html.escape(table.caption)}</p>' if table.caption else ""
    named = f'aria-labelledby="table{number}"' if caption else 'aria-label="table"'
    kind = ' class="stack"' if table.stack else "" if table.head else ' class="facts"'
    # A wide table scrolls by itself on a phone, and by keyboard.
    return f'<div class="scroll" tabindex="0" role="region" {named}><table{kind}>{head}<tbody>{body}</tbody></table></div>{caption}'


def _cell(text: str, kind: str, name: str, place: int) -> str:
    if place == 0:
        return f'<th scope="row" class="{kind}">{html.escape(text)}</th>'
    shown = html.escape(text)
    if tone := _TONES.get(text[:1]) if text[1:2] == " " else None:
        sign, _, reason = text.partition(" (")
        shown = f'<span class="verdict {tone}">{html.escape(sign)}</span>' + (f" ({html.escape(reason)}" if reason else "")
    return f'<td class="{kind}" data-name="{html.escape(name)}">{shown}</td>'


def _code(code: Code) -> str:
    return f'<pre tabindex="0"><code>{html.escape(code.text)}</code></pre>'


def _class(role: str) -> str:
    return f' class="{role}"' if role else ""


def _style() -> str:
    light = "".join(f"--arm{place}:{colour};" for place, colour in enumerate(pictures.LIGHT))
    dark = "".join(f"--arm{place}:{colour};" for place, colour in enumerate(pictures.DARK))
    day, night = f":root{{{light}{_DAY}}}", f":root{{{dark}{_NIGHT}}}"
    # Print is always light, and stands last so that it wins over dark.
    return f"{day}\n@media (prefers-color-scheme:dark){{{night}}}\n{_RULES}\n@media print{{{day}{_PRINT}}}"


_DAY = "--ink:#1c1e21;--faint:#5a6068;--rule:#d9dce0;--paper:#fff;--shade:#f5f6f7;--good:#00664b;--bad:#a34700;--open:#565b62"
_NIGHT = "--ink:#e6e8ea;--faint:#a3a9b1;--rule:#3c4148;--paper:#15171a;--shade:#1f2226;--good:#4fd0a5;--bad:#f0995c;--open:#b3b9c1"


# The four gradients draw a shadow at an edge beyond which a table goes on, and cover it where it ends.
_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink)}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI","Noto Sans",Roboto,"DejaVu Sans",sans-serif}
main{max-width:62rem;margin:0 auto;padding:3rem 1.5rem 5rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .6rem;letter-spacing:-.01em}
h2{font-size:1.2rem;line-height:1.3;margin:3.2rem 0 .8rem;break-after:avoid}
p,ul{max-width:46rem;margin:0 0 1rem;overflow-wrap:anywhere}
ul{padding-left:1.2rem}
li{margin:.3rem 0}
.lead{font-size:1.1rem}
.headline{font-size:1.25rem;font-weight:600;margin:.2rem 0 1.2rem}
.small,.caption,figcaption{color:var(--faint);font-size:.86rem;line-height:1.5}
.caption,figcaption{max-width:46rem;margin:.6rem 0 1.6rem}
.warning{border-left:3px solid var(--bad);padding-left:.9rem;margin-bottom:0}
ul.warning{padding-left:2rem;margin-bottom:1.2rem}
.scroll{overflow-x:auto;margin:.4rem 0 1rem}
.scroll{background:linear-gradient(90deg,var(--paper) 40%,transparent) 0 0/3rem 100% no-repeat local,
linear-gradient(270deg,var(--paper) 40%,transparent) 100% 0/3rem 100% no-repeat local,
linear-gradient(90deg,var(--rule),transparent) 0 0/.7rem 100% no-repeat scroll,
linear-gradient(270deg,var(--rule),transparent) 100% 0/.7rem 100% no-repeat scroll}
.scroll:focus-visible,pre:focus-visible,summary:focus-visible{outline:2px solid var(--arm0);outline-offset:2px}
table{border-collapse:collapse;font-size:.9rem;line-height:1.4;font-variant-numeric:tabular-nums lining-nums;min-width:60%}
th,td{padding:.45rem 1.1rem .45rem 0;border-bottom:1px solid var(--rule);vertical-align:baseline;text-align:left;font-weight:400}
tr>:last-child{padding-right:0}
thead th{color:var(--faint);font-size:.82rem;vertical-align:bottom;border-bottom-color:var(--faint)}
.r{text-align:right;white-space:nowrap}
thead .r{white-space:normal;min-width:4.5rem}
tbody th{min-width:7rem}
table.facts{min-width:0}
.facts tbody th{color:var(--faint);white-space:nowrap}
.facts td{overflow-wrap:anywhere}
.verdict{white-space:nowrap;font-weight:600}
.good{color:var(--good)}.bad{color:var(--bad)}.open{color:var(--open)}
figure{margin:0 0 1.2rem}
.row{display:grid;gap:1.6rem 2rem}
.panels .row{grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr))}
.single .row{max-width:32rem}
.picture{break-inside:avoid}
svg{display:block;width:100%;height:auto;overflow:visible;stroke-linejoin:round}
svg text{font-family:inherit!important}
pre{background:var(--shade);padding:.8rem 1rem;overflow-x:auto;border-radius:4px}
pre,code{font:.84rem/1.5 ui-monospace,"DejaVu Sans Mono",Consolas,monospace}
details{margin:.5rem 0;max-width:100%}
summary{cursor:pointer;color:var(--faint)}
@media (max-width:40rem){
main{padding:1.6rem 1rem 3rem}
h1{font-size:1.5rem}
h2{margin-top:2.4rem}
th,td{padding-right:.9rem}
.stack thead{display:none}
.stack,.stack tbody,.stack tr,.stack th,.stack td{display:block;min-width:0;text-align:left;white-space:normal}
.stack tr{border-bottom:1px solid var(--rule);padding:.6rem 0}
.stack th,.stack td{border:0;padding:.1rem 0}
.stack tbody th{font-weight:600}
.stack td{display:grid;grid-template-columns:7.5rem 1fr}
.stack td::before{content:attr(data-name);color:var(--faint)}
}
"""

_PRINT = """
@page{margin:18mm 16mm}
body{font-size:10pt}
main{max-width:none;padding:0}
h2{margin-top:1.6rem}
p,ul,.caption,figcaption{max-width:none}
.scroll,pre{overflow:visible;background:none}
pre{white-space:pre-wrap}
table,tr,.picture,pre,figcaption{break-inside:avoid}
thead{display:table-header-group}
.panels .row{grid-template-columns:1fr 1fr}
"""
