"""Everything that is wrong with a data set on disk, found before a run finds it."""

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
    """One line of a check."""

    text: str
    is_problem: bool = True
    """False for what the data set's authors meant, for example points that are not annotated."""


def check_split(
    load: Callable[[], PairDataset], split: Split, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Finding]:
    """Look at every pair and every photo of one split.

    Args:
        load: makes the data set.
        split: which one it makes.
        progress: called with what is done and what there is, pairs and photos together.

    Yields:
        Missing lists, counts that differ from the published ones, missing or damaged annotations and photos, sizes that
        differ from the annotation's, points outside their photo, and points that are not numbers.
    """
    try:
        dataset = load()
    except DatasetError as error:
        yield Finding(f"{split}: {error}")
        return
    expected = getattr(dataset, "published_pairs", {}).get(split)
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
    told: set[str] = set()
    for index, key in enumerate(dataset.keys):
        try:
            record = dataset[index]
        except PhotoError:  # told above
            continue
        except DatasetError as error:
            if str(error) not in told:
                yield Finding(f"{split}: pair {key.pair_id}: {error}")
                told.add(str(error))
        else:
            yield from _check_record(record, sizes, split, told)
        progress(len(photos) + index + 1, total)


def _check_record(record: PairRecord, sizes: dict[str, Size], split: str, told: set[str]) -> Iterator[Finding]:
    """What is told of a photo once is not told again in its other pairs."""
    hidden = int((~record.visible).sum())
    if hidden:
        text = (
            f"{split}: pair {record.pair_id}: {hidden} of {len(record.visible)} points are NaN in a photo; not visible"
        )
        yield Finding(text, is_problem=not record.visible.any())
    for name, said, points in (
        (record.source_id, record.source_size, record.source_points),
        (record.target_id, record.target_size, record.target_points),
    ):
        height, width = said
        if name in sizes and sizes[name] != tuple(said) and f"size {name}" not in told:
            told.add(f"size {name}")
            real = f"{sizes[name][1]} x {sizes[name][0]}"
            yield Finding(
                f"{split}: pair {record.pair_id}: {name} is {real} pixels, its annotation says {width} x {height}"
            )
        shown = points[record.visible]
        outside = ((shown < 0) | (shown > np.array([width - 1, height - 1]))).any(axis=1)
        for x, y in shown[outside]:
            if f"{name} {x} {y}" not in told:
                told.add(f"{name} {x} {y}")
                yield Finding(
                    f"{split}: pair {record.pair_id}: point {x:g},{y:g} is outside {name}, which is {width} x {height}"
                )
