"""Cache of tensors on disk, with files named by the digest of the inputs of a computation."""

from __future__ import annotations

import json
import os
import re
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.errors import InputError, SD4MatchError, shown
from sd4match.hashing import bytes_of
from sd4match.io.files import TEMPORARY_SUFFIX, read_safetensors, remove, safetensors_buffers, write_atomically
from sd4match.paths import as_path, is_file

_SUFFIX = ".safetensors"
_FORMAT = "sd4match-cache"
"""Value of `format` in the metadata of every entry."""
_KEY = re.compile(r"(?:[A-Za-z0-9_-]+/)?[A-Za-z0-9_-]{2,200}")
_ENTRY = re.compile(rf"([0-9a-f]{{2}})[0-9a-f]*{re.escape(_SUFFIX)}")
_BEING_WRITTEN = re.compile(
    rf"\.([0-9a-f]{{2}})[0-9a-f]*{re.escape(_SUFFIX)}\.[a-z0-9_]{{8}}{re.escape(TEMPORARY_SUFFIX)}"
)
"""Names of entries and of their temporary files, in a folder named by their first two letters."""
_LONGEST_HEADER = 1 << 20
_ABANDONED_SECONDS = 3600
_WRITERS = 8
"""Number of processes among which the free bytes of a cache are divided.

A process measures the folder again after it has written its fraction.
"""


class DamagedEntryWarning(UserWarning):
    """Warning that a file of a store cannot be read, and that its content is computed again."""


