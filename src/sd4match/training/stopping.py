"""Stop requests by signal: the current step is finished and its state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopFlag:
    """Flag that is raised when a stop is requested. Calling it returns whether it is raised."""

    def __init__(self) -> None:
        self.is_raised = False

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return self.is_raised


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Raise the flag on SIGTERM and SIGINT inside the block; a second SIGINT raises KeyboardInterrupt.

    Signals can be handled in the main thread only; in another thread nothing changes.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        if flag.is_raised and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.is_raised = True

    for number in before:
        signal.signal(number, handle)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
