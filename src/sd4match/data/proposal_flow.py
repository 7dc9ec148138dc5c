"""What PF-Pascal and PF-Willow share: MATLAB annotations and lists of pairs as CSV."""

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
    """One array of a MATLAB file.

    Raises:
        DatasetError: missing, damaged, or without the field.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise DatasetError(f"no such annotation: {path}")
    try:
        content = loadmat(path, variable_names=[field])
    except Exception as error:  # scipy raises whatever the bytes lead it to
        raise DatasetError(f"not a readable annotation: {path} ({' '.join(str(error).split())[:100]})") from None
    if field not in content:
        raise DatasetError(f"not a readable annotation: {path} has no {field}")
    try:
        return np.asarray(content[field], dtype=np.float64)
    except (TypeError, ValueError):
        raise DatasetError(f"not a readable annotation: {path}: {field} holds no numbers") from None


def read_list(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV.

    Raises:
        DatasetError: not readable, no row, or a row of another length.
    """
    header, *lines = list(csv.reader(read_lines(path), skipinitialspace=True)) or [[]]
    if not lines:
        raise DatasetError(f"{path} lists no pair")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(header):
            raise DatasetError(f"{path} row {number} has {len(line)} columns; its header has {len(header)}")
    return header, lines


def listed_points(x: str, y: str, where: str) -> Points:
    """Points as a list holds them: `;` between numbers. Padding (-1, -1) becomes NaN.

    Returns:
        (N, 2).

    Raises:
        DatasetError: what stands there are no numbers, or not as many x as y.

    >>> listed_points("1;2;-1", "3;nan;-1", "row 1").tolist()
    [[1.0, 3.0], [2.0, nan], [nan, nan]]
    """
    try:
        axes = [[float(number) for number in text.strip(";").split(";")] for text in (x, y)]
    except ValueError:
        raise DatasetError(f"{where}: points must be numbers, not {x[:40]!r} and {y[:40]!r}") from None
    if len(axes[0]) != len(axes[1]):
        raise DatasetError(f"{where}: {len(axes[0])} x and {len(axes[1])} y")
    return without_padding(np.array(axes, dtype=np.float64).T)


def without_padding(points: Points) -> Points:
    """NaN in the place of (-1, -1), which is no point."""
    return np.where((points == -1).all(axis=1, keepdims=True), np.nan, points)
