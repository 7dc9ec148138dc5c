"""Tensors on disk by the digest of what they were computed from."""

from __future__ import annotations

import os
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sd4match.errors import SD4MatchError
from sd4match.hashing import bytes_of
from sd4match.io.files import PART, read_safetensors, remove, to_safetensors, write_atomically

_ENDING = ".safetensors"
_ABANDONED_SECONDS = 3600
_WRITERS = 8
"""What is free in a cache is shared among so many; a process looks again once it has written its share."""


class DamagedEntryWarning(UserWarning):
    """A file of a store could not be read; what it held is computed again."""


class Store:
    """A folder of tensors, one safetensors file for each key. Several processes may write and read at once.

    A key is a digest, with the name of a subfolder before it if there are several sorts: "latents/ab12...".

    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> store.put("ab12", {"x": torch.ones(2)}, {"unit": "cells"})
    >>> store.get("ab12"), store.get("ffff")
    (({'x': tensor([1., 1.])}, {'unit': 'cells'}), None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where an entry is, or would be."""
        sort, _, name = key.rpartition("/")
        return self.folder / sort / name[:2] / f"{name}{_ENDING}"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def put(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
        """Write an entry; it appears whole or not at all.

        Raises:
            SD4MatchError: it cannot be written.
        """
        self._write(key, to_safetensors(tensors, {**(metadata or {}), "crc32": _checksum(tensors)}))

    def _write(self, key: str, content: bytes) -> None:
        write_atomically(self.path(key), content)

    def get(self, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Tensors and metadata of an entry; None if there is none.

        Warns:
            DamagedEntryWarning: there is one that cannot be read, or whose bytes have changed. It is removed.
        """
        file = self.path(key)
        try:
            if not file.is_file():
                return None
            tensors, metadata = read_safetensors(file)
            if metadata.pop("crc32", None) != _checksum(tensors):
                raise ValueError("its bytes have changed")
        except (OSError, ValueError) as error:
            if not os.path.lexists(file):  # removed by another process since the look
                return None
            warnings.warn(f"{file} is damaged ({error}); it is computed again", DamagedEntryWarning, stacklevel=2)
            _try_to_remove(file)
            return None
        return tensors, metadata


@dataclass(frozen=True)
class _File:
    path: Path
    bytes: int
    used: float


class Cache(Store):
    """A store that does not grow beyond a limit: what was not used for longest goes first.

    Args:
        folder: shared by everyone who computes the same.
        limit: bytes. One writer never passes it; several at once may for a moment, until the next of them looks again.
        dtype: what floats are kept in; None: as they are. See `kept`.

    >>> import tempfile
    >>> cache = Cache(Path(tempfile.mkdtemp()), limit=1_500)
    >>> for key in ("aa01", "bb02", "cc03", "dd04"):
    ...     cache.put(f"latents/{key}", {"x": torch.zeros(100)})
    >>> cache.sizes()["latents"].entries, cache.total() <= 1_500
    (2, True)
    """

    def __init__(self, folder: Path, *, limit: int, dtype: torch.dtype | None = None) -> None:
        super().__init__(folder)
        self.limit = limit
        self.dtype = dtype
        self._room = 0
        """Bytes that this process may write before it looks again how full the folder is."""

    def kept(self, value: Tensor) -> Tensor:
        """A tensor as it comes back from here, so that it does not matter whether it was kept."""
        return value if self.dtype is None or not value.is_floating_point() else value.to(self.dtype).to(value.dtype)

    def put(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
        """As `Store.put`, in the cache's dtype, after making room; an entry larger than the limit is not kept."""
        if self.dtype is not None:
            tensors = {
                name: value.to(self.dtype) if value.is_floating_point() else value for name, value in tensors.items()
            }
        super().put(key, tensors, metadata)

    def _write(self, key: str, content: bytes) -> None:
        if len(content) > self.limit:
            return
        if len(content) > self._room:
            self._make_room(len(content))
        super()._write(key, content)
        self._room -= len(content)

    def get(self, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """As `Store.get`, with half precision back in float32; the entry counts as used now."""
        entry = super().get(key)
        if entry is None:
            return None
        with suppress(OSError):  # of a folder that can only be read, or an entry that has just gone
            os.utime(self.path(key))
        tensors, metadata = entry
        if self.dtype is not None:
            tensors = {name: one.float() if one.is_floating_point() else one for name, one in tensors.items()}
        return tensors, metadata

    def _make_room(self, wanted: int) -> None:
        now = time.time()
        files = sorted(self._files(), key=lambda file: file.used)
        total = sum(file.bytes for file in files)
        for file in files:
            being_written = file.path.name.endswith(PART)
            abandoned = being_written and now - file.used > _ABANDONED_SECONDS
            if abandoned or (total + wanted > self.limit and not being_written):
                _try_to_remove(file.path)
                total -= file.bytes
        self._room = max(wanted, (self.limit - total) // _WRITERS)

    def _files(self) -> Iterator[_File]:
        """What this cache wrote; whatever else lies in the folder is not its business."""
        for path in (*self.folder.glob(f"*/??/*{_ENDING}"), *self.folder.glob(f"*/??/.*{PART}")):
            try:
                about = path.stat()
            except OSError:  # removed by another process
                continue
            yield _File(path, about.st_size, about.st_mtime)

    def total(self) -> int:
        """Bytes on disk."""
        return sum(file.bytes for file in self._files())

    def sizes(self) -> dict[str, Held]:
        """What is held, by sort."""
        held: dict[str, Held] = {}
        for file in self._files():
            sort = file.path.parent.parent.name
            before = held.get(sort, Held(0, 0))
            held[sort] = Held(before.entries + 1, before.bytes + file.bytes)
        return dict(sorted(held.items()))

    def clear(self) -> Held:
        """Remove every entry, and answer what that was.

        Raises:
            SD4MatchError: an entry cannot be removed.
        """
        files = list(self._files())
        for file in files:
            remove(file.path)
        return Held(len(files), sum(file.bytes for file in files))


@dataclass(frozen=True)
class Held:
    """How much of a sort a cache holds."""

    entries: int
    bytes: int


def cache_folder() -> Path:
    """Where caches are unless told otherwise: `SD4MATCH_CACHE`, or `sd4match` in the user's cache folder."""
    own = os.environ.get("SD4MATCH_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sd4match"


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    total = 0
    for name, value in sorted(tensors.items()):
        total = zlib.crc32(bytes_of(value), zlib.crc32(name.encode(), total))
    return str(total)


def _try_to_remove(path: Path) -> None:
    with suppress(SD4MatchError):  # of another user: it stays, and the folder is a little too full
        remove(path)
