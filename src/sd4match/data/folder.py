"""Data set in a folder of the user's own photos, with a file of points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any, get_args

import numpy as np
from typing_extensions import override

from sd4match.checks import check_choice
from sd4match.data.annotations import (
    Points,
    as_box,
    as_category,
    as_file_name,
    as_numbers,
    as_word,
    check_columns,
    check_keys,
    parse_number,
    read_annotation,
)
from sd4match.data.base import FilePairs, check_split_name, folder_of, raise_problems, read_all
from sd4match.data.config import FolderConfig, Split
from sd4match.data.proposal_flow import read_table
from sd4match.errors import DatasetError, InputError, choose_from, shown
from sd4match.geometry import Size
from sd4match.paths import as_path, exists
from sd4match.structures.images import Photo
from sd4match.structures.pairs import Box, PairKey, PairRecord

_COLUMNS = ("photo", "point", "x", "y", "category", "split")
POINT_FILES = ("points.json", "points.csv")
"""Names of the file of points, if the config gives none."""

_Point = tuple[float, float] | None


@dataclass
class PhotoAnnotation:
    """Content of the file of points for one photo; a point is None if it is not visible."""

    category: str | None = None
    split: str | None = None
    box: Box | None = None
    points: dict[str, _Point] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Faults of the annotation, one line each; pairs of a photo with problems cannot be read."""

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Add the DatasetError of a block to the problems."""
        try:
            yield
        except DatasetError as error:
            self.problems.append(str(error))


class FolderPairs(FilePairs):
    """Folder of photos with named points; points of the same name correspond.

    The file `points.json` has this form:

        {"photos": {"a.jpg": {"category": "cat", "box": [left, top, right, bottom],
                              "points": {"left ear": [120, 80], "tail": null}}, ...},
         "pairs": [["a.jpg", "b.jpg"], ...]}

    Category, box, a photo's `split` and the pairs are optional. The file `points.csv` may replace it, with columns
    `photo`, `point`, `x`, `y`, and optionally `category` and `split`; empty x and y mean that the point is not visible.
    Without `pairs`, all ordered pairs of photos of one category that share a visible point are used. A photo with a
    damaged annotation is paired with all others, so that reading one of its pairs is an error and nothing is dropped.
    If no photo has a `split`, every split has all photos; otherwise a listed pair belongs to the split of its photos.

    Convention: the threshold of PCK is alpha times the longer side of the target's box if every photo has one,
    otherwise of the target photo (in the frame of the evaluation protocol).

    Args:
        config: root, split, file of points, and frame of the points.

    Raises:
        DatasetError: the folder or the file of points is missing, both files are there, or the content is wrong; the
            message says where.

    >>> import json, tempfile
    >>> from sd4match.testing import random_photo
    >>> annotation = {"category": "cat", "points": {"left ear": [12, 8], "nose": [20, 15]}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.png", "b.png"):
    ...         random_photo((30, 40)).to_image().save(Path(folder) / name)
    ...     content = json.dumps({"photos": {"a.png": annotation, "b.png": annotation}})
    ...     _ = (Path(folder) / "points.json").write_text(content)
    ...     dataset = FolderPairs(FolderConfig(root=folder))
    ...     len(dataset), dataset[0].source_points.tolist()
    (2, [[12.0, 8.0], [20.0, 15.0]])
    """

    name = "folder"

    def __init__(self, config: FolderConfig) -> None:
        split = check_split_name(config.split)
        root = folder_of(config.root, "the folder of photos")
        files = [root / name for name in POINT_FILES]
        if config.points is not None:
            files = [root / as_path(config.points, what="data.points", error=DatasetError)]
        found = [file for file in files if exists(file)]
        if not found:
            raise DatasetError(f"no {' or '.join(file.name for file in files)} in {root}")
        if len(found) > 1:
            raise DatasetError(
                f"{root} holds both {' and '.join(file.name for file in found)}: choose one with "
                f"data.points={found[0].name}"
            )
        file = found[0]
        self._annotations, listed = read_points(file)
        self._exif = config.exif
        chosen = _of_split(self._annotations, split)
        pairs = _all_pairs(chosen) if listed is None else [pair for pair in listed if set(pair) <= chosen.keys()]
        problems = [problem for annotation in self._annotations.values() for problem in annotation.problems]
        if not pairs:
            raise_problems(problems)
            reason = _why_no_pair(self._annotations, chosen, listed=listed is not None)
            raise DatasetError(f"{file} has no pairs of the {split} split: {reason}")
        all_boxes = all(annotation.box is not None for annotation in self._annotations.values())
        self.list_path = file
        self.reference = "box" if all_boxes else "photo"
        ids = [f"{source}-{target}" for source, target in pairs]
        if len(set(ids)) < len(ids):  # "a-b" with "c", and "a" with "b-c"
            ids = [f"{number:05d}-{pair_id}" for number, pair_id in enumerate(ids)]
        super().__init__(
            root, split, map(self._key, ids, pairs), problems=problems, notes=_notes(self._annotations, file)
        )

    def _key(self, pair_id: str, pair: tuple[str, str]) -> PairKey:
        source, target = pair
        return PairKey(
            pair_id=pair_id, source_id=source, target_id=target, category=self._annotations[source].category,
            target_category=self._annotations[target].category,
        )  # fmt: skip

    @override
    def photo_path(self, image_id: str) -> Path:
        return self.root / image_id

    def photo(self, image_id: str) -> Photo:
        """Decode a photo in the frame of its points, as the config says.

        Args:
            image_id: file name of the photo, relative to the folder.

        Raises:
            PhotoError: it cannot be read.
        """
        return Photo.open(self._photo_path(image_id), exif=self._exif)

    def _photo_size(self, image_id: str) -> Size:
        return self.photo(image_id).size if self._exif else super()._photo_size(image_id)

    @override
    def read(self, index: int) -> PairRecord:
        key = self.keys[index]
        source, target = self._annotations[key.source_id], self._annotations[key.target_id]
        raise_problems([*source.problems, *target.problems])
        names = _shared_names(source, target)
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            target_category=key.target_category, source_size=self.photo_size(key.source_id),
            target_size=self.photo_size(key.target_id), source_box=source.box, target_box=target.box,
            source_points=_points(source, names), target_points=_points(target, names),
            visible=np.ones(len(names), dtype=np.bool_),
        )  # fmt: skip


def _of_split(annotations: Mapping[str, PhotoAnnotation], split: Split) -> dict[str, PhotoAnnotation]:
    """Return the photos of a split; all, if no photo names one."""
    has_splits = any(annotation.split for annotation in annotations.values())
    return {
        name: annotation
        for name, annotation in annotations.items()
        if not has_splits or annotation.split == split or annotation.problems
    }


def _all_pairs(annotations: Mapping[str, PhotoAnnotation]) -> list[tuple[str, str]]:
    """Return all ordered pairs of photos of one category that share a visible point, or of which one is damaged."""
    return [
        (source, target)
        for (source, first), (target, second) in permutations(annotations.items(), 2)
        if first.problems or second.problems or (first.category == second.category and _shared_names(first, second))
    ]


def _why_no_pair(
    annotations: Mapping[str, PhotoAnnotation], chosen: Mapping[str, PhotoAnnotation], *, listed: bool
) -> str:
    """Return why the photos of a split make no pair."""
    if not chosen:
        splits = sorted({str(photo.split) for photo in annotations.values() if photo.split})
        return f"all photos with a split are of {', '.join(splits)}"
    if listed:
        return "no listed pair has both photos in it"
    if len(chosen) < 2:
        return f"it has one photo, {next(iter(chosen))}"
    categories = [photo.category for photo in chosen.values()]
    if len(set(categories)) == len(categories):
        return f"no two photos are of one category: {shown([str(category) for category in categories])}"
    return "no two photos of one category share a visible point"


def _notes(annotations: Mapping[str, PhotoAnnotation], file: Path) -> list[str]:
    """Return fields that some photos have and others lack."""
    notes = []
    for what, those, effect in (
        (
            "box",
            [name for name, photo in annotations.items() if photo.box is None],
            "thresholds are fractions of the photo",
        ),
        ("split", [name for name, photo in annotations.items() if photo.split is None], "they are in no split"),
        (
            "category",
            [name for name, photo in annotations.items() if photo.category is None],
            "they are paired with one another only",
        ),
    ):
        if 0 < len(those) < len(annotations):
            notes.append(
                f"{file}: {len(those)} of {len(annotations)} photos have no {what}, first {those[0]}: {effect}"
            )
    return notes


def _shared_names(source: PhotoAnnotation, target: PhotoAnnotation) -> list[str]:
    """Return the names of the points that are visible in both photos."""
    return [name for name, point in source.points.items() if point and target.points.get(name)]


def _points(annotation: PhotoAnnotation, names: list[str]) -> Points:
    return np.array([annotation.points[name] for name in names], dtype=np.float64).reshape(-1, 2)


def read_points(file: Path) -> tuple[dict[str, PhotoAnnotation], list[tuple[str, str]] | None]:
    """Return the annotation of each photo in a file of points, and the listed pairs; None if it lists none.

    Raises:
        DatasetError: the file cannot be read, or is wrong as a whole; faults of one photo are in its problems.
    """
    return _read_csv(file) if file.suffix.lower() == ".csv" else _read_json(file)


def _read_json(file: Path) -> tuple[dict[str, PhotoAnnotation], list[tuple[str, str]] | None]:
    content = read_annotation(file)
    check_keys(content, ("photos", "pairs"), str(file))
    photos = content.get("photos")
    if not isinstance(photos, dict) or not photos:
        raise DatasetError(f'{file} has no "photos": a photo\'s file name with its "points"')
    names = read_all(lambda name: as_file_name(name, f"{file}: a photo"), photos)
    annotations = {name: _parse_photo(photos[name], f"{file}: {name}") for name in names}
    pairs = content.get("pairs")
    return annotations, None if pairs is None else _parse_pairs(pairs, annotations, file)


def _parse_pairs(value: object, annotations: Mapping[str, PhotoAnnotation], file: Path) -> list[tuple[str, str]]:
    if not isinstance(value, list) or not value:
        raise DatasetError(f"{file}: pairs must be a list of two file names each, not {shown(value)}")
    listed: set[tuple[str, str]] = set()

    def parse(item: tuple[int, Any]) -> tuple[str, str]:
        number, pair = item
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise DatasetError(f"{file}: pair {number} must be two file names, not {shown(pair)}")
        source, target = pair
        for name in pair:
            if name not in annotations:
                hint = choose_from(name[:80], annotations) if len(annotations) <= 20 else ""
                raise DatasetError(
                    f"{file}: pair {number} names {shown(name)}, which is not among its photos; {hint}".rstrip("; ")
                )
        if source == target:
            raise DatasetError(f"{file}: pair {number} is of {source} with itself")
        if (source, target) in listed:
            raise DatasetError(f"{file}: pair {number} is listed twice: {source}, {target}")
        listed.add((source, target))
        return source, target

    return read_all(parse, enumerate(value))


def _parse_photo(value: object, where: str) -> PhotoAnnotation:
    """Return the annotation of a photo in points.json, with its problems."""
    if not isinstance(value, dict) or not isinstance(value.get("points"), dict):
        return PhotoAnnotation(problems=[f'{where} must have "points": names with [x, y] or null'])
    annotation = PhotoAnnotation()
    with annotation.noting():
        check_keys(value, ("category", "split", "box", "points"), where)
    with annotation.noting():
        annotation.category = _parse_category(value.get("category"), where)
    with annotation.noting():
        annotation.split = _parse_split(value.get("split"), where)
    with annotation.noting():
        annotation.box = None if value.get("box") is None else as_box(value["box"], f"{where}: box")
    for name, point in value["points"].items():
        with annotation.noting():
            as_word(name, f"{where}: the name of a point")
            annotation.points[name] = _parse_point(point, f"{where}: point {shown(name)}")
    return annotation


def _parse_category(value: object, where: str) -> str | None:
    return None if value is None else as_category(value, f"{where}: category")


def _parse_split(value: object, where: str) -> str | None:
    if value is None:
        return None
    try:
        return check_choice("split", value, get_args(Split))
    except InputError as error:
        raise DatasetError(f"{where}: {error}") from None


def _parse_point(value: object, where: str) -> _Point:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise DatasetError(f"{where} must be x, y in pixels; it is {shown(value)}")
    x, y = as_numbers(value, f"{where}: a coordinate")
    return x, y


def _read_csv(file: Path) -> tuple[dict[str, PhotoAnnotation], None]:
    header, rows = read_table(file)
    header = [name.lower() for name in header]
    check_columns(header, _COLUMNS, _COLUMNS[:4], str(file))
    unknown = [name for name in header if name not in _COLUMNS]
    if unknown:
        raise DatasetError(f"{file}: unknown column {shown(unknown[0])}; columns are {', '.join(_COLUMNS)}")
    if not rows:
        raise DatasetError(f"{file} has no row below its header")
    annotations: dict[str, PhotoAnnotation] = {}
    photo_column = header.index("photo")

    def photo_of(item: tuple[int, Sequence[str]]) -> str:
        number, row = item
        name = row[photo_column] if photo_column < len(row) else ""
        return as_file_name(name, f"{file} row {number}: the photo")

    photos = read_all(photo_of, enumerate(rows, start=1))
    for number, (photo, row) in enumerate(zip(photos, rows, strict=True), start=1):
        annotation = annotations.setdefault(photo, PhotoAnnotation())
        with annotation.noting():
            _add_row(annotation, header, row, f"{file} row {number}")
    return annotations, None


def _add_row(annotation: PhotoAnnotation, header: Sequence[str], row: Sequence[str], where: str) -> None:
    """Add a row of points.csv to the annotation of its photo.

    Raises:
        DatasetError: it has another number of columns, no point, what is not a number, or contradicts an earlier row.
    """
    if len(row) != len(header):
        raise DatasetError(
            f"{where} has {len(row)} columns, but the header has {len(header)}: write decimals as 10.5, not as 10,5"
        )
    cells = dict(zip(header, row, strict=True))
    point = as_word(cells["point"], f"{where}: the point")
    if point in annotation.points:
        raise DatasetError(f"{where}: the point {shown(point)} of {cells['photo']} appears twice")
    category = _parse_category(cells.get("category") or None, where)
    split = _parse_split(cells.get("split") or None, where)
    for name, old, new in (("category", annotation.category, category), ("split", annotation.split, split)):
        if old and new and old != new:
            raise DatasetError(
                f"{where}: the {name} of {cells['photo']} is {shown(old)} in an earlier row, not {shown(new)}"
            )
    annotation.category, annotation.split = annotation.category or category, annotation.split or split
    texts = cells["x"], cells["y"]
    coordinate = f"{where}: a coordinate"
    annotation.points[point] = (
        None if texts == ("", "") else (parse_number(texts[0], coordinate), parse_number(texts[1], coordinate))
    )
