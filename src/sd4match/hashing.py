"""Digests of content."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def digest(*parts: object) -> str:
    """Return a digest of the bytes of tensors and of the `repr` of everything else.

    >>> digest("a", 1) == digest("a", 1), digest("a", 1) == digest("a1")
    (True, False)
    """
    state = hashlib.blake2b(digest_size=20)
    for part in parts:
        if isinstance(part, Tensor):
            header, content = f"{part.dtype} {tuple(part.shape)} ".encode(), bytes_of(part)
        else:
            header, content = b"", memoryview(repr(part).encode())
        state.update((len(header) + content.nbytes).to_bytes(8, "little") + header)
        state.update(content)
    return state.hexdigest()


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor; they are copied only if it is not contiguous on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def weights_digest(*modules: nn.Module) -> str:
    """Return a digest of every weight and buffer of some modules, with its dtype."""
    found = [(name, one) for module in modules for name, one in (*module.named_parameters(), *module.named_buffers())]
    return digest(*(part for item in sorted(found, key=lambda item: item[0]) for part in item))


def sampled_weights(module: nn.Module, count: int = 24) -> str:
    """Return some weights of a module as text, equal up to 1 % for the same weights in another dtype or saved again.

    Args:
        module: its matrices and kernels are sampled; vectors are skipped.
        count: number of sampled tensors.
    """
    tensors = [value for _, value in sorted(module.state_dict().items()) if value.ndim > 1]
    chosen = [tensors[index * len(tensors) // count] for index in range(count)]
    values = [float(tensor.flatten()[tensor.numel() // 2]) for tensor in chosen]
    return " ".join(f"{value:.4g}" for value in values)
