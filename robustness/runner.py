"""Cases in processes of their own, each with a limit of time and memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from robustness.cases import Case, Outcome, Result, run_case

SECONDS = 30
"""Time after which an input counts as one without an end."""
_BYTES = 12 << 30
"""Memory that a process may use."""


def run_all(cases: Sequence[Case], *, workers: int) -> list[Result]:
    """Run every case; the results are in the order of the cases."""
    results: dict[int, Result] = {}
    left = list(range(len(cases)))[::-1]
    pool = [_Worker(cases) for _ in range(max(1, workers))]
    try:
        while left or any(worker.index is not None for worker in pool):
            for number, worker in enumerate(pool):
                if worker.index is not None:
                    result = worker.poll()
                    if result is None:
                        continue
                    results[worker.index] = result
                    worker.index = None
                    if result.outcome in (Outcome.HANG, Outcome.CRASH):
                        worker.stop()
                        pool[number] = worker = _Worker(cases)
                if left:
                    worker.begin(left.pop())
            time.sleep(0.001)
    finally:
        for worker in pool:
            worker.stop()
    return [results[index] for index in range(len(cases))]


class _Worker:
    """Process that runs one case after the other."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self.index: int | None = None
        self._began = 0.0
        context = multiprocessing.get_context("fork")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, cases), daemon=True)
        self._process.start()
        other.close()

    def begin(self, index: int) -> None:
        """Start a case."""
        self.index = index
        self._began = time.monotonic()
        self._connection.send(index)

    def poll(self) -> Result | None:
        """Return the result of the case, or None while it runs."""
        assert self.index is not None
        case = self.cases[self.index]
        try:
            if self._connection.poll():
                result: Result = self._connection.recv()
                return result
        except (EOFError, OSError):
            return Result(case.group, case.name, Outcome.CRASH, f"exit code {self._process.exitcode}")
        if time.monotonic() - self._began > SECONDS:
            return Result(case.group, case.name, Outcome.HANG, f"more than {SECONDS} s")
        return None

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _work(connection: Connection, cases: Sequence[Case]) -> None:
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (_BYTES, _BYTES))
    while True:
        try:
            index = connection.recv()
        except EOFError:
            return
        with tempfile.TemporaryDirectory(prefix="robustness-") as folder:
            os.chdir(folder)
            result = run_case(cases[index], Path(folder))
            os.chdir("/")
        connection.send(result)
