"""Configs of the fakes, which experiments name by `kind: fake`. Importing this module loads no torch.

The fakes are registered when `sd4match.testing` is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from typing_extensions import override

from sd4match.backbones.config import BackboneConfig, ImageEncoderConfig
from sd4match.checks import check_count
from sd4match.data.config import DatasetConfig
from sd4match.errors import InputError
from sd4match.registry import register
from sd4match.structures.specs import FeatureSpec

if TYPE_CHECKING:
    import torch

    from sd4match.interfaces import Backbone, ImageEncoder
    from sd4match.testing.fakes import FakeBackbone, FakePairs

FAKE_WIDTH = 8
"""Width of the text vectors of the fakes."""
FAKE_LENGTH = 77
"""Number of text tokens of the fakes, BOS and EOS included, as in Stable Diffusion."""
LARGEST_FAKE = 4096
"""Largest size of a fake: pixels, cells, pairs and so on."""


def fake_spec(side: int) -> FeatureSpec:
    """Return the shapes of a fake backbone.

    Args:
        side: side of its image in pixels, in [4, 4096].

    Raises:
        InputError: the side is out of range or no multiple of 4.
    """
    if check_count("side", side, 4, LARGEST_FAKE) % 4:
        raise InputError(f"side must be a multiple of 4, not {side}")
    return FeatureSpec(
        channels=48, stride=4, prompt_width=FAKE_WIDTH, max_length=FAKE_LENGTH, layers=1, native_size=(side, side),
        size_multiple=4, architecture="fake",
    )  # fmt: skip


@register
class FakeBackboneConfig(BackboneConfig):
    """Config of a backbone for tests, without weights: colors of patches, to which the prompt is added."""

    kind: Literal["fake"] = "fake"
    side: int = Field(default=32, ge=4, le=LARGEST_FAKE, multiple_of=4, description="side of its image in pixels")

    @override
    def spec(self) -> FeatureSpec:
        return fake_spec(self.side)

    @override
    def build(self, *, device: str | torch.device = "cpu") -> FakeBackbone:
        from sd4match.testing.fakes import FakeBackbone, FakeTextEncoder

        backbone = FakeBackbone(side=self.side, text_encoder=FakeTextEncoder()).to(device)
        backbone.fingerprint = f"{self.side}.0"  # fakes differ by their side only
        return backbone


@register
class FakeImageEncoderConfig(ImageEncoderConfig):
    """Config of an image encoder for tests, without weights: colors of patches."""

    kind: Literal["fake"] = "fake"

    @override
    def build(self, *, backbone: Backbone) -> ImageEncoder:
        from sd4match.testing.fakes import FakeImageEncoder

        encoder: ImageEncoder = self.attach(FakeImageEncoder().to(backbone.device), backbone=backbone)
        return encoder


@register
class FakePairsConfig(DatasetConfig):
    """Config of a data set for tests: pairs of random photos with random points."""

    kind: Literal["fake"] = "fake"
    pairs: int = Field(default=6, ge=1, le=LARGEST_FAKE, description="number of pairs of each split")
    photos: int = Field(default=4, ge=2, le=LARGEST_FAKE, description="number of photos they are drawn from")
    points: int = Field(default=5, ge=1, le=LARGEST_FAKE, description="points of even pairs; odd ones have one more")

    def build(self) -> FakePairs:
        """Return the data set."""
        from sd4match.testing.fakes import FakePairs

        return FakePairs(pairs=self.pairs, photos=self.photos, points=self.points, split=self.split)
