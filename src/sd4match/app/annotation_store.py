"""Annotations of a user's photos, in the files of the data set `folder`. Every change is written to disk at once."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock

from sd4match.data.annotations import as_box, as_category, as_file_name, as_word
from sd4match.data.base import check_split_name, folder_of, raise_problems
from sd4match.data.folder import POINT_FILES, PhotoAnnotation, read_points
from sd4match.errors import DatasetError, InputError, shown
from sd4match.geometry import Size
from sd4match.io.files import check_no_link, write_atomically
from sd4match.io.locks import locked_folder
from sd4match.paths import exists, read_bytes
from sd4match.structures.images import Photo
from sd4match.structures.pairs import Box

Point = tuple[float, float] | None
"""(x, y) in pixels of a photo; None for a point that it does not show."""
Pair = tuple[str, str]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Endings of the names of photos."""
_OTHER_PICTURES = (
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".jfif",
)  # fmt: skip
"""Endings of pictures that cannot be read, which users are told about."""
_NAMED = 3
"""Largest number of names in one line; the line gives the number of the others."""
_MOST_PHOTOS = 10_000
_LARGEST_FILE = 1 << 28
_MOST_UNDONE = 100
_DECIMALS = 1
"""Number of decimals of a coordinate."""
_SHARES = (("test", 0.3), ("validation", 0.2))
_FEWEST = 2
"""Number of photos of a category that a split needs for a pair."""


@dataclass(frozen=True)
class Change:
    """Change that was made and can be undone."""

    text: str
    """Description that is shown after "Taken back:"."""
    photos: tuple[str, ...]
    point: str | None = None
    """Name that its point had before."""


