"""Digests of content, and of what else decides the bits of a result."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping
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
    """Return a digest of every weight and buffer of some modules, with its dtype, and of what their configs say."""
    found = [(name, one) for module in modules for name, one in (*module.named_parameters(), *module.named_buffers())]
    configs = [arithmetic_config(module) for module in modules]
    return digest(configs, *(part for item in sorted(found, key=lambda item: item[0]) for part in item))


def arithmetic_config(module: nn.Module) -> list[dict[str, str]]:
    """Return what the configs of diffusers and transformers within a module say of its arithmetic, network by network.

    Names, paths, versions and fields of the class's default are left out, so that a config that another release
    saved again is the same.
    """
    config = getattr(module, "config", None)
    if isinstance(config, Mapping):  # of diffusers, whose defaults are those of the network
        defaults = {name: it.default for name, it in inspect.signature(type(module).__init__).parameters.items()}
        return [_other_than(defaults, config)]
    to_dict = getattr(config, "to_dict", None)
    if to_dict is not None:  # of transformers, whose defaults are those of the config
        fields = to_dict()
        return [_other_than({name: getattr(type(config), name, None) for name in fields}, fields)]
    return [found for part in module.children() for found in arithmetic_config(part)]


def _other_than(defaults: Mapping[str, object], config: Mapping[str, object]) -> dict[str, str]:
    """Return the fields that decide arithmetic and are not what they are by default."""
    fields = {name: _as_text(value) for name, value in config.items() if not _NO_ARITHMETIC.fullmatch(name)}
    return {name: text for name, text in sorted(fields.items()) if text != _as_text(defaults.get(name))}


def _as_text(value: object) -> str:
    """Return a value of a config; whole numbers are written as such, and tuples as lists."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str([_as_text(one) for one in value]) if isinstance(value, list | tuple) else repr(value)


_NO_ARITHMETIC = re.compile(
    r"_.*|architectures|dtype|torch_dtype|transformers_version|name_or_path|initializer_.*|(bos|eos|pad)_token_id|"
    r"id2label|label2id|problem_type|return_dict|use_cache|chunk_.*|is_.*|output_.*|stage_names|out_features|out_indices"
)
"""Fields of configs that decide no arithmetic; the ids of tokens are those of the tokenizer."""


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
