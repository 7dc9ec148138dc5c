"""Tensors of learned prompts: names, shapes and values that a prompt file may hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sd4match.checks import check_shape
from sd4match.errors import InputError, PromptFileError, shown
from sd4match.prompting.config import (
    ClassPromptConfig,
    ConditionalPromptConfig,
    ImplicitCaptionerConfig,
    PromptConfig,
    SinglePromptConfig,
)

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes in which learned values may be stored."""


def check_tensors(tensors: Mapping[str, Tensor], config: PromptConfig, *, name: str, **sizes: int) -> None:
    """Check that tensors are those of a prompt with this config. For kinds of plugins, only the values are checked.

    Args:
        tensors: state dict of the prompt.
        config: config of the prompt.
        name: name of the file in messages.
        sizes: sizes that dimensions must have, by the letters of `shapes_of`.

    Raises:
        PromptFileError: a tensor is missing, surplus, of another type or shape, empty, or not finite.
    """
    shapes = shapes_of(config)
    if shapes is not None:
        check_names(tensors, shapes, name=name)
    elif not tensors:
        raise PromptFileError(f"{name} is damaged: it holds no tensors")
    for tensor, value in tensors.items():
        if shapes is not None or value.is_floating_point():
            check_values(value, name=f"{name} is damaged: {tensor}")
    found = {**_sizes_of(config), **sizes}
    for tensor, shape in (shapes or {}).items():
        try:
            found = check_shape(tensor, tensors[tensor], shape, of="floats", **found)
        except InputError as error:
            raise PromptFileError(f"{name} is damaged: {error}") from None


def check_names(found: Iterable[str], expected: Iterable[str], *, name: str) -> None:
    """Check that there are all expected tensors and no others.

    Args:
        found: names of the tensors.
        expected: expected names.
        name: name of the file in messages.

    Raises:
        PromptFileError: tensors are missing or surplus; the message names the first three.
    """
    found, expected = set(found), set(expected)
    problems = (("misses", sorted(expected - found)), ("holds surplus", sorted(found - expected)))
    wrong = [f"{problem} {len(names)} tensors: {shown(', '.join(names[:3]))}" for problem, names in problems if names]
    if wrong:
        raise PromptFileError(f"{name} is damaged: it {' and '.join(wrong)}")


def check_values(value: Tensor, *, name: str) -> None:
    """Check that a tensor is dense and not expanded, and holds floats that are finite in float32.

    Args:
        value: tensor from a file.
        name: name of the tensor in messages.

    Raises:
        PromptFileError: the tensor is of another dtype or layout, empty, expanded, or not finite.
    """
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.dtype not in FLOATS:
        kind = "a meta tensor" if value.is_meta else f"{value.dtype}, {value.layout}".replace("torch.", "")
        raise PromptFileError(f"{name} must be a dense tensor of float16, bfloat16, float32 or float64, not {kind}")
    if value.numel() == 0:
        raise PromptFileError(f"{name} holds no values: its shape is {tuple(value.shape)}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise PromptFileError(f"{name} stands for {value.numel():,} values, of which the file holds a part")
    finite = value.detach().float().isfinite()
    if not bool(finite.all()):
        count = int(value.numel() - finite.sum())
        raise PromptFileError(f"{name} is not finite: {count} of {value.numel()} values are NaN or infinite in float32")


def shapes_of(config: PromptConfig) -> dict[str, str] | None:
    """Return the shapes of the tensors of a learned prompt, in the notation of `check_shape`; None for plugins.

    S is the number of vectors of a prompt, G of its global vectors, L of text tokens, and P of patches. D is the width
    of the text encoder, and E the number of image features.

    Args:
        config: config of the prompt.

    >>> shapes_of(SinglePromptConfig())
    {'token_embeddings': 'S D'}
    """
    if isinstance(config, (SinglePromptConfig, ClassPromptConfig)):
        name, shape = ("token_embeddings", "S D") if config.space == "token" else ("hidden_states", "L D")
        if isinstance(config, SinglePromptConfig):
            return {name: shape}
        return {f"{name}.{row}": shape for row in range(len(config.categories))}
    if isinstance(config, ConditionalPromptConfig):
        shapes = {"alpha": "S D", "positions": "S D", "channel_linear.weight": "D E", "channel_linear.bias": "D"}
        if config.mixes_patches:
            shapes |= {"patch_linear.weight": "P P", "patch_linear.bias": "P"}
        if config.num_global_tokens:
            shapes["global_embeddings"] = "G D"
        return shapes
    if isinstance(config, ImplicitCaptionerConfig):
        return {"alpha": "L D", "positions": "L D", "linear.weight": "D E", "linear.bias": "D"}
    return None


def _sizes_of(config: PromptConfig) -> dict[str, int]:
    """Return the sizes that a config determines, by the letters of `shapes_of`."""
    sizes = {"S": getattr(config, "num_tokens", 0), "G": getattr(config, "num_global_tokens", 0)}
    side = getattr(getattr(config, "image_encoder", None), "side", None)
    return sizes if side is None else {**sizes, "P": side**2}