class AnnotationStore:
    """Photos of a folder and their points, read from `points.json` or `points.csv` if there is one.

    Changes are checked and then written atomically: a process that is killed leaves the old file or the new one. Photos
    are never changed.

    Args:
        root: folder with photos, in it or in folders below it; the first folder is the category of a photo whose
            annotation names none.
        exif: whether points are in the frame that image viewers show; see the field `data.exif` of the data set.

    Raises:
        DatasetError: there is no such folder, it holds fewer than two photos or two files of points, or the file of
            points is damaged, of an unknown form, or a link.

    >>> import tempfile
    >>> import numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.png", "b.png"):
    ...     Photo(np.zeros((40, 60, 3), dtype=np.uint8)).to_image().save(folder / name)
    >>> with AnnotationStore.open(folder) as store:
    ...     store.mark("ear", {"a.png": (12.0, 8.0), "b.png": None})
    >>> AnnotationStore(folder).points("a.png")
    {'ear': (12.0, 8.0)}
    """

    def __init__(self, root: str | Path, *, exif: bool = False) -> None:
        self.root = folder_of(root, "the folder of photos")
        self.exif = exif
        self._lock = RLock()
        self.reload()

    @classmethod
    @contextmanager
    def open(cls, root: str | Path, *, exif: bool = False) -> Iterator[AnnotationStore]:
        """Lock the folder during a block, so that no other app or run writes into it.

        Raises:
            DatasetError: another app or run has locked it, it cannot be written, or as the class.
        """
        folder = folder_of(root, "the folder of photos")
        with locked_folder(folder, error=DatasetError):
            yield cls(folder, exif=exif)

    def reload(self) -> None:
        """Read the photos and the file of points again, and clear the list of changes that can be undone.

        Raises:
            DatasetError: as the class; the earlier content remains then.
        """
        with self._lock:
            photos, skipped = _photos_below(self.root)
            file, content = _file_of_points(self.root)
            annotations: dict[str, PhotoAnnotation] = {}
            listed: list[Pair] | None = None
            if content is not None:
                annotations, listed = read_points(file)
                raise_problems([problem for annotation in annotations.values() for problem in annotation.problems])
            self.pairs = self._pairs_to_annotate(photos, annotations, listed)
            self.file, self._content = file, content
            self.photos, self.skipped = photos, skipped
            self._annotations, self._listed = annotations, listed
            self._earlier: list[tuple[Change, dict[str, PhotoAnnotation], list[Pair] | None]] = []

    # reading ----------------------------------------------------------------------------------------------------------

    @property
    def has_boxes(self) -> bool:
        """True if the file can store boxes, which a table cannot."""
        return self.file.suffix == ".json"

    @property
    def alone(self) -> list[str]:
        """Photos that are in no pair, for example the only photo of its category."""
        paired = {photo for pair in self.pairs for photo in pair}
        return [photo for photo in self.photos if photo not in paired]

    @property
    def left_out(self) -> str:
        """Text about photos that are in no pair and files that are not read; empty if there are none."""
        alone = self.alone
        sentences = []
        if alone:
            who, whose = ("photo has", "its") if len(alone) == 1 else ("photos have", "their")
            where = f"{whose} category" if self._listed is None else "the pairs of the file"
            sentences.append(f"{len(alone)} {who} no partner in {where}: {_named(alone)}.")
        if self.skipped:
            sentences.append(f"{len(self.skipped)} skipped: {_named(self.skipped)}.")
        return " ".join(sentences)

    def photo(self, name: str) -> Photo:
        """Decode a photo in the frame of its points.

        Raises:
            PhotoError: it cannot be read.
        """
        return Photo.open(self.root / name, exif=self.exif)

    def points(self, photo: str) -> dict[str, Point]:
        """Return the points of a photo by name; None for a point that is annotated as not visible."""
        return dict(self._annotations[photo].points) if photo in self._annotations else {}

    def category(self, photo: str) -> str | None:
        """Return the category of a photo: the annotated one, or for a new photo the first folder of its name."""
        return self._category(self._annotations, photo)

    @staticmethod
    def _category(annotations: Mapping[str, PhotoAnnotation], photo: str) -> str | None:
        return annotations[photo].category if photo in annotations else _category_of_folder(photo)

    def split(self, photo: str) -> str | None:
        """Return the split of a photo, if it has one."""
        return self._annotations[photo].split if photo in self._annotations else None

    def box(self, photo: str) -> Box | None:
        """Return the box (left, top, right, bottom) of the object in a photo, if it has one."""
        return self._annotations[photo].box if photo in self._annotations else None

    @property
    def categories(self) -> list[str]:
        """Categories of all photos, sorted."""
        return sorted({category for photo in self.photos if (category := self.category(photo)) is not None})

    def names(self, photos: Sequence[str]) -> list[str]:
        """Return the names of all points of the categories of some photos, in the order in which they came."""
        return list(dict.fromkeys(name for photo in self._alike(photos) for name in self.points(photo)))

    def new_name(self, photos: Sequence[str]) -> str:
        """Return the name of a new point, which no photo of the same categories has."""
        taken = self.names(photos)
        return next(name for number in range(1, len(taken) + 2) if (name := f"point {number}") not in taken)

    def _alike(self, photos: Sequence[str]) -> list[str]:
        """Return some photos, and all annotated photos of their categories."""
        categories = {self.category(photo) for photo in photos}
        return [
            name
            for name, annotation in self._annotations.items()
            if name in photos or annotation.category in categories
        ]

    # changing ---------------------------------------------------------------------------------------------------------

    def mark(self, name: str, points: Mapping[str, Point]) -> None:
        """Set a point in photos.

        Coordinates are clamped to their photo and rounded to tenths of a pixel.

        Args:
            name: name of the point.
            points: (x, y) by photo; None for a photo that does not show the point.

        Raises:
            DatasetError: the name is not allowed, a photo is not in the folder, or the file cannot be written.
            PhotoError: a photo cannot be read.
        """
        as_word(name, "the name of a point")
        inside = {photo: point and self._inside(photo, point) for photo, point in points.items()}

        def change(annotations: dict[str, PhotoAnnotation]) -> None:
            for photo, point in inside.items():
                annotations[photo].points[name] = point

        self._change(change, Change(f"{name} on {_named(list(points))}", tuple(points), name))

    def remove(self, name: str, photos: Sequence[str]) -> None:
        """Remove a point from photos.

        Raises:
            DatasetError: the file cannot be written.
        """

        def change(annotations: dict[str, PhotoAnnotation]) -> None:
            for photo in photos:
                annotations[photo].points.pop(name, None)

        self._change(change, Change(f"the removal of {name} from {_named(photos)}", tuple(photos), name))

    def rename(self, old: str, new: str, photos: Sequence[str]) -> None:
        """Rename a point in all photos of the categories of some photos, since points of one name correspond.

        If other photos use the new name already, the points become one.

        Raises:
            DatasetError: the new name is not allowed, or a photo has both points; or as `mark`.
        """
        as_word(new, "the name of a point")
        if new == old:
            return
        holders = [photo for photo in self._alike(photos) if old in self.points(photo)]
        both = next((photo for photo in holders if new in self.points(photo)), None)
        if both is not None:
            raise DatasetError(f"{both} has another point {shown(new)}: give another name")

        def change(annotations: dict[str, PhotoAnnotation]) -> None:
            for photo in holders:
                points = annotations[photo].points
                annotations[photo].points = {new if name == old else name: point for name, point in points.items()}

        self._change(change, Change(f"the new name {new} of {old} on {_named(holders)}", tuple(holders), old))

    def describe(self, photos: Sequence[str], *, category: str | None) -> None:
        """Set the category of photos; None removes it.

        Raises:
            DatasetError: the name is not allowed; or as `mark`.
        """
        if category is not None:
            as_category(category, "the category")

        def change(annotations: dict[str, PhotoAnnotation]) -> None:
            for photo in photos:
                annotations[photo].category = category

        self._change(change, Change(f"the category {category or 'none'} of {_named(photos)}", tuple(photos)))

    def assign(self, photo: str, split: str | None) -> None:
        """Put a photo into a split; None removes it from its split.

        Raises:
            InputError: there is no such split.
            DatasetError: as `mark`.
        """
        if split is not None:
            check_split_name(split)

        def change(annotations: dict[str, PhotoAnnotation]) -> None:
            annotations[photo].split = split

        self._change(change, Change(f"the split {split or 'none'} of {photo}", (photo,)))

    def share_out(self) -> dict[str, int]:
        """Put every photo that shows a point into a split, so that a prompt is tested on photos it was not trained on.

        The photos of a category are sorted by name. The first half is for training, the next two tenths for validation,
        and the last three tenths for the test; each split gets two photos at least.

        Returns:
            Number of photos of each split.

        Raises:
            DatasetError: a category has fewer than six such photos; or as `mark`.
        """
        groups: dict[str | None, list[str]] = {}
        for name in sorted(self._annotations):
            if any(self.points(name).values()):
                groups.setdefault(self.category(name), []).append(name)
        splits: dict[str, str] = {}
        for category, names in groups.items():
            if len(names) < 3 * _FEWEST:
                what = "photos" if category is None else f"photos of {category}"
                raise DatasetError(
                    f"{what} that show points: {len(names)}; train, validation and test need two each: annotate six"
                )
            rest = list(names)
            for split, share in _SHARES:
                count = max(_FEWEST, round(share * len(names)))
                splits |= dict.fromkeys(rest[-count:], split)
                rest = rest[:-count]
            splits |= dict.fromkeys(rest, "train")
        if not splits:
            raise DatasetError("no photo shows a point yet")

        def change(annotations: dict[str, PhotoAnnotation]) -> None:
            for photo, split in splits.items():
                annotations[photo].split = split

        self._change(change, Change(f"the splits of {_named(sorted(splits))}", tuple(splits)))
        return {split: list(splits.values()).count(split) for split in ("train", "validation", "test")}

    def frame(self, photo: str, box: Box | None) -> None:
        """Set the box of the object in a photo, or remove it.

        Raises:
            DatasetError: the box is empty, or the file is a table, which has no boxes; or as `mark`.
        """
        if not self.has_boxes:
            raise DatasetError(f"{self.file.name} cannot hold boxes: only points.json can")
        if box is not None:
            left, top = self._inside(photo, (min(box[0], box[2]), min(box[1], box[3])))
            right, bottom = self._inside(photo, (max(box[0], box[2]), max(box[1], box[3])))
            box = as_box([left, top, right, bottom], "the box")

        def change(annotations: dict[str, PhotoAnnotation]) -> None:
            annotations[photo].box = box

        self._change(change, Change(f"{'the removal of ' if box is None else ''}the box of {photo}", (photo,)))

    def add_pair(self, source: str, target: str) -> int:
        """Return the index in `pairs` of two photos, in either order, after adding them if necessary.

        A new pair is also written to the file if the file lists its pairs.

        Raises:
            DatasetError: they are the same photo, or not in the folder; or as `mark`.
        """
        for photo in (source, target):
            self._check_photo(photo)
        if source == target:
            raise DatasetError(f"a pair has two photos, and {source} is one: choose another one beside it")
        for pair in ((source, target), (target, source)):
            if pair in self.pairs:
                return self.pairs.index(pair)
        if self._listed is not None:
            what = Change(f"the pair of {source} and {target}", (source, target))
            self._change(lambda annotations: None, what, pair=(source, target))
        self.pairs.append((source, target))
        return len(self.pairs) - 1

    def undo(self) -> Change | None:
        """Undo the last change, whichever page made it, and return it; None if there was none.

        Photos that the change added to the file remain there, without points.

        Raises:
            DatasetError: the file cannot be written.
        """
        with self._lock:
            if not self._earlier:
                return None
            undone, annotations, listed = self._earlier[-1]
            added = [name for name in self._annotations if name not in annotations]
            restored = {name: PhotoAnnotation(category=self._annotations[name].category) for name in added}
            changes_pairs = listed != self._listed
            self._write({**annotations, **restored}, listed)
            self._earlier.pop()
            if changes_pairs:
                self.pairs = self._pairs_to_annotate(self.photos, self._annotations, self._listed)
            return undone

    def _change(
        self,
        change: Callable[[dict[str, PhotoAnnotation]], None],
        what: Change,
        *,
        pair: Pair | None = None,
    ) -> None:
        """Write a change of the annotations.

        Args:
            change: function that is called with a copy of the annotations and changes it.
            what: description of the change; its photos without annotations are added with their category.
            pair: pair that is added to the listed ones.

        Raises:
            DatasetError: a photo is not in the folder, or the file cannot be written, or was changed meanwhile.
        """
        with self._lock:
            annotations = {
                name: replace(annotation, points=dict(annotation.points))
                for name, annotation in self._annotations.items()
            }
            for photo in what.photos:
                if photo not in annotations:
                    self._check_photo(photo)
                annotations.setdefault(photo, PhotoAnnotation(category=self.category(photo)))
            change(annotations)
            listed = self._listed if pair is None or self._listed is None else [*self._listed, pair]
            before = what, self._annotations, self._listed
            self._write(annotations, listed)
            self._earlier = [*self._earlier, before][-_MOST_UNDONE:]

    def _write(self, annotations: dict[str, PhotoAnnotation], listed: list[Pair] | None) -> None:
        content = _to_json(annotations, listed) if self.has_boxes else _to_csv(annotations, self.file)
        if content != self._content:
            file, found = _file_of_points(self.root)
            if found != self._content or file != self.file:
                raise DatasetError(
                    f"{self.file} was changed by another program, and is not overwritten: read the folder again"
                )
            write_atomically(self.file, content, error=DatasetError, durable=True)
        self._content = content
        self._annotations, self._listed = annotations, listed

    def _check_photo(self, photo: str) -> None:
        if photo not in self.photos:
            raise DatasetError(f"there is no photo {shown(photo)} in {self.root}")

    def _inside(self, photo: str, point: tuple[float, float]) -> tuple[float, float]:
        height, width = self.size(photo)
        x, y = (
            round(min(max(float(value), 0.0), side - 1.0), _DECIMALS)
            for value, side in zip(point, (width, height), strict=True)
        )
        return x, y

    def size(self, photo: str) -> Size:
        """Return (H, W) of a photo in the frame of its points.

        Raises:
            PhotoError: it cannot be read.
        """
        return self.photo(photo).size if self.exif else Photo.size_of(self.root / photo)

    def _pairs_to_annotate(
        self, photos: Sequence[str], annotations: Mapping[str, PhotoAnnotation], listed: Sequence[Pair] | None
    ) -> list[Pair]:
        """Return the pairs that are offered one after the other.

        These are the pairs that the file lists. If it lists none, the photo with the most points of each category is
        paired with each of the others, so that all share its points, and any two of them are a pair of the data set.

        Raises:
            DatasetError: the file lists pairs, and no pair has both photos in the folder.
        """
        if listed is not None:
            pairs = [pair for pair in listed if set(pair) <= set(photos)]
            if not pairs:
                raise DatasetError(f"{self.root} holds both photos of none of the pairs that its file of points lists")
            return pairs
        groups: dict[str | None, list[str]] = {}
        for photo in photos:
            groups.setdefault(self._category(annotations, photo), []).append(photo)
        return [pair for group in groups.values() for pair in _star(group, annotations)] or _star(photos, annotations)


