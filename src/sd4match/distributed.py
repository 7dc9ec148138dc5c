"""Communication between the processes of a run, which may be a single one."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from sd4match.errors import ConfigError, SD4MatchError, shown

Item = TypeVar("Item")


_VARIABLES = {
    "RANK": (0, 2**20), "LOCAL_RANK": (-1, 2**20), "WORLD_SIZE": (1, 2**20), "LOCAL_WORLD_SIZE": (1, 2**20),
    "MASTER_PORT": (0, 65535),
}  # fmt: skip
"""Numbers that a launcher sets in the environment, with their bounds."""


def _check_launcher() -> None:
    """Check the environment variables of the launcher.

    Raises:
        ConfigError: a variable has an impossible value; the message names it.
    """
    numbers: dict[str, int] = {}
    for name, (low, high) in _VARIABLES.items():
        text = os.environ.get(name)
        if text is None:
            continue
        if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit() or not low <= int(text[:20]) <= high:
            raise ConfigError(
                f"the environment variable {name} must be a whole number from {low} to {high}, not {shown(text)}: "
                "start several processes with `accelerate launch` or torchrun, a single one without it"
            )
        numbers[name] = int(text)
    if numbers.get("RANK", 0) >= numbers.get("WORLD_SIZE", 2**20):
        raise ConfigError(
            f"the environment variable RANK = {numbers['RANK']} must be below WORLD_SIZE = {numbers['WORLD_SIZE']}"
        )


@cache
def _close_at_exit() -> None:
    """Close the connections before the interpreter ends; otherwise their threads may abort it."""
    atexit.register(PartialState().destroy_process_group)


class Processes:
    """Processes of this run, as started by `accelerate launch` or torchrun.

    Raises:
        ConfigError: an environment variable of the launcher has an impossible value, or the processes cannot connect.

    >>> processes = Processes()
    >>> processes.share(["a", "b"]), processes.gather([1]), processes.any(False)
    (['a', 'b'], [1], False)
    """

    def __init__(self) -> None:
        _check_launcher()
        try:
            self._state = PartialState(cpu=not torch.cuda.is_available())
        except (ValueError, RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"this process cannot join the others of its launcher: {reason}") from None
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes
        if self.count > 1:
            _close_at_exit()

    @property
    def is_main(self) -> bool:
        """True for the process that writes files and prints."""
        return self.index == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items of this process: every `count`-th item.

        Args:
            items: items of all processes.
        """
        return items[self.index :: self.count]

    def gather(self, items: list[Item]) -> list[Item]:
        """Return the items of all processes, on every process.

        Args:
            items: items of this process.
        """
        return list(gather_object(items)) if self.count > 1 else items

    def any(self, flag: bool) -> bool:
        """Return on every process whether the flag of any process is set.

        Args:
            flag: flag of this process.
        """
        return any(self.gather([flag]))

    def from_main(self, value: Item) -> Item:
        """Return the value of the main process, on every process.

        Args:
            value: value of this process.
        """
        if self.count == 1:
            return value
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def on_main(self, action: Callable[[], Item]) -> Item:
        """Run an action on the main process only.

        Args:
            action: function without arguments.

        Returns:
            Its result, on every process.

        Raises:
            SD4MatchError: the error of the action, on every process.
        """
        answer: Item | None = None
        failure: SD4MatchError | None = None
        if self.is_main:
            try:
                answer = action()
            except SD4MatchError as error:
                failure = error
        self.together(failure)
        return cast(Item, self.from_main(answer))

    def together(self, failure: SD4MatchError | None) -> None:
        """Wait for all processes, and raise the error of one that has failed on all of them.

        Args:
            failure: error of this process; None if it has not failed.

        Raises:
            SD4MatchError: the first error of any process.
        """
        for error in self.gather([failure] if failure is not None else []):
            raise error
