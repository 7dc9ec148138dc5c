"""Export of learned vectors as a new word for any diffusers pipeline (textual inversion)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from sd4match.errors import InputError, PromptFileError
from sd4match.interfaces import Backbone, Prompt
from sd4match.io.files import write_atomically
from sd4match.prompting.text import text_encoder_of
from sd4match.structures.images import ImageBatch


@torch.no_grad()
def export_textual_inversion(
    prompt: Prompt,
    path: str | Path,
    *,
    backbone: Backbone,
    images: ImageBatch,
    partners: ImageBatch | None = None,
    token: str = "<sd4match>",
) -> Path:
    """Write the token vectors of a prompt as the textual-inversion file of a new word.

    A pipeline adds position embeddings to the vectors of a word, whereas learned vectors are used as they are. The file
    therefore holds vectors minus position embeddings, and the text `token` alone gives the embedding of the prompt:

        pipeline.load_textual_inversion(path)
        pipeline(token)

    Args:
        prompt: prompt in token space: a Single, a Class for the category of `images`, a CPM for these photos.
        path: usually `something.safetensors`.
        backbone: backbone that the prompt conditions.
        images: one photo, or only its category, for prompts that depend on it.
        partners: the other photo of the pair, for prompts that depend on it.
        token: the new word.

    Returns:
        The path of the file.

    Raises:
        InputError: there are several photos, the new word is empty or has spaces around it, or the prompt has no token
            vectors: it is in hidden space, an implicit captioner, or not learned.
        PromptFileError: the file cannot be written.
    """
    if len(images) != 1:
        raise InputError(f"a textual inversion is of one prompt; {len(images)} photos were given")
    if not token or token != token.strip() or token == "__metadata__":
        raise InputError(f"the new word must be a word, for example <sd4match>, not {token!r}")
    vectors = prompt.token_vectors(images, partners)
    if vectors is None:
        raise InputError(
            f"a {type(prompt).__name__} in hidden space or without learned token vectors cannot be exported: textual "
            "inversion holds the input of the text encoder, not its output"
        )
    text_encoder = text_encoder_of(backbone)
    between = slice(1, vectors.shape[1] + 1)
    ids = text_encoder.template_ids(vectors.shape[1])
    positions = text_encoder.embed(ids[None])[0, between] - text_encoder.token_embeddings()[ids[between]]
    words = (vectors[0].to(positions) - positions).float().cpu().contiguous()
    path = Path(path)
    write_atomically(path, save({token: words}), error=PromptFileError)
    return path
