"""Digests of content, weights, and settings that change the bits of a result."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn


def digest(*values: object) -> str:
    """Return a digest of the bytes of tensors and of the `repr` of everything else.

    Args:
        values: tensors and other objects.

    Returns:
        40 hexadecimal digits.

    >>> digest("a", 1) == digest("a", 1), digest("a", 1) == digest("a1")
    (True, False)
    """
    state = hashlib.blake2b(digest_size=20)
    for value in values:
        if isinstance(value, Tensor):
            header, content = f"{value.dtype} {tuple(value.shape)} ".encode(), bytes_of(value)
        else:
            header, content = b"", memoryview(repr(value).encode())
        state.update((len(header) + content.nbytes).to_bytes(8, "little") + header)
        state.update(content)
    return state.hexdigest()


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, without a copy if it is contiguous and on the CPU.

    Args:
        tensor: any.
    """
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def weights_digest(*modules: nn.Module) -> str:
    """Return a digest of all weights and buffers of modules, with their dtypes, and of the modules' configs.

    Args:
        modules: any.
    """
    found = [item for module in modules for item in (*module.named_parameters(), *module.named_buffers())]
    configs = [arithmetic_config(module) for module in modules]
    return digest(configs, *(value for item in sorted(found, key=lambda item: item[0]) for value in item))


def arithmetic_config(module: nn.Module) -> list[dict[str, str]]:
    """Return the config fields of the diffusers and transformers networks in a module that change its arithmetic.

    Names, paths, versions and fields with the default of the class are left out, so that a config that another release
    has saved again is the same.

    Args:
        module: any.

    Returns:
        Values as text by name, for each network.
    """
    config = getattr(module, "config", None)
    if isinstance(config, Mapping):  # of diffusers, whose defaults are those of the network
        defaults = {name: it.default for name, it in inspect.signature(type(module).__init__).parameters.items()}
        return [_other_than(defaults, config)]
    to_dict = getattr(config, "to_dict", None)
    if to_dict is not None:  # of transformers, whose defaults are those of the config
        fields = to_dict()
        return [_other_than({name: getattr(type(config), name, None) for name in fields}, fields)]
    return [found for child in module.children() for found in arithmetic_config(child)]


def _other_than(defaults: Mapping[str, object], config: Mapping[str, object]) -> dict[str, str]:
    """Return the fields that change arithmetic and differ from their defaults."""
    fields = {name: _as_text(value) for name, value in config.items() if not _NO_ARITHMETIC.fullmatch(name)}
    return {name: text for name, text in sorted(fields.items()) if text != _as_text(defaults.get(name))}


def _as_text(value: object) -> str:
    """Return a value of a config as text, with whole floats as integers and tuples as lists."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str([_as_text(item) for item in value]) if isinstance(value, list | tuple) else repr(value)


_NO_ARITHMETIC = re.compile(
    r"_.*|architectures|dtype|torch_dtype|transformers_version|name_or_path|initializer_.*|(bos|eos|pad)_token_id|"
    r"id2label|label2id|problem_type|return_dict|use_cache|chunk_.*|is_.*|output_.*|stage_names|out_features|out_indices"
)
"""Fields of configs that do not change arithmetic; ids of tokens are in the digest of the tokenizer."""


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
"""Attributes and functions of torch, which exist or not depending on its version."""


def arithmetic_settings(device_type: str) -> tuple[str, ...]:
    """Return the settings besides weights and inputs that change the bits of a result, as text.

    Args:
        device_type: type of the device, for example "cuda".

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
    """Return a setting of torch; torch raises an error for settings that were made through another interface."""
    try:
        value = reduce(getattr, name.split("."), torch)
        return str(value() if callable(value) else value)
    except (AttributeError, RuntimeError):
        return "none"
