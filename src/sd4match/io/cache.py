"""Tensors on disk, named by the digest of what they were computed from."""

from __future__ import annotations

import os
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sd4match.errors import SD4MatchError
from sd4match.hashing import bytes_of
from sd4match.io.files import TEMPORARY_SUFFIX, read_safetensors, remove, safetensors_buffers, write_atomically

_SUFFIX = ".safetensors"
_ABANDONED_SECONDS = 3600
_WRITERS = 8
"""Number of processes among which the free bytes of a cache are divided.

A process measures the folder again once it has written its fraction.
"""


class DamagedEntryWarning(UserWarning):
    """A file of a store cannot be read; its content is computed again."""


class Store:
    """Folder of tensors with one safetensors file per key. Several processes may write and read at the same time.

    A key is a digest, preceded by the name of a subfolder if there are several kinds of entries: "latents/ab12...".

    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> store.put("ab12", {"x": torch.ones(2)}, {"unit": "cells"})
    >>> store.get("ab12"), store.get("ffff")
    (({'x': tensor([1., 1.])}, {'unit': 'cells'}), None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Return the file of an entry, whether it exists or not."""
        kind, _, name = key.rpartition("/")
        return self.folder / kind / name[:2] / f"{name}{_SUFFIX}"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def put(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
        """Write an entry, whole or not at all.

        Raises:
            SD4MatchError: it cannot be written.
        """
        self._write(key, safetensors_buffers(tensors, {**(metadata or {}), "crc32": _checksum(tensors)}))

    def _write(self, key: str, content: Sequence[bytes | memoryview]) -> None:
        write_atomically(self.path(key), content)

    def get(self, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Return tensors and metadata of an entry; None if there is none.

        Warns:
            DamagedEntryWarning: the entry cannot be read, or its bytes have changed. It is removed.
        """
        file = self.path(key)
        try:
            if not file.is_file():
                return None
            tensors, metadata = read_safetensors(file)
            if metadata.pop("crc32", None) != _checksum(tensors):
                raise ValueError("its bytes have changed")
        except (OSError, ValueError) as error:
            if not os.path.lexists(file):  # removed by another process in the meantime
                return None
            warnings.warn(f"{file} is damaged ({error}); it is computed again", DamagedEntryWarning, stacklevel=2)
            _try_to_remove(file)
            return None
        return tensors, metadata


@dataclass(frozen=True)
class _CacheFile:
    path: Path
    bytes: int
    last_used: float


@dataclass(frozen=True)
class CacheUsage:
    """Number of entries of a cache, and their bytes on disk."""

    entries: int
    bytes: int


class Cache(Store):
    """Store that does not grow beyond a limit: the least recently used entries are removed first.

    Args:
        folder: may be shared by all processes that compute the same.
        limit: bytes. A single writer never exceeds it; several writers may for a moment, until one measures again.
        dtype: dtype in which floats are stored; None: as they are. See `rounded`.

    >>> import tempfile
    >>> cache = Cache(Path(tempfile.mkdtemp()), limit=1_500)
    >>> for key in ("aa01", "bb02", "cc03", "dd04"):
    ...     cache.put(f"latents/{key}", {"x": torch.zeros(100)})
    >>> cache.usage()["latents"].entries, cache.total() <= 1_500
    (2, True)
    """

    def __init__(self, folder: Path, *, limit: int, dtype: torch.dtype | None = None) -> None:
        super().__init__(folder)
        self.limit = limit
        self.dtype = dtype
        self._free = 0
        """Bytes that this process may write before it measures the folder again."""

    def rounded(self, value: Tensor) -> Tensor:
        """Return a tensor as this cache would return it, so that results do not depend on what was cached."""
        return value if self.dtype is None or not value.is_floating_point() else value.to(self.dtype).to(value.dtype)

    def put(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
        """Write an entry in the cache's dtype after evicting others; one larger than the limit is not written.

        Raises:
            SD4MatchError: it cannot be written.
        """
        if self.dtype is not None:
            tensors = {
                name: value.to(self.dtype) if value.is_floating_point() else value for name, value in tensors.items()
            }
        super().put(key, tensors, metadata)

    def _write(self, key: str, content: Sequence[bytes | memoryview]) -> None:
        size = sum(len(buffer) for buffer in content)
        if size > self.limit:
            return
        if size > self._free:
            self._evict(size)
        super()._write(key, content)
        self._free -= size

    def get(self, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Return tensors (half precision converted to float32) and metadata of an entry; None if there is none.

        Warns:
            DamagedEntryWarning: the entry cannot be read, or its bytes have changed. It is removed.
        """
        entry = super().get(key)
        if entry is None:
            return None
        with suppress(OSError):  # a read-only folder, or an entry that was just removed
            os.utime(self.path(key))
        tensors, metadata = entry
        if self.dtype is not None:
            tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        return tensors, metadata

    def _evict(self, wanted: int) -> None:
        """Remove entries until `wanted` bytes are free."""
        now = time.time()
        files = sorted(self._files(), key=lambda file: file.last_used)
        total = sum(file.bytes for file in files)
        for file in files:
            being_written = file.path.name.endswith(TEMPORARY_SUFFIX)
            abandoned = being_written and now - file.last_used > _ABANDONED_SECONDS
            if abandoned or (total + wanted > self.limit and not being_written):
                _try_to_remove(file.path)
                total -= file.bytes
        self._free = max(wanted, (self.limit - total) // _WRITERS)

    def _files(self) -> Iterator[_CacheFile]:
        """Iterate over the files that a cache writes; other files in the folder are ignored."""
        for path in (*self.folder.glob(f"*/??/*{_SUFFIX}"), *self.folder.glob(f"*/??/.*{TEMPORARY_SUFFIX}")):
            try:
                status = path.stat()
            except OSError:  # removed by another process
                continue
            yield _CacheFile(path, status.st_size, status.st_mtime)

    def total(self) -> int:
        """Return the bytes on disk."""
        return sum(file.bytes for file in self._files())

    def usage(self) -> dict[str, CacheUsage]:
        """Return entries and bytes by kind."""
        usage: dict[str, CacheUsage] = {}
        for file in self._files():
            kind = file.path.parent.parent.name
            before = usage.get(kind, CacheUsage(0, 0))
            usage[kind] = CacheUsage(before.entries + 1, before.bytes + file.bytes)
        return dict(sorted(usage.items()))

    def clear(self) -> CacheUsage:
        """Remove every entry, and return how much that was.

        Raises:
            SD4MatchError: an entry cannot be removed.
        """
        files = list(self._files())
        for file in files:
            remove(file.path)
        return CacheUsage(len(files), sum(file.bytes for file in files))


def cache_folder() -> Path:
    """Return the default folder of caches: `SD4MATCH_CACHE`, or `sd4match` in the user's cache folder."""
    own = os.environ.get("SD4MATCH_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sd4match"


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of names and bytes."""
    total = 0
    for name, value in sorted(tensors.items()):
        total = zlib.crc32(bytes_of(value), zlib.crc32(name.encode(), total))
    return str(total)


def _try_to_remove(path: Path) -> None:
    """Remove a file; one of another user remains, and the folder is a little larger than its limit."""
    with suppress(SD4MatchError):
        remove(path)
