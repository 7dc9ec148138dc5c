"""Example pairs of the app: drawings of the synthetic data set, rendered when the app starts."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from sd4match.data.config import SyntheticConfig
from sd4match.structures.images import Photo

_PHOTOS = (("fish-4", "fish-3"), ("bird-4", "bird-5"), ("car-2", "car-4"), ("robot-2", "robot-5"))
"""Pairs in which both photos show the whole object."""
_SIDE = 256


@dataclass(frozen=True, eq=False)
class ExamplePair:
    """Two photos of one category."""

    category: str
    source: Photo
    target: Photo

    def thumbnail(self) -> Image.Image:
        """Return both photos side by side."""
        picture = Image.new("RGB", (2 * _SIDE + 8, _SIDE), "white")
        for left, photo in ((0, self.source), (_SIDE + 8, self.target)):
            picture.paste(photo.to_image(), (left, 0))
        return picture


def example_pairs() -> list[ExamplePair]:
    """Render the pairs.

    >>> [pair.category for pair in example_pairs()]
    ['fish', 'bird', 'car', 'robot']
    """
    drawings = SyntheticConfig(split="test", size=_SIDE, distractors=0).build()
    return [
        ExamplePair(source.partition("-")[0], drawings.photo(source), drawings.photo(target))
        for source, target in _PHOTOS
    ]
