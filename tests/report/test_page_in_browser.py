"""The page in a real browser: wide and narrow, light and dark, without a network."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from recap.report.__main__ import main

pytestmark = pytest.mark.browser

PHONE = 390
DESKTOP = 1100
DARK, LIGHT = 0, 1
"""Chromium's numbers of the colour schemes."""

MEASURE = """<script>addEventListener("load", () => {
  const pictures = [...document.images];
  parent.postMessage([document.documentElement.scrollWidth, innerWidth, pictures.length,
    pictures.filter(picture => picture.naturalWidth > 0).length].join(" "), "*");
});</script></body>"""

FRAME = """<!doctype html><title>waiting</title>
<script>addEventListener("message", event => document.title = event.data);</script>
<iframe src="{name}" width="{width}" height="900" style="border: 0"></iframe>"""
"""Chromium's own windows are at least 500 wide."""


@pytest.fixture(scope="module")
def page(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a report over the three small runs."""
    out = tmp_path_factory.mktemp("page")
    assert main([f"runs={small_runs}", f"out={out}", "resamples=50"]) == 0
    return out / "report.html"


def browse(browser: str, page: Path, *arguments: str) -> str:
    """Open a page in a browser without a network, and return what the browser prints."""
    done = subprocess.run(
        [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={page.parent / 'profile'}",
            f"--window-size={DESKTOP},2400",
            *arguments,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_sticks_out_and_every_figure_is_shown(browser: str, page: Path, width: int) -> None:
    text = page.read_text(encoding="utf-8")
    # A script of the test's own measures; the page itself has none and allows none.
    text = text.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    measured, frame = page.with_name(f"measured{width}.html"), page.with_name(f"frame{width}.html")
    measured.write_text(text.replace("</body>", MEASURE), encoding="utf-8")
    frame.write_text(FRAME.format(name=measured.name, width=width), encoding="utf-8")
    title = re.search(r"<title>([\d ]+)</title>", browse(browser, frame, "--dump-dom"))
    assert title is not None
    content, window, pictures, shown = map(int, title[1].split())
    assert window == width
    assert content <= window
    assert pictures == shown >= 1


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_the_page_is_readable_in_light_and_dark(browser: str, page: Path, scheme: int) -> None:
    image = pytest.importorskip("matplotlib.image")
    shot = page.with_name(f"shot{scheme}.png")
    browse(
        browser,
        page,
        f"--screenshot={shot}",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    pixels = image.imread(shot)[..., :3]
    height, found, _ = pixels.shape
    assert (found, height) == (DESKTOP, 2400)
    # The left margin is paper alone; ink stands well apart from it.
    margin = pixels[:, :8].reshape(-1, 3).mean(axis=1)
    paper = float(margin.mean())
    assert margin.std() < 0.01
    assert (paper > 0.95) if scheme == LIGHT else (paper < 0.15)
    brightness = pixels[:400].mean(axis=2)
    ink = abs(brightness - paper)
    assert ink.max() > 0.6
    assert 0.01 < (ink > 0.4).mean() < 0.3
