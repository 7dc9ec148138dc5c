"""Temporary folders of feature maps; those of killed processes are recognized by their names and removed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from sd4match.errors import SD4MatchError

SCRATCH_PREFIX = ".sd4match-maps-"
"""Prefix of the temporary folders of maps, followed by the host, the id of the process, and random letters."""


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Provide a temporary folder for feature maps, and remove it at the end, also after an error or a signal.

    Folders that killed processes of this machine have left in the same place are removed first.

    Args:
        parent: where it is made; the system's folder for temporary files, if None.

    Raises:
        SD4MatchError: it cannot be made.

    >>> with scratch_folder(None) as folder:
    ...     folder.name.startswith(SCRATCH_PREFIX)
    True
    """
    parent_folder = Path(tempfile.gettempdir()) if parent is None else parent
    remove_abandoned_folders(parent_folder)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{SCRATCH_PREFIX}{_host()}-{os.getpid()}-", dir=parent_folder))
    except OSError as error:
        raise SD4MatchError(
            f"cannot make a folder for feature maps in {parent_folder}: {error.strerror or error}"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_folders(parent_folder: Path) -> None:
    """Remove the temporary folders of processes of this machine that no longer run; others remain."""
    for folder in parent_folder.glob(f"{SCRATCH_PREFIX}{_host()}-*"):
        found = re.fullmatch(r"([0-9]{1,9})-[a-z0-9_]{8}", folder.name.removeprefix(f"{SCRATCH_PREFIX}{_host()}-"))
        if found is not None and folder.is_dir() and not folder.is_symlink() and not _runs(int(found[1]), folder):
            shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())[:64]


def _runs(number: int, folder: Path) -> bool:
    """Return whether the process that made a folder runs; one that started after the folder was made is another."""
    try:
        process = psutil.Process(number)
        is_owner = process.create_time() <= folder.stat().st_mtime + 1
        return bool(is_owner and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):  # unknown
        return True
