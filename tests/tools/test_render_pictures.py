"""Pictures of docs/how-to/pictures.md: all are there, they are small, and the tool runs the examples that draw them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return import_module("render_pictures")


def test_pictures_of_the_page_are_there_and_small(tool):
    assert len(tool.links()) >= 6
    for name in tool.links():
        file = ROOT / "docs" / "images" / name
        assert file.stat().st_size < 150_000, name
        with Image.open(file) as picture:
            assert picture.width >= 400, name


def test_a_picture_is_what_its_example_saves(tool, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nfrom PIL import Image\nImage.open('a.png').save('one.png')\n```\n"
        "```python\nfrom PIL import Image\nImage.open('b.png').save('two.png')\n```\n"
        "![one](images/one.jpg) ![two](images/two.png)\n"
    )
    tool.render(tmp_path / "out", page)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.jpg", "two.png"]
    with Image.open(tmp_path / "out" / "one.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (320, 240))
    with Image.open(tmp_path / "out" / "two.png") as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (320, 240), "P")
    page.write_text("![none](images/none.jpg)")
    with pytest.raises(FileNotFoundError):
        tool.render(tmp_path / "out", page)
