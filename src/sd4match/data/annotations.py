"""Strict readers of numbers, points, boxes and names in annotations."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from sd4match.documents import parse_json
from sd4match.errors import (
    DatasetError,
    choose_from,
    control_character,
    decimal_of,
    is_unicode,
    is_visible,
    shown,
)
from sd4match.geometry import Size
from sd4match.paths import read_text
from sd4match.structures.images import LONGEST_SIDE_OF_PHOTOS
from sd4match.structures.pairs import Box

Points = npt.NDArray[np.float64]
"""(N, 2), (x, y) in pixels; NaN for points that are not annotated."""

_NO_CATEGORIES = ("true", "false", "null", "none", "nan")
_LARGEST_FILE = 1 << 28
"""Largest annotation or list in bytes."""


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file, with any line endings, without surrounding white space.

    Raises:
        DatasetError: the file cannot be read.
    """
    text = read_text(path, what="list", error=DatasetError, largest=_LARGEST_FILE)
    return [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]


def read_annotation(path: Path) -> Mapping[str, Any]:
    """Return the JSON object of a file.

    Raises:
        DatasetError: the file is missing, is not JSON, or holds no object.
    """
    text = read_text(path, what="annotation", error=DatasetError, largest=_LARGEST_FILE)
    content = parse_json(text, what=f"not a readable annotation: {path}", error=DatasetError)
    if not isinstance(content, dict):
        raise DatasetError(f"not a readable annotation: {path} holds no JSON object")
    return content


def field_of(content: object, field: str, where: str) -> Any:
    """Return a field of a JSON object.

    Raises:
        DatasetError: the value is no object, or the field is missing.
    """
    if not isinstance(content, Mapping):
        raise DatasetError(f"{where} must be a JSON object, not {shown(content)}")
    if field not in content:
        raise DatasetError(f"{where} has no {field}")
    return content[field]


