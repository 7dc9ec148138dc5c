"""The dtype in which a network computes, and whether what it computes is finite in it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from sd4match.checks import check_finite


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which an autocast around it changes nothing."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def working_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype in which a network of some dtype computes: that of an autocast, if it runs in one."""
    in_autocast = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if in_autocast else dtype


def check_each_finite(what: str, names: Sequence[str], where: str, values: Tensor, dtype: torch.dtype) -> None:
    """Check that what was computed for each photo is finite.

    Args:
        what: was computed, for example "the features".
        names: of the photos, or their keys.
        where: "at layer 1" and the like; "" if there is only one place.
        values: the first dimension is that of the photos.
        dtype: in which it was computed.

    Raises:
        NonFiniteError: a value is NaN or infinite; the message names photo, place and dtype, and what helps.
    """
    values = values.detach()
    if values.is_floating_point() and not bool(values.sum(dtype=torch.float32).isfinite()):  # faster than each value
        for row, name in enumerate(names):
            label = " ".join(filter(None, (what, "of", name, where, "in", dtype_name(dtype))))
            check_finite(label, values[row], range_hint(dtype))


def range_hint(dtype: torch.dtype) -> str:
    """Return what helps against values that are not finite in a dtype."""
    if dtype == torch.float16:
        return "float16 may not have the range: bfloat16 and float32 have it"
    return "the weights or the inputs of the model are too large, or not finite themselves; look at `models check`"


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype as configs write it.

    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")
