"""What charts share: lines that are told apart, and panels in a grid."""

from __future__ import annotations

from recap.output.charts import PANELS_A_ROW, line_style, open_panels


def test_lines_are_told_apart_by_color_and_dashes_together() -> None:
    styles = {tuple(line_style(place).values()) for place in range(24)}
    assert len(styles) == 24


def test_panels_stand_in_rows_under_their_titles_and_the_rest_of_the_grid_is_empty() -> None:
    figure, panels = open_panels(["a", "b", "c", "d"], width=2, height=1)
    assert [axes.get_title(loc="left") for [axes] in panels] == ["a", "b", "c", "d"]
    assert tuple(figure.get_size_inches()) == (2 * PANELS_A_ROW, 2)
    shown = [axes for axes in figure.axes if axes.axison]
    assert shown == [axes for [axes] in panels]
    assert len(figure.axes) == 2 * PANELS_A_ROW


def test_the_parts_of_a_panel_stand_below_each_other_and_share_their_x_axis() -> None:
    figure, [(above, below), (beside, _)] = open_panels(["a", "b"], width=2, height=3, parts=(3, 1))
    figure.draw_without_rendering()
    assert above.get_position().y0 > below.get_position().y1
    assert above.get_position().x0 == below.get_position().x0 < beside.get_position().x0
    above.set_xlim(0, 7)
    assert below.get_xlim() == (0, 7)
