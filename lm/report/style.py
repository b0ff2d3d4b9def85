"""Style sheet of the page: light, dark, phone and print, without external resources."""

from lm.report import chart


def sheet() -> str:
    """Returns the style sheet, with the colors of arms for light, dark and paper."""
    light = "".join(f"--arm{place}:{color};" for place, color in enumerate(chart.LIGHT))
    dark = "".join(f"--arm{place}:{color};" for place, color in enumerate(chart.DARK))
    day, night = f":root{{{light}{_DAY}}}", f":root{{{dark}{_NIGHT}}}"
    # Print is always light, and is last to override dark.
    schemes = f"{day}\n@media (prefers-color-scheme:dark){{{night}}}"
    return f"{schemes}\n{_RULES}\n@media print{{{day}{_PRINT}}}"


_DAY = (
    "--ink:#1c1e21;--faint:#5a6068;--rule:#d9dce0;--paper:#fff;"
    "--shade:#f5f6f7;--good:#00664b;--bad:#a34700;--open:#565b62"
)
_NIGHT = (
    "--ink:#e6e8ea;--faint:#a3a9b1;--rule:#3c4148;--paper:#15171a;"
    "--shade:#1f2226;--good:#4fd0a5;--bad:#f0995c;--open:#b3b9c1"
)


# The four gradients show a shadow at an edge of a table that can be scrolled further.
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
.scroll{background:
linear-gradient(90deg,var(--paper) 40%,transparent) 0 0/3rem 100% no-repeat local,
linear-gradient(270deg,var(--paper) 40%,transparent) 100% 0/3rem 100% no-repeat local,
linear-gradient(90deg,var(--rule),transparent) 0 0/.7rem 100% no-repeat scroll,
linear-gradient(270deg,var(--rule),transparent) 100% 0/.7rem 100% no-repeat scroll}
.scroll:focus-visible,pre:focus-visible,summary:focus-visible{
outline:2px solid var(--arm0);outline-offset:2px}
table{border-collapse:collapse;font-size:.9rem;line-height:1.4;
font-variant-numeric:tabular-nums lining-nums;min-width:60%}
th,td{padding:.45rem 1.1rem .45rem 0;border-bottom:1px solid var(--rule);vertical-align:baseline;
text-align:left;font-weight:400}
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
.small.panels .row{grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr))}
.single .row{max-width:32rem}
.picture{break-inside:avoid}
svg{display:block;width:100%;height:auto;overflow:visible;stroke-linejoin:round}
svg text{font-size:11px;fill:var(--ink)}
svg text.faint{fill:var(--faint)}
svg .title{font-weight:600;font-size:12px}
svg .middle{text-anchor:middle}
svg .end{text-anchor:end}
svg path.grid{stroke:var(--rule);stroke-width:.7}
svg path.axis,svg path.zero{stroke:var(--faint);stroke-width:1}
svg path.rule{stroke:var(--faint);stroke-width:1;stroke-dasharray:3 3}
svg path.thin{fill:none;stroke-width:.8;opacity:.6}
svg path.mean{fill:none;stroke-width:2}
svg path.interval{stroke-width:2.2}
svg path.band{opacity:.2}
svg path.tick{stroke-width:1.1}
svg path.cross{stroke-width:2;fill:none}
svg path.dot{stroke-width:1.5}
svg path.plus{stroke-width:2.6}
svg circle.ring{fill:none;stroke:var(--ink);stroke-width:1.4}
td small{display:block;color:var(--faint);font-size:.78rem}
strong{font-weight:700}
h3{font-size:1rem;margin:1.6rem 0 .5rem;break-after:avoid}
.tabs{display:flex;flex-wrap:wrap;gap:.4rem 1.2rem}
.tabs input{position:absolute;opacity:0;width:1px;height:1px}
.tabs label{cursor:pointer;padding:.3rem 0;color:var(--faint);border-bottom:2px solid transparent}
.tabs input:checked+label{color:var(--ink);border-bottom-color:var(--arm0)}
.tabs input:focus-visible+label{outline:2px solid var(--arm0);outline-offset:2px}
.tabs .view{display:none;flex:0 0 100%;min-width:0}
.tabs .view>h3{display:none}
.tabs input.view0:checked~section.view0,
.tabs input.view1:checked~section.view1,.tabs input.view2:checked~section.view2{display:block}
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
.stack,.stack tbody,.stack tr,.stack th,.stack td{
display:block;min-width:0;text-align:left;white-space:normal}
.stack tr{border-bottom:1px solid var(--rule);padding:.6rem 0}
.stack th,.stack td{border:0;padding:.1rem 0}
.stack tbody th{font-weight:600}
.stack td{display:grid;grid-template-columns:7.5rem 1fr}
.stack td.none{display:none}
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
table{font-size:8pt;min-width:0}
thead th,td small{font-size:7pt}
th,td{padding:.3rem .55rem .3rem 0}
.r{white-space:normal}
thead .r,tbody th{min-width:0}
.panels .row{grid-template-columns:1fr 1fr}
.small.panels .row{grid-template-columns:1fr 1fr 1fr}
.tabs{display:block}
.tabs input,.tabs label{display:none}
.tabs .view,.tabs .view>h3{display:block}
details.printed::details-content{content-visibility:visible;display:block}
details:not(.printed){display:none}
"""
