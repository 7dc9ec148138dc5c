"""Check of a data set on disk, which finds all its problems before a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from sd4match.arguments import check_arguments
from sd4match.data.base import DamagedListError, FilePairs, outside_photos, repeated_pairs
from sd4match.data.config import Split
from sd4match.errors import DatasetError, PhotoError
from sd4match.geometry import Size
from sd4match.interfaces import PairDataset
from sd4match.structures.pairs import PairRecord


@dataclass(frozen=True)
class Finding:
    """Line of the result of a check."""

    text: str
    is_problem: bool = True
    """False for properties that the authors intended, for example points that are not annotated."""


@check_arguments
def check_split(
    load: Callable[[], PairDataset], split: Split, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Finding]:
    """Check every pair and every photo of one split.

    Args:
        load: returns the data set; may raise DatasetError.
        split: name of the split in messages.
        progress: called with the number of checked pairs and photos, and the number of all.

    Yields:
        Missing or damaged lists, numbers of pairs that differ from the published ones, missing or damaged annotations
        and photos, sizes that differ from the annotation's, points and boxes outside their photo, pairs that are listed
        twice, and points that are not numbers.

    >>> from sd4match.data import SyntheticConfig
    >>> findings = check_split(SyntheticConfig(split="test", pairs=2).build, "test")
    >>> [finding.text for finding in findings if finding.is_problem]
    []
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pairs that are listed twice: each is found below
            dataset = load()
    except DamagedListError as error:
        yield from (Finding(f"{split}: {problem}") for problem in error.problems)
        return
    except DatasetError as error:
        yield Finding(f"{split}: {error}")
        return
    yield from _check_list(dataset, split)
    photos = list(dict.fromkeys(photo for key in dataset.keys for photo, _ in key.sides))
    total, sizes = len(dataset) + len(photos), dict[str, Size]()
    for done, photo in enumerate(photos, start=1):
        try:
            sizes[photo] = dataset.photo(photo).size
        except (PhotoError, DatasetError) as error:
            yield Finding(f"{split}: {error}")
        progress(done, total)
    problems = dataset.problems if isinstance(dataset, FilePairs) else ()
    reported: set[str] = set(problems)
    yield from (Finding(f"{split}: {problem}") for problem in problems)
    for index, key in enumerate(dataset.keys):
        try:
            record = dataset.read(index) if isinstance(dataset, FilePairs) else dataset[index]
        except PhotoError:  # reported with the photos
            pass
        except DatasetError as error:
            for problem in error.problems if isinstance(error, DamagedListError) else (str(error),):
                if problem not in reported:
                    yield Finding(f"{split}: pair {key.pair_id}: {problem}")
                    reported.add(problem)
        else:
            yield from _check_record(record, sizes, split, reported)
        progress(len(photos) + index + 1, total)


def _check_list(dataset: PairDataset, split: Split) -> Iterator[Finding]:
    """Check the list of pairs, without their annotations."""
    expected = dataset.published_pairs.get(split)
    if expected is not None and len(dataset) != expected:
        yield Finding(f"{split}: {len(dataset)} pairs; {expected} were published")
    for key in dataset.keys:
        if key.source_id == key.target_id:
            yield Finding(f"{split}: pair {key.pair_id}: {key.source_id} is paired with itself")
    twice = repeated_pairs(dataset.keys)
    if isinstance(dataset, FilePairs):
        yield from (Finding(f"{split}: {note}", is_problem=False) for note in dataset.notes)
        if twice and dataset.repeats_are_published:
            yield Finding(f"{split}: {len(twice)} pairs are listed twice, as published", is_problem=False)
            return
    for index in twice:
        key = dataset.keys[index]
        yield Finding(
            f"{split}: pair {key.pair_id}: {key.source_id} with {key.target_id} is listed twice, counts twice"
        )


def check_splits(load: Callable[[Split], PairDataset], splits: tuple[Split, ...]) -> Iterator[Finding]:
    """Check that splits share neither pairs nor photos.

    Args:
        load: returns a split; one that raises DatasetError is left out.
        splits: names of the splits.

    Yields:
        A line for two splits that share pairs, in any order of their photos, and a line for two that share photos.
    """
    datasets: dict[Split, PairDataset] = {}
    for split in splits:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                datasets[split] = load(split)
        except DatasetError:  # reported by `check_split`
            continue
    as_published = {
        split: isinstance(dataset, FilePairs)
        and dataset.published_overlaps
        and len(dataset) == dataset.published_pairs.get(split)
        for split, dataset in datasets.items()
    }
    for first, second in combinations(datasets, 2):
        is_problem = not (as_published[first] and as_published[second])
        published = "" if is_problem else ", as published"
        for what, of in (("pairs", _pairs_of), ("photos", _photos_of)):
            shared = sorted(of(datasets[first]) & of(datasets[second]))
            if shared:
                yield Finding(
                    f"{first} and {second} share {len(shared)} {what}{published}, first {shared[0]}", is_problem
                )


def _photos_of(dataset: PairDataset) -> set[str]:
    return {photo for key in dataset.keys for photo, _ in key.sides}


def _pairs_of(dataset: PairDataset) -> set[str]:
    return {" with ".join(sorted((key.source_id, key.target_id))) for key in dataset.keys}


def _check_record(record: PairRecord, sizes: Mapping[str, Size], split: str, reported: set[str]) -> Iterator[Finding]:
    """Check one pair.

    Args:
        record: the pair.
        sizes: actual sizes of the photos that could be decoded.
        split: name of the split in messages.
        reported: problems of photos and points that were reported with earlier pairs; extended by this one's.

    Yields:
        Problems of the pair that were not reported before.
    """
    where = f"{split}: pair {record.pair_id}"
    hidden = int((~record.visible).sum())
    if not record.visible.any():
        yield Finding(f"{where}: no point is visible in both photos")
    elif hidden:
        yield Finding(f"{where}: {hidden} of {len(record.visible)} points are NaN in a photo; not visible", False)
    problems = []
    for name, (height, width) in ((record.source_id, record.source_size), (record.target_id, record.target_size)):
        if name in sizes and sizes[name] != (height, width):
            actual = f"{sizes[name][1]} x {sizes[name][0]}"
            problems.append(f"{name} is {actual} pixels, its annotation says {width} x {height}")
    for problem in [*problems, *outside_photos(record)]:
        if problem not in reported:
            reported.add(problem)
            yield Finding(f"{where}: {problem}")
