"""Tokenizers of CLIP's text encoder, checked against it: another vocabulary would give other words without a word."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from transformers import CLIPTokenizer

from sd4match.backbones.model_files import Fields, read_json, refuse_pointers
from sd4match.errors import CheckpointError

_CLIP_VOCABULARY = 49408
_SENTENCE, _IDS = "a photo of a cat", [49406, 320, 1125, 539, 320, 2368, 49407]
"""A sentence and its ids in the vocabulary of CLIP, which every Stable Diffusion 1 and 2 has."""
_WORD_END = "</w>"


def load_tokenizer(folder: Path, *, vocabulary: int) -> CLIPTokenizer:
    """Load the tokenizer of a text encoder.

    Args:
        folder: tokenizer folder of a model.
        vocabulary: number of tokens that the text encoder embeds.

    Raises:
        CheckpointError: it cannot be read, or is not that of the text encoder.
    """
    refuse_pointers(folder)
    settings = Fields(read_json(folder / "tokenizer_config.json"), str(folder / "tokenizer_config.json"))
    settings.whole("model_max_length", high=10**40, default=77)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tokens: Mapping[str, int] = tokenizer.get_vocab()
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        ids = tokenizer(_SENTENCE).input_ids
    except Exception as error:  # transformers and tokenizers raise many types of errors
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"cannot load the tokenizer in {folder}: {reason}") from None
    _check_vocabulary(tokens, vocabulary, folder)
    _check_merges(model, set(tokens) - set(tokenizer.get_added_vocab()), folder)
    for name in ("bos_token", "eos_token", "pad_token"):
        if getattr(tokenizer, f"{name}_id") not in tokens.values():
            raise CheckpointError(f"the tokenizer in {folder} has no {name} in its vocabulary")
    if vocabulary == _CLIP_VOCABULARY and ids != _IDS:
        raise CheckpointError(f"the tokenizer in {folder} is not CLIP's: {_SENTENCE!r} must be {_IDS}, not {ids[:12]}")
    return tokenizer


def _check_vocabulary(tokens: Mapping[str, int], vocabulary: int, folder: Path) -> None:
    """Check that the ids are those that the text encoder embeds, each once."""
    if sorted(tokens.values()) != list(range(vocabulary)):
        raise CheckpointError(
            f"the tokenizer in {folder} is not that of the text encoder: it has {len(tokens)} tokens with ids from "
            f"{min(tokens.values(), default=0)} to {max(tokens.values(), default=0)}, and the text encoder embeds ids "
            f"0 to {vocabulary - 1} (vocab_size {vocabulary})"
        )


def _check_merges(model: Mapping[str, object], words: set[str], folder: Path) -> None:
    """Check that tokens of several letters can be reached, which they are only by merges."""
    merges = model.get("merges")
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in (merges or ()))  # type: ignore[attr-defined]
    reached = {"".join(pair) for pair in pairs}
    long = {word for word in words if len(word.removesuffix(_WORD_END)) > 1}
    if len(long - reached) * 2 > len(long):
        raise CheckpointError(
            f"the tokenizer in {folder} lacks the merges of its vocabulary (merges.txt): {len(long - reached)} of its "
            f"{len(long)} tokens of several letters are never reached"
        )
