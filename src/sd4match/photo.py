"""A decoded photo, from whatever a user or a data set has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from sd4match.errors import PhotoError

Size = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True)
class Photo:
    """A decoded photo, (H, W, 3) uint8 RGB, in its own pixels."""

    pixels: npt.NDArray[np.uint8]
    name: str = "photo"

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if len(shape) != 3 or shape[2] != 3 or self.pixels.dtype != np.uint8 or 0 in shape:
            raise PhotoError(f"{self.name}: a photo is (H, W, 3) uint8 RGB, not {shape} {self.pixels.dtype}")

    @classmethod
    def open(cls, path: str | Path, *, exif: bool = True) -> Photo:
        """Decode a file to RGB.

        Args:
            path: any file that pillow reads.
            exif: turn the photo as its EXIF tag says, as viewers do. False keeps the stored frame, which is the one
                of a data set's annotations.

        Raises:
            PhotoError: there is no such file, or it is not an image.
        """
        with _opened(path) as image:
            return cls.from_image(image, exif=exif, name=Path(path).name)

    @staticmethod
    def size_of(path: str | Path) -> Size:
        """(H, W) of a file in its stored frame, from its header.

        Raises:
            PhotoError: there is no such file, or it is not an image.
        """
        with _opened(path) as image:
            return image.height, image.width

    @classmethod
    def from_image(cls, image: Image.Image, *, exif: bool = True, name: str = "photo") -> Photo:
        """Take over a pillow image of any mode; transparency is laid on white.

        >>> Photo.from_image(Image.new("L", (4, 2))).size
        (2, 4)
        """
        turned = ImageOps.exif_transpose(image) if exif else image
        if turned.has_transparency_data:
            layer = turned.convert("RGBA")
            turned = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return cls(np.array(turned.convert("RGB")), name)

    @property
    def size(self) -> Size:
        """(H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @cached_property
    def key(self) -> str:
        """Digest of the pixels: the same photo has the same key wherever it came from."""
        header = f"{self.size}".encode()
        return hashlib.blake2b(header + self.pixels.tobytes(), digest_size=16).hexdigest()

    def to_image(self) -> Image.Image:
        """As a pillow image."""
        return Image.fromarray(self.pixels)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise PhotoError(f"no such photo: {path}") from None
    except PhotoError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PhotoError(f"not a readable image: {path} ({error})") from None
