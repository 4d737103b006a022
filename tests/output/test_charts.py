"""What charts share: lines that are told apart, and panels in a grid."""

from __future__ import annotations

from recap.output.charts import PANELS_A_ROW, add_legend, line_style, open_axes, open_panels


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


def test_a_legend_lies_inside_the_figure_and_names_everything_whatever_it_is_called() -> None:
    names = ["_under", "$x$", *(f"a long name of a system, number {n}, " * 4 for n in range(6))]
    figure, axes = open_axes(7.2, 2)
    add_legend(figure, {name: axes.plot([0, 1], [0, n])[0] for n, name in enumerate(names)})
    figure.draw_without_rendering()
    [legend] = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 <= box.x1 <= whole.x1
    assert whole.y0 <= box.y0 <= box.y1 <= whole.y1
    assert box.y1 <= axes.get_tightbbox().y0
    shown = ["".join(text.get_text().split()) for text in legend.get_texts()]
    assert shown == ["".join(name.split()) for name in names]
