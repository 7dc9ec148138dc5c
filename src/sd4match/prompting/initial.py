"""Initial values of learned vectors, from random tokens, a text, uniform noise, or the file of another prompt."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.checks import check_finite
from sd4match.errors import InputError, PromptMismatchError, a, shown
from sd4match.interfaces import Backbone, Prompt, TextEncoder
from sd4match.prompting.config import ClassPromptConfig, ConditionalPromptConfig, SinglePromptConfig
from sd4match.prompting.serialization import check_fits, prompt_tensors, read_prompt
from sd4match.prompting.text import RANGE_HINT, check_plain, check_utf8
from sd4match.prompting.tokens import random_token_vectors

Space = Literal["token", "hidden"]
"""Space of what is learned: the input of the text transformer, or its output."""


@torch.no_grad()
def initial_vectors(
    text_encoder: TextEncoder, *, space: Space, num_tokens: int, init: str, seed: int
) -> Float[Tensor, "tokens width"]:
    """Return the initial values of learned vectors.

    Args:
        text_encoder: text encoder of the backbone.
        space: "token" for vectors (num_tokens, D) with positions added; "hidden" for (L, D), whatever `num_tokens` is.
        num_tokens: number of vectors between BOS and EOS.
        init: "random" for tokens of the vocabulary (U[0, 1) in hidden space), "uniform" for U[0, 1), "empty" for the
            empty text, or a text, followed by EOS and padding.
        seed: seed of the random values.

    Raises:
        InputError: the text is empty, is not UTF-8, has unknown tokens, or has more than `num_tokens` tokens.
        NonFiniteError: the weights of the text encoder make initial values that are NaN or infinite.

    >>> from sd4match.testing import FakeTextEncoder
    >>> initial_vectors(FakeTextEncoder(), space="token", num_tokens=3, init="empty", seed=0).shape
    torch.Size([3, 8])
    """
    if init == "uniform" or (init == "random" and space == "hidden"):
        count = num_tokens if space == "token" else text_encoder.max_length
        return torch.rand(count, text_encoder.width, generator=torch.Generator().manual_seed(seed))
    vectors = (
        random_token_vectors(text_encoder, num_tokens, seed=seed)
        if init == "random"
        else _text_vectors(text_encoder, "" if init == "empty" else _check_text(init), space, num_tokens)
    )
    check_finite(f"the initial values of init {shown(init)}", vectors, RANGE_HINT)
    return vectors


def _check_text(init: str) -> str:
    if not init.strip():
        raise InputError(f"init {shown(init)} has no words: 'empty' is the empty text")
    return check_utf8(init, name="init")


def _text_vectors(text_encoder: TextEncoder, text: str, space: Space, num_tokens: int) -> Tensor:
    check_plain(text, text_encoder)
    ids = text_encoder.tokenize([text])
    length = _text_length(ids[0], text_encoder)
    end = text_encoder.template_ids(0)[1]
    if text and (length == 0 or bool((ids[0, 1 : length + 1] == end).any())):  # EOS stands for unknown tokens
        raise InputError(f"init {shown(text)} has characters that the tokenizer does not know")
    embedded = text_encoder.embed(ids)
    if space == "hidden":
        return text_encoder.encode(embedded)[0].float()
    if length > num_tokens:
        raise InputError(f"init {shown(text)} has {length} tokens, and the prompt only {num_tokens}")
    return embedded[0, 1 : num_tokens + 1].float()


def _text_length(ids: Tensor, text_encoder: TextEncoder) -> int:
    """Return the number of tokens between BOS and EOS."""
    lengths = range(text_encoder.max_length - 1)
    return next(
        length for length in lengths if torch.equal(ids[length + 1 :], text_encoder.template_ids(length)[length + 1 :])
    )


def load_initial_weights(
    prompt: Prompt, config: SinglePromptConfig | ClassPromptConfig | ConditionalPromptConfig, backbone: Backbone
) -> None:
    """Load initial values from the file that the config's `start_from` names, if it names one.

    The file of a prompt of the same kind sets all parameters. The file of a Single sets the vectors of every category
    of a Class, and its first vectors are the global vectors of a CPM.

    Args:
        prompt: prompt with initialized parameters.
        config: config of the prompt.
        backbone: backbone that the prompt conditions.

    Raises:
        PromptFileError: the file cannot be read.
        PromptMismatchError: the file is of another architecture, layer, space, number of tokens, or of a kind from
            which this kind cannot start.
    """
    if config.start_from is None:
        return
    loaded = _state_from_file(config.start_from, config, backbone)
    own = prompt.state_dict()
    wrong = [name for name, value in loaded.items() if name not in own or own[name].shape != value.shape]
    if wrong:
        name = wrong[0]
        shape, expected = tuple(loaded[name].shape), tuple(own[name].shape) if name in own else "nothing"
        raise PromptMismatchError(
            f"{config.start_from} has {name} {shape}; this {config.kind} prompt has {expected} there"
        )
    prompt.load_state_dict({**own, **loaded})


def _state_from_file(
    path: str, config: SinglePromptConfig | ClassPromptConfig | ConditionalPromptConfig, backbone: Backbone
) -> dict[str, Tensor]:
    """Return the entries of a state dict that a prompt file determines."""
    info, tensors = read_prompt(path)
    tensors = prompt_tensors(tensors)
    check_fits(info, path, backbone)
    stored = info.config
    if stored.kind == config.kind:
        if (
            isinstance(config, ClassPromptConfig)
            and isinstance(stored, ClassPromptConfig)
            and stored.categories != config.categories
        ):
            raise PromptMismatchError(f"{path} holds prompts of other categories: {', '.join(stored.categories)}")
        return tensors
    if isinstance(config, SinglePromptConfig) or not isinstance(stored, SinglePromptConfig):
        raise PromptMismatchError(f"{a(config.kind)} prompt cannot start from {path}, which holds {a(stored.kind)}")
    space: Space = "token" if isinstance(config, ConditionalPromptConfig) else config.space
    if stored.space != space:
        raise PromptMismatchError(f"{path} was learned in {stored.space} space; this {config.kind} needs {space} space")
    if isinstance(config, ClassPromptConfig):
        ((name, vectors),) = tensors.items()
        return {f"{name}.{row}": vectors.clone() for row in range(len(config.categories))}
    vectors = tensors["token_embeddings"]
    count = config.num_global_tokens
    if len(vectors) < count:
        raise PromptMismatchError(
            f"{path} holds {len(vectors)} vectors; prompt.num_global_tokens = {count} needs as many"
        )
    return {"global_embeddings": vectors[:count].clone()} if count else {}
