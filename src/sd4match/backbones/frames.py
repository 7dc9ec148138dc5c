"""Photos into a model's frame."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from sd4match.geometry import squash_frame
from sd4match.types import Photo, Size, View


def squash(photo: Photo, size: Size) -> View:
    """Resize to (H, W) without regard to the aspect, antialiased bilinear, and scale to [-1, 1].

    >>> view = squash(Photo.from_image(Image.new("RGB", (8, 4), "white")), (6, 6))
    >>> view.pixels.shape, view.pixels.max().item(), view.frame.scale
    (torch.Size([3, 6, 6]), 1.0, (0.75, 1.5))
    """
    image = photo.to_image()
    if photo.size != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1.0
    return View(pixels, squash_frame(photo.size, size), photo.key)
