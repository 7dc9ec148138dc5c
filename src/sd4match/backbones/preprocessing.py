"""Photos into a model's frame."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from sd4match.geometry import ImageFrame, Size, pad_frame, padded_size, squash_frame
from sd4match.structures.images import Photo, View


def squash(photo: Photo, size: Size) -> View:
    """Resize to (H, W) without regard to the aspect, antialiased bilinear, and scale to [-1, 1].

    >>> view = squash(Photo.from_image(Image.new("RGB", (8, 4), "white")), (6, 6))
    >>> view.pixels.shape, view.pixels.max().item(), view.frame.scale
    (torch.Size([3, 6, 6]), 1.0, (0.75, 1.5))
    """
    image = photo.to_image()
    if photo.size != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return View(_signed(image), squash_frame(photo.size, size), photo.key)


def pad(photo: Photo, side: int) -> View:
    """Scale the longer side to `side` (Lanczos, as SD-DINO does), centre in a black square, and scale to [-1, 1].

    >>> view = pad(Photo.from_image(Image.new("RGB", (8, 4), "white")), 6)
    >>> view.pixels[0, :, 0].tolist(), view.frame.offset
    ([-1.0, 1.0, 1.0, 1.0, -1.0, -1.0], (0.0, 1.0))
    """
    height, width = padded_size(photo.size, side)
    square = Image.new("RGB", (side, side))
    scaled = photo.to_image().resize((width, height), Image.Resampling.LANCZOS)
    square.paste(scaled, ((side - width) // 2, (side - height) // 2))
    return View(_signed(square), pad_frame(photo.size, side), photo.key)


def _signed(image: Image.Image) -> torch.Tensor:
    """(3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(127.5).sub_(1.0)


def crop_centre(
    photo: Photo, *, shorter: int, side: int, mean: tuple[float, float, float], deviation: tuple[float, float, float]
) -> View:
    """Resize (bicubic) so that the shorter side has `shorter` pixels, crop the central square, normalise each channel.

    >>> photo = Photo.from_image(Image.new("RGB", (32, 16)))
    >>> view = crop_centre(photo, shorter=8, side=6, mean=(0.5,) * 3, deviation=(0.5,) * 3)
    >>> view.pixels.shape, view.frame.offset
    (torch.Size([3, 6, 6]), (-5.0, -1.0))
    """
    height, width = photo.size
    scale = shorter / min(height, width)
    size = (shorter, int(scale * width)) if height < width else (int(scale * height), shorter)
    resized = photo.to_image().resize((size[1], size[0]), Image.Resampling.BICUBIC)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    square = torch.from_numpy(np.array(resized.crop((left, top, left + side, top + side)))).permute(2, 0, 1) / 255.0
    pixels = (square - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    frame = squash_frame(photo.size, size)
    offset = (frame.offset[0] - left, frame.offset[1] - top)
    moved = ImageFrame(photo.size, (side, side), frame.scale, offset)
    return View(pixels, moved, photo.key)
