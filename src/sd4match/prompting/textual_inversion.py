"""Export of learned vectors as a new word for any diffusers pipeline (textual inversion)."""

from __future__ import annotations

import copy
import unicodedata
from pathlib import Path
from typing import Any

import torch

from sd4match.arguments import check_arguments
from sd4match.checks import check_finite
from sd4match.errors import InputError, PromptFileError, a, shown
from sd4match.interfaces import Backbone, Prompt, TextEncoder
from sd4match.io.files import check_output_file, to_safetensors, write_atomically
from sd4match.paths import as_path
from sd4match.prompting.serialization import stored_metadata
from sd4match.prompting.text import check_utf8, text_encoder_of
from sd4match.structures.images import ImageBatch

_METADATA = {"format": "pt", "writer": "sd4match"}
"""Metadata of files that `export_textual_inversion` writes; other readers take them as files of torch."""
LONGEST_WORD = 100
"""Largest number of characters of a new word."""


@torch.no_grad()
@check_arguments
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

    A pipeline adds position embeddings to the vectors of a word, whereas learned vectors are used without them. The
    file therefore holds vectors minus position embeddings, and the text `token` alone gives the embedding of the
    prompt:

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
        InputError: there is not one photo; diffusers would refuse, split or change the new word; the prompt has no
            token vectors, since it is in hidden space, an implicit captioner, or not learned; or `path` is an existing
            file that is no export.
        NonFiniteError: a vector is NaN or infinite.
        PromptFileError: the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> from sd4match.prompting import SinglePrompt, SinglePromptConfig
    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=backbone)
    >>> with TemporaryDirectory() as folder:
    ...     path = f"{folder}/word.safetensors"
    ...     export_textual_inversion(prompt, path, backbone=backbone, images=ImageBatch({}, (None,))).name
    'word.safetensors'
    """
    if len(images) != 1:
        raise InputError(f"a textual inversion is of one prompt; {len(images)} photos were given")
    path = check_export(as_path(path, what="path", error=PromptFileError), option="path")
    text_encoder = text_encoder_of(backbone)
    check_word(token)
    vectors = prompt.token_vectors(images, partners)
    if vectors is None:
        raise InputError(
            f"{a(type(prompt).__name__)} in hidden space or without learned token vectors cannot be exported: textual "
            "inversion holds the input of the text encoder, not its output"
        )
    _check_tokenizer(token, text_encoder, vectors.shape[1])
    between = slice(1, vectors.shape[1] + 1)
    ids = text_encoder.template_ids(vectors.shape[1])
    positions = text_encoder.embed(ids[None])[0, between] - text_encoder.token_embeddings()[ids[between]]
    words = (vectors[0].to(positions) - positions).float().cpu().contiguous()
    check_finite("the vectors of the prompt", words)
    write_atomically(path, to_safetensors({token: words}, _METADATA), error=PromptFileError)
    return path


def check_export(path: Path, *, option: str, inputs: tuple[Path, ...] = ()) -> Path:
    """Check that an export overwrites no other file of the user; an earlier export may be replaced.

    Args:
        path: file that will be written.
        option: name of the option in messages.
        inputs: files that are read; the output must be none of them.

    Returns:
        The path.

    Raises:
        InputError: the path is a folder, an input, or an existing file that is no export.
    """
    return check_output_file(
        path, option=option, inputs=inputs, what="textual inversion",
        is_own=lambda file: stored_metadata(file).items() >= _METADATA.items(),
    )  # fmt: skip


def check_word(token: object) -> None:
    """Check a new word by the rules that hold for every tokenizer of CLIP.

    Args:
        token: the new word.

    Raises:
        InputError: diffusers would refuse, split or change it; the message names the nearest word that fits.

    >>> check_word("<Cat>")
    Traceback (most recent call last):
        ...
    sd4match.errors.InputError: the new word '<Cat>' has letters that tokenizers of CLIP lower: try '<cat>'
    """
    if not isinstance(token, str) or not token or token != token.strip() or token == "__metadata__":
        raise InputError(f"the new word must be a word, for example <sd4match>, not {shown(token)}")
    check_utf8(token, name="the new word")
    if len(token) > LONGEST_WORD:
        raise InputError(f"the new word has {len(token)} characters; at most {LONGEST_WORD} fit")
    if any(character.isspace() for character in token):
        raise InputError(f"the new word {token!r} is several words: try {'-'.join(token.split())!r}")
    if not token.isprintable():
        raise InputError(f"the new word {token!r} has characters that are not printed: leave them out")
    plain = unicodedata.normalize("NFC", token)
    if plain != plain.lower():
        raise InputError(f"the new word {token!r} has letters that tokenizers of CLIP lower: try {plain.lower()!r}")
    if plain != token:
        raise InputError(f"the new word {token!r} has characters that tokenizers of CLIP join: try {plain!r}")
    if plain.startswith("<|"):
        raise InputError(f"the new word {token!r} looks like a special token of CLIP: try {_in_brackets(token)!r}")


def _in_brackets(token: str) -> str:
    """Return a similar word in angle brackets, which no vocabulary has."""
    return f"<{token.strip('<|>') or 'sd4match'}>"


def _check_tokenizer(token: str, text_encoder: TextEncoder, count: int) -> None:
    """Check that the tokenizer, with the words of `count` vectors added, maps each of them to one token.

    Raises:
        InputError: a word is already a token, or the tokenizer does not find the words in a text.
    """
    tokenizer: Any = getattr(text_encoder, "tokenizer", None)
    if tokenizer is None:  # the text encoder of a plugin may have none
        return
    words = [token, *(f"{token}_{number}" for number in range(1, max(count, 2)))]  # diffusers looks up _1 in any case
    tokens = tokenizer.get_vocab()
    if known := [word for word in words if word in tokens]:
        raise InputError(f"{known[0]!r} is a token already, and diffusers refuses it: try {_in_brackets(token)!r}")
    extended = copy.deepcopy(tokenizer)
    extended.add_tokens(words[:count])
    found = extended(" ".join(words[:count])).input_ids[1:-1]
    if extended.tokenize(token) != [token] or found != extended.convert_tokens_to_ids(words[:count]):
        raise InputError(f"the tokenizer splits or changes the new word {token!r}: try a word like '<sd4match>'")
