"""Dtype in which a network computes, inside and outside of an autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context that disables any surrounding autocast.

    Args:
        device: device of the computation.
    """
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def working_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype in which a network computes: that of the surrounding autocast, if there is one.

    Args:
        dtype: dtype of the weights.
        device: device of the computation.
    """
    in_autocast = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if in_autocast else dtype
