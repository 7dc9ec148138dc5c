"""Locks of folders in which a run writes, so that no second run mixes its files with those of the first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from sd4match.errors import InputError, SD4MatchError
from sd4match.io.files import make_folders
from sd4match.paths import resolved

LOCK_FILE = ".sd4match-lock"
"""File of a folder that a run holds locked. The system frees the lock of a process that ends, however it ends."""

_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())
"""Folders that the code around holds: a training in the folder of a command is no second run."""


@contextmanager
def locked_folder(folder: Path, *, error: type[SD4MatchError] = InputError) -> Iterator[None]:
    """Hold a folder for a block; it is made, and removed at the end if it is empty.

    Where the system or the file system has no locks, nothing is held.

    Args:
        folder: where a run writes. With several processes, the main one alone holds it.
        error: class of the error.

    Raises:
        SD4MatchError: another run holds it, or it cannot be written; see `error`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name, locked_folder(Path(name)):
    ...     (Path(name) / LOCK_FILE).exists()
    True
    """
    place = resolved(folder)
    if place in _held.get():
        yield
        return
    try:
        made = make_folders(folder)
    except OSError as reason:
        raise error(f"cannot make the folder {folder}: {reason.strerror or reason}") from None
    handle: int | None = None
    token = _held.set(_held.get() | {place})
    try:
        handle = _locked(folder, error)
        yield
    finally:
        _held.reset(token)
        if handle is not None:
            with suppress(OSError):
                (folder / LOCK_FILE).unlink()  # while it is locked: nobody else holds it
            os.close(handle)
        for path in reversed(made):
            with suppress(OSError):  # not empty
                path.rmdir()


def _locked(folder: Path, error: type[SD4MatchError]) -> int | None:
    """Return the open lock file of a folder; None where there are no locks.

    Raises:
        SD4MatchError: another run holds it, or it cannot be written; see `error`.
    """
    try:
        import fcntl
    except ImportError:  # not on this system
        return None
    file = folder / LOCK_FILE
    while True:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as reason:
            raise error(f"cannot write {file}: {reason.strerror or reason}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), file.stat()):
                return handle
            os.close(handle)  # another run has removed it at its end
        except FileNotFoundError:
            os.close(handle)
        except BlockingIOError:
            os.close(handle)
            raise error(
                f"another run is writing into {folder}: wait until it has ended, or choose another folder"
            ) from None
        except OSError:  # a file system without locks
            os.close(handle)
            with suppress(OSError):
                file.unlink()
            return None