def check_keys(content: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Check that an object has no other keys than those that are known.

    Raises:
        DatasetError: it has one; the message suggests the nearest known key.
    """
    for key in content:
        if key not in known:
            raise DatasetError(f"{where}: unknown key {shown(key)}; {choose_from(key[:80], known)}")


def parse_number(text: str, where: str) -> float:
    """Return a finite decimal number.

    Raises:
        DatasetError: the text is not a finite number.
    """
    number = decimal_of(text)
    if not math.isfinite(number):
        raise DatasetError(f"{where} must be a finite number, not {shown(text)}")
    return number


def as_numbers(values: Sequence[object], where: str) -> list[float]:
    """Return finite numbers of a JSON file as floats.

    Raises:
        DatasetError: a value is text, a boolean or anything else, or not finite.
    """
    numbers = []
    for value in values:
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
        if not math.isfinite(number):
            raise DatasetError(f"{where} must be a finite number, not {shown(value)}")
        numbers.append(number)
    return numbers


def as_whole(value: object, where: str, *, low: int, high: int | None = None) -> int:
    """Return a whole number within bounds.

    Raises:
        DatasetError: the value is not a whole number, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise DatasetError(f"{where} must be a whole number {bounds}, not {shown(value)}")
    return value


def as_word(value: object, where: str) -> str:
    """Return a text of one line with a visible character.

    Raises:
        DatasetError: the value is not such a text, holds a control character, or cannot be written as UTF-8.
    """
    if isinstance(value, str) and not is_unicode(value):
        raise DatasetError(f"{where} is no text: {ascii(value)[:80]} holds half of a surrogate pair")
    if not isinstance(value, str) or not is_visible(value):
        raise DatasetError(f"{where} must be a text that is not empty, not {shown(value)}")
    if control := control_character(value):
        raise DatasetError(f"{where} must be one line of text: {shown(value)} holds the control character {control!r}")
    return value


def as_category(value: object, where: str) -> str:
    """Return the name of a category, as JSON and tables write it.

    Raises:
        DatasetError: the value is no text of one line, or the text of a number, of true, false or nothing.
    """
    name = as_word(value, where)
    if name.strip().lower() in _NO_CATEGORIES or math.isfinite(decimal_of(name)):
        raise DatasetError(f"{where} must be a word that says what the photo shows, such as cat, not {shown(value)}")
    return name


def as_file_name(value: object, where: str) -> str:
    """Return the name of a file below the folder of a data set, such as `a.jpg` or `cats/a.jpg`.

    Raises:
        DatasetError: it is no text, is absolute, leaves the folder, or is not in its shortest form.
    """
    name = as_word(value, where)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        raise DatasetError(
            f"{where} must be the name of a file below the folder, such as cats/a.jpg, not {shown(name)}"
        )
    return name


def as_points(value: object, where: str) -> Points:
    """Convert a value of an annotation to points (N, 2).

    Args:
        value: list of [x, y], or an array, in which NaN stays NaN.
        where: file and field, for messages.

    Raises:
        DatasetError: the value has another shape, no point, or an item that is not a number.
    """
    if isinstance(value, np.ndarray):
        points = value
        value = value.tolist()
        if np.isinf(points).any():
            raise DatasetError(f"{where} has an infinite coordinate")
    else:
        rows = value if isinstance(value, list) else []
        pairs = [row for row in rows if isinstance(row, list) and len(row) == 2]
        points = np.empty(0)
        if len(pairs) == len(rows):
            points = np.array([as_numbers(row, where) for row in rows], dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise DatasetError(f"{where} must be points (x, y), at least one; it is {shown(value)}")
    return points


def as_box(value: object, where: str) -> Box:
    """Convert a value of an annotation to a box (left, top, right, bottom).

    Args:
        value: a list of four numbers.
        where: file and field, for messages.

    Raises:
        DatasetError: the value is not four finite numbers, or the box is empty.
    """
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise DatasetError(f"{where} must be left, top, right, bottom; it is {shown(value)}")
    left, top, right, bottom = as_numbers(value, where)
    if not (right > left and bottom > top):
        raise DatasetError(f"{where} has nothing inside: left, top, right, bottom = {shown(list(value))}")
    return left, top, right, bottom


def as_size(value: object, where: str) -> Size:
    """Convert SPair-71k's [W, H, channels] to (H, W).

    Args:
        value: value of the annotation.
        where: file and field, for messages.

    Raises:
        DatasetError: the value is not two or three whole numbers, or they are not positive.
    """
    if not isinstance(value, (list, tuple)) or len(value) not in (2, 3):
        raise DatasetError(f"{where} must be width, height; it is {shown(value)}")
    width, height = (as_whole(side, f"{where}: a side", low=1, high=LONGEST_SIDE_OF_PHOTOS) for side in value[:2])
    return height, width


def visible_in_both(source: Points, target: Points, where: str) -> npt.NDArray[np.bool_]:
    """Return the mask (N,) of points that are annotated, that is finite, in both photos.

    Args:
        source: (N, 2).
        target: (N, 2).
        where: file or pair, for messages.

    Raises:
        DatasetError: the photos have different numbers of points.
    """
    if len(source) != len(target):
        raise DatasetError(f"{where}: {len(source)} source points and {len(target)} target points")
    return np.asarray((np.isfinite(source) & np.isfinite(target)).all(axis=1))


def extent(points: Points, where: str) -> Box:
    """Return the smallest box around the finite points.

    Args:
        points: (N, 2).
        where: photo and pair, for messages.

    Raises:
        DatasetError: no point is finite.
    """
    finite = points[np.isfinite(points).all(axis=1)]
    if len(finite) == 0:
        raise DatasetError(f"{where} has no point")
    (left, top), (right, bottom) = finite.min(axis=0), finite.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def zero_invisible(points: Points, visible: npt.NDArray[np.bool_]) -> Points:
    """Return the points (N, 2) with invisible ones moved to (0, 0), so that no NaN leaves the data set."""
    return np.where(visible[:, None], points, 0.0)


def check_columns(header: Sequence[str], known: Sequence[str], required: Sequence[str], where: str) -> None:
    """Check the header of a table.

    Raises:
        DatasetError: a required column is missing, one appears twice, or one is nearly a known one.
    """
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise DatasetError(f"{where}: columns must be separated by commas, not {shown(header[0])}")
    for name in header:
        if header.count(name) > 1:
            raise DatasetError(f"{where}: the column {shown(name)} appears twice")
        hint = choose_from(name[:80], known)
        if name not in known and hint.startswith("did you mean"):
            raise DatasetError(f"{where}: unknown column {shown(name)}; {hint}")
    missing = [name for name in required if name not in header]
    if missing:
        raise DatasetError(f"{where} has no column {', '.join(missing)}; it has {shown(', '.join(header))}")
