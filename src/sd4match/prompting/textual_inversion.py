"""Learned vectors as new words for any diffusers pipeline (textual inversion)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from sd4match.errors import InputError, PromptFileError
from sd4match.interfaces import Backbone, PromptProvider
from sd4match.io.files import write_atomically
from sd4match.prompting.text import text_encoder_of
from sd4match.structures.images import ImageBatch


@torch.no_grad()
def export_textual_inversion(
    provider: PromptProvider,
    path: str | Path,
    *,
    backbone: Backbone,
    images: ImageBatch,
    partners: ImageBatch | None = None,
    token: str = "<sd4match>",
) -> Path:
    """Write the vectors that a prompt puts into the text slots as a textual-inversion file of `token`.

    A pipeline adds the position embedding of each slot to a word's vector; learned vectors are used as they are. So the
    file holds vectors minus positions, and the prompt `token` alone then gives the provider's embedding:

        pipeline.load_textual_inversion(path)
        pipeline(token)

    Args:
        provider: of token space: a Single, a Class for the category of `images`, a CPM for these photos.
        path: a .safetensors.
        backbone: whose text encoder knows the positions.
        images: one photo (or only its category), for providers that depend on it.
        partners: the other photo of a pair.
        token: the new word.

    Raises:
        InputError: more than one photo, a word that is none, or a prompt that is not made of token vectors: in hidden
            space, an implicit captioner, or not learned.
        PromptFileError: the file cannot be written.
    """
    if len(images) != 1:
        raise InputError(f"a textual inversion is of one prompt; {len(images)} photos were given")
    if not token or token != token.strip() or token == "__metadata__":
        raise InputError(f"the new word must be a word, for example <sd4match>, not {token!r}")
    token_vectors = getattr(provider, "token_vectors", None)
    vectors = None if token_vectors is None else token_vectors(images, partners)
    if vectors is None:
        raise InputError(
            f"a {type(provider).__name__} in hidden space or without learned token vectors cannot be exported: textual "
            "inversion holds what goes into the text encoder, not what comes out"
        )
    text = text_encoder_of(backbone)
    count = vectors.shape[1]
    ids = text.frame_ids(count)
    positions = text.embed(ids[None])[0, 1 : count + 1] - text.vocabulary()[ids[1 : count + 1]]
    words = (vectors[0].to(positions) - positions).float().cpu().contiguous()
    path = Path(path)
    write_atomically(path, save({token: words}), error=PromptFileError)
    return path
