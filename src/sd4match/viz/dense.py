"""Pictures of dense matches: the target warped to the source, and the flow in colors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.colors import hsv_to_rgb
from PIL import Image

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.dense import DenseMatch
from sd4match.structures.images import Photo
from sd4match.structures.resampling import sampled
from sd4match.viz.matches import GAP, LARGEST_HEIGHT, at_height


@check_arguments
def draw_dense(match: DenseMatch, *, height: int = 320) -> Image.Image:
    """Draw four pictures of one height: source, target, the target warped to the source, and the flow.

    In the picture of the flow the hue is the direction (red to the right, then clockwise yellow, green, blue), and the
    stronger a color is, the longer the way; white does not move.

    Args:
        match: from `SemanticMatcher.match_dense`.
        height: of each picture in pixels, at most 4000.

    >>> from sd4match.geometry import Grid, own_frame
    >>> photo = Photo(np.zeros((40, 60, 3), dtype=np.uint8))
    >>> still = DenseMatch(photo, photo, Grid((own_frame((40, 60)),), (1, 1), "centers"),
    ...                    np.array([[[29.5, 19.5]]]), np.ones((1, 1)))
    >>> draw_dense(still, height=80).size
    (516, 80)
    """
    check_count("height", height, 1, LARGEST_HEIGHT)
    source, target = (at_height(photo, height) for photo in (match.source, match.target))
    pixels = _centers(source, match.source)
    found = match.at(pixels.reshape(-1, 2)).reshape(pixels.shape)
    scale = np.array(target.size) / match.target.size[::-1]
    warped = sampled(np.asarray(target), (found + 0.5) * scale - 0.5, nearest=False)
    pictures = [source, target, Image.fromarray(warped), Image.fromarray(_flow_colors(found - pixels))]
    canvas = Image.new("RGB", (sum(p.width for p in pictures) + GAP * (len(pictures) - 1), height), "white")
    left = 0
    for picture in pictures:
        canvas.paste(picture, (left, 0))
        left += picture.width + GAP
    return canvas


def _centers(picture: Image.Image, photo: Photo) -> npt.NDArray[np.float64]:
    """Return where the pixels of a picture of a photo lie in it, (height, width, 2)."""
    x, y = (
        ((np.arange(count) + 0.5) * side / count - 0.5).clip(0, side - 1)
        for count, side in zip(picture.size, photo.size[::-1], strict=True)
    )
    return np.stack(np.meshgrid(x, y), axis=-1)


def _flow_colors(flow: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    length = np.hypot(flow[..., 0], flow[..., 1])
    hue = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) % 1.0
    hsv = np.stack([hue, length / max(length.max(), 1.0), np.ones_like(hue)], axis=-1)
    colors: npt.NDArray[np.uint8] = np.rint(hsv_to_rgb(hsv) * 255).astype(np.uint8)
    return colors
