"""Decoding and preprocessing of photos on threads, ahead of the computation that needs them.

Decoding, resizing and hashing release Python's global lock, so threads suffice: nothing is copied between processes,
and a data set need not be picklable.
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

from sd4match.errors import ComponentError, PhotoError, SD4MatchError, a, shown
from sd4match.interfaces import PairDataset, Prepare
from sd4match.structures.images import Photo, View

_MAX_THREADS = 8

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Prepared:
    """Photo with its views by name of the preprocessing function."""

    photo: Photo
    views: dict[str, View]


def prepare_all(
    dataset: PairDataset, image_ids: Sequence[str], prepare: Mapping[str, Prepare]
) -> list[Prepared | PhotoError]:
    """Decode and preprocess photos of a data set on several threads.

    Args:
        dataset: the data set that has the photos.
        image_ids: ids of N photos.
        prepare: preprocessing functions by name.

    Returns:
        N results in the order of the ids: the prepared photo, or the error of a photo that cannot be read.

    Raises:
        ComponentError: the data set or a preprocessing function raises an error of its own, or returns something else.
    """

    def prepare_photo(image_id: str) -> Prepared | PhotoError:
        try:
            photo = _call(f"photo of the data set {dataset.name!r}", dataset.photo, image_id, image_id, Photo)
        except PhotoError as error:
            return error
        views = {
            name: _call(f"preprocessing of {name!r}", function, photo, image_id, View)
            for name, function in prepare.items()
        }
        for view in views.values():
            view.digest  # noqa: B018 - computed here, so that the main thread need not wait for it
        return Prepared(photo, views)

    return list(_photo_threads().map(prepare_photo, image_ids))


def _call(what: str, function: Callable[[Key], Value], argument: Key, image_id: str, wanted: type[Value]) -> Value:
    """Call a function that may be custom.

    Args:
        what: description of the function in messages.
        function: any function of one argument.
        argument: its argument.
        image_id: photo that is prepared, for messages.
        wanted: type of the result.

    Raises:
        ComponentError: it raises an error that is not of this package, or returns another type.
    """
    try:
        value = function(argument)
    except SD4MatchError:
        raise
    except Exception as error:  # raised by a custom component
        raise ComponentError(f"{what} failed for {image_id!r}: {type(error).__name__}: {error}") from error
    if not isinstance(value, wanted):
        raise ComponentError(f"{what} must return {a(wanted.__name__)} for {image_id!r}, not {shown(value)}")
    return value


class Prefetcher(Generic[Key, Value]):
    """Loader of the next value on a thread while the caller works with the current one.

    Args:
        load: returns the value of a key; may raise. Called on the caller's thread for keys that were not announced.

    >>> squares = Prefetcher(lambda number: number**2)
    >>> [squares.get(2, next_key=3), squares.get(3), squares.get(5)]
    [4, 9, 25]
    """

    def __init__(self, load: Callable[[Key], Value]) -> None:
        _photo_threads()  # must be started by this thread, not by the prefetching one
        self._load = load
        self._executor = _single_threaded(1, "sd4match-prefetch")
        self._pending: tuple[Key, Future[Value]] | None = None

    def get(self, key: Key, *, next_key: Key | None = None) -> Value:
        """Return the value of a key, and start to load the value of the next one.

        Args:
            key: key of the wanted value; loaded now unless it was the previous call's `next_key`.
            next_key: key of the value that will be asked for next; None if there is none or it is not known.

        Raises:
            Exception: whatever `load` raises for the key.
        """
        pending, self._pending = self._pending, None
        value = pending[1].result() if pending is not None and pending[0] == key else self._load(key)
        if next_key is not None:
            self._pending = next_key, self._executor.submit(self._load, next_key)
        return value


@lru_cache(maxsize=1)
def _photo_threads() -> ThreadPoolExecutor:
    return _single_threaded(min(_MAX_THREADS, os.cpu_count() or 1), "sd4match-photos")


def _single_threaded(count: int, name: str) -> ThreadPoolExecutor:
    """Return an executor of `count` threads, on each of which torch uses one thread only.

    If a second thread has an OpenMP team, libgomp regards the machine as overloaded: its workers then sleep between
    operations, and small operations of the main thread take five times as long.
    """
    before = torch.get_num_threads()

    def use_one_thread() -> None:
        torch.get_num_threads()  # initializes torch's state of this thread, which would overwrite the next line
        torch.set_num_threads(1)

    executor = ThreadPoolExecutor(count, name, initializer=use_one_thread)
    started = Barrier(count + 1)
    for _ in range(count):
        executor.submit(started.wait)
    started.wait()
    torch.set_num_threads(before)  # a number set on one thread is also the initial number of new threads
    return executor


os.register_at_fork(after_in_child=_photo_threads.cache_clear)  # a forked process has none of the threads
