"""Plots show the numbers that they are given, have a size that can be read, and refuse what cannot be drawn."""

import math
from itertools import pairwise

import pytest
from matplotlib.figure import Figure
from PIL import Image

from sd4match.errors import InputError
from sd4match.viz import (
    figure_to_image,
    plot_bars,
    plot_calibration,
    plot_categories,
    plot_pck_over,
    plot_pck_over_alpha,
    plot_training,
)
from sd4match.viz.figures import SMALL_TEXT, label, png_bytes, style
from sd4match.viz.plots import MOST_BARS, MOST_CATEGORIES, MOST_CATEGORY_ROWS, MOST_LINES, _apart

NAN = math.nan


def texts(figure):
    return {text.get_text(): text for axes in figure.axes for text in axes.texts}


def lines_of(figure):
    """Return the drawn lines in data coordinates, without intervals and samples of lines beside names."""
    axes = figure.axes[0]
    return [line.get_xydata().tolist() for line in axes.lines if line.get_clip_on() and line.get_linewidth() == 2]


def test_a_line_for_each_row_shows_pck_in_percent_over_alpha_in_order():
    rows = {"text": {0.1: 0.5, 0.05: 0.25}, "single": {0.05: 0.375, 0.1: 0.75}}
    figure = plot_pck_over_alpha(rows, title="mini")
    assert lines_of(figure) == [[[0.05, 25.0], [0.1, 50.0]], [[0.05, 37.5], [0.1, 75.0]]]
    assert set(texts(figure)) == {"text", "single"}
    assert figure.get_suptitle() == "mini"
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["0.05", "0.1"]


def test_values_that_are_not_there_leave_a_gap_and_a_row_without_any_says_so():
    figure = plot_pck_over([0, 100, 200], {"a": [0.5, NAN, 0.25], "b": [NAN] * 3})
    assert lines_of(figure) == [[[0.0, 50.0], [200.0, 25.0]]]
    assert set(texts(figure)) == {"a", "b (no value)"}
    assert list(texts(plot_pck_over([], {"a": []}))) == ["a (no value)"]


def test_intervals_are_bars_for_few_values_and_bands_for_many():
    few = plot_pck_over_alpha({"a": {0.1: 0.5}}, intervals={"a": {0.1: (0.375, 0.625)}})
    assert few.axes[0].collections[0].get_segments()[0].tolist() == [[0.1, 37.5], [0.1, 62.5]]
    assert few.axes[0].get_ylabel() == "PCK (%), with 95 % intervals"
    many = plot_pck_over(range(10), {"a": [0.5] * 10}, intervals={"a": [(0.4, 0.6)] * 9 + [(NAN, NAN)]})
    assert len(many.axes[0].collections) == 1


def test_bars_show_ours_and_published_values_by_name():
    figure = plot_bars(
        {"text": 0.25, "none": NAN}, intervals={"text": (0.125, 0.5)}, published={"text": 0.75, "other": 0.5}
    )
    axes = figure.axes[0]
    assert [(bar.get_width(), bar.get_hatch()) for bar in axes.patches] == [
        (25.0, None),
        (75.0, "////"),
        (50.0, "////"),
    ]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["text", "none", "other"]
    assert [text.get_text() for text in axes.texts] == ["25.0", "75.0", "no value", "50.0"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "published"]
    assert [text.get_text() for text in plot_bars({}, published={"a": 0.5}).legends[0].get_texts()] == ["published"]
    assert not plot_bars({"a": 0.5}).legends


