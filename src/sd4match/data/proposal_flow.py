"""Readers that PF-Pascal and PF-Willow share: MATLAB annotations and lists of pairs in CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from sd4match.data.annotations import Points, check_columns, parse_number, read_lines
from sd4match.data.base import raise_problems
from sd4match.errors import DatasetError, shown
from sd4match.paths import require_file

_LARGEST_MAT = 1 << 24
"""Largest MATLAB annotation in bytes."""


@lru_cache(maxsize=4096)
def read_mat(path: Path, field: str) -> npt.NDArray[np.float64]:
    """Return one array of a MATLAB file.

    Raises:
        DatasetError: the file is missing or damaged, or has no such field.
    """
    from scipy.io import loadmat

    require_file(path, what="annotation", error=DatasetError)
    if path.stat().st_size > _LARGEST_MAT:
        raise DatasetError(f"not a readable annotation: {path} has more than {_LARGEST_MAT:,} bytes")
    if _is_cut(path.read_bytes()):
        raise DatasetError(f"not a readable annotation: {path} is cut off")
    try:
        content = loadmat(path, variable_names=[field])
    except Exception as error:  # scipy raises errors of any class for damaged files
        raise DatasetError(f"not a readable annotation: {path} ({' '.join(str(error).split())[:100]})") from None
    if field not in content:
        raise DatasetError(f"not a readable annotation: {path} has no {field}")
    values = content[field]
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise DatasetError(f"not a readable annotation: {path}: {field} holds no numbers")
    return values.astype(np.float64)


def _is_cut(content: bytes) -> bool:
    """Return whether a MATLAB 5 file ends inside a variable, which scipy silently omits."""
    order: Literal["little", "big"] = "little" if content[126:128] == b"IM" else "big"
    if content[126:128] not in (b"IM", b"MI"):
        return False  # another version
    end = 128
    while end < len(content):
        end += 8 + int.from_bytes(content[end + 4 : end + 8], order)
    return end > len(content)


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a CSV file; rows may be longer or shorter than the header.

    Raises:
        DatasetError: the file cannot be read, or is no CSV.
    """
    try:
        header, *rows = list(csv.reader(read_lines(path), skipinitialspace=True, strict=True)) or [[]]
    except csv.Error as error:
        raise DatasetError(f"{path} is not a readable table: {error}") from None
    return [name.strip() for name in header], [[cell.strip() or cell for cell in row] for row in rows]


def read_list(path: Path, *, known: Sequence[str], required: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a list of pairs in CSV.

    Args:
        path: path of the file.
        known: names of columns, to recognize misspelt ones.
        required: columns that must be there.

    Raises:
        DatasetError: the file cannot be read, lacks a column, has no row, or has a row that is not as long as its
            header.
    """
    header, rows = read_table(path)
    check_columns(header, known, required, str(path))
    if len(header) < 2:
        raise DatasetError(f"{path} is not a list of pairs: it has one column, {shown(header[0] if header else '')}")
    if not rows:
        raise DatasetError(f"{path} lists no pair")
    raise_problems(
        [
            f"{path} row {number} has {len(row)} columns; its header has {len(header)}"
            for number, row in enumerate(rows, start=1)
            if len(row) != len(header)
        ]
    )
    return header, rows


def parse_points(x: str, y: str, where: str) -> Points:
    """Return the points (N, 2) of a list's row; padding (-1, -1) becomes NaN.

    Args:
        x: N numbers separated by `;`.
        y: N numbers separated by `;`.
        where: file and row, for messages.

    Raises:
        DatasetError: the texts are not numbers, or not as many x as y.

    >>> parse_points("1;2;-1", "3;nan;-1", "row 1").tolist()
    [[1.0, 3.0], [2.0, nan], [nan, nan]]
    """
    axes = [
        [
            math.nan if number.strip().lower() == "nan" else parse_number(number, f"{where}: a coordinate")
            for number in text.strip(";").split(";")
        ]
        for text in (x, y)
    ]
    if len(axes[0]) != len(axes[1]):
        raise DatasetError(f"{where}: {len(axes[0])} x and {len(axes[1])} y")
    return mask_padding(np.array(axes, dtype=np.float64).T)


def mask_padding(points: Points) -> Points:
    """Return the points (N, 2) with NaN instead of the padding (-1, -1)."""
    return np.where((points == -1).all(axis=1, keepdims=True), np.nan, points)
