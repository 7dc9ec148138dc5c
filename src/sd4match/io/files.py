"""Atomic writing of files, and safetensors files with reproducible bytes."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sd4match.errors import InputError, SD4MatchError, a
from sd4match.paths import exists, is_file, is_folder

if TYPE_CHECKING:
    from torch import Tensor

TEMPORARY_SUFFIX = ".part"
"""Suffix of temporary files during writing; such a file remains only if the process was killed."""
_LONGEST_PREFIX = 100
"""Characters of a file's name in its temporary name, which may have 255 bytes."""

_DTYPES = {
    "torch.float64": "F64", "torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16",
    "torch.int64": "I64", "torch.int32": "I32", "torch.int16": "I16", "torch.int8": "I8", "torch.uint8": "U8",
    "torch.bool": "BOOL", "torch.uint16": "U16", "torch.uint32": "U32", "torch.uint64": "U64", "torch.complex64": "C64",
}  # fmt: skip


def write_atomically(
    path: Path,
    content: bytes | Sequence[bytes | memoryview],
    *,
    name: str | None = None,
    error: type[SD4MatchError] = SD4MatchError,
    durable: bool = False,
) -> None:
    """Write a file atomically: write a temporary file next to it, then rename that. The folder is created.

    Args:
        path: file to write.
        content: its bytes, or buffers to write one after the other.
        name: name of the file in messages; None: the path.
        error: class of the error.
        durable: whether to flush file and name to the disk, so that they survive a power failure.

    Raises:
        SD4MatchError: the file cannot be written; of class `error`. An old file is unchanged then, and no temporary
            file remains.
    """
    write_together({path: content}, name=name, error=error, durable=durable)


def write_together(
    contents: Mapping[Path, bytes | Sequence[bytes | memoryview]],
    *,
    name: str | None = None,
    error: type[SD4MatchError] = SD4MatchError,
    durable: bool = False,
) -> None:
    """Write files that belong together atomically: none is renamed before all of them are written.

    Args:
        contents: bytes of each file, or buffers to write one after the other.
        name: name of a file in messages; None: its path.
        error: class of the error.
        durable: whether to flush files and names to the disk.

    Raises:
        SD4MatchError: a file cannot be written; of class `error`. Old files are unchanged then, and no new file
            remains.
    """
    temporary: dict[Path, Path] = {}
    old: dict[Path, Path] = {}
    replaced: list[Path] = []
    made: list[Path] = []
    current = next(iter(contents))
    try:
        for current, content in contents.items():
            made += make_folders(current.parent)
            if exists(current) and not is_file(current):
                kind = "a folder" if is_folder(current) else "not a regular file"
                raise error(f"cannot write {name or current}: {current} is {kind}")
            temporary[current] = _write_beside(current, content, durable=durable)
            if len(contents) > 1 and exists(current):
                old[current] = _second_name(current)
        for current, written in temporary.items():
            replaced.append(current)
            written.replace(current)
        if durable:
            for folder in {path.parent for path in contents}:
                _sync_folder(folder)
    except BaseException as reason:
        for path in replaced:
            if path in old:
                old[path].replace(path)
            elif not exists(temporary[path]):  # it has been renamed
                path.unlink(missing_ok=True)
        for written in temporary.values():
            written.unlink(missing_ok=True)
        for folder in reversed(made):
            with suppress(OSError):  # not empty
                folder.rmdir()
        if isinstance(reason, (OSError, ValueError)) and not isinstance(reason, SD4MatchError):
            raise error(f"cannot write {name or current}: {getattr(reason, 'strerror', None) or reason}") from None
        raise
    finally:
        for backup in old.values():
            backup.unlink(missing_ok=True)


