"""Damaged feature files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from robustness.cases import Case, input_is_ready
from robustness.damage import binary_damages, json_text, tensor_damages, value_damages
from sd4match.geometry import Grid, squash_frame
from sd4match.io.features import read_features, write_features
from sd4match.io.files import read_safetensors, to_safetensors
from sd4match.structures.tensors import FeatureMap


def _read(path: Path) -> tuple[torch.Tensor, str]:
    features, _ = read_features(path)
    return features.values, repr((features.grid, features.groups))


def cases(base: Path) -> Iterator[Case]:
    """Yield damages of the file, of its metadata and of its tensors."""
    file = base / "map.safetensors"
    grid = Grid((squash_frame((40, 60), (64, 64)),), (4, 4), "patch", 6.5)
    write_features(FeatureMap(torch.randn(1, 6, 4, 4), grid, (2, 4)), file, provenance={"photo": "cat.jpg"})
    right = _read(file)
    tensors, metadata = read_safetensors(file)

    def case(name: str, content: bytes) -> Case:
        def act(folder: Path) -> object:
            path = folder / "map.safetensors"
            path.write_bytes(content)
            input_is_ready()
            return _read(path)

        return Case("feature files", name, act, ("map.safetensors",), right=right)

    for name, content in binary_damages(file.read_bytes()):
        yield case(name, content)
    for key, text in metadata.items():
        yield case(f"without {key}", to_safetensors(tensors, {k: v for k, v in metadata.items() if k != key}))
        for other in ("", "x", "null", "[1]", "{}", '"x"', "-1", "NaN", "[" * 50_000):
            if (key, other) not in (("provenance", "{}"), ("groups", "[]"), ("offset", "-1"), ("offset", "null")):
                yield case(f"{key} = {other[:8]!r}", to_safetensors(tensors, metadata | {key: other}))
        if key == "frame":
            for name, value in value_damages(json.loads(text)):
                if not name.startswith("negative offset"):
                    yield case(f"frame: {name}", to_safetensors(tensors, metadata | {key: json_text(value)}))
    for name, other_tensors in tensor_damages(tensors, ["features"]):
        if name != "surplus tensor":
            yield case(name, to_safetensors(other_tensors, metadata))
