"""Files that appear whole or not at all, and tensors as the same bytes whenever they are the same."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sd4match.errors import SD4MatchError

if TYPE_CHECKING:
    from torch import Tensor

PART = ".part"
"""How the temporary names end; one that stays behind is of a process that was killed."""


def write_atomically(
    path: Path,
    content: bytes,
    *,
    name: str | None = None,
    error: type[SD4MatchError] = SD4MatchError,
    durable: bool = False,
) -> None:
    """Write to a temporary name beside `path`, then rename; makes the folder.

    Args:
        path: what appears.
        content: of the file.
        name: what a message calls it; the path, if not given.
        error: what is raised if it cannot be written; the message gives the reason.
        durable: bring file and name to the disk before it returns, so that not even a power cut takes it back.
    """
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(part).chmod(0o644)
        Path(part).replace(path)
        if durable:
            _sync_folder(path.parent)
    except BaseException as reason:
        if part is not None:
            Path(part).unlink(missing_ok=True)
        if isinstance(reason, OSError):
            raise error(f"cannot write {name or path}: {reason.strerror or reason}") from None
        raise


def to_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file's content, with the header in order: safetensors itself shuffles the metadata.

    >>> import torch
    >>> one, other = ({name: "" for name in names} for names in ("abcdef", "fedcba"))
    >>> to_safetensors({"x": torch.ones(2)}, one) == to_safetensors({"x": torch.ones(2)}, other)
    True
    """
    from safetensors.torch import save

    content = save({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, dict(metadata or {}))
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is not a whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, RuntimeError) as error:  # the latter where torch cannot open the file
        raise ValueError(str(error)) from None


def remove(path: Path, *, error: type[SD4MatchError] = SD4MatchError) -> None:
    """Remove a file, if it is there.

    Args:
        path: of the file.
        error: what is raised if it cannot be removed; the message gives the reason.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as reason:
        raise error(f"cannot remove {path}: {reason.strerror or reason}") from None


def _sync_folder(folder: Path) -> None:
    """A new name is safe once its folder is; not every system can sync one."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
