"""One's own photos with a small file of points."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from sd4match.data.base import ListedPairs, Points, as_box, read_annotation, read_lines
from sd4match.data.config import Split
from sd4match.errors import DatasetError
from sd4match.geometry import Size
from sd4match.structures.images import Photo
from sd4match.structures.pairs import Box, PairKey, PairRecord


@dataclass
class _Annotated:
    category: str | None = None
    split: str | None = None
    box: Box | None = None
    points: dict[str, tuple[float, float] | None] = field(default_factory=dict)


class FolderPairs(ListedPairs):
    """A folder of photos with named points; points of one name correspond.

    `points.json`:

        {"photos": {"a.jpg": {"category": "cat", "box": [left, top, right, bottom],
                              "points": {"left ear": [120, 80], "tail": null}}, ...},
         "pairs": [["a.jpg", "b.jpg"], ...]}

    Category, box, a photo's `split` and the pairs may be left out. Or `points.csv` with columns `photo`, `point`, `x`,
    `y`, and, if you like, `category` and `split`; empty x and y mean that the point is not visible. Without pairs, all
    ordered pairs of two photos of a category that share a visible point are taken. Without splits, every split is
    everything.

    Convention: alpha is a share of the box if every photo has one, of the photo's longer side (in the measurement's
    frame) if not.

    Args:
        root: the folder.
        split: train, validation or test.
        points: the file of points; `points.json` or `points.csv` in the folder, if not given.
        exif: points were read off photos as viewers turn them; False: off the stored pixels.

    Raises:
        DatasetError: no folder, no file of points, or what is in it is not as above; the message says where.
    """

    name = "folder"

    def __init__(
        self, *, root: str | Path, split: Split = "train", points: str | None = None, exif: bool = False
    ) -> None:
        base = Path(root).expanduser()
        if not base.is_dir():
            raise DatasetError(f"no such folder: {base}")
        names = [base / points] if points else [base / "points.json", base / "points.csv"]
        self.list = next((file for file in names if file.is_file()), None)
        if self.list is None:
            raise DatasetError(f"no {' or '.join(file.name for file in names)} in {base}")
        read = _read_csv if self.list.suffix.lower() == ".csv" else _read_json
        self._annotated, listed = read(self.list)
        self._exif = exif
        pairs = self._all_pairs(split) if listed is None else listed
        if not pairs:
            raise DatasetError(f"{self.list} makes no pair of the {split} split: no two photos share a visible point")
        boxed = all(one.box is not None for one in self._annotated.values())
        super().__init__(base, split, (self._key(*pair) for pair in pairs), reference="box" if boxed else "photo")

    def _all_pairs(self, split: str) -> list[tuple[str, str]]:
        divided = any(one.split for one in self._annotated.values())
        names = [name for name, one in self._annotated.items() if not divided or one.split == split]
        return [
            (a, b)
            for a, b in permutations(names, 2)
            if self._annotated[a].category == self._annotated[b].category and _shared(self._annotated, a, b)
        ]

    def _key(self, source: str, target: str) -> PairKey:
        categories = [self._annotated[name].category for name in (source, target)]
        return PairKey(
            pair_id=f"{source}-{target}", source_id=source, target_id=target, category=categories[0],
            target_category=categories[1],
        )  # fmt: skip

    def photo_path(self, image_id: str) -> Path:
        """The file of that name in the folder."""
        return self.root / image_id

    def photo(self, image_id: str) -> Photo:
        """The photo in the frame of its points."""
        return Photo.open(self.photo_path(image_id), exif=self._exif)

    def _photo_size(self, image_id: str) -> Size:
        return self.photo(image_id).size if self._exif else super()._photo_size(image_id)

    def __getitem__(self, index: int) -> PairRecord:
        key = self.keys[index]
        source, target = (self._annotated[one] for one in (key.source_id, key.target_id))
        names = _shared(self._annotated, key.source_id, key.target_id)
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            target_category=key.target_category, source_size=self.photo_size(key.source_id),
            target_size=self.photo_size(key.target_id), source_box=source.box, target_box=target.box,
            source_points=_points(source, names), target_points=_points(target, names),
            visible=np.ones(len(names), dtype=np.bool_),
        )  # fmt: skip


def _shared(annotated: Mapping[str, _Annotated], source: str, target: str) -> list[str]:
    """Names of the points that both photos show."""
    theirs = annotated[target].points
    return [name for name, place in annotated[source].points.items() if place and theirs.get(name)]


def _points(annotated: _Annotated, names: list[str]) -> Points:
    return np.array([annotated.points[name] for name in names], dtype=np.float64).reshape(-1, 2)


def _read_json(file: Path) -> tuple[dict[str, _Annotated], list[tuple[str, str]] | None]:
    content = read_annotation(file)
    photos = content.get("photos")
    if not isinstance(photos, dict) or not photos:
        raise DatasetError(f'{file} has no "photos": a photo\'s file name with its "points"')
    annotated = {name: _photo_of_json(one, f"{file}: {name}") for name, one in photos.items()}
    pairs = content.get("pairs")
    if pairs is None:
        return annotated, None
    listed = []
    for number, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DatasetError(f"{file}: pair {number} must be two file names, not {str(pair)[:60]}")
        for name in pair:
            if name not in annotated:
                raise DatasetError(f"{file}: pair {number} names {name!r}, which is not among its photos")
        if tuple(pair) in listed:
            raise DatasetError(f"{file}: pair {number} stands there twice: {pair[0]}, {pair[1]}")
        listed.append((pair[0], pair[1]))
    return annotated, listed


def _photo_of_json(one: Any, where: str) -> _Annotated:
    if not isinstance(one, dict) or not isinstance(one.get("points"), dict):
        raise DatasetError(f'{where} must have "points": names with [x, y] or null')
    box = None if one.get("box") is None else as_box(one["box"], f"{where}: box")
    points = {name: _place(place, f"{where}: point {name!r}") for name, place in one["points"].items()}
    return _Annotated(one.get("category"), one.get("split"), box, points)


def _place(value: Any, where: str) -> tuple[float, float] | None:
    if value is None or value == ["", ""]:
        return None
    try:
        x, y = (float(number) for number in value)
    except (TypeError, ValueError):
        raise DatasetError(f"{where} must be x, y in pixels; it is {str(value)[:60]}") from None
    if not (np.isfinite(x) and np.isfinite(y)):
        raise DatasetError(f"{where} is not finite; leave out what is not visible")
    return x, y


def _read_csv(file: Path) -> tuple[dict[str, _Annotated], None]:
    rows = list(csv.DictReader(read_lines(file), skipinitialspace=True))
    missing = [name for name in ("photo", "point", "x", "y") if not rows or rows[0].get(name) is None]
    if missing:
        raise DatasetError(f"{file} has no column {', '.join(missing)}; columns are photo, point, x, y")
    annotated: dict[str, _Annotated] = {}
    for number, row in enumerate(rows, start=1):
        one = annotated.setdefault(row["photo"], _Annotated(row.get("category") or None, row.get("split") or None))
        one.points[row["point"]] = _place([row["x"], row["y"]], f"{file} row {number}")
    return annotated, None
