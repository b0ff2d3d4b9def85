"""The report in a browser: wide and narrow, light and dark. Needs chromium, no network."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from comparison_workdir import crowd, enrich, make

from lm import report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
# Measures the rendered page; --dump-dom prints the answer with the page.
PROBE = """
<script>
const page = document.scrollingElement;
const visible = element => element.getClientRects().length > 0;
const right = element => element.getBoundingClientRect().right;
const wide = [...document.querySelectorAll("main *")]
  .filter(element => visible(element) && !element.closest(".scroll, pre, svg"))
  .filter(element => right(element) > innerWidth + 1)
  .map(element => element.tagName + "." + element.className);
const cut = [...document.querySelectorAll("svg text")]
  .filter(text => visible(text) && right(text) > right(text.ownerSVGElement) + 12)
  .map(text => text.textContent);
const views = [...document.querySelectorAll(".view")].map(visible);
document.querySelectorAll(".tabs input")[1]?.click();
const later = [...document.querySelectorAll(".view")].map(visible);
document.querySelectorAll(".tabs input")[0]?.click();
const answer = document.createElement("pre");
answer.id = "answer";
answer.textContent = JSON.stringify({
  width: page.scrollWidth, inner: innerWidth, wide, cut, views, later,
  paper: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.body).color
});
document.body.append(answer);
</script>
"""


def chromium(tmp_path, page, width, scheme, *more):
    """Runs the browser on a file; `scheme` is 0 for dark, 1 for light."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--window-size={width},1600",
        "--virtual-time-budget=2000",
        *more,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, re.findall(".*CONSOLE.*", done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of four and of eight arms, each unchanged and with the probe."""
    root, result = tmp_path_factory.mktemp("browser"), {}
    for name, directory in (("few", enrich(make(root / "few"))), ("many", crowd(root / "many", 3))):
        written = report.write(directory).html
        text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", written.read_text())
        probed = directory / "probed.html"
        probed.write_text(text.replace("</body>", PROBE + "</body>"))
        result[name] = written, probed
    return result


# Headless Chromium has no windows narrower than 500 pixels, so a frame sets a phone's width.
def framed(tmp_path, page, width):
    frame = tmp_path / f"frame{width}.html"
    inner = html.escape(page.read_text())
    frame.write_text(
        '<body style="margin:0">'
        f'<iframe id="f" style="border:0;width:{width}px;height:1500px" srcdoc="{inner}"></iframe>'
    )
    return frame


@pytest.mark.parametrize("name", ["few", "many"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_its_window(pages, tmp_path, name, width):
    probed = pages[name][1]
    page = probed
    if width < 500:
        copy = framed(tmp_path, probed, width)
        copy.write_text(copy.read_text() + FRAME_ANSWER)
        page = copy
    out = chromium(tmp_path, page, max(width, 500), 1, "--dump-dom")
    answer = json.loads(html.unescape(re.search(r'<pre id="answer">(.*?)</pre>', out)[1]))
    assert answer["inner"] == width and answer["width"] <= width, answer
    assert answer["wide"] == [] and answer["cut"] == []
    assert answer["views"] == [True, False, False] and answer["later"] == [False, True, False]


FRAME_ANSWER = """
<script>
document.getElementById("f").onload = () => {
  document.body.append(document.getElementById("f").contentDocument.getElementById("answer"));
  document.getElementById("f").remove();
};
</script>
"""


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_it_is_drawn_light_and_dark(pages, tmp_path, width, scheme):
    import matplotlib.image

    written = pages["few"][0]
    page = written if width >= 500 else framed(tmp_path, written, width)
    chromium(tmp_path, page, max(width, 500), scheme, f"--screenshot={tmp_path / 'shot.png'}")
    pixels = matplotlib.image.imread(tmp_path / "shot.png")[:1500, :width, :3]
    paper = pixels[5, 5]
    assert (paper.mean() > 0.9) == bool(scheme) and (paper.mean() < 0.2) == (not scheme)
    drawn = np.abs(pixels - paper).max(-1) > 0.3
    assert 0.005 < drawn.mean() < 0.5, "text must cover part of the page"
    assert drawn.any(1)[: len(drawn) // 2].mean() > 0.3 and drawn[:, width // 2 :].any()


def test_paper_shows_every_view(pages, tmp_path):
    chromium(
        tmp_path,
        pages["few"][0],
        1200,
        0,
        f"--print-to-pdf={tmp_path / 'page.pdf'}",
        "--no-pdf-header-footer",
    )
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF") and (
        tmp_path / "page.pdf"
    ).stat().st_size > 50_000
