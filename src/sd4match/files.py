"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sd4match.errors import SD4MatchError


def write_atomically(
    path: Path, content: bytes, *, name: str | None = None, error: type[SD4MatchError] = SD4MatchError
) -> None:
    """Write to a temporary name beside `path`, then rename; makes the folder.

    Args:
        path: what appears.
        content: of the file.
        name: what a message calls it; the path, if not given.
        error: what is raised if it cannot be written; the message gives the reason.
    """
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except OSError as reason:
        if part is not None:
            Path(part).unlink(missing_ok=True)
        raise error(f"cannot write {name or path}: {reason.strerror or reason}") from None
