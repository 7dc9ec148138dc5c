"""PNG files whose metadata name the command that wrote them, so that only this command replaces them."""

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
    """Return a picture as a PNG file whose metadata name a command.

    Args:
        picture: image, or figure of matplotlib, which is drawn with 200 dots per inch.
        made_by: name of the command, for example "sd4match sweep".
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
    """Check before a computation that writing a picture replaces at most an earlier one of the same command.

    Args:
        path: file that will be written.
        made_by: name of the command.

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
    except Exception:  # Pillow raises many types of errors for damaged files
        return None
