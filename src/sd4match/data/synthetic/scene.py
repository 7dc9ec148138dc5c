"""Rendering of one synthetic photo with its ground truth.

Polygons are drawn in integer arithmetic with corners rounded to whole grid points, from a seeded PCG64 stream, so that
(seed, index) gives the same pixels on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sd4match.data.config import SyntheticConfig
from sd4match.data.synthetic.anatomy import ANATOMIES, FRONTAL, Anatomy, Polygon

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 45), "green": (55, 160, 70), "blue": (50, 85, 200), "yellow": (230, 205, 60),
    "orange": (235, 140, 40), "purple": (135, 65, 170), "pink": (240, 150, 180), "brown": (125, 80, 45),
    "white": (240, 240, 240), "grey": (135, 135, 135), "black": (35, 35, 40), "cyan": (80, 200, 210),
}  # fmt: skip
"""RGB by color name; every use is jittered."""

BACKGROUND = 0
"""Part id of all pixels outside the named object."""

_SUPERSAMPLING = 2
_DEFAULTS = SyntheticConfig()


@dataclass(frozen=True)
class World:
    """Categories, poses and textures that scenes are drawn from. The defaults are those of `SyntheticPairs`."""

    anatomies: Mapping[str, Callable[[np.random.Generator], Anatomy]] = field(default_factory=lambda: ANATOMIES)
    """Functions that draw an instance of a category, by its name."""
    frontal: frozenset[str] = FRONTAL
    """Categories that are not mirrored."""
    turn: float = 22
    """Largest rotation in degrees."""
    tilt: float = 0.12
    """Largest coefficient of perspective."""
    sizes: tuple[float, float] = (0.55, 0.95)
    """Smallest and largest half side of the object, in half sides of the photo."""
    other_sizes: tuple[float, float] = (0.3, 0.45)
    """Smallest and largest half side of an object of another category, in half sides of the photo."""
    textured: float = 0.3
    """Fraction of part words that are painted with stripes."""


PLAIN = World()


@dataclass(frozen=True)
class Scene:
    """Rendered photo with its ground truth.

    Coordinates are (x, y) with pixel centers at whole numbers.
    """

    category: str
    pixels: npt.NDArray[np.uint8]
    """(H, W, 3) RGB."""
    part_ids: npt.NDArray[np.uint8]
    """(H, W); 0 is background, i + 1 is `part_words[i]`; occluded pixels are background."""
    part_words: tuple[str, ...]
    part_colors: tuple[str, ...]
    """Color name of each part word."""
    background: str
    """Color name of the background."""
    points: npt.NDArray[np.float64]
    """(K, 2) in the order of `point_names(category)`."""
    visible: npt.NDArray[np.bool_]
    """(K,): inside the photo and not occluded."""
    box: tuple[float, float, float, float]
    """(left, top, right, bottom) of the object inside the photo, occluded or not."""
    turn: float
    """Rotation in degrees."""
    mirrored: bool
    truncated: bool
    occluded: bool


def render(
    seed: int,
    index: int,
    *,
    category: str | None = None,
    size: int = _DEFAULTS.size,
    distractors: float = _DEFAULTS.distractors,
    world: World = PLAIN,
) -> Scene:
    """Render a photo.

    Args:
        seed: random stream.
        index: number of the photo in the stream.
        category: category of the object; None: a random one.
        size: side of the photo in pixels.
        distractors: probability of a smaller object of another category in the photo, in [0, 1].
        world: categories, poses and textures.

    Returns:
        The photo, (size, size, 3), and its ground truth.

    >>> scene = render(0, 3, category="fish")
    >>> scene.pixels.shape, scene.part_ids.shape, scene.points.shape
    ((96, 96, 3), (96, 96), (8, 2))
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    names = tuple(world.anatomies)
    drawn = names[int(rng.integers(len(names)))]
    name = category or drawn
    grid = size * _SUPERSAMPLING
    background = _color_name(rng)
    canvas = Image.new("RGB", (grid, grid), _jitter(rng, background))
    _clutter(canvas, rng, grid)
    if rng.random() < distractors:
        others = [other for other in names if other != name]
        _other_object(canvas, rng, others[int(rng.integers(len(others)))], grid, world)

    anatomy = world.anatomies[name](rng)
    words = tuple(sorted({part.word for part in anatomy.parts}))
    colors = tuple(_color_name(rng) for _ in words)
    pose, turn, mirrored = _pose(rng, grid, world, frontal=name in world.frontal, sizes=world.sizes)
    mask = Image.new("L", (grid, grid), BACKGROUND)
    _draw_object(canvas, rng, anatomy, pose, words, colors, world.textured, mask)
    outline = np.concatenate([_project(pose, part.outline) for part in anatomy.parts]) / _SUPERSAMPLING
    points = _project(pose, np.array(list(anatomy.points.values()))) / _SUPERSAMPLING

    cover = Image.new("L", (grid, grid), 0)
    if rng.random() < 0.25:
        _occlude(canvas, cover, mask, rng, points * _SUPERSAMPLING, grid)
    points = np.round(points, 2)
    inside = ((points >= 0) & (points <= size - 1)).all(axis=1)
    cells = np.clip(np.round(points * _SUPERSAMPLING), 0, grid - 1).astype(int)
    covered = np.asarray(cover)[cells[:, 1], cells[:, 0]] > 0
    low = np.clip(np.round(outline.min(axis=0), 2), 0, size - 1)
    high = np.clip(np.round(outline.max(axis=0), 2), 0, size - 1)
    truncated = bool((outline.min() < -2) or (outline.max() > size + 1))
    return Scene(
        category=name,
        pixels=_light(canvas.reduce(_SUPERSAMPLING), rng, size),
        part_ids=np.asarray(mask)[::_SUPERSAMPLING, ::_SUPERSAMPLING].copy(),
        part_words=words,
        part_colors=colors,
        background=background,
        points=points,
        visible=inside & ~covered,
        box=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
        turn=turn,
        mirrored=mirrored,
        truncated=truncated,
        occluded=bool((covered & inside).any()),
    )


