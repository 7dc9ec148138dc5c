"""Drawing of pairs of animals from a seed: the same annotations and seed give the same pairs on any machine."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from sd4match.checks import check_choice, check_count
from sd4match.errors import InputError

Task = Literal["intra-species", "cross-species", "cross-family"]

MIN_POINTS = 3
"""Smallest number of visible points that the photos of a pair share."""
_MAX_CANDIDATES = 200_000


@dataclass(frozen=True)
class Animal:
    """Species, family and visible points of an annotated animal."""

    photo: str
    species: str
    family: str
    visible: tuple[bool, ...]


def draw_pairs(animals: Mapping[int, Animal], *, task: Task, pairs_per_group: int, seed: int) -> list[tuple[int, int]]:
    """Draw at most `pairs_per_group` ordered pairs for each group of sources.

    A group is a species (intra-species) or a family (otherwise). Its pairs come from a random stream of its own, so
    they do not depend on which other groups exist.

    Args:
        animals: animals by annotation id.
        task: "intra-species": the target is of the same species; "cross-species": of another species of the family;
            "cross-family": of another family.
        pairs_per_group: largest number of pairs of a group.
        seed: seed of the random streams.

    Returns:
        Annotation ids (source, target), group by group.

    Raises:
        InputError: the task is unknown, a number is out of bounds, or the animals have different numbers of points.

    >>> dogs = {n: Animal(f"{n}.jpg", "dog", "Canidae", (True,) * 5) for n in range(3)}
    >>> len(draw_pairs(dogs, task="intra-species", pairs_per_group=4, seed=0))
    4
    """
    check_choice("task", task, get_args(Task))
    check_count("pairs_per_group", pairs_per_group)
    check_count("seed", seed, 0)
    if len({len(animal.visible) for animal in animals.values()}) > 1:
        raise InputError("animals must have the same number of points")
    groups: dict[str, list[int]] = defaultdict(list)
    for animal_id in sorted(animals):
        animal = animals[animal_id]
        groups[animal.species if task == "intra-species" else animal.family].append(animal_id)
    chosen: list[tuple[int, int]] = []
    for name in sorted(groups):
        sources = groups[name]
        targets = sorted(animals) if task == "cross-family" else sources
        count = 0
        for candidate in _shuffled(len(sources) * len(targets), f"{seed} {task} {name}"):
            source, target = sources[candidate // len(targets)], targets[candidate % len(targets)]
            if _is_pair(animals[source], animals[target], task):
                chosen.append((source, target))
                count += 1
            if count == pairs_per_group:
                break
    return chosen


def _shuffled(count: int, name: str) -> Iterator[int]:
    """Iterate over the numbers below `count`, each once, in an order that depends on the name.

    If there are more than `_MAX_CANDIDATES`, iterate over a random choice of that many draws.
    """
    rng = np.random.default_rng(list(hashlib.blake2b(name.encode(), digest_size=16).digest()))
    if count <= _MAX_CANDIDATES:
        yield from rng.permutation(count).tolist()
    else:
        yield from dict.fromkeys(rng.integers(count, size=_MAX_CANDIDATES).tolist())


def _is_pair(source: Animal, target: Animal, task: Task) -> bool:
    if source.photo == target.photo or _count_shared(source.visible, target.visible) < MIN_POINTS:
        return False
    if task == "intra-species":
        return source.species == target.species
    if task == "cross-species":
        return source.species != target.species
    return source.family != target.family


def _count_shared(source: Sequence[bool], target: Sequence[bool]) -> int:
    return sum(a and b for a, b in zip(source, target, strict=True))
