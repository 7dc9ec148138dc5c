"""Readers that PF-Pascal and PF-Willow share: MATLAB annotations and lists of pairs in CSV."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sd4match.data.base import Points, read_lines
from sd4match.errors import DatasetError


@lru_cache(maxsize=4096)
def read_mat(path: Path, field: str) -> npt.NDArray[np.float64]:
    """Return one array of a MATLAB file.

    Raises:
        DatasetError: the file is missing or damaged, or has no such field.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise DatasetError(f"no such annotation: {path}")
    try:
        content = loadmat(path, variable_names=[field])
    except Exception as error:  # scipy raises errors of any class for damaged files
        raise DatasetError(f"not a readable annotation: {path} ({' '.join(str(error).split())[:100]})") from None
    if field not in content:
        raise DatasetError(f"not a readable annotation: {path} has no {field}")
    try:
        return np.asarray(content[field], dtype=np.float64)
    except (TypeError, ValueError):
        raise DatasetError(f"not a readable annotation: {path}: {field} holds no numbers") from None


def read_list(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a CSV file.

    Raises:
        DatasetError: the file cannot be read, has no row, or has a row that is not as long as its header.
    """
    header, *rows = list(csv.reader(read_lines(path), skipinitialspace=True)) or [[]]
    if not rows:
        raise DatasetError(f"{path} lists no pair")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DatasetError(f"{path} row {number} has {len(row)} columns; its header has {len(header)}")
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
    try:
        axes = [[float(number) for number in text.strip(";").split(";")] for text in (x, y)]
    except ValueError:
        raise DatasetError(f"{where}: points must be numbers, not {x[:40]!r} and {y[:40]!r}") from None
    if len(axes[0]) != len(axes[1]):
        raise DatasetError(f"{where}: {len(axes[0])} x and {len(axes[1])} y")
    return mask_padding(np.array(axes, dtype=np.float64).T)


def mask_padding(points: Points) -> Points:
    """Return the points (N, 2) with NaN instead of the padding (-1, -1)."""
    return np.where((points == -1).all(axis=1, keepdims=True), np.nan, points)
