"""Photos, and photos as models see them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sd4match.checks import check_shape
from sd4match.errors import InputError, PhotoError, ShapeError, shown
from sd4match.geometry import ImageFrame, Size
from sd4match.hashing import digest


@dataclass(frozen=True, eq=False)
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
        """Return (H, W) of a file in its stored frame, from its header.

        Raises:
            PhotoError: there is no such file, or it is not an image.
        """
        with _opened(path) as image:
            return image.height, image.width

    @classmethod
    def from_image(cls, image: Image.Image, *, exif: bool = True, name: str = "photo") -> Photo:
        """Convert a pillow image of any mode; transparency is laid on white.

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
        """Return a pillow image."""
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


@dataclass(frozen=True, eq=False)
class View:
    """One photo, preprocessed for one model.

    Raises:
        ShapeError: the pixels are not (3, H, W).
        InputError: a field is of another type.
    """

    pixels: Float[Tensor, "3 height width"]
    frame: ImageFrame
    key: str

    def __post_init__(self) -> None:
        check_shape("the pixels of a view", self.pixels, "3 height width", of="floats")
        if not isinstance(self.frame, ImageFrame) or not isinstance(self.key, str):
            raise InputError(f"a view has an ImageFrame and a text key, not {shown((self.frame, self.key))}")

    @cached_property
    def digest(self) -> str:
        """Digest of everything a model sees of the photo: pixels, frame and key."""
        return digest(self.pixels, self.frame, self.key)


@dataclass(frozen=True, eq=False)
class Views:
    """Batch of views of one size. Pixels are stacked when they are first read; cached photos need none.

    Raises:
        InputError: it holds something else than views.
        ShapeError: the views are of several sizes, when their pixels are first read.
    """

    views: tuple[View, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.views, tuple) or not all(isinstance(view, View) for view in self.views):
            raise InputError(f"views must be a tuple of View, not {shown(self.views)}")

    @classmethod
    def of(cls, views: Iterable[View]) -> Views:
        """Return a batch of single views."""
        return cls(tuple(views))

    def __len__(self) -> int:
        return len(self.views)

    @cached_property
    def pixels(self) -> Float[Tensor, "batch 3 height width"]:
        """Pixels of all photos."""
        sizes = {tuple(view.pixels.shape) for view in self.views}
        if len(sizes) != 1:
            raise ShapeError(f"expected views of one size, got {sorted(sizes) or 'none'}")
        return torch.stack([view.pixels for view in self.views])

    @property
    def frames(self) -> tuple[ImageFrame, ...]:
        """Frame of each photo."""
        return tuple(view.frame for view in self.views)

    @property
    def keys(self) -> tuple[str, ...]:
        """Key of each photo."""
        return tuple(view.key for view in self.views)

    def __getitem__(self, rows: Sequence[int]) -> Views:
        """Return the views of some of the photos."""
        return Views(tuple(self.views[row] for row in rows))

    def __add__(self, more: Views) -> Views:
        """Concatenate two batches."""
        return Views(self.views + more.views)

    def each(self) -> Iterator[Views]:
        """Iterate over batches of one photo, whose results have the same bits whatever the whole batch is."""
        return (Views((view,)) for view in self.views)


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """B photos with their categories, preprocessed for the backbone and the prompt."""

    views: dict[str, Views]
    """By the name of the preprocessing function; "backbone" is the backbone's."""
    categories: tuple[str | None, ...]
    photos: tuple[Photo, ...] = ()

    def __len__(self) -> int:
        return len(self.categories)

    def __add__(self, more: ImageBatch) -> ImageBatch:
        """Concatenate two batches, with the views that both have."""
        views = {name: own + more.views[name] for name, own in self.views.items() if name in more.views}
        return ImageBatch(views, self.categories + more.categories, self.photos + more.photos)
