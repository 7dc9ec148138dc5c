"""Interfaces of the networks: text encoder, backbone, image encoder, prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sd4match.interfaces.learning import all_parameters
from sd4match.registry import Component
from sd4match.structures.images import ImageBatch, Photo, View, Views
from sd4match.structures.specs import FeatureSpec, ImageFeatureSpec
from sd4match.structures.tensors import (
    Encoded,
    FeatureMap,
    ImageFeatures,
    ParameterGroup,
    PromptEmbedding,
    Sampling,
)

Scope = Literal["dataset", "category", "image", "pair"]
"""Input that a prompt depends on."""

Prepare = Callable[[Photo], View]
"""Preprocessing of one photo for one model. It needs no weights, depends on the photo only, and runs in threads."""


class _Frozen(nn.Module, ABC):
    """Network whose weights are never learned."""

    @property
    def device(self) -> torch.device:
        """Device of the weights; the CPU if there are none."""
        return next((tensor.device for tensor in chain(self.parameters(), self.buffers())), torch.device("cpu"))


class TextEncoder(_Frozen):
    """Base class of text encoders: CLIP-like transformers, split where learned vectors are inserted.

    >>> from sd4match.testing import FakeTextEncoder
    >>> text_encoder = FakeTextEncoder()
    >>> ids = text_encoder.tokenize(["cat"])
    >>> ids.shape, text_encoder.encode(text_encoder.embed(ids)).shape
    (torch.Size([1, 77]), torch.Size([1, 77, 8]))
    """

    width: int
    """Width D of the token vectors."""
    max_length: int
    """Number L of tokens, with BOS, EOS and padding."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "batch tokens"]:
        """Return token ids (B, L) with BOS, EOS and padding.

        Args:
            texts: B texts.

        Raises:
            InputError: a text has more than L - 2 tokens.
        """

    @abstractmethod
    def template_ids(self, num_tokens: int) -> Int[Tensor, " tokens"]:
        """Return token ids (L,) of BOS, placeholders, EOS and padding.

        Args:
            num_tokens: number of placeholders, in [0, L - 2].

        Raises:
            ShapeError: they do not fit into L.
        """

    @abstractmethod
    def token_embeddings(self) -> Float[Tensor, "vocabulary width"]:
        """Return the embedding of every token of the vocabulary, without positions."""

    @abstractmethod
    def embed(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Return the input (B, L, D) of the transformer: token embeddings plus positions.

        Args:
            ids: (B, L) token ids.
        """

    @abstractmethod
    def encode(self, inputs: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Run the causal transformer and the final layer norm.

        Args:
            inputs: (B, L, D), as `embed` returns them. The result is differentiable in them.

        Returns:
            (B, L, D), the prompt embedding that cross-attention reads.
        """


class Backbone(_Frozen):
    """Base class of backbones: frozen networks from photos to feature maps, differentiable in the prompt.

    A subclass sets `spec`, and `text_encoder` and `fingerprint` where it has them. It defines `prepare`, `encode` and
    `extract`.

    >>> from sd4match.testing import FakeBackbone, random_photo
    >>> backbone = FakeBackbone()
    >>> encoded = backbone.encode(Views.of([backbone.prepare(random_photo())]))
    >>> prompt = PromptEmbedding(torch.zeros(1, 77, 8))
    >>> backbone.extract(encoded, prompt, Sampling(timestep=0)).values.shape
    torch.Size([1, 48, 8, 8])
    """

    spec: FeatureSpec
    """Shapes of its inputs and outputs."""
    text_encoder: TextEncoder | None
    """Encoder of text prompts; None for a backbone without a prompt."""
    fingerprint: str
    """Identifier of weights and settings (see `sd4match.fingerprints`), or "unknown"."""
    encoded_at_once: int
    """Number of photos that `encode` may compute together with the same bits as alone; 1 if that is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = None
        self.fingerprint = "unknown"
        self.encoded_at_once = 1

    @abstractmethod
    def prepare(self, photo: Photo) -> View:
        """Preprocess a photo, without weights. Called from several threads.

        Args:
            photo: any.

        Returns:
            (3, H, W) pixels of the model's image, and the frame that maps original pixels to it.
        """

    @abstractmethod
    def encode(self, views: Views) -> Encoded:
        """Compute everything that does not depend on the prompt, so that it can be cached.

        Args:
            views: B photos, as `prepare` returns them.

        Returns:
            Tensors by name, with B as first dimension, and the frames and keys of the views.

        Raises:
            ShapeError: the views have another size than the model's image.
        """

    @abstractmethod
    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Compute the feature maps of B photos.

        Args:
            encoded: B photos, as `encode` returns them.
            prompt: (B, L, D), or (1, L, D) for one prompt for all photos. Backbones that take no prompt ignore it.
            sampling: timestep, ensemble and noise.

        Returns:
            (B, C, h, w) features, and the grid of their cells.

        Raises:
            InputError: the backbone needs a prompt and there is none.
            ShapeError: the prompt has another width or batch.
        """

    def weights_digest(self) -> str | None:
        """Return a digest of everything but the views that `encode` depends on; None (default) if it is not known.

        Encoded photos are cached on disk only if the digest is known.
        """
        return None


class ImageEncoder(_Frozen):
    """Base class of image encoders: frozen networks whose features conditional prompts are computed from.

    >>> from sd4match.testing import FakeImageEncoder, random_photo
    >>> encoder = FakeImageEncoder()
    >>> features = encoder.encode(Views.of([encoder.prepare(random_photo())]))
    >>> features.local.shape, features.pooled.shape
    (torch.Size([1, 16, 48]), torch.Size([1, 48]))
    """

    spec: ImageFeatureSpec
    """Shapes of its features."""

    @abstractmethod
    def prepare(self, photo: Photo) -> View:
        """Preprocess a photo, without weights. Called from several threads.

        Args:
            photo: any.
        """

    @abstractmethod
    def encode(self, views: Views) -> ImageFeatures:
        """Compute the features of B photos.

        Args:
            views: B photos, as `prepare` returns them.

        Returns:
            Local features (B, P, d) of P patches, and pooled features (B, e).
        """

    def weights_digest(self) -> str | None:
        """Return a digest of everything but the views that `encode` depends on; None (default) if it is not known.

        Features are cached on disk only if the digest is known.
        """
        return None


class Prompt(nn.Module, ABC):
    """Base class of prompts, which compute prompt embeddings from photos and their categories.

    A subclass defines `forward` and, where the prompt is not the same for all photos, `scope`. Frozen networks that are
    assigned to an attribute (a text encoder, an image encoder, a backbone) are kept out of the parameters and of the
    state dict, so that only learned parameters are optimized, moved and saved.

    >>> class Constant(Prompt):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.vectors = nn.Parameter(torch.zeros(1, 77, 8))
    ...     def forward(self, images, partners=None):
    ...         return PromptEmbedding(self.vectors)
    >>> prompt = Constant()
    >>> prompt(ImageBatch({}, (None,))).values.shape, [group.name for group in prompt.parameter_groups()]
    (torch.Size([1, 77, 8]), ['prompt'])
    """

    scope: Scope = "dataset"
    """Input that the prompt depends on: none ("dataset"), the category, the image, or both images of the pair."""
    views: Mapping[str, Prepare] = MappingProxyType({})
    """Further preprocessing functions by name; their results are in `ImageBatch.views` of a batch."""
    config: Component | None = None
    """Config that the prompt was built from; needed to save it."""
    details: Mapping[str, Any] = MappingProxyType({})
    """Metadata about its training from the file that it was loaded from; {} if it was not loaded."""

    if TYPE_CHECKING:

        def __call__(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:  # noqa: D102
            ...

    @abstractmethod
    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return the prompt embeddings of B photos.

        Args:
            images: B photos.
            partners: the other photo of each pair, for prompts of scope "pair".

        Returns:
            (B, L, D), or (1, L, D) for one prompt for all photos.
        """

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the parameters to learn; by default all, at the base learning rate, or [] if there are none."""
        return all_parameters("prompt", self)

    def log_values(self) -> Mapping[str, float]:
        """Return values to log after every training step, by name; {} by default. The names must never change."""
        return {}

    def token_vectors(
        self, images: ImageBatch, partners: ImageBatch | None = None
    ) -> Float[Tensor, "batch tokens width"] | None:
        """Return the vectors between BOS and EOS, before the text encoder.

        Args:
            images: B photos.
            partners: the other photo of each pair, for prompts of scope "pair".

        Returns:
            (B, S, D); None (default) for a prompt without such vectors.
        """
        return None

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, _Frozen):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)
