"""A folder of the user's own photos with a small file of points."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from sd4match.data.base import FilePairs, Points, as_box, read_annotation, read_lines
from sd4match.data.config import FolderConfig
from sd4match.errors import DatasetError
from sd4match.geometry import Size
from sd4match.structures.images import Photo
from sd4match.structures.pairs import Box, PairKey, PairRecord


@dataclass
class _Annotation:
    """Content of the file of points for one photo; a point is None if it is not visible."""

    category: str | None = None
    split: str | None = None
    box: Box | None = None
    points: dict[str, tuple[float, float] | None] = field(default_factory=dict)


class FolderPairs(FilePairs):
    """A folder of photos with named points; points of the same name correspond.

    `points.json`:

        {"photos": {"a.jpg": {"category": "cat", "box": [left, top, right, bottom],
                              "points": {"left ear": [120, 80], "tail": null}}, ...},
         "pairs": [["a.jpg", "b.jpg"], ...]}

    Category, box, a photo's `split` and the pairs are optional. Alternatively `points.csv` with columns `photo`,
    `point`, `x`, `y`, and optionally `category` and `split`; empty x and y mean that the point is not visible. Without
    pairs, the pairs are all ordered pairs of two photos of a category that share a visible point. Without splits,
    every split has all photos.

    Convention: alpha is a fraction of the box if every photo has one, otherwise of the longer side of the photo (in the
    frame of the evaluation protocol).

    Args:
        config: root, split, file of points, and the frame that the points are in.

    Raises:
        DatasetError: the folder or the file of points is missing, or its content is wrong; the message says where.
    """

    name = "folder"

    def __init__(self, config: FolderConfig) -> None:
        root = Path(config.root).expanduser()
        if not root.is_dir():
            raise DatasetError(f"no such folder: {root}")
        files = [root / config.points] if config.points else [root / "points.json", root / "points.csv"]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise DatasetError(f"no {' or '.join(file.name for file in files)} in {root}")
        read = _read_csv if file.suffix.lower() == ".csv" else _read_json
        self._annotations, listed = read(file)
        self._exif = config.exif
        pairs = _all_pairs(self._annotations, config.split) if listed is None else listed
        if not pairs:
            raise DatasetError(f"{file} makes no pair of the {config.split} split: no two photos share a visible point")
        all_boxes = all(annotation.box is not None for annotation in self._annotations.values())
        self.list_path = file
        self.reference = "box" if all_boxes else "photo"
        super().__init__(root, config.split, (self._key(*pair) for pair in pairs))

    def _key(self, source: str, target: str) -> PairKey:
        categories = [self._annotations[name].category for name in (source, target)]
        return PairKey(
            pair_id=f"{source}-{target}", source_id=source, target_id=target, category=categories[0],
            target_category=categories[1],
        )  # fmt: skip

    def photo_path(self, image_id: str) -> Path:
        """Return the file of that name in the folder."""
        return self.root / image_id

    def photo(self, image_id: str) -> Photo:
        """Decode a photo in the frame of its points.

        Raises:
            PhotoError: it cannot be read.
        """
        return Photo.open(self.photo_path(image_id), exif=self._exif)

    def _photo_size(self, image_id: str) -> Size:
        return self.photo(image_id).size if self._exif else super()._photo_size(image_id)

    def __getitem__(self, index: int) -> PairRecord:
        key = self.keys[index]
        source, target = self._annotations[key.source_id], self._annotations[key.target_id]
        names = _shared_names(source, target)
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            target_category=key.target_category, source_size=self.photo_size(key.source_id),
            target_size=self.photo_size(key.target_id), source_box=source.box, target_box=target.box,
            source_points=_points(source, names), target_points=_points(target, names),
            visible=np.ones(len(names), dtype=np.bool_),
        )  # fmt: skip


def _all_pairs(annotations: Mapping[str, _Annotation], split: str) -> list[tuple[str, str]]:
    """Return all ordered pairs of photos of one category that share a visible point."""
    has_splits = any(annotation.split for annotation in annotations.values())
    names = [name for name, annotation in annotations.items() if not has_splits or annotation.split == split]
    return [
        (source, target)
        for source, target in permutations(names, 2)
        if annotations[source].category == annotations[target].category
        and _shared_names(annotations[source], annotations[target])
    ]


def _shared_names(source: _Annotation, target: _Annotation) -> list[str]:
    """Return the names of the points that are visible in both photos."""
    return [name for name, point in source.points.items() if point and target.points.get(name)]


def _points(annotation: _Annotation, names: list[str]) -> Points:
    return np.array([annotation.points[name] for name in names], dtype=np.float64).reshape(-1, 2)


def _read_json(file: Path) -> tuple[dict[str, _Annotation], list[tuple[str, str]] | None]:
    content = read_annotation(file)
    photos = content.get("photos")
    if not isinstance(photos, dict) or not photos:
        raise DatasetError(f'{file} has no "photos": a photo\'s file name with its "points"')
    annotations = {name: _parse_photo(photo, f"{file}: {name}") for name, photo in photos.items()}
    pairs = content.get("pairs")
    if pairs is None:
        return annotations, None
    listed: list[tuple[str, str]] = []
    for number, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DatasetError(f"{file}: pair {number} must be two file names, not {str(pair)[:60]}")
        for name in pair:
            if name not in annotations:
                raise DatasetError(f"{file}: pair {number} names {name!r}, which is not among its photos")
        if tuple(pair) in listed:
            raise DatasetError(f"{file}: pair {number} stands there twice: {pair[0]}, {pair[1]}")
        listed.append((pair[0], pair[1]))
    return annotations, listed


def _parse_photo(value: Any, where: str) -> _Annotation:
    if not isinstance(value, dict) or not isinstance(value.get("points"), dict):
        raise DatasetError(f'{where} must have "points": names with [x, y] or null')
    box = None if value.get("box") is None else as_box(value["box"], f"{where}: box")
    points = {name: _parse_point(point, f"{where}: point {name!r}") for name, point in value["points"].items()}
    return _Annotation(value.get("category"), value.get("split"), box, points)


def _parse_point(value: Any, where: str) -> tuple[float, float] | None:
    if value is None or value == ["", ""]:
        return None
    try:
        x, y = (float(number) for number in value)
    except (TypeError, ValueError):
        raise DatasetError(f"{where} must be x, y in pixels; it is {str(value)[:60]}") from None
    if not (np.isfinite(x) and np.isfinite(y)):
        raise DatasetError(f"{where} is not finite; leave out what is not visible")
    return x, y


def _read_csv(file: Path) -> tuple[dict[str, _Annotation], None]:
    rows = list(csv.DictReader(read_lines(file), skipinitialspace=True))
    missing = [name for name in ("photo", "point", "x", "y") if not rows or rows[0].get(name) is None]
    if missing:
        raise DatasetError(f"{file} has no column {', '.join(missing)}; columns are photo, point, x, y")
    annotations: dict[str, _Annotation] = {}
    for number, row in enumerate(rows, start=1):
        new = _Annotation(row.get("category") or None, row.get("split") or None)
        annotation = annotations.setdefault(row["photo"], new)
        annotation.points[row["point"]] = _parse_point([row["x"], row["y"]], f"{file} row {number}")
    return annotations, None
