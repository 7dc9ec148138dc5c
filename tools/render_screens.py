"""Take the screenshots of the annotation page and of a report's page again, in headless Chromium.

    python tools/render_screens.py [FOLDER]    # default: docs/images

Photos are synthetic drawings, the matcher is `mini` with a text prompt, and the report is of 40 synthetic pairs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from helpers.browser import DESKTOP, PHONE, chromium, screen, serve
from sd4match import SemanticMatcher
from sd4match.app import launch_options
from sd4match.app.annotate import build_annotation_app
from sd4match.app.annotation_store import AnnotationStore
from sd4match.data import SyntheticConfig

SIZE = 480
"""Height and width of the photos in pixels."""
POINTS = {"mouth": ((288, 151), (119, 124)), "eye": ((256, 125), (149, 119)), "upper fin": ((182, 40), (233, 95))}
"""Points of the two drawings, in those of 320 x 240 pixels."""
LOWER_FIN = (159, 192)


def scaled(point: tuple[float, float]) -> tuple[float, float]:
    """Return a point of a drawing of 320 x 240 in pixels of the photo."""
    return point[0] * SIZE / 320, point[1] * SIZE / 240


def annotate(browser: Any, output: Path) -> None:
    """Show three marked points, and the guess for a fourth one, which is clicked."""
    data = SyntheticConfig(split="test").build()
    for form, name in ((DESKTOP, "annotate.png"), (PHONE, "annotate-phone.png")):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "photos" / "fish"
            folder.mkdir(parents=True)
            for number in range(2):
                data.photo(f"fish-{number}").to_image().resize((SIZE, SIZE)).save(folder / f"{number + 1}.png")
            matcher = SemanticMatcher.from_preset("text", device="cpu")
            with AnnotationStore.open(folder.parent) as store, screen(browser, form) as page:
                for part, (left, right) in POINTS.items():
                    store.mark(part, {"fish/1.png": scaled(left), "fish/2.png": scaled(right)})
                page.open(serve(build_annotation_app(store, matcher), launch_options()))
                photo = page.page.locator("#photo-left img")
                page.page.wait_for_function(
                    "[...document.querySelectorAll('.photo img')].every(one => one.naturalWidth)"
                )
                page.page.locator("#points", has_text="3. ").wait_for()
                photo.scroll_into_view_if_needed()
                box = photo.bounding_box()
                side = min(box["width"], box["height"])
                x, y = (value * side / SIZE for value in scaled(LOWER_FIN))
                position = {"x": (box["width"] - side) / 2 + x, "y": (box["height"] - side) / 2 + y}
                (photo.tap if form is PHONE else photo.click)(position=position)
                page.page.locator("#status", has_text="guess with score").wait_for()
                page.page.wait_for_timeout(1500)  # until the new pictures are shown
                if form is DESKTOP:
                    page.page.evaluate("window.scrollTo(0, 0)")
                store_screen(page.page, output / name, full_page=form is DESKTOP)


def report(browser: Any, output: Path) -> None:
    """Show the page of a report as a desktop shows it, and on a phone in the dark scheme with an opened pair."""
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "evaluate"
        program = [sys.executable, "-m", "sd4match"]
        subprocess.run([*program, "evaluate", "--preset", "text", "--limit", "40", "--output", run], check=True)
        subprocess.run([*program, "report", run], check=True)
        (output / "page").mkdir(parents=True, exist_ok=True)
        with screen(browser, DESKTOP) as page:
            page.page.goto((run / "report.html").as_uri())
            store_screen(page.page, output / "page" / "wide.png")
        with screen(browser, {**PHONE, "color_scheme": "dark"}) as page:
            page.page.goto((run / "report.html").as_uri())
            page.page.locator(".pair").first.tap()
            page.page.wait_for_timeout(500)
            store_screen(page.page, output / "page" / "phone.png")


def store_screen(page: Any, file: Path, *, full_page: bool = False) -> None:
    """Write a screenshot as a PNG of few colors."""
    page.screenshot(path=file, full_page=full_page)
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(128).save(file, optimize=True)


def main() -> None:
    """Take all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs" / "images")
    output = parser.parse_args().folder
    with chromium() as browser:
        annotate(browser, output)
        report(browser, output)


if __name__ == "__main__":
    main()
