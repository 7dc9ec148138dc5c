"""Tensors on disk by the digest of what they were computed from."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sd4match.files import write_atomically


class DamagedEntryWarning(UserWarning):
    """A file of a store could not be read; what it held is computed again."""


def digest(*parts: object) -> str:
    """A name for content: of the bytes of tensors, and of the text of everything else.

    >>> digest("a", 1) == digest("a", 1), digest("a", 1) == digest("a1")
    (True, False)
    """
    state = hashlib.blake2b(digest_size=20)
    for part in parts:
        if isinstance(part, Tensor):
            content = f"{part.dtype} {tuple(part.shape)} ".encode() + part.detach().cpu().contiguous().numpy().tobytes()
        else:
            content = repr(part).encode()
        state.update(len(content).to_bytes(8, "little") + content)
    return state.hexdigest()


class Store:
    """A folder of tensors, one safetensors file for each key. Several processes may write and read at once.

    >>> import tempfile, torch
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> store.put("ab12", {"x": torch.ones(2)}, {"unit": "cells"})
    >>> store.get("ab12"), store.get("ffff")
    (({'x': tensor([1., 1.])}, {'unit': 'cells'}), None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where an entry is, or would be."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def put(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
        """Write an entry; it appears whole or not at all.

        Raises:
            SD4MatchError: it cannot be written.
        """
        content = save(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, dict(metadata or {})
        )
        write_atomically(self.path(key), content)

    def get(self, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Tensors and metadata of an entry; None if there is none.

        Warns:
            DamagedEntryWarning: there is one that cannot be read. It is removed.
        """
        file = self.path(key)
        if not file.is_file():
            return None
        try:
            with safe_open(file, framework="pt") as entry:
                return {name: entry.get_tensor(name) for name in entry.keys()}, dict(entry.metadata() or {})  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            warnings.warn(f"{file} is damaged ({error}); it is computed again", DamagedEntryWarning, stacklevel=2)
            file.unlink(missing_ok=True)
            return None
