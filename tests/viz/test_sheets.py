"""Contact sheets: a grid of pictures with captions that can be read."""

import pytest
from PIL import Image, ImageFont

from sd4match.errors import InputError
from sd4match.viz import draw_contact_sheet
from sd4match.viz.sheets import _wrapped

RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_pictures_stand_in_rows_each_above_its_caption():
    pictures = [Image.new("RGB", (80, 40), RED), Image.new("RGB", (40, 80), BLUE), Image.new("RGB", (80, 40), RED)]
    sheet = draw_contact_sheet(pictures, ["a", "b", "c"], columns=2, cell_width=200)
    assert sheet.getpixel((50, 50)) == RED
    assert sheet.getpixel((230, 50)) == BLUE
    assert sheet.getpixel((50, 190)) == RED
    below = sheet.crop((4, 104, 204, 150)).getcolors()
    assert len(below) > 1  # the caption


def test_a_title_stands_above_and_one_picture_is_one_column():
    picture = Image.new("RGB", (80, 40), RED)
    plain, titled = (
        draw_contact_sheet([picture], ["a"], columns=3, cell_width=400, title=title) for title in ("", "t")
    )
    assert plain.width == titled.width == 400 + 2 * 4
    assert titled.height > plain.height


def test_long_captions_are_wrapped_and_cut_after_three_lines():
    font = ImageFont.load_default(15)
    lines = _wrapped("word " * 100, font, 200).split("\n")
    assert len(lines) == 3
    assert lines[-1].endswith("...")
    assert all(font.getlength(line) <= 200 for line in lines[:2])
    assert _wrapped("a" * 30 + "\x00\n b", font, 4000) == "a" * 30 + "\ufffd b"
    assert _wrapped("", font, 10) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pictures": [], "captions": []}, "the number of pictures"),
        ({"captions": []}, "one caption for each of 1 pictures, got 0"),
        ({"columns": 0}, "columns"),
        ({"cell_width": 5}, "cell_width"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        draw_contact_sheet(**{"pictures": [Image.new("RGB", (8, 8))], "captions": ["a"], **changes})