def _star(photos: Sequence[str], annotations: Mapping[str, PhotoAnnotation]) -> list[Pair]:
    """Return the pairs of the photo with the most points and each of the others."""

    def visible(photo: str) -> int:
        return sum(point is not None for point in annotations[photo].points.values()) if photo in annotations else 0

    first = max(photos, key=visible)
    return [(first, other) for other in photos if other != first]


def _photos_below(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the photos in a folder and below it, and what is skipped there; both sorted.

    Hidden files and files that are no pictures are ignored.

    Raises:
        DatasetError: there are fewer than two photos, or too many.
    """
    names: list[str] = []
    skipped: list[str] = []

    def relative(path: str | Path) -> str:
        return Path(path).relative_to(root).as_posix()

    def skip_folder(error: OSError) -> None:
        skipped.append(f"{shown(relative(error.filename))} (a folder that cannot be read)")

    for folder, below, files in os.walk(root, onerror=skip_folder):
        below[:] = [name for name in below if not name.startswith(".")]
        skipped += [
            f"{shown(relative(link))} (a linked folder)"
            for entry in below
            if (link := Path(folder, entry)).is_symlink()
        ]
        for file in files:
            if file.startswith(".") or not file.lower().endswith((*SUFFIXES, *_OTHER_PICTURES)):
                continue
            name = relative(Path(folder, file))
            if not file.lower().endswith(SUFFIXES):
                skipped.append(f"{shown(name)} (convert it to .jpg or .png)")
                continue
            try:
                names.append(as_file_name(name, "a photo"))
            except DatasetError:
                skipped.append(f"{shown(name)} (a name that no file of points can hold)")
            if len(names) > _MOST_PHOTOS:
                raise DatasetError(f"{root} holds more than {_MOST_PHOTOS:,} photos: give a smaller folder")
    if len(names) < 2:
        found = f"only {names[0]}" if names else "no photo"
        also = f" ({len(skipped)} skipped: {_named(sorted(skipped))})" if skipped else ""
        raise DatasetError(f"{root} holds {found}{also}: two photos ({', '.join(SUFFIXES)}) are needed to make a pair")
    return tuple(sorted(names)), tuple(sorted(skipped))


def _named(names: Sequence[str]) -> str:
    """Return a list of names for one line, with the number of names that are left out."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _file_of_points(root: Path) -> tuple[Path, bytes | None]:
    """Return the file of points of a folder and its content; points.json and None if there is none.

    Raises:
        DatasetError: there are two, it is a link, or it cannot be read.
    """
    files = [root / name for name in POINT_FILES]
    found = [file for file in files if exists(file) or file.is_symlink()]
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise DatasetError(f"{root} holds {names}, of which one can be continued: move the other away")
    if not found:
        return files[0], None
    try:
        check_no_link(found[0], option="the file of points")
    except InputError as error:
        raise DatasetError(str(error)) from None
    return found[0], read_bytes(found[0], what="file of points", error=DatasetError, largest=_LARGEST_FILE)


def _category_of_folder(photo: str) -> str | None:
    folder, slash, _ = photo.partition("/")
    try:
        return as_category(folder, "the category") if slash else None
    except DatasetError:  # a folder such as 2024
        return None


def _plain(number: float) -> float | int:
    """Return a coordinate for a file, as an integer if possible."""
    return int(number) if number.is_integer() else number


def _to_json(annotations: Mapping[str, PhotoAnnotation], listed: Sequence[Pair] | None) -> bytes:
    photos = {
        name: {
            **({} if annotation.category is None else {"category": annotation.category}),
            **({} if annotation.split is None else {"split": annotation.split}),
            **({} if annotation.box is None else {"box": [_plain(side) for side in annotation.box]}),
            "points": {key: point and [_plain(value) for value in point] for key, point in annotation.points.items()},
        }
        for name, annotation in annotations.items()
    }
    lines = ",\n  ".join(f"{_dump(name)}: {_dump(photo)}" for name, photo in photos.items())
    pairs = "" if listed is None else ',\n "pairs": [\n  ' + ",\n  ".join(_dump(pair) for pair in listed) + "\n ]"
    return f'{{\n "photos": {{\n  {lines}\n }}{pairs}\n}}\n'.encode()


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _to_csv(annotations: Mapping[str, PhotoAnnotation], file: Path) -> bytes:
    """Return a table of points; the columns category and split are there if a photo has one.

    Raises:
        DatasetError: there is no point, so that the table could not be read again.
    """
    rows = [
        (name, annotation, key, point)
        for name, annotation in annotations.items()
        for key, point in annotation.points.items()
    ]
    if not rows:
        raise DatasetError(f"{file.name} needs a point: mark another one before you remove the last")
    has_category = any(annotation.category for _, annotation, _, _ in rows)
    has_split = any(annotation.split for _, annotation, _, _ in rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["photo", "point", "x", "y", *["category"] * has_category, *["split"] * has_split])
    for name, annotation, key, point in rows:
        x, y = ("", "") if point is None else map(_plain, point)
        writer.writerow(
            [name, key, x, y, *[annotation.category or ""] * has_category, *[annotation.split or ""] * has_split]
        )
    return text.getvalue().encode()
