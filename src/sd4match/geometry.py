"""Coordinate conversions: photo pixels <-> model pixels <-> feature cells.

Convention: points are (x, y), with pixel centers at whole numbers; sizes are (height, width). Functions are
differentiable and batched. Points of integers or of half precision are computed and returned in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_choice, check_count, check_number, check_positive, check_rows, check_shape
from sd4match.errors import InputError, ShapeError, shown

__all__ = [
    "Alignment",
    "Grid",
    "ImageFrame",
    "QueryMode",
    "Size",
    "cells_to_pixels",
    "grid_points",
    "mask_to_cells",
    "mask_to_model",
    "own_frame",
    "pad_frame",
    "padded_size",
    "pixels_to_cells",
    "squash_frame",
    "to_model",
    "to_photo",
]

Size = tuple[int, int]
"""(height, width)."""
Alignment = Literal["corners", "centers", "patch"]
"""Rule by which cells are aligned with pixels; see `pixels_to_cells`."""
QueryMode = Literal["bilinear", "floor", "pixel"]
"""Rule by which a source map is sampled at a query point; see `Grid.query_cells`."""

_LARGEST_SIDE = 10**7
"""Largest side of an image, and largest distance between its corner and a grid, in pixels."""
_LARGEST_GRID = 1000


def check_size(name: str, size: object) -> Size:
    """Return (height, width), both at least 1.

    Args:
        name: name of the argument, for the message.
        size: any value.

    Raises:
        InputError: it is not a pair of whole numbers, or one is out of bounds.

    >>> check_size("map_size", (48, 48))
    (48, 48)
    """
    if not isinstance(size, tuple) or len(size) != 2:
        raise InputError(f"{name} must be (height, width), not {shown(size)}")
    height, width = (check_count(name, side, 1, _LARGEST_SIDE) for side in size)
    return height, width


def _check_pair(name: str, pair: object) -> tuple[float, float]:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise InputError(f"{name} must be (x, y), not {shown(pair)}")
    x, y = (_check_offset(name, number) for number in pair)
    return x, y


def _check_offset(name: str, number: object) -> float:
    return check_number(name, number, -_LARGEST_SIDE, _LARGEST_SIDE)


@dataclass(frozen=True)
class ImageFrame:
    """Position of a photo in a model's image: scaled by `scale` (x, y), then moved by `offset` (x, y).

    A point (x, y) of the photo lies at x * scale + offset in the model's image.

    Args:
        original_size: (H, W) of the photo, each at least 1.
        model_size: (H, W) of the model's image, each at least 1.
        scale: (x, y), model pixels per photo pixel, > 0.
        offset: (x, y), model pixels by which the scaled photo is moved.

    Raises:
        InputError: a size is not a pair of positive whole numbers, a scale is not positive, or a number is not finite
            or beyond 10 million.

    >>> frame = ImageFrame((200, 100), (96, 96), scale=(0.48, 0.48), offset=(24.0, 0.0))
    >>> to_model(torch.tensor([[[50.0, 20.0]]]), [frame])
    tensor([[[48.0000,  9.6000]]])
    """

    original_size: Size
    model_size: Size
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_size("original_size", self.original_size)
        check_size("model_size", self.model_size)
        for name in ("scale", "offset"):
            object.__setattr__(self, name, _check_pair(name, getattr(self, name)))
        for number in self.scale:
            check_positive("scale", number)

    def holds(self, points: Float[Tensor, "*shape 2"]) -> Bool[Tensor, "*shape"]:
        """Return which points in model pixels lie on the photo, not on padding around it.

        Args:
            points: (..., 2), (x, y) in model pixels.

        Returns:
            (...), True for points on the photo, whose pixels extend half a pixel around their centers.

        Raises:
            ShapeError: the last dimension is not (x, y).
            InputError: the points are no tensor of numbers.

        >>> pad_frame((200, 100), 96).holds(torch.tensor([[20.0, 48.0], [24.0, 95.0]]))
        tensor([False,  True])
        """
        check_shape("points", points, "... 2", of="numbers")
        x, y = _as_floats(points).unbind(-1)
        height, width = self.original_size
        left, top = self.offset
        right, bottom = left + width * self.scale[0], top + height * self.scale[1]
        return (x >= left - 0.5) & (x <= right - 0.5) & (y >= top - 0.5) & (y <= bottom - 0.5)


def squash_frame(original_size: Size, model_size: Size) -> ImageFrame:
    """Return the frame of a photo resized to `model_size` without regard to its aspect ratio: x becomes x * W' / W.

    Args:
        original_size: (H, W) of the photo, each at least 1.
        model_size: (H', W') of the model's image, each at least 1.

    Raises:
        InputError: a size is not a pair of positive whole numbers, or is beyond 10 million.

    >>> squash_frame((200, 100), (96, 96)).scale
    (0.96, 0.48)
    """
    height, width = check_size("original_size", original_size)
    model_height, model_width = check_size("model_size", model_size)
    return ImageFrame(original_size, model_size, (model_width / width, model_height / height))


def pad_frame(original_size: Size, side: int) -> ImageFrame:
    """Return the frame of a photo whose longer side becomes `side`, centered in a square.

    Convention (SD-DINO): the shorter side is rounded to whole pixels, and half of the padding, rounded down, comes
    first.

    Args:
        original_size: (H, W) of the photo, each at least 1.
        side: side of the square in pixels, at least 1.

    Raises:
        InputError: a size is not a pair of positive whole numbers, or is beyond 10 million.

    >>> pad_frame((200, 100), 96)
    ImageFrame(original_size=(200, 100), model_size=(96, 96), scale=(0.48, 0.48), offset=(24.0, 0.0))
    """
    scale = check_count("side", side, 1, _LARGEST_SIDE) / max(check_size("original_size", original_size))
    height, width = padded_size(original_size, side)
    return ImageFrame(
        original_size, (side, side), (scale, scale), (float((side - width) // 2), float((side - height) // 2))
    )


def padded_size(original_size: Size, side: int) -> Size:
    """Return the size of the photo inside the square of `pad_frame`.

    Args:
        original_size: (H, W) of the photo, each at least 1.
        side: side of the square in pixels, at least 1.

    Returns:
        (H, W), the longer of which is `side`.

    Raises:
        InputError: a size is not a pair of positive whole numbers, or is beyond 10 million.

    >>> padded_size((200, 100), 96)
    (96, 48)
    """
    check_size("original_size", original_size)
    check_count("side", side, 1, _LARGEST_SIDE)
    height, width = (max(1, round(side * length / max(original_size))) for length in original_size)
    return height, width


def own_frame(original_size: Size) -> ImageFrame:
    """Return the frame of a photo in its own pixels.

    Args:
        original_size: (H, W) of the photo, each at least 1.

    Raises:
        InputError: a size is not a pair of positive whole numbers, or is beyond 10 million.

    >>> own_frame((200, 100)).scale
    (1.0, 1.0)
    """
    return ImageFrame(original_size, original_size, (1.0, 1.0))


def to_model(points: Real[Tensor, "batch points 2"], frames: Sequence[ImageFrame]) -> Float[Tensor, "batch points 2"]:
    """Convert photo pixels to model pixels, each image by its own frame.

    Args:
        points: (B, N, 2), (x, y) in pixels of the photos.
        frames: B frames.

    Returns:
        (B, N, 2), (x, y) in pixels of the model's image.

    Raises:
        ShapeError: there is not one frame for each image.
        InputError: the points are no tensor of numbers, or the frames no sequence of `ImageFrame`.

    >>> to_model(torch.tensor([[[50.0, 20.0]]]), [squash_frame((200, 100), (96, 96))])
    tensor([[[48.0000,  9.6000]]])
    """
    points = _checked_points("points", points, frames)
    scale, offset = _frame_tensors(points, frames)
    return points * scale + offset


def to_photo(points: Real[Tensor, "batch points 2"], frames: Sequence[ImageFrame]) -> Float[Tensor, "batch points 2"]:
    """Convert model pixels to photo pixels, each image by its own frame.

    Args:
        points: (B, N, 2), (x, y) in pixels of the model's image.
        frames: B frames.

    Returns:
        (B, N, 2), (x, y) in pixels of the photos.

    Raises:
        ShapeError: there is not one frame for each image.
        InputError: the points are no tensor of numbers, or the frames no sequence of `ImageFrame`.

    >>> frame = squash_frame((200, 100), (96, 96))
    >>> to_photo(to_model(torch.tensor([[[50.0, 20.0]]]), [frame]), [frame])
    tensor([[[50., 20.]]])
    """
    points = _checked_points("points", points, frames)
    scale, offset = _frame_tensors(points, frames)
    return (points - offset) / scale


def _as_floats(points: Tensor) -> Tensor:
    return points if points.dtype in (torch.float32, torch.float64) else points.float()


def _checked_points(name: str, points: Tensor, frames: Sequence[ImageFrame]) -> Tensor:
    """Return points (B, N, 2) of B frames as floats."""
    if not isinstance(frames, (tuple, list)) or not all(isinstance(frame, ImageFrame) for frame in frames):
        raise InputError(f"frames must be a sequence of ImageFrame, not {shown(frames)}")
    check_shape(name, points, "B N 2", of="numbers", B=len(frames))
    return _as_floats(points)


def _frame_tensors(points: Tensor, frames: Sequence[ImageFrame]) -> tuple[Tensor, Tensor]:
    return _cached_frame_tensors(tuple(frames), points.dtype, points.device)


# Points of the same photos are converted many times, and creating small tensors would take most of the time.
@lru_cache(maxsize=4096)
def _cached_frame_tensors(
    frames: tuple[ImageFrame, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # a later backward pass cannot use inference tensors
        scale = torch.tensor([frame.scale for frame in frames], dtype=dtype, device=device).reshape(-1, 1, 2)
        offset = torch.tensor([frame.offset for frame in frames], dtype=dtype, device=device).reshape(-1, 1, 2)
    return scale, offset


@lru_cache(maxsize=4096)
def _cell_rule_tensors(grid: Grid, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    rules = [_cell_rule(frame.model_size, grid.size, grid.alignment, grid.offset) for frame in grid.frames]
    with torch.inference_mode(False):
        scale, shift = torch.tensor(rules, dtype=dtype, device=device)[:, :, None].unbind(dim=1)
    return scale, shift


def pixels_to_cells(
    points: Real[Tensor, "... 2"],
    image_size: Size,
    map_size: Size,
    *,
    alignment: Alignment,
    offset: float | None = None,
) -> Float[Tensor, "... 2"]:
    """Convert points in an image of `image_size` to (fractional) cells of a map of `map_size`.

    With W pixels and w cells in a row:
      - "corners": the centers of the corner pixels lie on the centers of the corner cells: x (w - 1) / (W - 1)
      - "centers": pixels and cells cover the same area: (x + 1/2) w / W - 1/2
      - "patch": the center of cell 0 is at pixel `offset`: (x - offset) w / W

    Args:
        points: (..., 2), (x, y) in pixels.
        image_size: (H, W).
        map_size: (h, w).
        alignment: "corners", "centers" or "patch".
        offset: pixel of the center of cell 0, for "patch" only; None: W / (2 w) and H / (2 h).

    Returns:
        (..., 2), (x, y) in cells; outside [0, w - 1] for points beyond the centers of the corner cells.

    Raises:
        ShapeError: the last dimension is not (x, y).
        InputError: a size is not positive, the alignment is unknown, or an offset is given without "patch" or beyond 10
            million.

    >>> pixels_to_cells(torch.tensor([767.0, 0.0]), (768, 768), (48, 48), alignment="corners")
    tensor([47.,  0.])
    """
    check_shape("points", points, "... 2", of="numbers")
    points = _as_floats(points)
    scale, shift = points.new_tensor(_cell_rule(image_size, map_size, alignment, offset)).unbind()
    return points * scale + shift


def cells_to_pixels(
    cells: Real[Tensor, "... 2"],
    image_size: Size,
    map_size: Size,
    *,
    alignment: Alignment,
    offset: float | None = None,
) -> Float[Tensor, "... 2"]:
    """Convert (fractional) cells to points in an image; inverse of `pixels_to_cells`.

    Args:
        cells: (..., 2), (x, y) in cells.
        image_size: (H, W).
        map_size: (h, w).
        alignment: "corners", "centers" or "patch"; see `pixels_to_cells`.
        offset: pixel of the center of cell 0, for "patch" only; None: W / (2 w) and H / (2 h).

    Returns:
        (..., 2), (x, y) in pixels.

    Raises:
        ShapeError: the last dimension is not (x, y).
        InputError: a size is not positive, the alignment is unknown, or an offset is given without "patch" or beyond 10
            million.

    >>> cells_to_pixels(torch.tensor([1.0, 0.0]), (840, 840), (60, 60), alignment="patch", offset=6.5)
    tensor([20.5000,  6.5000])
    """
    check_shape("cells", cells, "... 2", of="numbers")
    cells = _as_floats(cells)
    scale, shift = cells.new_tensor(_cell_rule(image_size, map_size, alignment, offset)).unbind()
    return (cells - shift) / scale


@dataclass(frozen=True)
class Grid:
    """Grid of the cells of a batch of feature maps on the photos.

    It converts between cells of the maps and pixels of the photos. Two maps of the same values on different grids are
    the same features at different points of the photos.

    Args:
        frames: position of each of the B photos in the model's image.
        size: (h, w), the number of cells.
        alignment: "corners", "centers" or "patch"; see `pixels_to_cells`.
        offset: pixel of the model's image at which the center of cell 0 lies; for "patch" only.

    Raises:
        InputError: there are no frames, a size is not positive, the alignment is unknown, or an offset is given without
            "patch" or beyond 10 million.

    >>> grid = Grid((squash_frame((100, 100), (96, 96)),), (24, 24), "patch", 0.0)
    >>> grid.to_cells(torch.tensor([[[50.0, 25.0]]]))
    tensor([[[12.,  6.]]])
    """

    frames: tuple[ImageFrame, ...]
    size: Size
    alignment: Alignment = "corners"
    offset: float | None = None

    def __post_init__(self) -> None:
        frames = self.frames
        if not isinstance(frames, tuple) or not frames or not all(isinstance(frame, ImageFrame) for frame in frames):
            raise InputError(f"frames must be a tuple of one ImageFrame or more, not {shown(frames)}")
        check_size("size", self.size)
        _check_alignment(self.alignment, self.offset)

    def __len__(self) -> int:
        return len(self.frames)

    @check_arguments
    def __getitem__(self, rows: slice | Sequence[int]) -> Grid:
        """Return the grid of some of the photos."""
        check_rows(rows, len(self))
        frames = self.frames[rows] if isinstance(rows, slice) else tuple(self.frames[row] for row in rows)
        return replace(self, frames=frames)

    def to_cells(self, points: Real[Tensor, "batch points 2"]) -> Float[Tensor, "batch points 2"]:
        """Convert photo pixels to (fractional) cells, each photo by its own frame.

        Args:
            points: (B, N, 2), (x, y) in original pixels.

        Returns:
            (B, N, 2), (x, y) in cells; outside [0, w - 1] x [0, h - 1] for points beyond the outermost cell centers.

        Raises:
            ShapeError: the points are of another number of photos.
            InputError: the points are no tensor of numbers.
        """
        points = _checked_points("points", points, self.frames)
        scale, shift = self._cell_rules(points)
        return to_model(points, self.frames) * scale + shift

    def to_pixels(self, cells: Real[Tensor, "batch points 2"]) -> Float[Tensor, "batch points 2"]:
        """Convert (fractional) cells to photo pixels, each photo by its own frame; inverse of `to_cells`.

        Args:
            cells: (B, N, 2), (x, y) in cells.

        Returns:
            (B, N, 2), (x, y) in original pixels.

        Raises:
            ShapeError: the cells are of another number of photos.
            InputError: the cells are no tensor of numbers.

        >>> grid = Grid((squash_frame((100, 100), (96, 96)),), (24, 24), "patch", 0.0)
        >>> grid.to_pixels(torch.tensor([[[12.0, 6.0]]]))
        tensor([[[50., 25.]]])
        """
        cells = _checked_points("cells", cells, self.frames)
        scale, shift = self._cell_rules(cells)
        return to_photo((cells - shift) / scale, self.frames)

    def cell_centers(self, like: Float[Tensor, "*shape"]) -> Float[Tensor, "batch cells 2"]:
        """Return the centers of all cells, row by row.

        Args:
            like: tensor of the wanted device and data type.

        Returns:
            (B, h * w, 2), (x, y) in original pixels.

        >>> Grid((own_frame((2, 4)),), (1, 2), "centers").cell_centers(torch.zeros(1)).tolist()
        [[[0.5, 0.5], [2.5, 0.5]]]
        """
        height, width = self.size
        down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cells = torch.stack([across, down], dim=-1).flatten(0, 1).to(like)
        return self.to_pixels(cells.expand(len(self), -1, -1))

    def query_cells(
        self, points: Real[Tensor, "batch points 2"], mode: QueryMode = "bilinear"
    ) -> Float[Tensor, "batch points 2"]:
        """Return the cells at which a source map is sampled for query points in photo pixels.

        Convention: with "centers" and "patch", a query between the border of the photo and the outermost cell centers
        lies outside [0, w - 1] x [0, h - 1]. Sampling clamps it to these centers; nothing is extrapolated.

        Args:
            points: (B, N, 2), (x, y) in original pixels.
            mode: "bilinear" samples between cells at the point itself (SD4Match), "floor" takes the cell whose area
                contains the point (SD+DINO, GeoAware), "pixel" samples between cells at the point rounded down to a
                whole pixel of the model's image (DIFT).

        Returns:
            (B, N, 2), (x, y) in cells.

        Raises:
            ShapeError: the points are of another number of photos.
            InputError: the mode is unknown.
        """
        check_choice("query_mode", mode, get_args(QueryMode))
        if mode == "floor":
            return replace(self, alignment="patch", offset=0.0).to_cells(points).floor()
        if mode == "pixel":
            points = to_photo(to_model(points, self.frames).floor(), self.frames)
        return self.to_cells(points)

    def _cell_rules(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return _cell_rule_tensors(self, like.dtype, like.device)


def _check_alignment(alignment: object, offset: object) -> None:
    check_choice("alignment", alignment, get_args(Alignment))
    if offset is not None:
        _check_offset("offset", offset)
        if alignment != "patch":
            raise InputError(f'offset goes with alignment "patch", not with {shown(alignment)}: leave it out')


def _cell_rule(
    image_size: Size, map_size: Size, alignment: Alignment, offset: float | None
) -> tuple[list[float], list[float]]:
    """Return scale and shift of `cells = pixels * scale + shift`, x first."""
    check_size("image_size", image_size)
    check_size("map_size", map_size)
    _check_alignment(alignment, offset)
    pixels = (image_size[1], image_size[0])
    cells = (map_size[1], map_size[0])
    if alignment == "corners":
        # One pixel or one cell has no extent: every pixel lies on it, and the inverse returns its pixel.
        scale = [(c - 1) / (p - 1) if c > 1 and p > 1 else 1.0 / p for p, c in zip(pixels, cells, strict=True)]
        shift = [0.0, 0.0]
    elif alignment == "centers":
        scale = [c / p for p, c in zip(pixels, cells, strict=True)]
        shift = [(s - 1.0) / 2.0 for s in scale]
    else:
        scale = [c / p for p, c in zip(pixels, cells, strict=True)]
        shift = [-0.5 if offset is None else -offset * s for s in scale]
    return scale, shift


def grid_points(size: Size, *, side: int) -> Float[Tensor, "points 2"]:
    """Return a regular grid of `side` x `side` points inside a photo, row by row, away from its border.

    Args:
        size: (H, W) of the photo.
        side: points per side, from 1 to 1000; if there are more than pixels, several share the pixels at the border.

    Returns:
        (side * side, 2), (x, y) in pixels.

    Raises:
        InputError: the size or the side is out of bounds.

    >>> grid_points((100, 200), side=2)
    tensor([[ 49.5000,  24.5000],
            [149.5000,  24.5000],
            [ 49.5000,  74.5000],
            [149.5000,  74.5000]])
    """
    height, width = check_size("size", size)
    check_count("side", side, 1, _LARGEST_GRID)
    steps = (torch.arange(side) + 0.5) / side
    down, across = ((steps * length - 0.5).clamp(0, length - 1) for length in (height, width))
    y, x = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


@check_arguments
def mask_to_cells(mask: Bool[Tensor, "height width"], grid: Grid) -> Bool[Tensor, "h w"]:
    """Return the cells of a map that a mask of its photo touches: those nearest to a pixel of the mask.

    Args:
        mask: (H, W), mask of the photo.
        grid: grid of one photo.

    Returns:
        (h, w).

    Raises:
        ShapeError: the mask is of another size than the photo, or the grid of more than one.

    >>> grid = Grid((squash_frame((4, 8), (32, 64)),), (2, 4), "centers")
    >>> mask_to_cells(torch.arange(32).reshape(4, 8) == 9, grid).int().tolist()
    [[1, 0, 0, 0], [0, 0, 0, 0]]
    """
    if len(grid) != 1:
        raise ShapeError(f"expected a grid of one photo, got one of {len(grid)}")
    height, width = grid.frames[0].original_size
    check_shape("mask", mask, "height width", of="flags", height=height, width=width)
    diagonal = torch.arange(max(height, width), dtype=torch.float64)[:, None].expand(-1, 2)
    cells = grid.to_cells(diagonal[None])[0].round().long()
    return _scattered(mask, cells[:height, 1], cells[:width, 0], grid.size)


@check_arguments
def mask_to_model(mask: Bool[Tensor, "height width"], frame: ImageFrame) -> Bool[Tensor, "H W"]:
    """Return a mask of a photo in the model's image: every pixel of it is preserved, and padding is outside.

    Args:
        mask: (H, W), mask of the photo.
        frame: position of the photo in the model's image.

    Returns:
        (H, W) of the model's image.

    Raises:
        ShapeError: the mask is of another size than the photo.

    >>> mask_to_model(torch.tensor([[True, False]]), squash_frame((1, 2), (2, 4))).int().tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0]]
    """
    height, width = frame.original_size
    check_shape("mask", mask, "height width", of="flags", height=height, width=width)
    longest = max(height, width, *frame.model_size)
    diagonal = torch.arange(longest, dtype=torch.float64)[:, None].expand(-1, 2)[None]
    model_pixels = to_model(diagonal, (frame,))[0].round().long()
    scattered = _scattered(mask, model_pixels[:height, 1], model_pixels[:width, 0], frame.model_size)
    photo_pixels = to_photo(diagonal, (frame,))[0].round().long()
    rows, columns = photo_pixels[: frame.model_size[0], 1], photo_pixels[: frame.model_size[1], 0]
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    nearest = mask[rows.clamp(0, height - 1)[:, None], columns.clamp(0, width - 1)] & inside
    return scattered | nearest


def _scattered(mask: Tensor, rows: Tensor, columns: Tensor, size: Size) -> Tensor:
    """Return (h, w), True for cells on which a pixel of a mask falls, given the row and the column of each pixel."""
    height, width = size
    by_row = torch.zeros(height, mask.shape[1]).index_add_(0, rows.clamp(0, height - 1), mask.float())
    return torch.zeros(height, width).index_add_(1, columns.clamp(0, width - 1), by_row) > 0
