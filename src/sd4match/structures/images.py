"""Photos, and photos preprocessed for models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from sd4match.arguments import check_arguments, check_fields
from sd4match.checks import check_instance, check_rows, check_shape
from sd4match.errors import InputError, PhotoError, SD4MatchError, ShapeError, shown
from sd4match.geometry import ImageFrame, Size
from sd4match.hashing import digest
from sd4match.paths import as_path, require_file

LONGEST_SIDE_OF_PHOTOS = 65_535
"""Longest side of a photo in pixels."""
MOST_PIXELS = 100_000_000
"""Largest number of pixels of a photo."""

_FLOATS = (torch.float16, torch.float32, torch.float64)
"""Floating-point types that NumPy has too."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""Transposition that undoes each value of the EXIF orientation; 1 needs none."""


@dataclass(frozen=True, eq=False)
class Photo:
    """Decoded photo, (H, W, 3) uint8 RGB, in its own pixels.

    Args:
        pixels: (H, W, 3), uint8 RGB.
        name: name of the photo, for messages.
        mask: (H, W), True on the object; None: the whole photo.

    Raises:
        PhotoError: the pixels are no such array, or exceed the limits of 65,535 a side and 100,000,000 in all; or the
            mask has another size or type, or no pixel.

    >>> photo = Photo(np.zeros((2, 3, 3), dtype=np.uint8), mask=np.array([[0, 1, 1], [0, 0, 0]], dtype=bool))
    >>> photo.size, int(photo.mask.sum())
    ((2, 3), 2)
    """

    pixels: npt.NDArray[np.uint8]
    name: str = "photo"
    mask: npt.NDArray[np.bool_] | None = None
    """(H, W), True on the object: only points there are queried and matched. Features do not depend on
    it; prompts may read it from their views."""

    def __post_init__(self) -> None:
        wanted = f"{self.name}: a photo is (H, W, 3) uint8 RGB"
        if not isinstance(self.pixels, np.ndarray):
            raise PhotoError(f"{wanted}, not {shown(self.pixels)}")
        shape = self.pixels.shape
        if len(shape) != 3 or shape[2] != 3 or self.pixels.dtype != np.uint8 or 0 in shape:
            raise PhotoError(f"{wanted}, not {shape} {self.pixels.dtype}")
        check_instance("name", self.name, str)
        _check_size(self.name, *self.size)
        if self.mask is not None:
            _check_mask(self.name, self.mask, self.size)
            object.__setattr__(self, "mask", np.require(self.mask, requirements=["C", "W"]))  # for torch

    @classmethod
    @check_arguments
    def open(cls, path: str | Path, *, exif: bool = True) -> Photo:
        """Decode a file to RGB.

        Args:
            path: file in any format that pillow reads.
            exif: turn the photo as its EXIF tag says, as viewers do. False keeps the stored frame, to which the
                annotations of data sets refer.

        Raises:
            PhotoError: there is no such file, it is not an image, it is too large, or its values have no known range.
        """
        with _opened(path) as (file, image):
            return cls(_decode(image, exif=exif, name=str(file)), file.name)

    @staticmethod
    @check_arguments
    def size_of(path: str | Path) -> Size:
        """Return the size of a photo in its stored frame, from the header of its file.

        Args:
            path: file in any format that pillow reads.

        Returns:
            (H, W), in pixels.

        Raises:
            PhotoError: there is no such file, it is not an image, or it is too large.
        """
        with _opened(path) as (_, image):
            return image.height, image.width

    @classmethod
    @check_arguments
    def from_image(cls, image: Image.Image, *, exif: bool = True, name: str = "photo") -> Photo:
        """Convert a pillow image of any mode; transparent pixels become white.

        Convention: values of 16 bits are scaled to 8, floats from [0, 1]. Integers of 32 bits are read as 16 bits, or
        as 8 bits if the image has no value above 255.

        Args:
            image: any pillow image.
            exif: turn the photo as its EXIF tag says, as viewers do; False keeps the stored frame.
            name: name of the photo, for messages.

        Raises:
            PhotoError: it is no pillow image, is closed, damaged or too large, or its values have no known range.

        >>> Photo.from_image(Image.new("L", (4, 2))).size
        (2, 4)
        """
        with _naming(name):
            return cls(_decode(image, exif=exif, name=name), name)

    @classmethod
    def from_array(
        cls,
        array: npt.NDArray[Any] | Tensor,
        *,
        name: str = "photo",
        mask: npt.NDArray[np.bool_] | Tensor | None = None,
    ) -> Photo:
        """Convert an array or a tensor of RGB colors.

        Args:
            array: (H, W, 3), or a tensor (3, H, W) on any device; uint8, or floats in [0, 1]. A tensor (3, H, 3) is
                read as channels first.
            name: name of the photo, for messages.
            mask: (H, W) booleans, True on the object; an array, or a tensor on any device.

        Raises:
            PhotoError: another shape or type, or floats that are not in [0, 1].

        >>> Photo.from_array(torch.ones(3, 2, 4)).pixels[0, 0].tolist()
        [255, 255, 255]
        """
        if not isinstance(array, (np.ndarray, Tensor)):
            raise PhotoError(f"{name}: colors are an array or a tensor (H, W, 3), not {shown(array)}")
        if isinstance(array, Tensor):
            array = tensor_to_array(name, channels_last(array), error=PhotoError)
        if isinstance(mask, Tensor):
            mask = tensor_to_array(f"the mask of {name}", mask, error=PhotoError)
        if array.dtype.kind == "f" and array.size:
            low, high = float(array.min()), float(array.max())  # NaN if there is one
            if not (low >= 0 and high <= 1):
                hint = ": divide by 255" if 1 < high <= 255 and low >= 0 else ""
                raise PhotoError(f"{name}: floating-point colors must be in [0, 1], not from {low:g} to {high:g}{hint}")
            array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
        return cls(array, name, mask)

    @property
    def size(self) -> Size:
        """(H, W), in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @cached_property
    def key(self) -> str:
        """Digest of the pixels: the same photo has the same key wherever it came from."""
        header = f"{self.size}".encode()
        return hashlib.blake2b(header + self.pixels.tobytes(), digest_size=16).hexdigest()

    def to_image(self) -> Image.Image:
        """Return a pillow image."""
        return Image.fromarray(self.pixels)


def channels_last(colors: Tensor) -> Tensor:
    """Return a tensor (3, H, W) as (H, W, 3); return other tensors unchanged."""
    return colors.permute(1, 2, 0) if colors.ndim == 3 and colors.shape[0] == 3 else colors


def tensor_to_array(name: str, values: Tensor, *, error: type[InputError] = InputError) -> npt.NDArray[Any]:
    """Return a tensor of any device as an array; floats that NumPy lacks become float32.

    Args:
        name: name of the tensor, for the message.
        values: tensor on any device.
        error: class of the error that is raised.

    Raises:
        InputError: its numbers cannot be read, as on the device "meta" or in a sparse layout; of the class `error`.
    """
    values = values.detach()
    try:
        values = values.cpu()
        return (values.float() if values.is_floating_point() and values.dtype not in _FLOATS else values).numpy()
    except Exception:  # torch raises several classes for devices, layouts and data types that NumPy lacks
        found = f"{values.dtype} on {values.device}, {values.layout}"
        raise error(f"{name} must be a dense tensor of numbers, not {tuple(values.shape)} {found}") from None


def _check_mask(name: str, mask: object, size: Size) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != size:
        found = f"{mask.shape} {mask.dtype}" if isinstance(mask, np.ndarray) else shown(mask)
        raise PhotoError(
            f"{name}: a mask is {size} bool, as large as the photo and as `numbers > 0` makes, not {found}"
        )
    if not mask.any():
        raise PhotoError(f"{name}: its mask has no pixel, so that nothing in it could be matched")


def _check_size(name: str, height: int, width: int) -> None:
    if max(height, width) > LONGEST_SIDE_OF_PHOTOS or height * width > MOST_PIXELS:
        raise PhotoError(f"{name} is too large, {width} x {height} pixels: {_limit()}")


def _limit() -> str:
    return f"it may have {LONGEST_SIDE_OF_PHOTOS:,} a side, {MOST_PIXELS:,} in all"


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Path, Image.Image]]:
    file = require_file(as_path(path, what="photo", error=PhotoError), what="photo", error=PhotoError)
    with _naming(str(file)), Image.open(file) as image:
        _check_size(str(file), image.height, image.width)
        yield file, image


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Raise PhotoError for every error of pillow, whose decoders raise many classes."""
    try:
        yield
    except SD4MatchError:
        raise
    except Image.DecompressionBombError:  # raised before the size is known
        raise PhotoError(f"{name} has too many pixels: {_limit()}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PhotoError(f"not a readable image: {name} ({reason})") from None


def _decode(image: Image.Image, *, exif: bool, name: str) -> npt.NDArray[np.uint8]:
    """Return the pixels (H, W, 3) of a pillow image."""
    _check_size(name, image.height, image.width)
    image.load()  # pillow turns TIFF photos here and removes the tag
    turn = _TURNS.get(_orientation(image)) if exif else None
    if image.mode.startswith(("I", "F")):
        image = _as_bytes(image, name)
    if turn is not None:
        image = image.transpose(turn)
    if image.has_transparency_data:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none that can be read. Other tags may be damaged."""
    try:
        value = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # pillow raises many classes for damaged EXIF
        return 1
    return value if value in _TURNS else 1


def _as_bytes(image: Image.Image, name: str) -> Image.Image:
    """Return an image of one channel of 16 or 32 bits with 8 bits.

    Raises:
        PhotoError: a value is beyond the range that is known for the mode.
    """
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise PhotoError(f"{name} (pillow mode {image.mode}) has pixels that are not finite")
    is_float = image.mode.startswith("F")
    low, high, white = float(values.min()), float(values.max()), 1 if is_float else 65_535
    if low < 0 or high > white:
        raise PhotoError(
            f"{name} (pillow mode {image.mode}) has pixels from {low:g} to {high:g}; values from 0 to {white} can be "
            "read: convert it to 8 bits"
        )
    if image.mode == "I" and high <= 255:
        white = 255
    grey = Image.fromarray(np.round(values.astype(np.float64) * (255 / white)).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, (int, float)):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


@dataclass(frozen=True, eq=False)
class View:
    """One photo, preprocessed for one model.

    Args:
        pixels: (3, H, W), as the model takes them.
        frame: position of the photo in the model's image.
        key: key of the photo, which identifies its pixels.
        name: name of the photo, for messages.
        mask: (H, W), True on the object; None if the photo has no mask.

    Raises:
        ShapeError: the pixels are not (3, H, W).
        InputError: a field is of another type.

    >>> from sd4match.geometry import squash_frame
    >>> View(torch.zeros(3, 8, 8), squash_frame((4, 4), (8, 8)), key="cat").frame.scale
    (2.0, 2.0)
    """

    pixels: Float[Tensor, "3 height width"]
    frame: ImageFrame
    key: str
    name: str = ""
    """Name of the photo, for messages."""
    mask: Bool[Tensor, "height width"] | None = None
    """(H, W), True on the object in the model's image; None if the photo has no mask."""

    def __post_init__(self) -> None:
        check_fields(self)
        sizes = check_shape("the pixels of a view", self.pixels, "3 height width", of="floats")
        if self.mask is not None:
            check_shape("the mask of a view", self.mask, "height width", of="flags", **sizes)

    @cached_property
    def digest(self) -> str:
        """Digest of pixels, frame, key and mask: everything that a model gets of the photo."""
        return digest(self.pixels, self.frame, self.key, *(() if self.mask is None else (self.mask,)))


@dataclass(frozen=True, eq=False)
class Views:
    """Batch of views of one size.

    Pixels are stacked when they are first read, so cached photos never need it.

    Args:
        views: views of the photos, in order.

    Raises:
        InputError: an item is not a view.
        ShapeError: the views are of several sizes; raised when their pixels are first read.

    >>> from sd4match.geometry import squash_frame
    >>> view = View(torch.zeros(3, 8, 8), squash_frame((4, 4), (8, 8)), key="cat")
    >>> Views((view, view)).pixels.shape
    torch.Size([2, 3, 8, 8])
    """

    views: tuple[View, ...]

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    @check_arguments
    def of(cls, views: Iterable[View]) -> Views:
        """Return a batch of single views.

        Args:
            views: any iterable of views.

        Raises:
            InputError: an item is not a view.
        """
        return cls(tuple(views))

    def __len__(self) -> int:
        return len(self.views)

    @cached_property
    def pixels(self) -> Float[Tensor, "batch 3 height width"]:
        """Pixels of all photos, (B, 3, H, W)."""
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

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each photo for messages; its key if it has none."""
        return tuple(view.name or view.key for view in self.views)

    @check_arguments
    def __getitem__(self, rows: Sequence[int]) -> Views:
        """Return the views of some of the photos."""
        check_rows(rows, len(self))
        return Views(tuple(self.views[row] for row in rows))

    @check_arguments
    def __add__(self, more: Views) -> Views:
        """Concatenate two batches."""
        return Views(self.views + more.views)

    def each(self) -> Iterator[Views]:
        """Iterate over batches of one photo, so that results do not depend on the whole batch."""
        return (Views((view,)) for view in self.views)

    def filled(self, size: int) -> Iterator[Views]:
        """Iterate over batches of `size` photos; copies of the last photo fill up the last batch.

        All batches have the same size, so results do not depend on the whole batch if a network computes a photo
        equally at every index of a batch.

        Args:
            size: number of photos of each batch, at least 1.
        """
        for first in range(0, len(self), size):
            views = self.views[first : first + size]
            yield Views(views + views[-1:] * (size - len(views)))


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """B photos with their categories, preprocessed for the backbone and the prompt.

    Args:
        views: views of the photos by name of the preprocessing function.
        categories: category of each photo, or None.
        photos: the photos themselves; () if they are not needed.

    Raises:
        InputError: a field is of another type.
        ShapeError: views, photos and categories are of different numbers of photos.

    >>> from sd4match.geometry import squash_frame
    >>> view = View(torch.zeros(3, 8, 8), squash_frame((4, 4), (8, 8)), key="cat")
    >>> len(ImageBatch({"backbone": Views((view, view))}, ("cat", None)))
    2
    """

    views: dict[str, Views]
    """Views by name of the preprocessing function; "backbone" is the backbone's."""
    categories: tuple[str | None, ...]
    photos: tuple[Photo, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        counts = {name: len(views) for name, views in self.views.items()}
        counts |= {"photos": len(self.photos)} if self.photos else {}
        for name, count in counts.items():
            if count != len(self.categories):
                raise ShapeError(
                    f"expected {name} of {len(self.categories)} photos with a category or None, got {count}"
                )

    def __len__(self) -> int:
        return len(self.categories)

    @check_arguments
    def view(self, name: str) -> Views:
        """Return the views of a preprocessing function.

        Args:
            name: name of the preprocessing function; "backbone" is the backbone's.

        Raises:
            InputError: the photos were not preprocessed by it.
        """
        if name not in self.views:
            raise InputError(
                f"images must have views of every name that is asked for: there is no view {name!r}, only "
                f"{shown(list(self.views))}; `pairing.preprocessors` returns the functions for `make_images`"
            )
        return self.views[name]

    @check_arguments
    def __add__(self, more: ImageBatch) -> ImageBatch:
        """Concatenate two batches, with the views that both have."""
        views = {name: own + more.views[name] for name, own in self.views.items() if name in more.views}
        return ImageBatch(views, self.categories + more.categories, self.photos + more.photos)
