"""Tokenizers of CLIP's text encoder, checked against it: a wrong vocabulary would change words without an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from transformers import CLIPTokenizer

from sd4match.backbones.model_files import Fields, read_json, refuse_pointers
from sd4match.backbones.network_fields import require
from sd4match.errors import CheckpointError, shown
from sd4match.hashing import digest
from sd4match.paths import is_file

_SENTENCE = "a photo of a cat"
_IDS = {
    49408: ("CLIP's", [49406, 320, 1125, 539, 320, 2368, 49407]),
    779: ("mini's", [777, 320, 675, 665, 320, 565, 339, 778]),
}
"""Ids of the sentence in the vocabularies of CLIP (of every Stable Diffusion 1 and 2) and of mini, by their size."""
_LEGACY_IDS = {"bos_token": (0,), "eos_token": (2,), "pad_token": (1,)}
"""Ids in configs of text encoders that are ignored: old defaults of transformers."""
_WORD_END = "</w>"
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def load_tokenizer(folder: Path, *, vocab_size: int, text_encoder: Mapping[str, object] | None = None) -> CLIPTokenizer:
    """Load the tokenizer of a text encoder.

    Args:
        folder: tokenizer folder of a model.
        vocab_size: number of tokens that the text encoder embeds.
        text_encoder: config of the text encoder; the ids of special tokens that it gives must be the tokenizer's.

    Raises:
        CheckpointError: it cannot be read, or is not that of the text encoder.
    """
    refuse_pointers(folder)
    settings = Fields(read_json(folder / "tokenizer_config.json"), str(folder / "tokenizer_config.json"))
    settings.whole("model_max_length", high=10**40, default=77)
    settings.choice("padding_side", ("right",), default="right")
    require(settings, "pad_token")
    for name in _SPECIAL:
        value = settings.content.get(name, "")
        if not isinstance(value.get("content") if isinstance(value, dict) else value, str):
            raise settings.refuse(f"{name} must be a token of the vocabulary, not {shown(value)}")
    file = folder / "tokenizer.json"
    whole = Fields(read_json(file) if is_file(file) else {}, str(file))
    for name in ("normalizer", "pre_tokenizer", "post_processor"):  # transformers may replace what is missing
        if not isinstance(whole.content.get(name, {}), dict):
            raise whole.refuse(f"{name} must be an object, as every tokenizer of CLIP has it")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tokens: Mapping[str, int] = tokenizer.get_vocab()
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        ids = tokenizer(_SENTENCE).input_ids
    except Exception as error:  # transformers and tokenizers raise many types of errors
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"cannot load the tokenizer in {folder}: {reason}") from None
    for name in _SPECIAL:
        if getattr(tokenizer, f"{name}_id") == vocab_size:  # transformers adds a token that it does not find
            raise settings.refuse(f"{name} {shown(getattr(tokenizer, name))} is not in the vocabulary")
    _check_vocabulary(tokens, vocab_size, folder)
    _check_merges(model, set(tokens) - set(tokenizer.get_added_vocab()), folder)
    for name in ("bos_token", "eos_token", "pad_token"):
        own, wanted = getattr(tokenizer, f"{name}_id"), (text_encoder or {}).get(f"{name}_id")
        allowed = (wanted, tokenizer.eos_token_id) if name == "pad_token" else (wanted,)
        if wanted in tokens.values() and wanted not in _LEGACY_IDS[name] and own not in allowed:
            raise settings.refuse(
                f"{name} is {shown(getattr(tokenizer, name))}, of id {own}, and the {name}_id of the text encoder is "
                f"{wanted}"
            )
    whose, known = _IDS.get(vocab_size, ("that of the text encoder", None))
    if known is not None and ids != known:
        raise CheckpointError(
            f"the tokenizer in {folder} is not {whose}: {_SENTENCE!r} must be {known}, not {ids[:12]}"
        )
    if tokenizer(_SENTENCE.upper()).input_ids != ids:
        raise CheckpointError(f"the tokenizer in {folder} must read capital letters as small ones, as CLIP's does")
    if vocab_size == max(_IDS) and tokenizer.pad_token_id not in (0, tokenizer.eos_token_id):
        raise settings.refuse(f"pad_token must be '!' or {tokenizer.eos_token}, not {shown(tokenizer.pad_token)}")
    return tokenizer


def _check_vocabulary(tokens: Mapping[str, int], vocab_size: int, folder: Path) -> None:
    """Check that the ids are those that the text encoder embeds, each once."""
    if sorted(tokens.values()) != list(range(vocab_size)):
        raise CheckpointError(
            f"the tokenizer in {folder} is not that of the text encoder: it has {len(tokens)} tokens with ids from "
            f"{min(tokens.values(), default=0)} to {max(tokens.values(), default=0)}, and the text encoder embeds ids "
            f"0 to {vocab_size - 1} (vocab_size {vocab_size})"
        )


def _check_merges(model: Mapping[str, object], words: set[str], folder: Path) -> None:
    """Check that tokens of several letters can be produced, which needs merges."""
    merges = model.get("merges")
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in (merges or ()))  # type: ignore[attr-defined]
    reached = {"".join(pair) for pair in pairs}
    long = {word for word in words if len(word.removesuffix(_WORD_END)) > 1}
    if len(long - reached) * 2 > len(long):
        raise CheckpointError(
            f"the tokenizer in {folder} lacks the merges of its vocabulary (merges.txt): {len(long - reached)} of its "
            f"{len(long)} tokens of several letters are never reached"
        )


def tokenizer_digest(tokenizer: CLIPTokenizer) -> str:
    """Return a digest of the vocabulary, of the special tokens, and of the ids of a padded sentence."""
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    ids = tokenizer(f"{_SENTENCE}, A Dog's 12 x", padding="max_length", max_length=32).input_ids
    return digest(sorted(tokenizer.get_vocab().items()), ends, ids)
