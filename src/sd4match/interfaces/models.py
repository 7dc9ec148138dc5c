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
"""What a prompt depends on."""

Prepare = Callable[[Photo], View]
"""Preprocessing of one photo for one model. Needs no weights, depends on the photo only, may run in several threads."""


class _Frozen(nn.Module, ABC):
    """Network whose weights are never learned."""

    @property
    def device(self) -> torch.device:
        """Device of the weights; the CPU if there are none."""
        return next((tensor.device for tensor in chain(self.parameters(), self.buffers())), torch.device("cpu"))


class TextEncoder(_Frozen):
    """CLIP-like text transformer, split where learned vectors are inserted. Differentiable in its input."""

    width: int
    """D, the width of its vectors."""
    max_length: int
    """L, the number of tokens with BOS, EOS and padding."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "batch tokens"]:
        """Return token ids (B, L) with BOS, EOS and padding.

        Raises:
            InputError: a text has more than L - 2 tokens.
        """

    @abstractmethod
    def template_ids(self, num_tokens: int) -> Int[Tensor, " tokens"]:
        """Return ids (L,) of BOS, `num_tokens` placeholders, EOS and padding.

        Raises:
            ShapeError: they do not fit into L.
        """

    @abstractmethod
    def token_embeddings(self) -> Float[Tensor, "vocabulary width"]:
        """Return the embedding of every token of the vocabulary, without positions."""

    @abstractmethod
    def embed(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Return the input of the transformer: token embeddings plus positions."""

    @abstractmethod
    def encode(self, inputs: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Run the causal transformer and the final layer norm; differentiable in `inputs`."""


class Backbone(_Frozen):
    """Frozen network from photos to feature maps. Features are differentiable in the prompt.

    Subclasses set `spec`, and `text_encoder` and `fingerprint` where they have them.
    """

    spec: FeatureSpec
    """Shapes of what it takes and returns."""
    text_encoder: TextEncoder | None
    """None for a backbone without a prompt."""
    fingerprint: str
    """Text that tells its weights and settings from others (see `sd4match.fingerprints`), or "unknown"."""
    encoded_at_once: int
    """Photos that `encode` computes together without any effect on their bits; 1 if that is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = None
        self.fingerprint = "unknown"
        self.encoded_at_once = 1

    @abstractmethod
    def prepare(self, photo: Photo) -> View:
        """Preprocess a photo. Needs no weights; called from several threads."""

    @abstractmethod
    def encode(self, views: Views) -> Encoded:
        """Compute what does not depend on the prompt, so that it can be cached."""

    @abstractmethod
    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Compute the feature maps of B images.

        Args:
            encoded: B photos.
            prompt: (B, L, D), or (1, L, D) for one prompt for all; None for a backbone without a prompt.
            sampling: timestep, ensemble, noise.

        Raises:
            InputError: there is no prompt where one is needed.
            ShapeError: the prompt has another width or batch.
        """

    def weights_digest(self) -> str | None:
        """Return a digest of everything `encode` depends on besides the view; None (default) if it is not known.

        Encoded photos are cached on disk only under a known digest.
        """
        return None


class ImageEncoder(_Frozen):
    """Frozen network from photos to the image features that conditional prompts are computed from."""

    spec: ImageFeatureSpec
    """Shapes of what it returns."""

    @abstractmethod
    def prepare(self, photo: Photo) -> View:
        """Preprocess a photo. Needs no weights; called from several threads."""

    @abstractmethod
    def encode(self, views: Views) -> ImageFeatures:
        """Compute local (B, P, d) and pooled (B, e) features."""

    def weights_digest(self) -> str | None:
        """Return a digest of everything `encode` depends on besides the view; None (default) if it is not known."""
        return None


class Prompt(nn.Module, ABC):
    """Base class of prompts: from photos and their categories to prompt embeddings.

    A subclass defines `forward` and, where the prompt is not the same for all photos, `scope`. Frozen networks that are
    assigned to an attribute (a text encoder, an image encoder, a backbone) are kept out of the parameters and of the
    state dict, so that only what is learned is optimized, moved and saved.
    """

    scope: Scope = "dataset"
    """What the prompt depends on: nothing ("dataset"), the category, the image, or both images of the pair."""
    views: Mapping[str, Prepare] = MappingProxyType({})
    """Further preprocessing of the photos; a batch then has `ImageBatch.views` of these names."""
    config: Component | None = None
    """What the prompt was built from; needed to save it."""
    details: Mapping[str, Any] = MappingProxyType({})
    """Metadata about its training from the file that it was loaded from; {} if it was not loaded."""

    if TYPE_CHECKING:

        def __call__(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:  # noqa: D102
            ...

    @abstractmethod
    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return one prompt embedding per image, (B, L, D).

        Args:
            images: B photos.
            partners: the other photo of each pair, for prompts of scope "pair".
        """

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return what is learned: by default all parameters at the base learning rate; [] if there are none."""
        return all_parameters("prompt", self)

    def log_values(self) -> Mapping[str, float]:
        """Return values to log after every training step, by name, always the same names; {} by default."""
        return {}

    def token_vectors(
        self, images: ImageBatch, partners: ImageBatch | None = None
    ) -> Float[Tensor, "batch tokens width"] | None:
        """Return the vectors (B, S, D) between BOS and EOS; None (default) for a prompt that has none."""
        return None

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, _Frozen):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)
