"""Features of photos, and results of matching them in original pixels.

Objects are compared by identity, since `==` of arrays has no truth value.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.arguments import check_arguments, check_fields
from sd4match.checks import check_number
from sd4match.devices import resolve_device
from sd4match.documents import read_json
from sd4match.errors import InputError, NonFiniteError, SD4MatchError, ShapeError, shown
from sd4match.geometry import Grid, Size
from sd4match.interfaces import Scope
from sd4match.io.files import check_output_file, write_together
from sd4match.matching import functional
from sd4match.paths import as_path
from sd4match.structures.images import Photo
from sd4match.structures.inputs import Points, check_points
from sd4match.structures.tensors import FeatureMap
from sd4match.version import __version__

if TYPE_CHECKING:
    from PIL import Image

_FORMAT = "sd4match-matches"
"""Name of the format in `matches.json`, which identifies an earlier result."""
_SOFTWARE = "sd4match"
"""Text "Software" in `matches.png`, followed by the version, likewise; `prompts imagine` writes another text."""
_PICTURE = "matches"
"""Name of the picture that every result has."""
_NOTEBOOK_HEIGHT = 320


def check_array(name: str, values: npt.NDArray[np.generic], shape: tuple[int, ...]) -> None:
    """Check an array of a result.

    Raises:
        ShapeError: it is of another shape.
        NonFiniteError: a value is NaN or infinite.
    """
    if values.shape != shape:
        raise ShapeError(f"{name} must be {shape}, not {values.shape}")
    if not np.isfinite(values).all():
        raise NonFiniteError(f"{name} must be finite, and hold NaN or infinite values")


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one photo under a prompt, extracted once for any number of matches.

    Raises:
        ShapeError: the map is not of one photo, or of a photo of another size.
        InputError: a field is of another type.

    >>> from sd4match.geometry import own_frame
    >>> photo = Photo(np.zeros((4, 6, 3), dtype=np.uint8), "black.png")
    >>> features = Features(photo, FeatureMap(torch.zeros(1, 8, 2, 3), Grid((own_frame((4, 6)),), (2, 3))), "dataset")
    >>> features.at([(1.0, 2.0)]).shape
    torch.Size([1, 8])
    """

    photo: Photo
    map: FeatureMap
    """(1, C, h, w), on the grid of the backbone."""
    scope: Scope
    """Dependence of the prompt: "dataset", "category" or "image"."""
    category: str | None = None
    origin: str = field(default="", repr=False)
    """Digest of the backbone, the prompt and the sampling; a matcher refuses features of another origin."""

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.map) != 1 or self.map.grid.frames[0].original_size != self.photo.size:
            raise ShapeError(f"expected a map of one photo of {self.photo.size} pixels")

    @property
    def grid(self) -> Grid:
        """Grid of the cells of the map on the photo."""
        return self.map.grid

    @property
    def size(self) -> Size:
        """(H, W) of the photo."""
        return self.photo.size

    def at(self, points: Points) -> Float[Tensor, "points channels"]:
        """Return the descriptors at points of the photo, bilinear between cells; not normalized.

        Args:
            points: (N, 2), (x, y) in original pixels.

        Returns:
            (N, C). A point beyond the outermost cell centers is clamped to them.

        Raises:
            InputError: the points are not (N, 2), or one is outside the photo.
        """
        wanted = check_points(points, replace(self.photo, mask=None)).to(self.map.values.device)
        cells = self.grid.to_cells(wanted[None])
        descriptors: Tensor = functional.sample_bilinear(self.map.values, cells)[0]
        return descriptors

    @check_arguments
    def to(self, device: str | torch.device) -> Features:
        """Return the same features on another device, for example to keep many of them on the CPU.

        Args:
            device: "cpu", "cuda", "cuda:N", "mps", a `torch.device`, or "auto".

        Raises:
            ConfigError: there is no such device.
        """
        device = resolve_device(device)
        mask = None if self.map.mask is None else self.map.mask.to(device)
        return replace(self, map=replace(self.map, values=self.map.values.to(device), mask=mask))

    def __repr__(self) -> str:
        channels, (height, width) = self.map.values.shape[1], self.map.size
        return f"Features({_photo(self.photo)}: {channels} x {height} x {width}, scope={self.scope!r})"


class KeypointMatch(TypedDict):
    """Match in the form of transformers' keypoint-matching pipeline."""

    keypoint_image_0: dict[str, float]
    keypoint_image_1: dict[str, float]
    score: float


