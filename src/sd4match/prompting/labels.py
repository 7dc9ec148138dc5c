"""Names of the tokens of a prompt by position: words of a text, or numbers of learned vectors."""

from __future__ import annotations

import torch

from sd4match.arguments import check_arguments
from sd4match.interfaces import Backbone, Prompt, TextEncoder
from sd4match.prompting.text import EmptyPrompt, TextPrompt, text_encoder_of
from sd4match.structures.images import ImageBatch

_WORD_END = "</w>"
"""Suffix of the last token of a word in the vocabulary of CLIP."""


@check_arguments
def token_labels(
    prompt: Prompt, images: ImageBatch, partners: ImageBatch | None = None, *, backbone: Backbone
) -> dict[int, str]:
    """Return names of the tokens of a prompt between BOS and EOS, by position, for pictures.

    Tokens of a text are named by words or fragments of words, vectors of a learned prompt by numbers from 1. A prompt
    in hidden space has a number for each of its tokens. The empty text has only "start" and "end".

    Args:
        prompt: prompt of any scope.
        images: one photo, with its category if the prompt needs it.
        partners: the other photo of a pair, for prompts of scope "pair".
        backbone: backbone that the prompt conditions.

    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> token_labels(EmptyPrompt(backbone=backbone), ImageBatch({}, (None,)), backbone=backbone)
    {0: 'start', 1: 'end'}
    """
    encoder = text_encoder_of(backbone)
    if isinstance(prompt, EmptyPrompt):
        return {0: "start", 1: "end"}
    if isinstance(prompt, TextPrompt):
        return dict(enumerate(_words(prompt.text(images.categories[0]), encoder), start=1))
    vectors = prompt.token_vectors(images, partners)
    if vectors is None:
        return {number: str(number + 1) for number in range(encoder.max_length)}
    return {number: str(number) for number in range(1, vectors.shape[1] + 1)}


def _words(text: str, encoder: TextEncoder) -> list[str]:
    """Return the tokens of a text, or their numbers if the text encoder has no attribute `tokenizer`."""
    tokenizer = getattr(encoder, "tokenizer", None)
    if tokenizer is not None:
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
        return [token.removesuffix(_WORD_END) for token in tokens]
    ids = encoder.tokenize([text])[0]
    lengths = range(encoder.max_length - 1)
    count = next(n for n in lengths if torch.equal(ids[n + 1 :], encoder.template_ids(n)[n + 1 :]))
    return [str(number + 1) for number in range(count)]
