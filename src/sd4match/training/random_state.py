"""Global random generators of Python, numpy and torch.

This package draws from generators of its own; other code, dropout for example, may use the global ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from sd4match.errors import TrainingError


def random_state() -> dict[str, Tensor]:
    """Return the state of the generators of Python, numpy and torch in this process.

    >>> before = random_state()
    >>> first = torch.rand(1), np.random.rand(), random.gauss(0, 1)
    >>> restore_random_state(before)
    >>> first == (torch.rand(1), np.random.rand(), random.gauss(0, 1))
    True
    """
    _, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "python.gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor([*(int(key) for key in keys), int(position), int(has_gauss)], dtype=torch.int64),
        "numpy.gauss": torch.tensor([float(cached)], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Tensor]) -> None:
    """Restore the state that `random_state` returned; change nothing if it is malformed.

    Raises:
        TrainingError: a state is missing, or is not of such a generator.
    """
    before = random_state()
    for name, own in before.items():
        if name != "cuda" and name not in state:
            raise TrainingError(f"the state of the random generator {name} is missing")
        found = state.get(name, own)
        fits = found.shape == own.shape or (name == "python.gauss" and found.shape in ((0,), (1,)))
        if found.dtype != own.dtype or not fits:
            raise TrainingError(
                f"the state of the random generator {name} must be {own.dtype} {tuple(own.shape)}, not {found.dtype} "
                f"{tuple(found.shape)}"
            )
    try:
        _set_random_state(state)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        _set_random_state(before)
        raise TrainingError(f"the state of the random generators is damaged: {error}") from None


def _set_random_state(state: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(state["torch"])
    gauss = state["python.gauss"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), gauss[0] if gauss else None))
    *keys, position, has_gauss = state["numpy"].tolist()
    np.random.set_state(
        ("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, float(state["numpy.gauss"][0]))
    )
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def seeded_random_state(seed: int) -> Iterator[None]:
    """Seed all generators inside the block, and restore the caller's state at its end."""
    before = random_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        restore_random_state(before)
