"""Learned prompts that do not depend on the content of photos: one for all, or one for each category."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sd4match.arguments import check_arguments
from sd4match.checks import check_finite
from sd4match.errors import ConfigError, InputError, choose_from, shown
from sd4match.interfaces import Backbone, Prompt, Scope, TextEncoder
from sd4match.prompting.config import ClassPromptConfig, SinglePromptConfig
from sd4match.prompting.initial import initial_vectors, load_initial_weights
from sd4match.prompting.text import TextPrompt, clean_category, text_encoder_of
from sd4match.prompting.tokens import encode_token_vectors
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import PromptEmbedding


class SinglePrompt(Prompt):
    """SD4Match-Single: one learned prompt for all photos.

    In token space `token_embeddings` (num_tokens, D) are inserted between BOS and EOS; see
    `tokens.encode_token_vectors`. In hidden space `hidden_states` (L, D) are the prompt embedding itself.

    Args:
        config: None for the defaults.
        backbone: backbone that the prompt conditions.
        initialize: False leaves the parameters without values, for a state dict that is loaded next.

    Raises:
        ConfigError: the config does not fit the backbone.
        InputError: the backbone takes no prompt, or a text to start from is too long.

    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=backbone)
    >>> prompt(ImageBatch({}, (None, None))).values.shape
    torch.Size([2, 77, 8])
    """

    @check_arguments
    def __init__(
        self, config: SinglePromptConfig | None = None, *, backbone: Backbone, initialize: bool = True
    ) -> None:
        super().__init__()
        self.config: SinglePromptConfig = config or SinglePromptConfig()
        self.text_encoder = text_encoder_of(backbone)
        self.config.check_spec(backbone.spec)
        vectors = _empty_vectors(self.config, self.text_encoder)
        self.token_embeddings = vectors if self.config.space == "token" else None
        self.hidden_states = vectors if self.config.space == "hidden" else None
        if initialize:
            self.reset_parameters()
            load_initial_weights(self, self.config, backbone)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the vectors to the initial values that `config.init` and `config.seed` name.

        Raises:
            InputError: `config.init` is a text of more than `config.num_tokens` tokens.
        """
        for vectors in self.parameters():
            vectors.copy_(_initial_vectors(self.config, self.text_encoder, self.config.init, self.config.seed))

    @check_arguments
    def token_vectors(
        self, images: ImageBatch, partners: ImageBatch | None = None
    ) -> Float[Tensor, "batch tokens width"] | None:
        """Return the vectors (B, num_tokens, D) between BOS and EOS; None in hidden space.

        Args:
            images: B photos.
            partners: not used.
        """
        return None if self.token_embeddings is None else self.token_embeddings.expand(len(images), -1, -1)

    @check_arguments
    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return the prompt embedding (B, L, D), the same for every photo.

        Args:
            images: B photos.
            partners: not used.
        """
        if self.token_embeddings is None:
            assert self.hidden_states is not None
            check_finite("the hidden states of the prompt", self.hidden_states)
            return PromptEmbedding(self.hidden_states.expand(len(images), -1, -1))
        embedding = encode_token_vectors(self.text_encoder, self.token_embeddings[None])
        return PromptEmbedding(embedding.expand(len(images), -1, -1))


class ClassPrompt(Prompt):
    """SD4Match-Class: one learned prompt for each category.

    Each of `config.categories` has vectors as in `SinglePrompt`. The vectors of a category that is not in a batch get
    no gradient, so that a training step does not change them.

    Args:
        config: config with at least one category.
        backbone: backbone that the prompt conditions.
        initialize: False leaves the parameters without values, for a state dict that is loaded next.

    Raises:
        ConfigError: there are no categories, one is empty or appears twice, or the config does not fit the backbone.
        InputError: the backbone takes no prompt, or a text to start from is too long.

    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = ClassPrompt(ClassPromptConfig(categories=("cat", "car"), num_tokens=3), backbone=backbone)
    >>> prompt(ImageBatch({}, ("car", "cat"))).values.shape
    torch.Size([2, 77, 8])
    """

    scope: Scope = "category"

    @check_arguments
    def __init__(self, config: ClassPromptConfig | None = None, *, backbone: Backbone, initialize: bool = True) -> None:
        super().__init__()
        self.config: ClassPromptConfig = config or ClassPromptConfig()
        self.text_encoder = text_encoder_of(backbone)
        self.config.check_spec(backbone.spec)
        if not self.config.categories:
            raise ConfigError("a class prompt needs to know its categories: prompt.categories is empty")
        _check_categories(self.config.categories)
        vectors = nn.ParameterList(_empty_vectors(self.config, self.text_encoder) for _ in self.config.categories)
        self.token_embeddings = vectors if self.config.space == "token" else None
        self.hidden_states = vectors if self.config.space == "hidden" else None
        self._fallback = TextPrompt(backbone=backbone) if self.config.fallback == "text" else None
        if initialize:
            self.reset_parameters()
            load_initial_weights(self, self.config, backbone)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the vectors of each category to the initial values that `config.init` and `config.seed` name.

        Raises:
            InputError: `config.init` is a text of more than `config.num_tokens` tokens.
        """
        for row, (category, vectors) in enumerate(zip(self.config.categories, self.parameters(), strict=True)):
            init = self.config.init.format(category=clean_category(category))
            seed = self.config.seed * 1_009 + row
            vectors.copy_(_initial_vectors(self.config, self.text_encoder, init, seed))

    @check_arguments
    def row(self, category: str | None) -> int | None:
        """Return the index of a category in `config.categories`; None if the fallback is used for it.

        Args:
            category: category of a photo.

        Raises:
            InputError: the photo has no category, or one without a prompt.
        """
        if category is None:
            raise InputError("a class prompt needs the category of every photo, and one has none; name one")
        known = self.config.categories
        for name in (category, clean_category(category)):
            if name in known:
                return known.index(name)
        if self._fallback is not None:
            return None
        raise InputError(
            f"no prompt was learned for category {shown(category)}; {choose_from(category[:80], known)} "
            "(fallback = text takes the text template for other categories)"
        )

    @check_arguments
    def token_vectors(
        self, images: ImageBatch, partners: ImageBatch | None = None
    ) -> Float[Tensor, "batch tokens width"] | None:
        """Return the vectors (B, num_tokens, D) between BOS and EOS; None in hidden space or where a text is used.

        Args:
            images: B photos with their categories.
            partners: not used.

        Raises:
            InputError: a photo has no category, or one without a prompt.
        """
        rows = [self.row(category) for category in images.categories]
        if self.token_embeddings is None:
            return None
        known = [row for row in rows if row is not None]
        return torch.stack([self.token_embeddings[row] for row in known]) if len(known) == len(rows) else None

    @check_arguments
    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return the prompt embeddings (B, L, D); each category is encoded once.

        Args:
            images: B photos with their categories.
            partners: not used.

        Raises:
            InputError: a photo has no category, or one without a prompt.
        """
        by_category = {category: self._embed(category) for category in dict.fromkeys(images.categories)}
        return PromptEmbedding(torch.stack([by_category[category] for category in images.categories]))

    def _embed(self, category: str | None) -> Tensor:
        row = self.row(category)
        if row is None:
            assert self._fallback is not None
            return self._fallback(ImageBatch({}, (category,))).values[0]
        if self.token_embeddings is None:
            assert self.hidden_states is not None
            hidden: Tensor = self.hidden_states[row]
            check_finite(f"the hidden states of the prompt of {shown(category)}", hidden)
            return hidden
        return encode_token_vectors(self.text_encoder, self.token_embeddings[row][None])[0]


def _check_categories(categories: Sequence[str]) -> None:
    seen: set[str] = set()
    for category in categories:
        try:
            clean_category(category)
        except InputError as error:
            raise ConfigError(f"prompt.categories: {error}") from None
        if category in seen:
            raise ConfigError(f"prompt.categories names {shown(category)} twice")
        seen.add(category)


def _empty_vectors(config: SinglePromptConfig | ClassPromptConfig, text_encoder: TextEncoder) -> nn.Parameter:
    count = config.num_tokens if config.space == "token" else text_encoder.max_length
    return nn.Parameter(torch.empty(count, text_encoder.width))


def _initial_vectors(
    config: SinglePromptConfig | ClassPromptConfig, text_encoder: TextEncoder, init: str, seed: int
) -> Tensor:
    return initial_vectors(text_encoder, space=config.space, num_tokens=config.num_tokens, init=init, seed=seed)