class Store:
    """Folder of tensors with one safetensors file per key. Several processes may write and read at the same time.

    A key is a digest, preceded by the name of a subfolder if there are several kinds of entries: "latents/ab12...".

    Args:
        folder: folder of the files, created when it is needed.

    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> store.put("ab12", {"x": torch.ones(2)}, {"unit": "cells"})
    >>> store.get("ab12"), store.get("ffff")
    (({'x': tensor([1., 1.])}, {'unit': 'cells'}), None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Return the file of an entry, which need not exist.

        Args:
            key: a digest, optionally after the name of a subfolder and "/".

        Raises:
            InputError: it is no key.
        """
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise InputError(f"a key is a digest, or a name, '/' and a digest, not {shown(key)}")
        kind, _, name = key.rpartition("/")
        return self.folder / kind / name[:2] / f"{name}{_SUFFIX}"

    def __contains__(self, key: str) -> bool:
        return is_file(self.path(key))

    def put(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
        """Write an entry atomically.

        Args:
            key: key of the entry.
            tensors: tensors by name.
            metadata: further text by name.

        Raises:
            SD4MatchError: it cannot be written.
        """
        proof = {"format": _FORMAT, "entry": key, "crc32": _checksum(tensors)}
        self._write(key, safetensors_buffers(tensors, {**(metadata or {}), **proof}))

    def _write(self, key: str, content: Sequence[bytes | memoryview]) -> None:
        write_atomically(self.path(key), content)

    def get(self, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Return tensors and metadata of an entry; None if there is none.

        Args:
            key: key of the entry.

        Warns:
            DamagedEntryWarning: the entry cannot be read, or its bytes have changed. It is removed.
        """
        file = self.path(key)
        try:
            if not is_file(file):
                return None
            tensors, metadata = read_safetensors(file)
            if metadata.pop("crc32", None) != _checksum(tensors) or metadata.pop("format", None) != _FORMAT:
                raise ValueError("its bytes have changed")
            if metadata.pop("entry", None) != key:
                raise ValueError("it is another entry, renamed")
        except (OSError, ValueError) as error:
            self.discard(key, str(error))
            return None
        return tensors, metadata

    def discard(self, key: str, reason: str) -> None:
        """Remove a damaged entry, so that it is computed again.

        Args:
            key: key of the entry.
            reason: reason in the warning.

        Warns:
            DamagedEntryWarning: the entry was damaged; not if another process has removed it.
        """
        file = self.path(key)
        if os.path.lexists(file):
            warnings.warn(f"{file} is damaged ({reason}); it is computed again", DamagedEntryWarning, stacklevel=3)
            _try_to_remove(file)


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
    """Store of limited size, from which the least recently used entries are removed first.

    It counts and removes only its own files: those that are named by a digest, are in a folder of its first two
    letters, and contain the metadata of this entry. Other files in the folder are left alone.

    Args:
        folder: folder of the files, which several processes may share.
        limit: largest size in bytes. One writer never exceeds it; several writers may exceed it for a moment.
        dtype: dtype in which floats are stored; None: their own. See `rounded`.

    >>> import tempfile
    >>> cache = Cache(Path(tempfile.mkdtemp()), limit=1_500)
    >>> for key in ("aa01", "bb02", "cc03", "dd04"):
    ...     cache.put(f"latents/{key}", {"x": torch.zeros(100)})
    >>> cache.usage()["latents"].entries, cache.total() <= 1_500
    (2, True)
    """

    @check_arguments
    def __init__(self, folder: str | Path, *, limit: int, dtype: torch.dtype | None = None) -> None:
        super().__init__(as_path(folder, what="the folder of a cache"))
        self.limit = check_count("limit", limit, 0)
        self.dtype = dtype
        self._free = 0
        """Bytes that this process may write before it measures the folder again."""
        self._proven: set[Path] = set()
        """Files that were identified as entries, so that each is opened only once."""

    def rounded(self, value: Tensor) -> Tensor:
        """Return a tensor rounded as if it had been cached, so that results do not depend on what is cached.

        Args:
            value: any.
        """
        return value if self.dtype is None or not value.is_floating_point() else value.to(self.dtype).to(value.dtype)

    def put(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
        """Write an entry in the cache's dtype, after removing others if necessary.

        An entry that is larger than the limit is not written.

        Args:
            key: key of the entry.
            tensors: tensors by name.
            metadata: further text by name.

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
        """Return tensors and metadata of an entry; None if there is none.

        If the cache has a dtype, floating-point tensors are converted to float32.

        Args:
            key: key of the entry.

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
                self._proven.discard(file.path)
                total -= file.bytes
        self._free = max(wanted, (self.limit - total) // _WRITERS)

    def _files(self) -> Iterator[_CacheFile]:
        """Iterate over the files of the cache; other files in the folder are ignored."""
        for path in (*self.folder.glob(f"*/??/*{_SUFFIX}"), *self.folder.glob(f"*/??/.*{TEMPORARY_SUFFIX}")):
            try:
                if self._is_own(path):
                    status = path.stat()
                    yield _CacheFile(path, status.st_size, status.st_mtime)
            except OSError:  # removed by another process
                continue

    def _is_own(self, path: Path) -> bool:
        """Return whether a file is an entry of a cache, or a temporary file of one."""
        if path in self._proven:
            return True
        name = _BEING_WRITTEN.fullmatch(path.name) or _ENTRY.fullmatch(path.name)
        if name is None or name[1] != path.parent.name or path.is_symlink() or not is_file(path):
            return False
        is_own = path.name.endswith(TEMPORARY_SUFFIX) or _is_entry(path)
        if is_own and not path.name.endswith(TEMPORARY_SUFFIX):
            self._proven.add(path)
        return is_own

    def total(self) -> int:
        """Return the bytes on disk."""
        return sum(file.bytes for file in self._files())

    def usage(self) -> dict[str, CacheUsage]:
        """Return the number of entries and their bytes by kind."""
        usage: dict[str, CacheUsage] = {}
        for file in self._files():
            kind = file.path.parent.parent.name
            before = usage.get(kind, CacheUsage(0, 0))
            usage[kind] = CacheUsage(before.entries + 1, before.bytes + file.bytes)
        return dict(sorted(usage.items()))

    def clear(self) -> CacheUsage:
        """Remove all entries.

        Returns:
            Number and bytes of the removed entries.

        Raises:
            SD4MatchError: an entry cannot be removed.
        """
        files = list(self._files())
        for file in files:
            remove(file.path)
        return CacheUsage(len(files), sum(file.bytes for file in files))


def cache_folder() -> Path:
    """Return the default folder of caches: `SD4MATCH_CACHE`, or `sd4match` in the user's cache folder.

    Raises:
        InputError: `SD4MATCH_CACHE` is no path.
    """
    own = os.environ.get("SD4MATCH_CACHE")
    if own:
        return as_path(own, what="SD4MATCH_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sd4match"


def _is_entry(path: Path) -> bool:
    """Return whether the metadata of a file agree with its name."""
    metadata = _metadata(path)
    return metadata.get("format") == _FORMAT and metadata.get("entry") == f"{path.parts[-3]}/{path.stem}"


def _metadata(path: Path) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file; {} if it is not one."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= _LONGEST_HEADER else b""
    try:
        content = json.loads(header)
    except (ValueError, RecursionError):
        return {}
    metadata = content.get("__metadata__") if isinstance(content, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of names and bytes."""
    total = 0
    for name, value in sorted(tensors.items()):
        total = zlib.crc32(bytes_of(value), zlib.crc32(name.encode(), total))
    return str(total)


def _try_to_remove(path: Path) -> None:
    """Remove a file; an error, as for a file of another user, is ignored."""
    with suppress(SD4MatchError):
        remove(path)
