"""Checks of components that others have written: data sets, matchers, losses. An error names the component."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, MethodType

import numpy as np
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from sd4match.checks import check_choice
from sd4match.errors import ComponentError, DatasetError, InputError, SD4MatchError, shown
from sd4match.interfaces import Backbone, MatchingLoss, PairDataset, Prompt
from sd4match.structures.images import ImageBatch
from sd4match.structures.pairs import PairKey, PairRecord
from sd4match.structures.tensors import FeatureMap

_IMAGE_SIDE_LIMIT = 10**6


@contextmanager
def naming(components: Mapping[str, object]) -> Iterator[None]:
    """Turn exceptions of components from outside of sd4match into errors that name them.

    Errors of sd4match and those of memory pass, and so does everything that components of sd4match itself raise.

    Args:
        components: objects or functions that are called inside the block, by what messages call them.

    Raises:
        ComponentError: a component raised something; the message names both.

    >>> with naming({"the loss 'mine'": lambda: None}):
    ...     {}["x"]
    Traceback (most recent call last):
        ...
    sd4match.errors.ComponentError: the loss 'mine' raised KeyError: 'x'
    """
    try:
        yield
    except (SD4MatchError, MemoryError):
        raise
    except Exception as error:  # whatever a foreign component may raise
        is_of_memory = isinstance(error, RuntimeError) and should_reduce_batch_size(error)
        foreign = [what for what, component in components.items() if not _is_ours(component)]
        if is_of_memory or not foreign:
            raise
        raise ComponentError(f"{' or '.join(foreign)} raised {type(error).__name__}: {_first_line(error)}") from error


def _is_ours(component: object) -> bool:
    inner = _unwrapped(component)
    module = inner.__module__ if isinstance(inner, FunctionType | MethodType) else type(inner).__module__
    return str(module).startswith("sd4match.")


def _unwrapped(component: object) -> object:
    """Return what a cached backbone or the loss of a plain function wraps, and everything else as it is."""
    attribute = "backbone" if isinstance(component, Backbone) else "function"
    return getattr(component, attribute, component) if isinstance(component, Backbone | MatchingLoss) else component


def name_of(component: object) -> str:
    """Return how messages call a component: the name of its class, or of the function."""
    inner = _unwrapped(component)
    return str(getattr(inner, "__name__", type(inner).__name__))


def prompt_values(prompt: Prompt, images: ImageBatch) -> Tensor:
    """Return the prompt embeddings of B photos under a prompt that does not depend on pairs, (B, L, D).

    Raises:
        ComponentError: the prompt raises something, or returns no embedding of B photos or of all.
    """
    name = f"the prompt {name_of(prompt)}"
    with naming({name: prompt}):
        embedding: object = prompt(images)
    values = getattr(embedding, "values", None)
    if not isinstance(values, Tensor) or values.ndim != 3 or len(values) not in (1, len(images)):
        found = f"values {tuple(values.shape)}" if isinstance(values, Tensor) else shown(embedding)
        raise ComponentError(f"{name} must return a PromptEmbedding ({len(images)}, L, D), not {found}")
    return values.expand(len(images), -1, -1)


def check_maps(backbone: Backbone, maps: object, images: int) -> FeatureMap:
    """Return what a backbone extracted, if it is the feature maps of some images.

    Raises:
        ComponentError: it is something else.
    """
    if not isinstance(maps, FeatureMap) or len(maps) != images:
        found = f"maps of {len(maps)} images" if isinstance(maps, FeatureMap) else shown(maps)
        raise ComponentError(
            f"the backbone {name_of(backbone)} must return the FeatureMap of {images} images, not {found}"
        )
    return maps


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:300]


def check_instance(name: str, value: object, kind: type) -> None:
    """Check the class of an argument.

    Raises:
        InputError: it is of another class.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} must be a {kind.__name__}, not {shown(value)}")


def check_dataset(dataset: object, *, what: str = "the data set") -> None:
    """Check that a data set holds pairs, and says of each what it must.

    Raises:
        InputError: it is no `PairDataset`.
        DatasetError: it has no pair, or lists one twice.
        ComponentError: its length, keys, categories or reference are not what the interface says.
    """
    if not isinstance(dataset, PairDataset):
        raise InputError(f"{what} must be a PairDataset, not {shown(dataset)}")
    name = describe(dataset)
    with naming({name: dataset}):
        keys, length = tuple(dataset.keys), len(dataset)
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


def describe(dataset: PairDataset) -> str:
    """Return how messages call a data set: its name and split."""
    name, split = (getattr(dataset, part, None) for part in ("name", "split"))
    return f"the data set {name}, {split} split" if isinstance(name, str) else f"the data set {type(dataset).__name__}"


def read_pair(dataset: PairDataset, index: int) -> PairRecord:
    """Return a pair of a data set, checked.

    Raises:
        DatasetError, PhotoError: its annotation or a photo's header cannot be read.
        ComponentError: it raises something else, or what it returns is no annotation of that pair.
    """
    key = dataset.keys[index]
    where = f"{describe(dataset)}, pair {shown(key.pair_id)}"
    with naming({where: dataset}):
        record = dataset[index]
    problem = _problem_of(record, key)
    if problem:
        raise ComponentError(f"{where}: {problem}")
    return record


def _problem_of(record: object, key: PairKey) -> str | None:
    """Return what is wrong with a record; None if nothing is."""
    if not isinstance(record, PairRecord):
        return f"must be a PairRecord, not {shown(record)}"
    if (record.pair_id, record.source_id, record.target_id) != (key.pair_id, key.source_id, key.target_id):
        return f"is another pair than its key says: {shown(record.pair_id)}"
    visible = record.visible
    if not isinstance(visible, np.ndarray) or visible.dtype != np.bool_ or visible.ndim != 1:
        return "visible must be booleans (N,)"
    for name in ("source_points", "target_points"):
        points = getattr(record, name)
        if not isinstance(points, np.ndarray) or points.dtype.kind != "f" or points.shape != (len(visible), 2):
            return f"{name} must be floating-point numbers ({len(visible)}, 2)"
        if not np.isfinite(points[visible]).all():
            return f"{name} of visible points must be finite"
    for name in ("source_size", "target_size"):
        size = getattr(record, name)
        if len(size) != 2 or not all(0 < side < _IMAGE_SIDE_LIMIT for side in size):
            return f"{name} must be (height, width), not {shown(size)}"
    for name in ("source_box", "target_box"):
        box = getattr(record, name)
        if box is not None and not _is_box(box):
            return f"{name} must be finite (left, top, right, bottom), not {shown(box)}"
    return None


def _is_box(box: object) -> bool:
    sides = np.asarray(box, dtype=np.float64)
    if sides.shape != (4,) or not np.isfinite(sides).all():
        return False
    extent = sides[2:] - sides[:2]
    return bool((extent >= 0).all() and extent.max() > 0)
