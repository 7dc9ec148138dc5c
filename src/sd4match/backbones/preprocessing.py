"""Preprocessing of photos (squash, pad, center crop, colors), and a check of its results."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_count, check_number, check_positive
from sd4match.errors import ShapeError
from sd4match.geometry import ImageFrame, Size, pad_frame, padded_size, squash_frame
from sd4match.structures.images import Photo, View, Views

Colors = tuple[float, float, float]
"""One number for red, green and blue."""
_LONGEST_RESIZED = 16_384
"""Longest side in pixels to which a whole photo is resized before it is cropped."""
_LONGEST_SIDE = 16_384
"""Longest side of a view in pixels."""


@check_arguments
def squash(photo: Photo, size: Size) -> View:
    """Resize a photo to a size whatever its aspect ratio (antialiased bilinear), and scale it to [-1, 1].

    Args:
        photo: any.
        size: (H, W) of the view in pixels, in [1, 16384].

    Returns:
        (3, H, W) pixels, and the frame that maps original pixels to them.

    Raises:
        InputError: a side is out of range.

    >>> view = squash(Photo.from_image(Image.new("RGB", (8, 4), "white")), (6, 6))
    >>> view.pixels.shape, view.pixels.max().item(), view.frame.scale
    (torch.Size([3, 6, 6]), 1.0, (0.75, 1.5))
    """
    for name, side in zip(("height", "width"), size, strict=True):
        check_count(name, side, 1, _LONGEST_SIDE)
    image = photo.to_image()
    if photo.size != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return View(_to_signed(image), squash_frame(photo.size, size), photo.key, photo.name)


@check_arguments
def pad(photo: Photo, side: int) -> View:
    """Scale the longer side of a photo (Lanczos, as SD-DINO does), center it in a black square, scale it to [-1, 1].

    Args:
        photo: any.
        side: side S of the square in pixels, in [1, 16384].

    Returns:
        (3, S, S) pixels, and the frame that maps original pixels to them.

    Raises:
        InputError: the side is out of range.

    >>> view = pad(Photo.from_image(Image.new("RGB", (8, 4), "white")), 6)
    >>> view.pixels[0, :, 0].tolist(), view.frame.offset
    ([-1.0, 1.0, 1.0, 1.0, -1.0, -1.0], (0.0, 1.0))
    """
    check_count("side", side, 1, _LONGEST_SIDE)
    height, width = padded_size(photo.size, side)
    square = Image.new("RGB", (side, side))
    scaled = photo.to_image().resize((width, height), Image.Resampling.LANCZOS)
    square.paste(scaled, ((side - width) // 2, (side - height) // 2))
    return View(_to_signed(square), pad_frame(photo.size, side), photo.key, photo.name)


def put_into_frame(photo: Photo, frame: Literal["squash", "pad"], size: Size) -> View:
    """Bring a photo into a model's image as a frame says, with `squash` or `pad`, and scale it to [-1, 1].

    Args:
        photo: any.
        frame: "squash" or "pad".
        size: (H, W) of the model's image, a square if the photo is padded.
    """
    return pad(photo, size[0]) if frame == "pad" else squash(photo, size)


def normalize_colors(view: View, mean: Tensor, std: Tensor) -> View:
    """Return a view with the colors that a model was trained on.

    Args:
        view: with pixels in [-1, 1].
        mean: (3, 1, 1), subtracted from the channels in [0, 1].
        std: (3, 1, 1), the channels are divided by it.
    """
    return View((view.pixels / 2 + 0.5 - mean) / std, view.frame, view.key, view.name)


def check_views(views: Views, size: Size) -> None:
    """Check that views have the size of a model's image, without stacking the batch.

    Args:
        views: B photos.
        size: (H, W) in pixels.

    Raises:
        ShapeError: a view has another size.
    """
    expected = (3, *size)
    for view in views.views:
        if tuple(view.pixels.shape) != expected:
            raise ShapeError(
                f"expected views (B, {', '.join(map(str, expected))}), got {(len(views), *view.pixels.shape)}"
            )


def _to_signed(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """Convert a pillow image to a tensor with values in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(127.5).sub_(1.0)


@check_arguments
def center_crop(photo: Photo, *, shorter: int, side: int, mean: Colors, std: Colors) -> View:
    """Resize a photo by its shorter side (bicubic), crop the central square and normalize each channel.

    Args:
        photo: any.
        shorter: length of the shorter side after resizing, in pixels, in [1, 16384].
        side: side S of the crop, in pixels, in [1, 16384].
        mean: means that are subtracted from the channels, which are in [0, 1].
        std: standard deviations > 0, by which the channels are then divided.

    Returns:
        (3, S, S) pixels, and the frame that maps original pixels to them.

    Raises:
        InputError: a length is out of range, a mean is not finite, or a standard deviation is not positive.

    >>> photo = Photo.from_image(Image.new("RGB", (32, 16)))
    >>> view = center_crop(photo, shorter=8, side=6, mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> view.pixels.shape, view.frame.offset
    (torch.Size([3, 6, 6]), (-5.0, -1.0))
    """
    check_count("shorter", shorter, 1, _LONGEST_SIDE)
    check_count("side", side, 1, _LONGEST_SIDE)
    for channel_mean, channel_std in zip(mean, std, strict=True):
        check_number("mean", channel_mean)
        check_positive("std", channel_std)
    height, width = photo.size
    scale = shorter / min(height, width)
    size = (shorter, int(scale * width)) if height < width else (int(scale * height), shorter)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    crop = (left, top, left + side, top + side)
    if max(size) > _LONGEST_RESIZED:  # resizing the square alone saves gigabytes and differs by rounding only
        across, down = width / size[1], height / size[0]
        box = (left * across, top * down, (left + side) * across, (top + side) * down)
        square_image = photo.to_image().resize((side, side), Image.Resampling.BICUBIC, box=box)
    else:
        square_image = photo.to_image().resize((size[1], size[0]), Image.Resampling.BICUBIC).crop(crop)
    square = torch.from_numpy(np.array(square_image)).permute(2, 0, 1) / 255.0
    pixels = (square - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    frame = squash_frame(photo.size, size)
    offset = (frame.offset[0] - left, frame.offset[1] - top)
    return View(pixels, ImageFrame(photo.size, (side, side), frame.scale, offset), photo.key, photo.name)
