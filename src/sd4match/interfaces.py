"""The seams. A part that has these methods fits, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from sd4match.structures.images import ImageBatch, Photo, View, Views
from sd4match.structures.pairs import PairKey, PairRecord, Reference
from sd4match.structures.specs import FeatureSpec, ImageFeatureSpec
from sd4match.structures.tensors import (
    Correlation,
    FeatureMap,
    ImageFeatures,
    Keypoints,
    Latents,
    Matches,
    ParameterGroup,
    PromptEmbedding,
    Sampling,
)

Scope = Literal["dataset", "category", "image", "pair"]
"""What a prompt depends on."""

Prepare = Callable[[Photo], View]
"""A photo -> somebody's view of it. Needs no weights, depends on the photo alone, is called from several threads."""


@runtime_checkable
class TextEncoder(Protocol):
    """A CLIP-like text transformer, opened where learned vectors go in."""

    width: int
    token_budget: int

    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "batch slots"]:
        """Ids with BOS, EOS and padding."""

    def frame_ids(self, slots: int) -> Int[Tensor, " slots"]:
        """BOS, `slots` place holders, EOS, padding."""

    def vocabulary(self) -> Float[Tensor, "tokens width"]:
        """The embedding of every token, without positions."""

    def embed(self, ids: Int[Tensor, "batch slots"]) -> Float[Tensor, "batch slots width"]:
        """Input of the transformer: vocabulary plus positions."""

    def transform(self, inputs: Float[Tensor, "batch slots width"]) -> Float[Tensor, "batch slots width"]:
        """Causal transformer and final layer norm; differentiable in its input."""


@runtime_checkable
class Backbone(Protocol):
    """Photo -> view -> latents -> feature map."""

    spec: FeatureSpec
    text: TextEncoder | None
    fingerprint: str
    """Identifies the weights, robust to their dtype; "unknown" if it cannot."""

    def prepare(self, photo: Photo) -> View:
        """The photo in this backbone's frame. Needs no weights, so it runs on the loader's threads."""

    def encode(self, views: Views) -> Latents:
        """Moments of the posterior. Does not depend on the prompt."""

    def extract(self, latents: Latents, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Features under a prompt; differentiable in the prompt."""


@runtime_checkable
class ImageEncoder(Protocol):
    """What conditional prompts look at."""

    spec: ImageFeatureSpec

    def prepare(self, photo: Photo) -> View:
        """The photo in this encoder's frame."""

    def encode(self, views: Views) -> ImageFeatures:
        """Local and pooled features."""


@runtime_checkable
class PromptProvider(Protocol):
    """Photos -> prompt. Those that learn are `torch.nn.Module`s."""

    scope: Scope

    def __call__(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """One prompt for each image."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """What there is to learn; [] if nothing."""


@runtime_checkable
class LooksAtPhotos(Protocol):
    """A prompt provider that wants views of the photos: `ImageBatch.views` will have them under these names."""

    views: Mapping[str, Prepare]


@runtime_checkable
class PairTransform(Protocol):
    """Two feature maps -> two feature maps, after they are computed."""

    def __call__(self, source: FeatureMap, target: FeatureMap) -> tuple[FeatureMap, FeatureMap]:
        """Both maps, transformed together."""


@runtime_checkable
class Matcher(Protocol):
    """Correlation -> matches."""

    def __call__(self, correlation: Correlation) -> Matches:
        """Points in original pixels of the target photos, with scores."""


@runtime_checkable
class FindsPlaces(Protocol):
    """A matcher that can leave out the scores, for who only counts."""

    def places(self, correlation: Correlation) -> Float[Tensor, "batch points 2"]:
        """`Matches.points`."""


@runtime_checkable
class ReadsCorners(Protocol):
    """A matcher that reads `Correlation.corners`, and so spares a product of its own where they are asked for."""

    reads_corners: Literal[True]


@runtime_checkable
class MatchingLoss(Protocol):
    """Correlation and true places -> a number to minimise. Those that learn are `torch.nn.Module`s."""

    def __call__(self, correlation: Correlation, targets: Keypoints) -> Float[Tensor, ""]:
        """Mean over the pairs that have a visible point."""


@runtime_checkable
class Learns(Protocol):
    """What a part can do that is learned beside others: a prompt, a loss with a temperature."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """What there is to learn; [] if nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """As `torch.nn.Module`."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object:
        """As `torch.nn.Module`."""


@runtime_checkable
class KnowsFloor(Protocol):
    """A loss that knows below which value it cannot fall, so that a training can show the excess over it."""

    def floor(self, correlation: Correlation, targets: Keypoints) -> Float[Tensor, ""]:
        """A lower bound for this batch, averaged as the loss is."""


@runtime_checkable
class HasReadings(Protocol):
    """A part with values worth watching while it is learned."""

    def readings(self) -> Mapping[str, float]:
        """By name; always the same names."""


@runtime_checkable
class EncodesByWeights(Protocol):
    """An encoder of photos whose `encode` depends on its weights and the view alone, so that it may be kept on disk."""

    def weights_digest(self) -> str | None:
        """Of the very weights that `encode` reads, and their dtype; None if that cannot be told."""


@runtime_checkable
class PairDataset(Protocol):
    """Pairs by number and photos by id, so that a photo in many pairs is decoded when it is wanted."""

    name: str
    split: str
    categories: tuple[str, ...]
    reference: Reference
    """What alpha is a share of in this benchmark, for measurements that follow the data set."""

    @property
    def keys(self) -> Sequence[PairKey]:
        """All pairs in order, without reading annotations."""

    def __len__(self) -> int:
        """Number of pairs."""

    def __getitem__(self, index: int) -> PairRecord:
        """One pair.

        Raises:
            DatasetError, PhotoError: its annotation or a photo's header cannot be read; the message names the file.
        """

    def __iter__(self) -> Iterator[PairRecord]:
        """All pairs in order."""

    def photo(self, image_id: str) -> Photo:
        """The photo of an id that stands in a pair, in the frame of its annotations; asked for from several threads."""
