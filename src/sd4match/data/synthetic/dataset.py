"""Pairs of synthetic photos, rendered on demand."""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

import numpy as np

from sd4match.arguments import check_arguments
from sd4match.data.base import check_split_name, pair_index
from sd4match.data.config import SyntheticConfig
from sd4match.data.synthetic.anatomy import ANATOMIES
from sd4match.data.synthetic.scene import Scene, render
from sd4match.errors import DatasetError, shown
from sd4match.interfaces import PairDataset
from sd4match.structures.images import Photo
from sd4match.structures.pairs import PairKey, PairRecord

_STREAMS: dict[str, int] = {"train": 1, "validation": 2, "test": 3}
_NUM_PAIRS: dict[str, int] = {"train": 2_000, "validation": 160, "test": 480}
_NUM_PHOTOS: dict[str, int] = {"train": 120, "validation": 24, "test": 50}
_MIN_POINTS = 3
_STREAMS_PER_SEED = 10
_CACHED_BYTES = 1 << 28
"""Largest memory of rendered photos of a data set."""


class SyntheticPairs(PairDataset):
    """Pairs of two different drawings of one category with at least three keypoints visible in both.

    Deterministic: a config gives the same pairs and pixels on any machine. Photo ids are "category-number", numbered
    within the split.

    Args:
        config: split, numbers and sizes; None: `SyntheticConfig()`.

    >>> from sd4match.data import SyntheticConfig
    >>> dataset = SyntheticPairs(SyntheticConfig(split="test", pairs=5))
    >>> len(dataset), dataset[0].target_points.shape[1], dataset.photo(dataset[0].source_id).size
    (5, 2, (96, 96))
    """

    name = "synthetic"
    categories = tuple(ANATOMIES)

    @check_arguments
    def __init__(self, config: SyntheticConfig | None = None) -> None:
        self.config = config if config is not None else SyntheticConfig()
        self.split = check_split_name(self.config.split)
        self._num_pairs = _NUM_PAIRS[self.split] if self.config.pairs is None else self.config.pairs
        photos = self.config.photos_per_category
        self._num_photos = _NUM_PHOTOS[self.split] if photos is None else photos
        self._stream = self.config.seed * _STREAMS_PER_SEED + _STREAMS[self.split]
        scene_bytes = 4 * self.config.size**2
        self._scene = lru_cache(maxsize=min(4096, max(8, _CACHED_BYTES // scene_bytes)))(self._render)
        self._visible = lru_cache(maxsize=None)(lambda category, number: self._scene(category, number).visible)

    def __len__(self) -> int:
        return self._num_pairs  # `keys` would render photos

    @check_arguments
    def __getitem__(self, index: int) -> PairRecord:
        key = self.keys[pair_index(index, len(self.keys))]
        source, target = self.scene(key.source_id), self.scene(key.target_id)
        size = self.config.size
        return PairRecord(
            pair_id=key.pair_id,
            source_id=key.source_id,
            target_id=key.target_id,
            category=key.category,
            source_size=(size, size),
            target_size=(size, size),
            source_points=source.points,
            target_points=target.points,
            visible=source.visible & target.visible,
            source_box=source.box,
            target_box=target.box,
            difficulty=difficulty(source, target),
        )

    @cached_property
    def keys(self) -> tuple[PairKey, ...]:  # type: ignore[override] # mypy takes cached properties for read-only
        """All pairs in order; computed when they are first read, because this renders photos."""
        return tuple(
            PairKey(
                pair_id=f"{index:05d}-{category}-{source}-{target}",
                source_id=f"{category}-{source}",
                target_id=f"{category}-{target}",
                category=category,
            )
            for index, (category, source, target) in enumerate(self._draw_pairs())
        )

    @check_arguments
    def photo(self, image_id: str) -> Photo:
        """Return a rendered photo.

        Args:
            image_id: "category-number".

        Raises:
            DatasetError: the split has no such photo.
        """
        return Photo(self.scene(image_id).pixels, image_id)

    @check_arguments
    def scene(self, image_id: str) -> Scene:
        """Return a rendered photo with its ground truth.

        Args:
            image_id: "category-number".

        Raises:
            DatasetError: the split has no such photo.
        """
        category, _, number = image_id.partition("-") if isinstance(image_id, str) else ("", "", "")
        if category not in ANATOMIES or not re.fullmatch("[0-9]{1,9}", number) or int(number) >= self._num_photos:
            raise DatasetError(f"no photo {shown(image_id)} in the synthetic {self.split} split")
        return self._scene(category, int(number))

    def _render(self, category: str, number: int) -> Scene:
        index = self.categories.index(category) * 1_000_000 + number
        config = self.config
        return render(self._stream, index, category=category, size=config.size, distractors=config.distractors)

    def _draw_pairs(self) -> list[tuple[str, int, int]]:
        """Draw (category, source number, target number) of all pairs; categories take turns."""
        rng = np.random.default_rng([self._stream, 7])
        pairs: list[tuple[str, int, int]] = []
        attempts = 0
        while len(pairs) < self._num_pairs:
            category = self.categories[len(pairs) % len(self.categories)]
            source, target = (int(n) for n in rng.choice(self._num_photos, size=2, replace=False))
            visible = self._visible(category, source) & self._visible(category, target)
            if visible.sum() >= _MIN_POINTS:
                pairs.append((category, source, target))
            attempts += 1
            if attempts > 50 * self._num_pairs + 1000:
                raise DatasetError("too few photos share three visible points; raise photos_per_category")
        return pairs


def difficulty(source: Scene, target: Scene) -> dict[str, int]:
    """Return SPair-71k's difficulty flags of a pair.

    Returns:
        Viewpoint and scale variation from 0 (easy) to 2; truncation and occlusion: 0 none, 1 source, 2 target, 3 both.
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
