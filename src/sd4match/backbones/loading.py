"""Loading of networks, with a check that every weight comes from the file and none is left random."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sd4match.backbones.model_files import refuse_pointer, weight_files
from sd4match.errors import CheckpointError, shown

_FLOATS = ("F64", "F32", "F16", "BF16")
_POSITIONS = r"(^|\.)position_ids$"
"""Index buffers that older releases of transformers saved."""
_NAMED = 3
"""Largest number of tensors that a message names."""


def load_whole(
    network_class: Any,
    folder: Path,
    *,
    stem: str,
    variant: str | None = None,
    unused: Sequence[str] = (),
    others: Sequence[str] = (),
    **options: Any,
) -> Any:
    """Load a network of transformers or diffusers from its folder, with every tensor from the file.

    Args:
        network_class: class with `from_pretrained`.
        folder: folder with config.json and the weights.
        stem: stem of the names of weight files, "model" or "diffusion_pytorch_model".
        variant: variant of the weight files, for example "fp16".
        unused: patterns of tensors that may be missing because no result depends on them; they are set to 0.
        others: patterns of further tensors that the file may hold, for example those of the other tower of a CLIP.
        options: further keyword arguments of `from_pretrained`.

    Raises:
        CheckpointError: weights are missing, damaged, integers, not finite, or have other names or shapes.
    """
    files = weight_files(folder, stem, variant)
    if not files:
        wanted = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
        raise CheckpointError(f"cannot load the model in {folder}: it holds no weights, {wanted} is missing")
    for file in files:
        _check_dtypes(file)
    try:
        network, report = network_class.from_pretrained(
            folder, variant=variant, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True,
            **options,
        )  # fmt: skip
    except Exception as error:  # transformers and diffusers raise many types of errors
        raise CheckpointError(f"cannot load the model in {folder}: {_short(error)}") from None
    _check_report(report, folder, unused=unused, others=others)
    _zero(network, [name for name in report["missing_keys"] if _matches(name, unused)])
    check_values(network, folder)
    return network


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file of weights.

    Args:
        file: safetensors file.

    Raises:
        CheckpointError: the file is damaged or holds integers.
    """
    _check_dtypes(file)
    tensors: dict[str, Tensor] = load_file(file)
    return tensors


def _check_dtypes(file: Path) -> None:
    """Check that a file of weights can be read and holds floating-point numbers."""
    refuse_pointer(file)
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as content:
                names = list(content.keys())
                dtypes = {name: content.get_slice(name).get_dtype() for name in names}
            wrong = {name: dtype for name, dtype in dtypes.items() if dtype not in _FLOATS}
        else:
            tensors = torch.load(file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file))
            wrong = {name: str(value.dtype) for name, value in tensors.items() if not value.is_floating_point()}
    except SafetensorError as error:
        raise CheckpointError(
            f"cannot load the model in {file.parent}: {file.name} is not a whole safetensors file ({_short(error)})"
        ) from None
    except Exception:  # torch and pickle raise many types of errors
        raise CheckpointError(
            f"cannot load the model in {file.parent}: {file.name} is not a state dict of torch that can be read "
            "without running code"
        ) from None
    wrong = {name: dtype for name, dtype in wrong.items() if not re.search(_POSITIONS, name)}
    if wrong:
        name, dtype = next(iter(wrong.items()))
        raise CheckpointError(f"{file}: weights must be floating-point numbers, and {name} is {dtype}")


def _check_report(report: Any, folder: Path, *, unused: Sequence[str], others: Sequence[str]) -> None:
    """Check the report of `from_pretrained` for tensors that are missing, of another shape, or not of the network."""
    missing = [name for name in report["missing_keys"] if not _matches(name, unused)]
    mismatched = [name if isinstance(name, str) else name[0] for name in report["mismatched_keys"]]
    surplus = [name for name in report["unexpected_keys"] if not _matches(name, [*others, *unused, _POSITIONS])]
    problems = [
        _first(what, names)
        for what, names in (("missing", missing), ("of another shape", mismatched), ("not of this model", surplus))
        if names
    ]
    problems += [_short(message) for message in report.get("error_msgs") or ()]
    if problems:
        raise CheckpointError(
            f"the weights in {folder} are not those of the model that its config.json describes: {'; '.join(problems)}"
        )


def _first(what: str, names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return f"{what}: {', '.join(name[:120] for name in ordered[:_NAMED])}{rest}"


def _zero(network: nn.Module, names: Iterable[str]) -> None:
    """Set unused tensors to 0, so that the digest of the network is always the same."""
    tensors = network.state_dict(keep_vars=True)
    with torch.no_grad():
        for name in names:
            if name in tensors and not tensors[name].is_meta:
                tensors[name].zero_()


def check_values(network: nn.Module, where: Path) -> None:
    """Check that every weight of a network is loaded and finite.

    Args:
        network: loaded network.
        where: its folder or file, for messages.

    Raises:
        CheckpointError: a weight is missing or not finite; the message names it.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_meta:
            raise CheckpointError(f"the weights in {where} are not whole: {name} is missing")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            dtype = str(tensor.dtype).removeprefix("torch.")
            hint = ", or too large for float16, where bfloat16 or float32 has the range" * (dtype == "float16")
            raise CheckpointError(f"the weights in {where} are not finite in {dtype}: {name} holds NaN or inf{hint}")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _short(error: object) -> str:
    """Return the first words of a foreign error."""
    text = " ".join(str(error).split())
    return text[:300] or shown(error)