def test_categories_show_a_mark_for_each_row_that_has_a_value():
    rows = {"text": {"cat": 0.25, "dog": NAN}, "single": {"dog": 0.5, "bird": NAN}}
    figure = plot_categories(rows, intervals={"text": {"cat": (0.125, 0.375)}})
    axes = figure.axes[0]
    marks = [line.get_xdata().tolist() for line in axes.lines if line.get_markersize() == 7]
    assert marks == [[25.0], [50.0]]
    assert axes.collections[0].get_segments()[0][:, 0].tolist() == [12.5, 37.5]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["cat", "dog", "bird (no value)"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["text", "single"]


@pytest.mark.parametrize("rows", [1, 12])
def test_twenty_categories_and_twelve_rows_have_names_that_do_not_touch(rows):
    many = {f"row {number}": {f"category {name}": 0.5 for name in range(20)} for number in range(rows)}
    for figure in (plot_categories(many), plot_pck_over_alpha({name: {0.1: 0.5} for name in many})):
        figure.draw_without_rendering()
        written = [text for text in (*figure.axes[0].texts, *figure.axes[0].get_yticklabels()) if text.get_text()]
        boxes = sorted((text.get_window_extent() for text in written), key=lambda box: (box.x0, box.y0))
        for lower, upper in pairwise(boxes):
            assert lower.y1 <= upper.y0 + 2 or lower.x1 < upper.x0
        assert min(text.get_fontsize() for text in written) >= SMALL_TEXT - 2


def test_rows_differ_in_marker_and_dashes_and_not_in_color_alone():
    looks = [style(number) for number in range(MOST_LINES)]
    assert len({(look["marker"], str(look["linestyle"])) for look in looks}) == MOST_LINES


def test_names_are_drawn_as_they_are_and_cut_to_two_lines():
    figure = plot_pck_over_alpha({"$x^2$ \x1b<b>": {0.1: 0.5}}, title="$\\frac$")
    (name,) = figure.axes[0].texts
    assert name.get_text() == "$x^2$ \ufffd<b>"
    assert figure_to_image(figure, scale=0.25).width == 200  # formulas would be refused
    assert label("a" * 100).count("\n") == 1
    assert figure_to_image(plot_bars({"\u65e5\u672c": 0.5}), scale=0.25).width == 200  # no warning of a missing glyph


def test_heights_of_names_keep_order_and_distance():
    heights = _apart([0.5, 0.5, 0.5, 1.0], [0.2] * 4)
    assert heights == pytest.approx([0.3, 0.5, 0.7, 0.9])
    assert _apart([-1.0], [0.2]) == [0.1]


def test_a_training_shows_loss_and_validation():
    figure = plot_training([3.0, 2.0], [(0, 0.125), (2, 0.25)], title="t")
    upper, lower = figure.axes
    assert upper.lines[0].get_ydata().tolist() == [3.0, 2.0]
    assert upper.lines[1].get_ydata().tolist() == pytest.approx([3.0, 2.9])
    assert lower.lines[0].get_xydata().tolist() == [[0.0, 12.5], [2.0, 25.0]]
    (alone,) = plot_training([3.0], [], excess_losses=[1.0]).axes
    assert alone.get_ylabel() == "loss above its lower bound"
    assert alone.lines[0].get_ydata().tolist() == [1.0]


def test_a_calibration_shows_shares_and_counts():
    upper, lower = plot_calibration([(0.0, 0.5, 3, 0.25), (0.5, 1.0, 2, 1.0)]).axes
    assert [bar.get_height() for bar in upper.patches] == [25.0, 100.0]
    assert [bar.get_height() for bar in lower.patches] == [3.0, 2.0]
    with pytest.raises(InputError, match="one bin of scores or more"):
        plot_calibration([])


def test_a_picture_of_a_plot_is_a_png_of_the_wanted_size():
    picture = figure_to_image(Figure(figsize=(2, 1)), scale=3)
    assert (picture.size, picture.mode) == ((600, 300), "RGB")
    assert png_bytes(Image.new("RGB", (1, 1)))[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="over 32768 pixels: choose a smaller"):
        figure_to_image(Figure(figsize=(8, 400)))
    with pytest.raises(InputError, match="scale"):
        figure_to_image(Figure(), scale=0.1)


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        (lambda: plot_bars({}), "1 to 60 rows"),
        (lambda: plot_bars({str(number): 0.5 for number in range(MOST_BARS + 1)}), "not 61: choose some of them"),
        (lambda: plot_pck_over_alpha({str(number): {} for number in range(MOST_LINES + 1)}), "1 to 24 rows"),
        (lambda: plot_categories({str(n): {"a": 0.5} for n in range(MOST_CATEGORY_ROWS + 1)}), "1 to 12 rows"),
        (lambda: plot_categories({"a": {str(n): 0.5 for n in range(MOST_CATEGORIES + 1)}}), "number of categories"),
        (lambda: plot_categories({"a": {}}), "number of categories"),
        (lambda: plot_bars({"a": 71.4}), r"fractions in \[0, 1\], not 71.4 as in the row 'a'"),
        (lambda: plot_bars({"a": 0.5}, intervals={"b": (0.1, 0.2)}), "intervals: 'b' is no row; the rows are 'a'"),
        (lambda: plot_bars({"a": 0.5}, intervals={"a": (0.6, 0.2)}), r"must be \(low, high\)"),
        (lambda: plot_pck_over([1, 2], {"a": [0.5]}), "one entry for each of the 2 values"),
        (lambda: plot_pck_over_alpha({"a": {math.inf: 0.5}}), "must be finite, not inf"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(plot, message):
    with pytest.raises(InputError, match=message):
        plot()
