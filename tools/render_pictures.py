"""Draw the pictures of docs/how-to/pictures.md again: run its examples, and keep what they save under docs/images.

    python tools/render_pictures.py

The examples run in a temporary folder with two drawings, `a.png` and `b.png`. For each link `images/NAME.jpg` the
picture `NAME.png` that an example saves is stored as JPEG, and for each `images/NAME.png` as a PNG of few colors.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from contextlib import chdir
from pathlib import Path

from PIL import Image

from sd4match.data import SyntheticConfig

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "pictures.md"
_WIDTH = 1200
"""Largest width of a stored picture in pixels."""
_LARGEST = 140_000
"""Largest photo in bytes, for which its quality is lowered."""


def links(page: Path = PAGE) -> list[str]:
    """Return the names of the pictures that a page shows."""
    return sorted(set(re.findall(r"\]\((?:\.\./)?images/([\w-]+\.(?:jpg|png))\)", page.read_text(encoding="utf-8"))))


def draw_photos(folder: Path) -> None:
    """Write the two drawings that the examples of all documents run on."""
    data = SyntheticConfig(split="test").build()
    for number, name in enumerate(("a.png", "b.png")):
        data.photo(f"fish-{number}").to_image().resize((320, 240)).save(folder / name)


def render(output: Path, page: Path = PAGE) -> None:
    """Run the examples of a page, and write its pictures into a folder.

    Raises:
        FileNotFoundError: the page shows a picture that no example saves.
    """
    examples = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, chdir(temporary):
        draw_photos(Path(temporary))
        for number, example in enumerate(examples):
            exec(compile(example, f"{page.name}, example {number + 1}", "exec"), {"__name__": "example"})
        for name in links(page):
            with Image.open(Path(name).with_suffix(".png")) as picture:
                _store(picture.convert("RGB"), output / name)


def _store(picture: Image.Image, file: Path) -> None:
    picture.thumbnail((_WIDTH, 10 * _WIDTH), Image.Resampling.LANCZOS)
    if file.suffix == ".jpg":
        for quality in range(85, 30, -5):
            picture.save(file, quality=quality, optimize=True)
            if file.stat().st_size < _LARGEST:
                break
    else:
        picture.quantize(128).save(file, optimize=True)
    print(f"{os.path.relpath(file, ROOT)}: {picture.width} x {picture.height}, {file.stat().st_size // 1000} KB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    render(parser.parse_args().output.absolute())