def _second_name(path: Path) -> Path:
    """Return a temporary second name of a file, which remains when the file is replaced."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_LONGEST_PREFIX]}.", suffix=TEMPORARY_SUFFIX)
    os.close(handle)
    backup = Path(name)
    backup.unlink()
    try:
        backup.hardlink_to(path)
    except OSError:  # a file system without hard links
        shutil.copy2(path, backup)
    return backup


def make_folders(folder: Path) -> list[Path]:
    """Create a folder and its parents.

    Args:
        folder: folder to create.

    Returns:
        The folders that did not exist before, from the top.

    Raises:
        OSError: a folder cannot be created; those that were created are removed again.
    """
    missing = []
    while not exists(folder) and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    made = []
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            made.append(path)
    except OSError:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()
        raise
    return made


def _write_beside(path: Path, content: bytes | Sequence[bytes | memoryview], *, durable: bool) -> Path:
    """Write a temporary file in the folder of `path` and return it; it is removed if it cannot be written."""
    prefix = f".{path.name[:_LONGEST_PREFIX]}."
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=TEMPORARY_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            for buffer in [content] if isinstance(content, bytes) else content:
                file.write(buffer)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return Path(temporary)


def check_output_file(
    path: Path,
    *,
    option: str = "--output",
    inputs: Iterable[Path] = (),
    is_own: Callable[[Path], bool] | None = None,
    what: str = "file",
) -> Path:
    """Check before a computation that writing its result overwrites no other file of the user.

    Args:
        path: file that will be written.
        option: name of the option in messages.
        inputs: files that are read; the output must be none of them.
        is_own: function that returns whether an existing file is an earlier result, which may be replaced; None: never.
        what: sort of the file in messages.

    Returns:
        The path.

    Raises:
        InputError: the path is a link, a folder, an input, or an existing file of another sort.
    """
    if not exists(path):
        check_no_link(path, option=option)
        return path
    if not is_file(path):
        raise InputError(f"{option} {path} is not a file: give the name of {a(what)} to write")
    for source in inputs:
        if exists(source) and path.samefile(source):
            raise InputError(f"{option} {path} is an input of this command, and would be lost: give another name")
    check_no_link(path, option=option)
    if is_own is None or not is_own(path):
        raise InputError(f"{option} {path} exists and is no {what} of sd4match: give another name, or move it away")
    return path


def check_no_link(path: Path, *, option: str = "--output") -> None:
    """Check that a file that will be written is no link, which would be replaced by the file.

    Args:
        path: file that will be written.
        option: name of the option in messages.

    Raises:
        InputError: the path is a link, even a broken one.
    """
    if os.path.islink(path):  # noqa: PTH114 - `Path.is_symlink` raises for a name that is too long
        raise InputError(f"{option} {path} is a link, and would be replaced: give the name of the file it leads to")


def to_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a safetensors file; the same tensors and metadata always give the same bytes.

    Convention: the header is sorted, because safetensors itself shuffles the metadata.

    Args:
        tensors: tensors by name, on any device.
        metadata: text by name.

    >>> import torch
    >>> first, second = ({name: "" for name in names} for names in ("abcdef", "fedcba"))
    >>> to_safetensors({"x": torch.ones(2)}, first) == to_safetensors({"x": torch.ones(2)}, second)
    True
    """
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata or {}))
    end = 8 + int.from_bytes(content[:8], "little")
    return _header(json.loads(content[8:end])) + content[end:]


def safetensors_buffers(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> list[bytes | memoryview]:
    """Return the content of a safetensors file as buffers, without copies of contiguous tensors on the CPU.

    Args:
        tensors: tensors by name, on any device.
        metadata: text by name.

    Raises:
        InputError: a tensor has a dtype that cannot be stored; the message names it.

    >>> import torch
    >>> tensors = {"x": torch.ones(2), "y": torch.zeros(1, dtype=torch.float16)}
    >>> b"".join(safetensors_buffers(tensors, {"a": "b"})) == to_safetensors(tensors, {"a": "b"})
    True
    """
    from sd4match.hashing import bytes_of

    header: dict[str, object] = {"__metadata__": dict(metadata or {})}
    buffers = []
    start = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        dtype = _DTYPES.get(str(tensor.dtype))
        if dtype is None:
            raise InputError(f"the tensor {name} is of {tensor.dtype}, which cannot be stored: use float32")
        content = bytes_of(tensor)
        end = start + content.nbytes
        header[name] = {
            "dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end],
        }  # fmt: skip
        buffers.append(content)
        start = end
    return [_header(header), *buffers]


def _header(content: Mapping[str, object]) -> bytes:
    """Return the header of a safetensors file: its length, then sorted JSON, padded to 8 bytes."""
    header = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a safetensors file.

    Args:
        path: the file.

    Raises:
        OSError: the file does not exist, or cannot be read.
        ValueError: it is not a regular file, or not a complete safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would block
        raise ValueError("it is not a regular file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, RuntimeError) as error:  # RuntimeError if torch cannot open the file
        raise ValueError(str(error)) from None


def remove(path: Path, *, error: type[SD4MatchError] = SD4MatchError) -> None:
    """Remove a file, if it exists.

    Args:
        path: file to remove.
        error: class of the error.

    Raises:
        SD4MatchError: the file cannot be removed; of class `error`.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as reason:
        raise error(f"cannot remove {path}: {reason.strerror or reason}") from None


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, if the system supports it."""
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
