"""What an evaluation needs of the processes it runs in; one process is the simplest case."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from sd4match.errors import SD4MatchError

Item = TypeVar("Item")


@cache
def _leave_in_order() -> None:
    """Close the connections before the interpreter ends: their threads would abort it now and then."""
    atexit.register(PartialState().destroy_process_group)


class Processes:
    """All processes of this run, as `accelerate launch` or torchrun started them."""

    def __init__(self) -> None:
        self._state = PartialState(cpu=not torch.cuda.is_available())
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes
        if self.count > 1:
            _leave_in_order()

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def mine(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's share: every `count`-th."""
        return items[self.index :: self.count]

    def gather(self, items: list[Item]) -> list[Item]:
        """The items of all processes, on each."""
        return list(gather_object(items)) if self.count > 1 else items

    def from_main(self, value: Item) -> Item:
        """The main process's value, on each."""
        if self.count == 1:
            return value
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def on_main(self, action: Callable[[], Item]) -> Item:
        """What one process does for all, such as writing: its answer is everyone's, and so is its error."""
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
        """Wait for all; if one failed, all raise its error, so that none waits for it forever."""
        for error in self.gather([failure] if failure is not None else []):
            raise error