def _color_name(rng: np.random.Generator) -> str:
    """Draw the name of a color."""
    return tuple(PALETTE)[int(rng.integers(len(PALETTE)))]


def _jitter(rng: np.random.Generator, name: str) -> tuple[int, int, int]:
    """Draw an RGB value near the color of that name."""
    shift = rng.integers(-25, 26, size=3)
    red, green, blue = (min(max(c + s, 0), 255) for c, s in zip(PALETTE[name], shift.tolist(), strict=True))
    return red, green, blue


def _pose(
    rng: np.random.Generator, grid: int, world: World, *, frontal: bool, sizes: tuple[float, float]
) -> tuple[npt.NDArray[np.float64], float, bool]:
    """Draw a pose.

    Returns:
        The homography (3, 3) from object coordinates to the grid, its rotation in degrees, and whether it mirrors.
    """
    mirrored = bool(rng.random() < 0.5) and not frontal
    degrees = float(rng.uniform(-world.turn, world.turn))
    angle, size = np.deg2rad(degrees), float(rng.uniform(*sizes)) * grid / 2
    stretch, shear = rng.uniform(0.85, 1.18), rng.uniform(-0.15, 0.15)
    margin = max(0.0, grid / 2 - size) + 0.08 * grid
    cx, cy = grid / 2 + rng.uniform(-margin, margin), grid / 2 + rng.uniform(-margin, margin)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = np.array([[stretch * (-1 if mirrored else 1), shear], [0.0, 1.0 / stretch]])
    pose = np.eye(3)
    pose[:2, :2] = size * turn @ shape
    pose[:2, 2] = cx, cy
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-world.tilt, world.tilt, size=2)
    return pose @ tilt, degrees, mirrored


def _project(pose: npt.NDArray[np.float64], points: Polygon) -> Polygon:
    """Apply a homography to points (N, 2)."""
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ pose.T
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def _corners(polygon: Polygon) -> list[tuple[int, int]]:
    """Round the corners of a polygon to whole grid points."""
    return [(int(x), int(y)) for x, y in np.round(polygon)]


def _draw_object(
    canvas: Image.Image,
    rng: np.random.Generator,
    anatomy: Anatomy,
    pose: npt.NDArray[np.float64],
    words: tuple[str, ...],
    colors: tuple[str, ...],
    textured: float,
    mask: Image.Image | None = None,
) -> None:
    """Paint the parts in order; parts with the same word have the same color and texture."""
    draw = ImageDraw.Draw(canvas)
    paints = {word: (_jitter(rng, color), _texture(rng, textured)) for word, color in zip(words, colors, strict=True)}
    edge = (20, 20, 25) if rng.random() < 0.5 else None
    for part in anatomy.parts:
        corners = _corners(_project(pose, part.outline))
        fill, texture = paints[part.word]
        if texture is None:
            draw.polygon(corners, fill=fill, outline=edge)
        else:
            _paint_texture(canvas, corners, fill, texture)
        if mask is not None:
            ImageDraw.Draw(mask).polygon(corners, fill=words.index(part.word) + 1)


