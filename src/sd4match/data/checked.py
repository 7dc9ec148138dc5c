"""Checks of custom data sets; errors name the data set and the pair."""

from __future__ import annotations

from sd4match.checks import check_choice
from sd4match.errors import ComponentError, DatasetError, InputError, shown
from sd4match.interfaces import PairDataset
from sd4match.interfaces.calls import call_component
from sd4match.structures.pairs import PairKey, PairRecord


def check_dataset(dataset: object, *, what: str = "the data set") -> None:
    """Check that a data set holds pairs and follows its interface.

    Raises:
        InputError: it is not a `PairDataset`.
        DatasetError: it has no pair, or lists one twice.
        ComponentError: its length, keys, categories or reference do not follow the interface.
    """
    if not isinstance(dataset, PairDataset):
        raise InputError(f"{what} must be a PairDataset, not {shown(dataset)}")
    name = describe_dataset(dataset)
    keys, length = call_component("data set", dataset, lambda: (tuple(dataset.keys), len(dataset)))
    check_choice(f"reference of {name}", dataset.reference, ("box", "photo"))
    if length != len(keys):
        raise ComponentError(f"{name} says that it has {length} pairs, but its keys are {len(keys)}")
    for key in keys:
        texts = (key.pair_id, key.source_id, key.target_id) if isinstance(key, PairKey) else (None,)
        if not all(isinstance(text, str) for text in texts):
            raise ComponentError(f"{name}: keys must be of PairKey, with names that are texts, not {shown(key)}")
    if not keys:
        raise DatasetError(f"{name} has no pairs")
    seen: set[str] = set()
    for key in keys:
        if key.pair_id in seen:
            raise DatasetError(f"{name} lists the pair {shown(key.pair_id)} twice")
        seen.add(key.pair_id)


def describe_dataset(dataset: PairDataset) -> str:
    """Return the description of a data set in messages: its name and split."""
    name, split = (getattr(dataset, attribute, None) for attribute in ("name", "split"))
    return f"the data set {name}, {split} split" if isinstance(name, str) else f"the data set {type(dataset).__name__}"


def read_pair(dataset: PairDataset, index: int) -> PairRecord:
    """Return a pair of a data set, checked.

    Raises:
        DatasetError, PhotoError: its annotation or a photo's header cannot be read.
        ComponentError: it raises another error, or does not return the annotation of that pair.
    """
    key = dataset.keys[index]
    where = f"{describe_dataset(dataset)}, pair {shown(key.pair_id)}"
    try:
        record: object = call_component("data set", dataset, lambda: dataset[index])
    except ComponentError as error:
        raise ComponentError(f"{where}: {error}") from error.__cause__
    problem = _problem_of(record, key)
    if problem or not isinstance(record, PairRecord):
        raise ComponentError(f"{where}: {problem}")
    return record


def _problem_of(record: object, key: PairKey) -> str | None:
    """Return the fault of a record; None if there is none."""
    if not isinstance(record, PairRecord):
        return f"must be a PairRecord, not {shown(record)}"
    if (record.pair_id, record.source_id, record.target_id) != (key.pair_id, key.source_id, key.target_id):
        return f"is another pair than its key says: {shown(record.pair_id)}"
    return None
