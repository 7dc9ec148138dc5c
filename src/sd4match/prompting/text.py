"""Prompts without parameters: the empty text, a text template, and no prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_finite, check_text
from sd4match.errors import InputError, is_visible, shown
from sd4match.interfaces import Backbone, TextEncoder
from sd4match.interfaces import Prompt as Prompt
from sd4match.prompting.config import EmptyPromptConfig, NoPromptConfig, TextPromptConfig
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import PromptEmbedding

RANGE_HINT = "bfloat16 and float32 have the range; where they fail too, the weights are damaged"
"""Remedy that messages suggest if the text encoder overflows."""
_ENDS = ("<|startoftext|>", "<|endoftext|>")
"""Tokens that begin and end a text in the vocabulary of CLIP."""


def text_encoder_of(backbone: Backbone) -> TextEncoder:
    """Return the text encoder of a backbone.

    Args:
        backbone: any.

    Raises:
        InputError: the backbone takes no prompt.
    """
    if backbone.text_encoder is None:
        raise InputError(f"the backbone ({backbone.spec.architecture}) takes no prompt")
    return backbone.text_encoder


def clean_category(category: str) -> str:
    """Return the words of a category, without underscores and the suffixes of PF-Willow.

    Args:
        category: name in a data set.

    Raises:
        InputError: it is no text, has no words, holds a control character, or cannot be written as UTF-8.

    >>> clean_category("car(G)"), clean_category("potted_plant")
    ('car', 'potted plant')
    """
    if not isinstance(category, str):
        raise InputError(f"a category must be text, not {shown(category)}")
    words = re.sub(r"\s*\(.*\)\s*$", "", check_utf8(category, name="the category")).replace("_", " ").strip()
    if not is_visible(words):
        raise InputError(f"the category {shown(category)} has no words: say what the photo shows")
    return check_text("the category", words)


def check_utf8(text: str, *, name: str) -> str:
    """Return a text after a check that a tokenizer can encode it.

    Args:
        text: any.
        name: name of the text in messages.

    Raises:
        InputError: the text contains surrogates, as command-line arguments that are not UTF-8 do.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} {shown(text)} is not UTF-8 text") from None
    return text


def check_plain(text: str, text_encoder: TextEncoder) -> None:
    """Check that a text contains no special token, which would cut off the text after it.

    Args:
        text: any.
        text_encoder: text encoder whose special tokens are checked, besides those of CLIP.

    Raises:
        InputError: the text contains a special token; the message names it.
    """
    tokenizer = getattr(text_encoder, "tokenizer", None)
    names = [getattr(tokenizer, f"{name}_token", None) for name in ("bos", "eos", "unk")]
    for special in {*_ENDS, *(name for name in names if isinstance(name, str) and len(name) > 1)}:
        if special in text:
            raise InputError(f"the text {shown(text)} holds {special}, which begins or ends a text: leave it out")


class TextEmbeddings:
    """Output of the text encoder for each text, computed once per text.

    Args:
        text_encoder: text encoder of the backbone.

    >>> from sd4match.testing import FakeTextEncoder
    >>> TextEmbeddings(FakeTextEncoder())(["cat", ""]).shape
    torch.Size([2, 77, 8])
    """

    def __init__(self, text_encoder: TextEncoder) -> None:
        self._text_encoder = text_encoder
        self._cache: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "batch tokens width"]:
        """Return the embeddings (B, L, D) of B texts.

        Args:
            texts: B texts.

        Raises:
            InputError: a text is too long, is not UTF-8, or holds a special token.
            NonFiniteError: the text encoder overflows.
        """
        for text in set(texts) - self._cache.keys():
            check_plain(text, self._text_encoder)
            ids = self._text_encoder.tokenize([check_utf8(text, name="the text")])
            values = self._text_encoder.encode(self._text_encoder.embed(ids))[0]
            check_finite(f"the embedded tokens of {shown(text)} in {values.dtype}", values, RANGE_HINT)
            self._cache[text] = values
        return torch.stack([self._cache[text] for text in texts])


class EmptyPrompt(Prompt):
    """Empty text as the prompt of every photo.

    Args:
        config: None for the default.
        backbone: backbone that the prompt conditions.

    Raises:
        InputError: the backbone takes no prompt.

    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> prompt = EmptyPrompt(backbone=FakeBackbone(text_encoder=FakeTextEncoder()))
    >>> prompt(ImageBatch({}, (None, None))).values.shape
    torch.Size([2, 77, 8])
    """

    @check_arguments
    def __init__(self, config: EmptyPromptConfig | None = None, *, backbone: Backbone) -> None:
        super().__init__()
        self.config = config or EmptyPromptConfig()
        self._embed = TextEmbeddings(text_encoder_of(backbone))

    @check_arguments
    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return the prompt embedding (B, L, D), the same for every photo.

        Args:
            images: B photos.
            partners: not used.
        """
        return PromptEmbedding(self._embed([""] * len(images)))


class TextPrompt(Prompt):
    """Text template filled in with the category of each photo.

    Args:
        config: None for the default template, "a photo of a {category}".
        backbone: backbone that the prompt conditions.

    Raises:
        InputError: the backbone takes no prompt.

    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = TextPrompt(TextPromptConfig(template="{category}"), backbone=backbone)
    >>> prompt(ImageBatch({}, ("cat", "fish"))).values.shape
    torch.Size([2, 77, 8])
    """

    @check_arguments
    def __init__(self, config: TextPromptConfig | None = None, *, backbone: Backbone) -> None:
        super().__init__()
        self.config: TextPromptConfig = config or TextPromptConfig()
        self.scope = "category" if "{category}" in self.config.template or self.config.by_category else "dataset"
        self._embed = TextEmbeddings(text_encoder_of(backbone))

    @check_arguments
    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return the prompt embeddings (B, L, D).

        Args:
            images: B photos, with their categories if the template contains {category}.
            partners: not used.

        Raises:
            InputError: the template needs a category and a photo has none, or the text is too long.
        """
        return PromptEmbedding(self._embed([self.text(category) for category in images.categories]))

    @check_arguments
    def text(self, category: str | None) -> str:
        """Return the text for a photo of a category.

        Args:
            category: category of the photo; None if it has none.

        Raises:
            InputError: the template needs a category, and there is none.
        """
        template = self.config.template
        if category is None and self.scope == "category":
            raise InputError(f"the prompt {template!r} needs a category, and the photo has none; name one")
        words = "" if category is None or self.scope == "dataset" else clean_category(category)
        template = self.config.by_category.get(category or "", template)
        return template.format(category=words)


class NoPrompt(Prompt):
    """Prompt with an empty embedding, for backbones that take no prompt.

    Args:
        config: None for the default.
        backbone: not used.

    >>> NoPrompt()(ImageBatch({}, (None, None))).values.shape
    torch.Size([2, 0, 1])
    """

    @check_arguments
    def __init__(self, config: NoPromptConfig | None = None, *, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.config = config or NoPromptConfig()

    @check_arguments
    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return an embedding without tokens, (B, 0, 1).

        Args:
            images: B photos.
            partners: not used.
        """
        return PromptEmbedding(torch.zeros(len(images), 0, 1))
