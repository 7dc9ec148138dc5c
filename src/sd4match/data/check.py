"""Check of a data set on disk, which finds all its problems before a run meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sd4match.data.config import Split
from sd4match.errors import DatasetError, PhotoError
from sd4match.geometry import Size
from sd4match.interfaces import PairDataset
from sd4match.structures.pairs import PairRecord


@dataclass(frozen=True)
class Finding:
    """One line of the result of a check."""

    text: str
    is_problem: bool = True
    """False for what the authors of the data set intended, for example points that are not annotated."""


def check_split(
    load: Callable[[], PairDataset], split: Split, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Finding]:
    """Check every pair and every photo of one split.

    Args:
        load: returns the data set; may raise DatasetError.
        split: name of the split in messages.
        progress: called with the number of pairs and photos that are checked, and of all.

    Yields:
        Missing lists, numbers of pairs that differ from the published ones, missing or damaged annotations and photos,
        sizes that differ from the annotation's, points outside their photo, and points that are not numbers.

    >>> from sd4match.data import SyntheticConfig
    >>> findings = check_split(SyntheticConfig(split="test", pairs=2).build, "test")
    >>> [finding.text for finding in findings if finding.is_problem]
    []
    """
    try:
        dataset = load()
    except DatasetError as error:
        yield Finding(f"{split}: {error}")
        return
    expected = dataset.published_pairs.get(split)
    if expected is not None and len(dataset) != expected:
        yield Finding(f"{split}: {len(dataset)} pairs; {expected} were published")
    photos = list(dict.fromkeys(photo for key in dataset.keys for photo, _ in key.sides))
    total, sizes = len(dataset) + len(photos), dict[str, Size]()
    for done, photo in enumerate(photos, start=1):
        try:
            sizes[photo] = dataset.photo(photo).size
        except PhotoError as error:
            yield Finding(f"{split}: {error}")
        progress(done, total)
    reported: set[str] = set()
    for index, key in enumerate(dataset.keys):
        try:
            record = dataset[index]
        except PhotoError:  # reported with the photos
            continue
        except DatasetError as error:
            if str(error) not in reported:
                yield Finding(f"{split}: pair {key.pair_id}: {error}")
                reported.add(str(error))
        else:
            yield from _check_record(record, sizes, split, reported)
        progress(len(photos) + index + 1, total)


def _check_record(record: PairRecord, sizes: dict[str, Size], split: str, reported: set[str]) -> Iterator[Finding]:
    """Check one pair.

    Args:
        record: the pair.
        sizes: actual sizes of the photos that could be decoded.
        split: name of the split in messages.
        reported: problems of photos and points that were reported with earlier pairs; extended by this one's.

    Yields:
        What is wrong with the pair and was not reported before.
    """
    hidden = int((~record.visible).sum())
    if hidden:
        text = (
            f"{split}: pair {record.pair_id}: {hidden} of {len(record.visible)} points are NaN in a photo; not visible"
        )
        yield Finding(text, is_problem=not record.visible.any())
    for name, annotated_size, points in (
        (record.source_id, record.source_size, record.source_points),
        (record.target_id, record.target_size, record.target_points),
    ):
        height, width = annotated_size
        if name in sizes and sizes[name] != tuple(annotated_size) and f"size {name}" not in reported:
            reported.add(f"size {name}")
            actual = f"{sizes[name][1]} x {sizes[name][0]}"
            yield Finding(
                f"{split}: pair {record.pair_id}: {name} is {actual} pixels, its annotation says {width} x {height}"
            )
        visible = points[record.visible]
        outside = ((visible < 0) | (visible > np.array([width - 1, height - 1]))).any(axis=1)
        for x, y in visible[outside]:
            if f"{name} {x} {y}" not in reported:
                reported.add(f"{name} {x} {y}")
                yield Finding(
                    f"{split}: pair {record.pair_id}: point {x:g},{y:g} is outside {name}, which is {width} x {height}"
                )