@dataclass(frozen=True, eq=False)
class MatchResult:
    """Matches between two photos, in the original pixels of each.

    Raises:
        ShapeError: there is not one point of both photos, one score and one index for each match.
        NonFiniteError: a value is NaN or infinite.
        InputError: a field is of another type.

    >>> photo = Photo(np.zeros((4, 6, 3), dtype=np.uint8), "black.png")
    >>> points = np.array([[1.0, 2.0], [3.0, 2.0]])
    >>> result = MatchResult(photo, photo, points, points, np.array([0.2, 0.9]))
    >>> result.filter(min_score=0.5)
    MatchResult(1 match, black.png 6 x 4 -> black.png 6 x 4, scores 0.900 to 0.900)
    >>> result.filter(min_score=0.5).indices
    array([1])
    """

    source: Photo
    target: Photo
    source_points: npt.NDArray[np.float64]
    """(N, 2), (x, y)."""
    target_points: npt.NDArray[np.float64]
    """(N, 2), (x, y)."""
    scores: npt.NDArray[np.float64]
    """(N,), in [0, 1]: the probability mass around the match. It depends on the size of the feature map."""
    indices: npt.NDArray[np.int64] = None  # type: ignore[assignment] # set below
    """(N,), index of each match's point among the query points; None: 0, 1, 2, ..."""

    def __post_init__(self) -> None:
        if self.indices is None:
            object.__setattr__(self, "indices", np.arange(len(np.atleast_1d(self.scores)), dtype=np.int64))
        check_fields(self)
        count, *_ = (*self.source_points.shape, 0)
        check_array("source_points", self.source_points, (count, 2))
        check_array("target_points", self.target_points, (count, 2))
        check_array("scores", self.scores, (count,))
        check_array("indices", self.indices, (count,))
        if self.indices.dtype.kind not in "iu":
            raise InputError(f"indices must be whole numbers, not {self.indices.dtype}")

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        count = f"{len(self)} match{'' if len(self) == 1 else 'es'}"
        scores = f", scores {self.scores.min():.3f} to {self.scores.max():.3f}" if len(self) else ""
        return f"MatchResult({count}, {_photo(self.source)} -> {_photo(self.target)}{scores})"

    @check_arguments
    def filter(self, *, min_score: float) -> MatchResult:
        """Return the matches whose score is `min_score` or more.

        Args:
            min_score: least score of a match, in [0, 1].

        Raises:
            InputError: `min_score` is not a number in [0, 1].
        """
        rows = self.scores >= check_number("min_score", min_score, 0.0, 1.0)
        return replace(
            self, source_points=self.source_points[rows], target_points=self.target_points[rows],
            scores=self.scores[rows], indices=self.indices[rows],
        )  # fmt: skip

    @property
    def keypoints0(self) -> npt.NDArray[np.float64]:
        """Source points, under the name that LightGlue and transformers use."""
        return self.source_points

    @property
    def keypoints1(self) -> npt.NDArray[np.float64]:
        """Target points, under the name that LightGlue and transformers use."""
        return self.target_points

    @property
    def matching_scores(self) -> npt.NDArray[np.float64]:
        """Scores, under the name that transformers uses."""
        return self.scores

    def as_dicts(self) -> list[KeypointMatch]:
        """Return the matches as transformers' keypoint-matching pipeline does, best first."""
        order = np.argsort(-self.scores, kind="stable")
        (start, end) = (_coordinates(points[order]) for points in (self.source_points, self.target_points))
        scores = self.scores[order].tolist()
        return [
            {"keypoint_image_0": source, "keypoint_image_1": target, "score": score}
            for source, target, score in zip(start, end, scores, strict=True)
        ]

    def to_opencv(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Return key points of both photos and the matches, as `cv2.drawMatches` takes them.

        The distance of a match is 1 - score.

        Raises:
            InputError: OpenCV is not installed.
        """
        try:
            import cv2
        except ImportError:
            raise InputError("to_opencv needs OpenCV: pip install opencv-python-headless") from None
        keypoints = [
            [cv2.KeyPoint(x, y, 1.0) for x, y in points.tolist()] for points in (self.source_points, self.target_points)
        ]
        matches = [cv2.DMatch(row, row, 1 - score) for row, score in enumerate(self.scores.tolist())]
        return keypoints[0], keypoints[1], matches

    @check_arguments
    def draw(self, *, height: int = 480, title: str = "") -> Image.Image:
        """Draw both photos with a line for each match; weaker matches are thinner.

        Args:
            height: height of both photos in the picture, in pixels.
            title: text above the photos.
        """
        from sd4match.viz.matches import draw_matches

        return draw_matches(
            self.source, self.target, self.source_points, self.target_points, scores=self.scores, title=title,
            height=height,
        )  # fmt: skip

    def _repr_png_(self) -> bytes:
        """Return the picture that notebooks show."""
        file = io.BytesIO()
        self.draw(height=_NOTEBOOK_HEIGHT).save(file, format="png")
        return file.getvalue()

    @check_arguments
    def save(
        self,
        folder: str | Path,
        *,
        details: Mapping[str, Any] | None = None,
        pictures: Mapping[str, Image.Image] | None = None,
    ) -> Path:
        """Write `matches.json`, `matches.png` and further pictures into a folder, all or none.

        Args:
            folder: folder to write to; it is created if it does not exist, and an earlier result in it is replaced.
            details: further values for `matches.json` that JSON can represent; "format" and "matches" are reserved.
            pictures: further pictures by name, for example "heat" for `heat.png`; names are of lower-case letters and
                hyphens.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds files of these names that sd4match did not write, or cannot be written; or the
                details are not JSON or use a reserved name; or a picture has another name.
        """
        if taken := {"format", "matches"} & (details or {}).keys():
            raise InputError(f"the details of matches must have other names than {' and '.join(sorted(taken))}")
        folder = as_path(folder, what="the folder of matches")
        drawn = dict(pictures or {})
        check_matches_folder(folder, option="the folder's", pictures=[*drawn])
        known = {
            "source": {"path": self.source.name, "size": list(self.source.size)},
            "target": {"path": self.target.name, "size": list(self.target.size)},
        }
        rows = zip(
            self.source_points.tolist(), self.target_points.tolist(), self.scores.tolist(), self.indices.tolist(),
            strict=True,
        )  # fmt: skip
        matches = [
            {"source": _rounded(start), "target": _rounded(end), "score": round(score, 4), "index": index}
            for start, end, score, index in rows
        ]
        try:
            content = {"format": _FORMAT, **known, **(details or {}), "matches": matches}
            text = json.dumps(content, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"the details of matches must be JSON: {error}") from None
        contents = {folder / "matches.json": f"{text}\n".encode()}
        for name, picture in {_PICTURE: self.draw(), **drawn}.items():
            contents[folder / f"{name}.png"] = _png(picture)
        write_together(contents, error=InputError)
        return folder


def _png(picture: Image.Image) -> bytes:
    """Return a PNG file that `_is_own_picture` recognizes."""
    from PIL.PngImagePlugin import PngInfo

    software, file = PngInfo(), io.BytesIO()
    software.add_text("Software", f"{_SOFTWARE} {__version__}")
    picture.save(file, format="png", pnginfo=software)
    return file.getvalue()


def check_matches_folder(
    folder: Path, *, inputs: Sequence[Path] = (), option: str = "--output", pictures: Sequence[str] = ()
) -> None:
    """Check that a result of matching would replace no other file in a folder.

    Args:
        folder: folder for `MatchResult.save`.
        inputs: files that are read and must not be replaced either.
        option: name of the folder's option in messages.
        pictures: names of further pictures.

    Raises:
        InputError: it holds such a file, or a picture has a reserved name or other characters than lower-case letters
            and hyphens; the message names it.
    """
    for name in pictures:
        if name == _PICTURE or not isinstance(name, str) or not re.fullmatch("[a-z]+(-[a-z]+)*", name):
            raise InputError(
                f"pictures must have names of lower-case letters and hyphens other than {_PICTURE!r}, not {shown(name)}"
            )
    owners: dict[str, Callable[[Path], bool]] = {"matches.json": _is_own_json}
    owners |= {f"{name}.png": _is_own_picture for name in (_PICTURE, *pictures)}
    for name, is_own in owners.items():
        check_output_file(folder / name, option=option, inputs=inputs, is_own=is_own, what="result of match")


def _is_own_json(path: Path) -> bool:
    """Return whether a file is the `matches.json` of an earlier match."""
    try:
        content = read_json(path, what="earlier result")
    except SD4MatchError:
        return False
    return isinstance(content, dict) and content.get("format") == _FORMAT


def _is_own_picture(path: Path) -> bool:
    """Return whether a file is the `matches.png` of an earlier match."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return re.fullmatch(rf"{_SOFTWARE} [0-9]\S*", str(image.info.get("Software"))) is not None
    except Exception:  # pillow raises many classes for other files
        return False


def _photo(photo: Photo) -> str:
    height, width = photo.size
    return f"{photo.name} {width} x {height}"


def _rounded(point: list[float]) -> list[float]:
    return [round(number, 2) for number in point]


def _coordinates(points: npt.NDArray[np.float64]) -> list[dict[str, float]]:
    return [{"x": x, "y": y} for x, y in points.tolist()]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Several candidates for each point, best first."""

    source_points: npt.NDArray[np.float64]
    """(N, 2), in pixels of the source."""
    target_points: npt.NDArray[np.float64]
    """(N, K, 2), in pixels of the target."""
    scores: npt.NDArray[np.float64]
    """(N, K), in [0, 1]: the probability mass around each candidate."""

    def __post_init__(self) -> None:
        check_fields(self)
        count, each, *_ = (*self.scores.shape, 0, 0)
        check_array("scores", self.scores, (count, each))
        check_array("source_points", self.source_points, (count, 2))
        check_array("target_points", self.target_points, (count, each, 2))
