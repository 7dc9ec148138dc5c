"""Times of things that are done in turns, since a shared machine is faster at one minute than at the next."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch


def in_turns(contenders: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round, after one round that does not count.

    Every other round goes in the opposite order.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        names = list(contenders) if number % 2 else list(contenders)[::-1]
        for name in names:
            began = time.perf_counter()
            contenders[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
    return {name: times[1:] for name, times in seconds.items()}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median over rounds of how many times as fast the second was."""
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))
