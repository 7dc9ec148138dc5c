"""Damaged checkpoints of a training, which is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from helpers.training import trainer
from robustness.cases import Case, input_is_ready
from robustness.damage import binary_damages, json_text, tensor_damages, value_damages
from sd4match.hashing import digest
from sd4match.io.files import read_safetensors, to_safetensors
from sd4match.training.checkpoint import Checkpoints

_HARMLESS = ("columns", "best_scores", "per_device", "empty state.validation")
"""Values of a checkpoint that are only shown, or that have another value on another machine."""


def _resumed(folder: Path) -> torch.Tensor:
    own = trainer(steps=6)
    own.fit(checkpoints=Checkpoints(folder), resume=True)
    vector: torch.Tensor = own.prompt.vector.detach()  # type: ignore[assignment]
    return vector


def cases(base: Path) -> Iterator[Case]:
    """Yield damages of the only checkpoint, with its digest made right again where the damage is inside."""
    trainer(steps=3).fit(checkpoints=Checkpoints(base))
    file = max(base.glob("step-*.safetensors"))
    tensors, metadata = read_safetensors(file)
    right = _resumed_copy(base, file.read_bytes(), file.name)

    def case(name: str, content: bytes, *, file_name: str = file.name, differ: bool = False) -> Case:
        def act(folder: Path) -> object:
            (folder / file_name).write_bytes(content)
            input_is_ready(may_change=("step-",))
            return _resumed(folder)

        return Case("checkpoints", name, act, (file_name,), right=right, may_differ=differ)

    def forged(tensors: dict[str, torch.Tensor], text: str) -> bytes:
        own = digest(text, *(element for item in sorted(tensors.items()) for element in item))
        return to_safetensors(tensors, metadata | {"content": text, "digest": own})

    for name, content in binary_damages(file.read_bytes()):
        yield case(name, content)
    yield case("named after another step", file.read_bytes(), file_name="step-99999999.safetensors")
    for name, value in value_damages(json.loads(metadata["content"]), per_kind=1):
        differ = any(word in name for word in _HARMLESS)
        yield case(f"content: {name}", forged(tensors, json_text(value)), differ=differ)
    for name, changed in tensor_damages(tensors, sorted(tensors)):
        if name != "surplus tensor":
            yield case(name, forged(changed, metadata["content"]))


def _resumed_copy(base: Path, content: bytes, name: str) -> torch.Tensor:
    (base / "copy").mkdir()
    (base / "copy" / name).write_bytes(content)
    return _resumed(base / "copy")
