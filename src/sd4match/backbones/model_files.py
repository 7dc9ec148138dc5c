"""Files of model folders: checks against Git-LFS pointers, weight files, and fields of JSON files. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sd4match.checks import check_choice, check_count, check_number
from sd4match.documents import parse_json
from sd4match.errors import CheckpointError, InputError, shown
from sd4match.paths import is_file, read_text

_LARGEST_JSON = 1 << 26
_POINTER = b"version https://git-lfs"


def refuse_pointer(path: Path) -> Path:
    """Return the path of a file after a check that the file is not a Git-LFS pointer.

    Args:
        path: file to check.

    Raises:
        CheckpointError: the file is a pointer, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    if start == _POINTER:
        raise CheckpointError(f"{path} is a Git-LFS pointer and not the file itself: fetch it with `git lfs pull`")
    return path


def refuse_pointers(folder: Path) -> None:
    """Check that none of the files in a folder is a Git-LFS pointer.

    Args:
        folder: folder to check, without its subfolders.

    Raises:
        CheckpointError: a file is a pointer, or cannot be read.
    """
    for path in sorted(folder.iterdir()):
        if is_file(path):
            refuse_pointer(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a model.

    Args:
        path: JSON file.

    Raises:
        CheckpointError: the file cannot be read, is a Git-LFS pointer, or holds no object.
    """
    text = read_text(path, what="model file", error=CheckpointError, largest=_LARGEST_JSON)
    if text.encode().startswith(_POINTER):
        refuse_pointer(path)
    content = parse_json(text, what=str(path), error=CheckpointError)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content


def weight_files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """Return the files from which a model is loaded, in the order of preference of transformers and diffusers.

    Args:
        folder: folder of the model, or a subfolder of it.
        stem: "model", "pytorch_model" or "diffusion_pytorch_model".
        variant: for example "fp16"; None: files without a variant.

    Returns:
        One file, or all shards that the index names; [] if there is neither.

    Raises:
        CheckpointError: an index of shards cannot be read, or names a shard that is not there.
    """
    middle = f".{variant}" if variant else ""
    for end in ("safetensors", "bin"):
        name = stem if end == "safetensors" else "pytorch_model" if stem == "model" else stem
        if is_file(folder / f"{name}{middle}.{end}"):
            return [folder / f"{name}{middle}.{end}"]
        for index in (folder / f"{name}.{end}.index{middle}.json", folder / f"{name}{middle}.{end}.index.json"):
            if is_file(index):
                return _shards(index)
    return []


def _shards(index: Path) -> list[Path]:
    """Return the shards that an index names."""
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, Mapping) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{index}: weight_map must be an object from the names of tensors to names of files")
    missing = sorted(name for name in set(names) if not is_file(index.parent / name))
    if missing:
        raise CheckpointError(f"{index.parent} is not whole: {', '.join(missing[:3])} missing, named in {index.name}")
    return [index.parent / name for name in sorted(set(names))]


def find_variant(folder: Path, stem: str, wanted: str | None) -> str | None:
    """Return the variant of the weight files in a folder: the wanted one, or the only one that exists."""
    if wanted is not None or weight_files(folder, stem, None):
        return wanted
    stems = {stem, "pytorch_model" if stem == "model" else stem}
    names = []
    for name in sorted(stems):
        for end in ("safetensors", "bin"):
            names += sorted(file.name.split(".")[1] for file in folder.glob(f"{name}.*.{end}"))
            names += sorted(file.name.split(".")[-2] for file in folder.glob(f"{name}.{end}.index.*.json"))
    return next((name for name in names if weight_files(folder, stem, name)), None)


class Fields:
    """Fields of a JSON file of a model, read with checks. Every error message names file and field.

    Args:
        content: content of the file.
        where: name of the file in messages.

    >>> Fields({"sample_size": [64]}, "unet/config.json").whole("sample_size", high=512)
    Traceback (most recent call last):
        ...
    sd4match.errors.CheckpointError: unet/config.json: sample_size must be a whole number from 1 to 512, not [64]
    """

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self.content = content
        self.where = where

    def refuse(self, message: str) -> CheckpointError:
        """Return an error about this file."""
        return CheckpointError(f"{self.where}: {message}")

    def _value(self, name: str, default: Any) -> Any:
        if name not in self.content and default is None:
            raise self.refuse(f"field {name!r} missing")
        return self.content.get(name, default)

    def whole(self, name: str, *, low: int = 1, high: int = 1 << 20, default: int | None = None) -> int:
        """Return a whole number; `default` if the field is missing (None: it is required)."""
        try:
            return check_count(name, self._value(name, default), low, high)
        except InputError as error:
            raise self.refuse(str(error)) from None

    def number(self, name: str, *, low: float, high: float, default: float | None = None) -> float:
        """Return a number within bounds; `default` if the field is missing (None: it is required)."""
        try:
            return check_number(name, self._value(name, default), low, high)
        except InputError as error:
            raise self.refuse(str(error)) from None

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a flag; `default` if the field is missing."""
        value = self.content.get(name, default)
        if not isinstance(value, bool):
            raise self.refuse(f"{name} must be true or false, not {shown(value)}")
        return value

    def choice(self, name: str, choices: tuple[str, ...], *, default: str | None = None) -> str:
        """Return one of several names; `default` if the field is missing (None: it is required)."""
        try:
            return check_choice(name, self._value(name, default), choices)
        except InputError as error:
            raise self.refuse(str(error)) from None

    def whole_list(self, name: str, *, length: int | None = None, high: int = 1 << 20) -> list[int]:
        """Return a list of positive whole numbers, of a given length or of at least one."""
        values = self._list(name, length)
        if not all(isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= high for value in values):
            raise self.refuse(f"{name} must be a list of whole numbers from 1 to {high}, not {shown(values)}")
        return values

    def text_list(self, name: str, *, length: int, choices: tuple[str, ...]) -> list[str]:
        """Return a list of names out of `choices`, of a given length."""
        values = self._list(name, length)
        if not all(isinstance(value, str) and value in choices for value in values):
            raise self.refuse(f"{name} must be a list of names among {', '.join(choices)}, not {shown(values)}")
        return values

    def only(self, name: str, value: object, *, why: str) -> None:
        """Check that a field is missing or has the only supported value."""
        given = self.content.get(name, value)
        if given != value or isinstance(given, bool) != isinstance(value, bool):
            raise self.refuse(f"{name} must be {json.dumps(value)}, {why}, not {shown(given)}")

    def _list(self, name: str, length: int | None) -> list[Any]:
        values = self._value(name, None)
        if not isinstance(values, list | tuple) or not 1 <= len(values) <= 16:
            raise self.refuse(f"{name} must be a list of 1 to 16 values, not {shown(values)}")
        if length is not None and len(values) != length:
            raise self.refuse(f"{name} must have {length} values, as many as block_out_channels, not {len(values)}")
        return list(values)

    def colors(
        self, name: str, *, low: float, default: tuple[float, float, float] | None
    ) -> tuple[float, float, float]:
        """Return numbers for red, green and blue; `default` if the field is missing (None: it is required)."""
        values = self.content.get(name)
        if values is None and default is not None:
            return default
        if not isinstance(values, list) or len(values) != 3:
            raise self.refuse(f"{name} must be 3 numbers, for red, green and blue, not {shown(values)}")
        try:
            red, green, blue = (check_number(f"{name} of a color", value, low, 10.0) for value in values)
        except InputError as error:
            raise self.refuse(str(error)) from None
        return red, green, blue

    def absent(self, name: str, why: str, *, allowed: tuple[Any, ...] = (None, False)) -> None:
        """Check that a field is missing, or has one of the values that are without effect."""
        value = self.content.get(name)
        if not any(value is other or (value == other and type(value) is type(other)) for other in allowed):
            raise self.refuse(f"{name} = {shown(value)} {why}")
