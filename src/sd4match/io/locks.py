"""Locks of output folders, so that two runs do not write into the same folder."""

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
"""Name of the lock file in a folder. The system releases the lock when the process ends for any reason."""

_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())
"""Folders that surrounding code has locked, so that a training in the folder of a command is no second run."""


@contextmanager
def locked_folder(folder: Path, *, error: type[SD4MatchError] = InputError) -> Iterator[None]:
    """Lock a folder during a block. The folder is created, and removed at the end if it is empty.

    There is no lock if the system or the file system does not support locks.

    Args:
        folder: output folder of a run. With several processes, only the main one locks it.
        error: class of the error.

    Raises:
        SD4MatchError: another run has locked the folder, or it cannot be written; of class `error`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name, locked_folder(Path(name)):
    ...     (Path(name) / LOCK_FILE).exists()
    True
    """
    target = resolved(folder)
    if target in _held.get():
        yield
        return
    try:
        made = make_folders(folder)
    except OSError as reason:
        raise error(f"cannot make the folder {folder}: {reason.strerror or reason}") from None
    handle: int | None = None
    token = _held.set(_held.get() | {target})
    try:
        handle = _locked(folder, error)
        yield
    finally:
        _held.reset(token)
        if handle is not None:
            with suppress(OSError):
                (folder / LOCK_FILE).unlink()  # before closing, while no other run can have locked it
            os.close(handle)
        for path in reversed(made):
            with suppress(OSError):  # not empty
                path.rmdir()


def _locked(folder: Path, error: type[SD4MatchError]) -> int | None:
    """Return the open lock file of a folder; None if locks are not supported.

    Raises:
        SD4MatchError: another run has locked the folder, or it cannot be written; of class `error`.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
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
            os.close(handle)  # another run has removed the file at its end
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
