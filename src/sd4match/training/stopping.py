"""Stop requests by signal: the current step is finished and its state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals, besides that of Ctrl-C, with which the system ends a program."""
    return (signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGTERM,)


class StopFlag:
    """Flag that is set when a stop is requested; calling it returns whether it is set."""

    def __init__(self) -> None:
        self.is_raised = False

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return self.is_raised


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Set the flag on SIGTERM, SIGHUP and SIGINT inside the block; a second SIGINT raises KeyboardInterrupt.

    SIGTERM and SIGHUP stay ignored where the program ignores them, as SIGHUP under nohup. Signals can be handled in the
    main thread only; in another thread nothing changes.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (*stop_signals(), signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        if flag.is_raised and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.is_raised = True

    for number, handler in before.items():
        if handler != signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, handle)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
