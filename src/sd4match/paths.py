"""Checks of paths that users give, and readers with bounds. Importing this module loads no torch.

The methods of `pathlib.Path` raise various errors for names that are too long or unknown users, and reading a FIFO or a
device may never end. All files of users are therefore read through this module.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sd4match.errors import InputError, SD4MatchError, a, is_unicode, shown

__all__ = [
    "as_path",
    "exists",
    "is_file",
    "is_folder",
    "read_bytes",
    "read_text",
    "require_file",
    "require_folder",
    "resolved",
]

LARGEST_DOCUMENT = 1 << 30
"""Default largest size in bytes of files that are read into memory as a whole."""


def as_path(value: object, *, what: str, error: type[SD4MatchError] = InputError) -> Path:
    """Return a path, with a leading ~ expanded.

    Args:
        value: a string or a path.
        what: name of the argument in messages, for example "--root".
        error: class of the error.

    Raises:
        SD4MatchError: the value is empty, no path, not UTF-8, contains a null character, or names a user that does not
            exist; of class `error`.

    >>> as_path("photos/cat.jpg", what="photo").name
    'cat.jpg'
    """
    if not isinstance(value, (str, Path)):
        raise error(f"{what} must be a path, not {shown(value)}")
    text = str(value)
    if not text or text.isspace():
        raise error(f"{what} is empty: give a path")
    if "\0" in text:
        raise error(f"{what} is no path: {shown(text)} holds a null character")
    if not is_unicode(text):
        raise error(f"{what} is no path: {shown(text)} is not UTF-8, and could not be named in a result")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise error(f"{what}: {text} names a user that does not exist") from None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def exists(path: Path) -> bool:
    """Return whether a path exists; False, without an error, for a name that no file can have.

    Args:
        path: any.
    """
    return _status(path) is not None


def is_file(path: Path) -> bool:
    """Return whether a path is a regular file; False for FIFOs, devices and names that no file can have.

    Args:
        path: any.
    """
    status = _status(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False for a name that no folder can have.

    Args:
        path: any.
    """
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def resolved(path: Path) -> Path:
    """Return an absolute path without links, also if links form a loop, where `Path.resolve` raises a RuntimeError.

    Args:
        path: any.

    >>> resolved(Path("/usr/../tmp/..")).as_posix()
    '/'
    """
    return Path(os.path.realpath(path))


def require_file(path: Path, *, what: str, error: type[SD4MatchError] = InputError) -> Path:
    """Return a path after a check that it is a regular file.

    Args:
        path: path of the file.
        what: name of the file in messages, for example "prompt file".
        error: class of the error.

    Raises:
        SD4MatchError: the path does not exist, or is a folder, a FIFO or a device; of class `error`.

    >>> require_file(Path("no-such.json"), what="report")
    Traceback (most recent call last):
        ...
    sd4match.errors.InputError: no such report: no-such.json
    """
    mode = _mode(path, what, error)
    if stat.S_ISDIR(mode):
        raise error(f"{path} is a folder: give {a(what)}")
    if not stat.S_ISREG(mode):
        raise error(f"{path} is not a regular file: give {a(what)}")
    return path


def require_folder(path: Path, *, what: str, error: type[SD4MatchError] = InputError) -> Path:
    """Return a path after a check that it is a folder.

    Args:
        path: path of the folder.
        what: name of the folder in messages.
        error: class of the error.

    Raises:
        SD4MatchError: the path does not exist, or is not a folder; of class `error`.
    """
    mode = _mode(path, what, error)
    if not stat.S_ISDIR(mode):
        raise error(f"{path} is not a folder: give {a(what)}")
    return path


def read_bytes(
    path: Path, *, what: str, error: type[SD4MatchError] = InputError, largest: int = LARGEST_DOCUMENT
) -> bytes:
    """Return the content of a regular file.

    Args:
        path: path of the file.
        what: name of the file in messages.
        error: class of the error.
        largest: largest size in bytes.

    Raises:
        SD4MatchError: the file does not exist, cannot be read, is not a regular file, or is too large; of class
            `error`.
    """
    require_file(path, what=what, error=error)
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as reason:
        raise error(f"cannot read the {what} {path}: {_reason(reason)}") from None
    if len(content) > largest:
        raise error(f"the {what} {path} is too large: at most {largest:,} bytes are read")
    return content


def read_text(
    path: Path, *, what: str, error: type[SD4MatchError] = InputError, largest: int = LARGEST_DOCUMENT
) -> str:
    """Return the content of a UTF-8 file, without a byte-order mark.

    Args:
        path: path of the file.
        what: name of the file in messages.
        error: class of the error.
        largest: largest size in bytes.

    Raises:
        SD4MatchError: the file does not exist, cannot be read, is not a regular file, is too large, or is not UTF-8; of
            class `error`.
    """
    try:
        return read_bytes(path, what=what, error=error, largest=largest).decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"the {what} {path} is not UTF-8 text: byte {reason.start}") from None


def _mode(path: Path, what: str, error: type[SD4MatchError]) -> int:
    """Return the mode of a path, or raise an error if it cannot be read."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        raise error(f"no such {what}: {path}") from None
    except (OSError, ValueError) as reason:
        raise error(f"cannot read the {what} {path}: {_reason(reason)}") from None


def _reason(reason: Exception) -> str:
    return str(getattr(reason, "strerror", None) or reason)
