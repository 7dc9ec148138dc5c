"""Pairs of synthetic photos, drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache

import numpy as np

from sd4match.data.config import Split
from sd4match.data.synthetic.anatomy import ANATOMIES
from sd4match.data.synthetic.scene import Scene, render
from sd4match.errors import DatasetError
from sd4match.structures.images import Photo
from sd4match.structures.pairs import PairKey, PairRecord, Reference

_STREAMS: dict[str, int] = {"train": 1, "validation": 2, "test": 3}
_PAIRS: dict[str, int] = {"train": 2_000, "validation": 160, "test": 480}
_PHOTOS: dict[str, int] = {"train": 120, "validation": 24, "test": 50}
_FEWEST_POINTS = 3
_STREAMS_A_SEED = 10


class SyntheticPairs:
    """A `PairDataset` of two different photos of one category, with at least three key points visible in both.

    Deterministic: (split, seed, sizes) give the same pairs and pixels on any machine. Photo ids are
    "category-number", numbers counting within the split.

    >>> dataset = SyntheticPairs(split="test", pairs=5)
    >>> len(dataset), dataset[0].target_points.shape[1], dataset.photo(dataset[0].source_id).size
    (5, 2, (96, 96))
    """

    name = "synthetic"
    categories = tuple(ANATOMIES)
    reference: Reference = "box"

    def __init__(
        self,
        *,
        split: Split = "train",
        pairs: int | None = None,
        photos_per_category: int | None = None,
        size: int = 96,
        distractors: float = 0.25,
        seed: int = 0,
    ) -> None:
        self.split: str = split
        self.size = size
        self.distractors = distractors
        self._pairs = pairs or _PAIRS[split]
        self._photos = photos_per_category or _PHOTOS[split]
        self._stream = seed * _STREAMS_A_SEED + _STREAMS[split]
        self._scene = lru_cache(maxsize=4096)(self._render)

    def __len__(self) -> int:
        return self._pairs

    def __iter__(self) -> Iterator[PairRecord]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> PairRecord:
        category, source_number, target_number = self._chosen[index]
        source, target = self.scene(f"{category}-{source_number}"), self.scene(f"{category}-{target_number}")
        both = source.visible & target.visible
        key = self.keys[index]
        return PairRecord(
            pair_id=key.pair_id,
            source_id=key.source_id,
            target_id=key.target_id,
            category=category,
            source_size=(self.size, self.size),
            target_size=(self.size, self.size),
            source_points=source.points,
            target_points=target.points,
            visible=both,
            source_box=source.box,
            target_box=target.box,
            difficulty=difficulty(source, target),
        )

    @cached_property
    def keys(self) -> tuple[PairKey, ...]:
        """All pairs."""
        return tuple(
            PairKey(
                pair_id=f"{index:05d}-{category}-{source}-{target}",
                source_id=f"{category}-{source}",
                target_id=f"{category}-{target}",
                category=category,
            )
            for index, (category, source, target) in enumerate(self._chosen)
        )

    def photo(self, image_id: str) -> Photo:
        """The pixels of "category-number"."""
        return Photo(self.scene(image_id).pixels, image_id)

    def scene(self, image_id: str) -> Scene:
        """Everything known about "category-number"."""
        category, _, number = image_id.partition("-")
        if category not in ANATOMIES or not number.isdigit() or int(number) >= self._photos:
            raise DatasetError(f"no photo {image_id!r} in the synthetic {self.split} split")
        return self._scene(category, int(number))

    def _render(self, category: str, number: int) -> Scene:
        index = self.categories.index(category) * 1_000_000 + number
        return render(self._stream, index, category=category, size=self.size, distractors=self.distractors)

    @cached_property
    def _chosen(self) -> list[tuple[str, int, int]]:
        rng = np.random.default_rng([self._stream, 7])
        chosen: list[tuple[str, int, int]] = []
        attempts = 0
        while len(chosen) < self._pairs:
            category = self.categories[len(chosen) % len(self.categories)]
            source, target = (int(n) for n in rng.choice(self._photos, size=2, replace=False))
            both = self._scene(category, source).visible & self._scene(category, target).visible
            if both.sum() >= _FEWEST_POINTS:
                chosen.append((category, source, target))
            attempts += 1
            if attempts > 50 * self._pairs + 1000:
                raise DatasetError("too few photos share three visible points; raise photos_per_category")
        return chosen


def difficulty(source: Scene, target: Scene) -> dict[str, int]:
    """SPair-71k's flags of a pair.

    Viewpoint and scale variation go from 0 (easy) to 2; truncation and occlusion: 0 none, 1 source, 2 target, 3 both.
    """
    turn = abs(source.turn - target.turn)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (source.box, target.box)]
    ratio = max(areas) / max(min(areas), 1e-6)
    return {
        "viewpoint_variation": 2 if source.mirrored != target.mirrored else int(turn > 15),
        "scale_variation": int(ratio > 1.5) + int(ratio > 2.5),
        "truncation": int(source.truncated) + 2 * int(target.truncated),
        "occlusion": int(source.occluded) + 2 * int(target.occluded),
    }
