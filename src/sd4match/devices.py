"""Names of devices and dtypes, checked against the devices of this machine. Importing this module loads no torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sd4match.errors import ConfigError, shown

if TYPE_CHECKING:
    import torch

__all__ = ["resolve_device", "resolve_dtype"]

_NAMES = "auto, cpu, cuda, cuda:N, mps or another that torch has"
_PRECISIONS = ("float32", "float16", "bfloat16")


def resolve_device(device: str | torch.device, *, what: str = "device") -> str:
    """Return the name of a device after a check that it exists.

    Args:
        device: a name, or a device of torch. "auto" is CUDA if there is a CUDA device, otherwise the CPU.
        what: name of the argument in messages, for example "--device".

    Raises:
        ConfigError: there is no such device; the message lists those of this machine.

    >>> resolve_device("cpu")
    'cpu'
    """
    import torch

    if not isinstance(device, (str, torch.device)):
        raise ConfigError(f"{what} must be {_NAMES}, not {shown(device)}")
    if device == "auto":
        rank = os.environ.get("LOCAL_RANK")  # each of several processes uses another device
        device = ("cuda" if rank is None else f"cuda:{rank}") if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"{what} must be {_NAMES}, not {shown(device)}") from None
    try:
        count = 1 if found.type == "cpu" else torch.get_device_module(found.type).device_count()
    except (RuntimeError, AttributeError):  # a type without devices, such as "meta"
        raise ConfigError(f"{what} must be {_NAMES}, not {shown(str(found))}") from None
    if (found.index or 0) >= count:
        cuda = (f"cuda:{index}" for index in range(torch.cuda.device_count()))
        here = ["cpu", *cuda, *["mps"] * torch.mps.device_count()]
        raise ConfigError(f"{what} = {str(found)!r} is not here: torch sees {', '.join(here)}")
    return str(found)


def resolve_dtype(dtype: str | torch.dtype, *, what: str = "dtype") -> str:
    """Return the name of a dtype of models: "float32", "float16" or "bfloat16".

    Args:
        dtype: a name, or a dtype of torch.
        what: name of the argument in messages.

    Raises:
        ConfigError: it is none of these dtypes.

    >>> resolve_dtype("bfloat16")
    'bfloat16'
    """
    import torch

    name = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    if name not in _PRECISIONS:
        raise ConfigError(f"{what} must be {', '.join(_PRECISIONS[:-1])} or {_PRECISIONS[-1]}, not {shown(dtype)}")
    return name
