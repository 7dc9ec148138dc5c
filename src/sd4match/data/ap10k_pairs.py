"""Pairs of animals, drawn with a seed: the same annotations and the same seed give the same pairs anywhere."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

FEWEST_POINTS = 3
"""A pair shares at least so many visible points."""
_LOOKED_AT = 200_000


@dataclass(frozen=True)
class Animal:
    """What the drawing looks at."""

    photo: str
    species: str
    family: str
    visible: tuple[bool, ...]


def draw_pairs(
    animals: Mapping[int, Animal],
    *,
    task: Literal["intra-species", "cross-species", "cross-family"],
    per_group: int,
    seed: int,
) -> list[tuple[int, int]]:
    """At most `per_group` ordered pairs for each group of sources.

    A group is a species (intra-species) or a family (the others). Its pairs come from a random stream of its own, so a
    group's pairs do not depend on which other groups there are.

    Args:
        animals: by annotation id.
        task: partners are of the same species; of another species of the family; or of another family.
        per_group: at most so many.
        seed: of the streams.

    >>> dogs = {n: Animal(f"{n}.jpg", "dog", "Canidae", (True,) * 5) for n in range(3)}
    >>> len(draw_pairs(dogs, task="intra-species", per_group=4, seed=0))
    4
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number in sorted(animals):
        one = animals[number]
        groups[one.species if task == "intra-species" else one.family].append(number)
    chosen: list[tuple[int, int]] = []
    for name in sorted(groups):
        partners = sorted(animals) if task == "cross-family" else groups[name]
        taken = 0
        for place in _shuffled(len(groups[name]) * len(partners), f"{seed} {task} {name}"):
            source, target = groups[name][place // len(partners)], partners[place % len(partners)]
            if _goes(animals[source], animals[target], task):
                chosen.append((source, target))
                taken += 1
            if taken == per_group:
                break
    return chosen


def _shuffled(count: int, name: str) -> Iterator[int]:
    """Numbers below `count` in an order that the name decides; of very many, only as many as one would look at."""
    rng = np.random.default_rng(list(hashlib.blake2b(name.encode(), digest_size=16).digest()))
    if count <= _LOOKED_AT:
        yield from rng.permutation(count).tolist()
    else:
        yield from dict.fromkeys(rng.integers(count, size=_LOOKED_AT).tolist())


def _goes(source: Animal, target: Animal, task: str) -> bool:
    if source.photo == target.photo or _shared(source.visible, target.visible) < FEWEST_POINTS:
        return False
    if task == "intra-species":
        return source.species == target.species
    if task == "cross-species":
        return source.species != target.species
    return source.family != target.family


def _shared(one: Sequence[bool], other: Sequence[bool]) -> int:
    return sum(a and b for a, b in zip(one, other, strict=True))
