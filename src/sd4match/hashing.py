"""Digests of content, and of what else decides the bits of a result."""

from __future__ import annotations

import hashlib
from functools import reduce

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


_SETTINGS = (
    "backends.fp32_precision", "backends.cudnn.enabled", "backends.cudnn.benchmark", "backends.cudnn.deterministic",
    "backends.cudnn.allow_tf32", "backends.cudnn.fp32_precision", "backends.cudnn.conv.fp32_precision",
    "backends.cuda.matmul.allow_tf32", "backends.cuda.matmul.fp32_precision",
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction", "backends.cuda.matmul.allow_fp16_accumulation",
    "backends.cuda.flash_sdp_enabled", "backends.cuda.mem_efficient_sdp_enabled", "backends.cuda.math_sdp_enabled",
    "backends.cuda.cudnn_sdp_enabled", "backends.cuda.fp16_bf16_reduction_math_sdp_allowed",
    "backends.mkldnn.enabled", "backends.mkldnn.allow_tf32", "backends.mkldnn.fp32_precision",
    "backends.mkldnn.matmul.fp32_precision", "backends.mkldnn.conv.fp32_precision", "get_float32_matmul_precision",
    "are_deterministic_algorithms_enabled",
)  # fmt: skip
"""Attributes and functions of torch; which of them there are depends on its release."""


def arithmetic_settings(device_type: str) -> tuple[str, ...]:
    """Return what decides the bits of a result on a type of device besides weights and inputs, as text.

    >>> before = arithmetic_settings("cpu")
    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     arithmetic_settings("cpu") == before
    False
    """
    in_autocast = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
    autocast = str(torch.get_autocast_dtype(device_type)) if in_autocast else "no autocast"
    processor = torch.cuda.get_device_name() if device_type == "cuda" else torch.backends.cpu.get_cpu_capability()
    settings = (f"{name} {_setting(name)}" for name in _SETTINGS)
    return device_type, processor, str(torch.__version__), autocast, *settings


def _setting(name: str) -> str:
    """Return a setting of torch; torch raises for some that were set by another of its interfaces."""
    try:
        value = reduce(getattr, name.split("."), torch)
        return str(value() if callable(value) else value)
    except (AttributeError, RuntimeError):
        return "none"
