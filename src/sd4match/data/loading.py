"""Photos decoded, prepared and named on threads, ahead of whoever computes with them.

Decoding, resizing and hashing release Python's lock, so threads suffice: nothing is copied between processes, and a
data set need not be picklable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from threading import Barrier
from typing import Generic, TypeVar

import torch

from sd4match.errors import PhotoError
from sd4match.interfaces import PairDataset, Prepare
from sd4match.structures.images import Photo, View

_MOST_THREADS = 8

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Prepared:
    """A photo, and it in the frame of everyone who will look at it."""

    photo: Photo
    views: dict[str, View]


def prepare_all(
    dataset: PairDataset, image_ids: Sequence[str], prepare: Mapping[str, Prepare]
) -> list[Prepared | PhotoError]:
    """Some photos of a data set; the error in the place of one that cannot be read."""

    def one(image_id: str) -> Prepared | PhotoError:
        try:
            photo = dataset.photo(image_id)
        except PhotoError as error:
            return error
        views = {name: function(photo) for name, function in prepare.items()}
        for view in views.values():
            view.digest  # noqa: B018 - computed here, so that nobody waits for it
        return Prepared(photo, views)

    return list(_threads().map(one, image_ids))


class Ahead(Generic[Key, Value]):
    """Loads what will be asked for next while the caller works with what it has.

    >>> squares = Ahead(lambda number: number**2)
    >>> [squares.get(2, then=3), squares.get(3), squares.get(5)]
    [4, 9, 25]
    """

    def __init__(self, load: Callable[[Key], Value]) -> None:
        _threads()  # while this thread, and not the one below, is the one that asks
        self._load = load
        self._thread = _single_threaded(1, "sd4match-ahead")
        self._coming: tuple[Key, Future[Value]] | None = None

    def get(self, key: Key, *, then: Key | None = None) -> Value:
        """What `load` gives for a key, or its error; `then` is loaded from now on."""
        coming, self._coming = self._coming, None
        value = coming[1].result() if coming is not None and coming[0] == key else self._load(key)
        if then is not None:
            self._coming = then, self._thread.submit(self._load, then)
        return value


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return _single_threaded(min(_MOST_THREADS, os.cpu_count() or 1), "sd4match-photos")


def _single_threaded(count: int, name: str) -> ThreadPoolExecutor:
    """Threads in which torch uses no further threads.

    A second thread with an OpenMP team of its own makes libgomp believe that the machine is overbooked: from then on
    its workers sleep between operations, and small operations of the main thread take five times as long.
    """
    before = torch.get_num_threads()

    def alone() -> None:
        torch.get_num_threads()  # the first question makes a thread what others are
        torch.set_num_threads(1)

    executor = ThreadPoolExecutor(count, name, initializer=alone)
    started = Barrier(count + 1)
    for _ in range(count):
        executor.submit(started.wait)
    started.wait()
    torch.set_num_threads(before)  # what one thread sets is also where new threads start from
    return executor


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not live on in a fork