def _texture(rng: np.random.Generator, textured: float) -> tuple[int, int, int, int] | None:
    """Draw spacing, direction, shade and offset of stripes; None for a plain part."""
    if rng.random() < 1 - textured:
        return None
    return int(rng.integers(5, 11)), int(rng.integers(3)), int(rng.integers(-70, 71)), int(rng.integers(10))


def _paint_texture(
    canvas: Image.Image, corners: list[tuple[int, int]], fill: tuple[int, int, int], texture: tuple[int, int, int, int]
) -> None:
    """Paint a polygon with stripes."""
    spacing, direction, shade, offset = texture
    grid = canvas.width
    stencil = Image.new("L", canvas.size, 0)
    ImageDraw.Draw(stencil).polygon(corners, fill=255)
    paint = Image.new("RGB", canvas.size, fill)
    pen, second = ImageDraw.Draw(paint), tuple(int(np.clip(c + shade, 0, 255)) for c in fill)
    slant, width = (0, grid, 0)[direction], max(2, spacing // 3)
    for start in range(offset - grid, grid + width, spacing):
        if start + slant >= -width:  # other stripes lie outside the canvas
            ends = (0, start, grid, start) if direction == 0 else (start, 0, start + slant, grid)
            pen.line(ends, fill=second, width=width)
    canvas.paste(paint, mask=stencil)


def _clutter(canvas: Image.Image, rng: np.random.Generator, grid: int) -> None:
    """Paint random polygons on the background."""
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(2, 8))):
        draw.polygon(
            _blob(rng, rng.uniform(0, grid, size=2), rng.uniform(0.05, 0.3) * grid),
            fill=_jitter(rng, _color_name(rng)),
        )


def _blob(rng: np.random.Generator, center: npt.NDArray[np.float64], radius: float) -> list[tuple[int, int]]:
    """Draw a polygon of 3 to 8 corners around a center."""
    corners = int(rng.integers(3, 9))
    angle = np.sort(rng.uniform(0, 2 * np.pi, size=corners))
    reach = radius * rng.uniform(0.5, 1.0, size=corners)
    return _corners(np.stack([center[0] + reach * np.cos(angle), center[1] + reach * np.sin(angle)], axis=1))


def _other_object(canvas: Image.Image, rng: np.random.Generator, category: str, grid: int, world: World) -> None:
    """Paint a smaller object of another category."""
    anatomy = world.anatomies[category](rng)
    words = tuple(sorted({part.word for part in anatomy.parts}))
    pose, _, _ = _pose(rng, grid, world, frontal=False, sizes=world.other_sizes)
    shift = np.eye(3)
    shift[:2, 2] = rng.choice([-0.25, 0.25], size=2) * grid
    colors = tuple(_color_name(rng) for _ in words)
    _draw_object(canvas, rng, anatomy, shift @ pose, words, colors, world.textured)


def _occlude(
    canvas: Image.Image, cover: Image.Image, mask: Image.Image, rng: np.random.Generator, points: Polygon, grid: int
) -> None:
    """Cover the surroundings of a random keypoint on the photo, its cover mask and its mask of parts."""
    around = points[int(rng.integers(len(points)))] + rng.uniform(-0.06, 0.06, size=2) * grid
    blob, color = _blob(rng, around, rng.uniform(0.1, 0.2) * grid), _jitter(rng, _color_name(rng))
    ImageDraw.Draw(canvas).polygon(blob, fill=color)
    ImageDraw.Draw(cover).polygon(blob, fill=255)
    ImageDraw.Draw(mask).polygon(blob, fill=BACKGROUND)


def _light(image: Image.Image, rng: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    """Apply a linear gain across the photo, in integers of 1/256, and add grain."""
    ramp = (np.arange(size) * 2 - size) * 64 // size
    right, down = (int(value) for value in rng.integers(-128, 129, size=2))
    gain = 256 + (ramp[None, :] * right + ramp[:, None] * down) // 128 + int(rng.integers(-40, 41))
    grain = rng.integers(-8, 9, size=(size, size, 3))
    lit = (np.asarray(image).astype(np.int64) * gain[..., None]) // 256 + grain
    return np.clip(lit, 0, 255).astype(np.uint8)
