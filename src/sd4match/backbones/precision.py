"""The dtype in which a network computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which an autocast around it changes nothing."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def working_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype in which a network of some dtype computes: that of an autocast, if it runs in one."""
    in_autocast = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if in_autocast else dtype
