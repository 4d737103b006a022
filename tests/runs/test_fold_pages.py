"""Box plots and confusion for W&B: every place in a drawing, read back through its own scale."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from recap.metrics.scores import (
    confusion_spread,
    scores_from_confusion,
    spread_over_folds,
    summarize,
)
from recap.records import Spread, Summary
from recap.runs.wandb import BoxPanel, box_page, confusion_page

VALUES = (0.52, 0.61, 0.47, 0.55, 0.66)
LABELS = ("A <b>&", "偏离")


def summary(n_folds: int) -> Summary:
    one = scores_from_confusion("t", LABELS, [[1, 0, 0], [0, 1, 0]])
    return summarize(dict.fromkeys(range(n_folds), one), protocol="paper")


def drawings(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def scale_of(svg: ElementTree.Element) -> Callable[[float], float]:
    """Return what turns a place into a value, from the first and last line of the grid."""
    places = [float(line.attrib["x1"]) for line in svg.findall("line[@class='grid']")]
    said = {float(t.attrib["x"]): t.text for t in svg.findall("text") if t.text}
    low, high = float(said[places[0]]), float(said[places[-1]])
    return lambda x: low + (x - places[0]) / (places[-1] - places[0]) * (high - low)


def draw(values: tuple[float | None, ...], **options: float) -> ElementTree.Element:
    panel = BoxPanel(title="F1", unit="percent", rows=[("x", spread_over_folds(values))], **options)
    return drawings(box_page("Page", [panel], summary(len(values))))[0]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (VALUES, 100.0),
        (VALUES[:2], 100.0),
        ((0.1234, 0.1236, 0.1241), 1.0),
        ((3e-5, 8e-5, 2e-4, 9e-5), 1.0),
        ((0.0, 1.0, 1.0), 100.0),
        ((0.5,), 100.0),
        ((0.0, 0.0, 0.0), 100.0),
        ((812.0, 1443.0, 90.0), 1.0),
    ],
)
def test_boxes_stand_at_numpys_quartiles_and_dots_at_the_folds(
    values: tuple[float, ...], scale: float
) -> None:
    svg = draw(values, scale=scale)
    value_at = scale_of(svg)
    box, whisker = svg.find("rect[@class='box']"), svg.find("line[@class='whisker']")
    median = svg.find("line[@class='median']")
    assert box is not None
    assert whisker is not None
    assert median is not None
    left = float(box.attrib["x"])
    places = [
        float(whisker.attrib["x1"]),
        left,
        float(median.attrib["x1"]),
        left + float(box.attrib["width"]),
        float(whisker.attrib["x2"]),
    ]
    # Places are written to a tenth of a pixel, of 460.
    room = 0.002 * (value_at(460.0) - value_at(0.0))
    scaled = scale * np.array(values)
    quartiles = np.percentile(scaled, [0, 25, 50, 75, 100])
    assert [value_at(x) for x in places] == pytest.approx(quartiles, abs=room)
    dots = svg.findall("circle")
    assert [value_at(float(d.attrib["cx"])) for d in dots] == pytest.approx(scaled, abs=room)
    assert [d.findtext("title") for d in dots] == [
        f"fold {k}: {scale * value:.4g}" for k, value in enumerate(values)
    ]
    drawn = [float(line.attrib["x1"]) for line in svg.findall("line[@class='grid']")]
    assert drawn[0] <= places[0] + 0.05
    assert places[-1] - 0.05 <= drawn[-1]
    assert 2 <= len(drawn) <= 9


def test_the_figure_beside_a_box_is_mean_and_sample_deviation() -> None:
    said = [text.text for text in draw(VALUES).findall("text")]
    assert f"{100 * np.mean(VALUES):.2f} ± {100 * np.std(VALUES, ddof=1):.2f}" in said
    assert "percent" in said
    assert "50.00" in [text.text for text in draw((0.5,)).findall("text")]


def test_what_any_fold_lacks_is_not_drawn() -> None:
    lacking = Spread(mean=None, std=None, values=(0.5, None))
    rows = [("there", spread_over_folds((0.5, 0.6))), ("lacking", lacking)]
    alone = BoxPanel(title="Loss", unit="nats", rows=[("loss", lacking)])
    page = box_page("Page", [BoxPanel(title="F1", unit="percent", rows=rows), alone], summary(2))
    assert len(drawings(page)) == 1
    assert "lacking" not in page
    assert "Loss" not in page


def test_names_are_escaped_and_the_page_asks_no_network() -> None:
    rows = [(label, spread_over_folds(VALUES)) for label in LABELS]
    of = summary(5)
    boxes = box_page("Page", [BoxPanel(title="F1", unit="percent", rows=rows)], of)
    cells = confusion_page(confusion_spread([scores_from_confusion("t", LABELS, np.eye(2, 3))]), of)
    for page in (boxes, cells):
        assert "A &lt;b&gt;&amp;" in page
        assert "<b>" not in page
        assert "偏离" in page
        assert not re.search(r"https?:|//|<script|src=|href=|url\(", page)


def test_the_confusion_page_has_each_cells_share_and_count_in_its_place() -> None:
    folds = [[[6, 2, 0], [1, 3, 0]], [[4, 4, 0], [0, 3, 1]]]
    scores = [scores_from_confusion("t", ("A", "B"), one) for one in folds]
    page = confusion_page(confusion_spread(scores), summary(2))
    table = ElementTree.fromstring(re.findall(r"<table.*?</table>", page, re.DOTALL)[0])
    assert [cell.text for cell in table.findall("thead/tr/th")] == ["A", "B", "invalid"]
    rows = table.findall("tbody/tr")
    assert [row.findtext("th") for row in rows] == ["A", "B"]
    # By hand: 6/8 and 4/8, mean 62.5 %, SD 25/√2 = 17.7; counts 6 and 4, mean 5, SD √2.
    assert rows[0].findall("td")[0].text == "62.5 ± 17.7"
    assert rows[0].findall("td")[0].findtext("small") == "5.0 ± 1.4"
    # 0/4 and 1/4: 12.5 %, SD 17.7; counts 0 and 1, SD 1/√2.
    assert rows[1].findall("td")[2].text == "12.5 ± 17.7"
    assert rows[1].findall("td")[2].findtext("small") == "0.5 ± 0.7"
