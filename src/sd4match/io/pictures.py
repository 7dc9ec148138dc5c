"""PNG files that say which command made them, so that only that command replaces them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sd4match.io.files import check_output_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png_of(picture: Image.Image | Figure, *, made_by: str) -> bytes:
    """Return a picture, or a figure at twice the size of a screen, as a PNG file that names what made it.

    Args:
        picture: to encode.
        made_by: for example "sd4match sweep".
    """
    content = BytesIO()
    if isinstance(picture, Image.Image):
        info = PngInfo()
        info.add_text("Software", made_by)
        picture.save(content, "png", pnginfo=info)
    else:
        picture.savefig(content, format="png", dpi=200, metadata={"Software": made_by})
    return content.getvalue()


def check_png(path: Path, *, made_by: str) -> None:
    """Check, before any work is done, that writing a picture replaces nothing but an earlier one of the same command.

    Raises:
        InputError: the file exists and is another one.
    """
    check_output_file(
        path, option="--output", is_own=lambda file: _maker(file) == made_by, what="picture of this command"
    )


def _maker(path: Path) -> object:
    try:
        with Image.open(path) as picture:
            return picture.info.get("Software")
    except Exception:  # of a damaged picture of any format, or none
        return None
