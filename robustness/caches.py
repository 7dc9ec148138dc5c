"""Damaged entries of a cache, which are computed again, and folders that are no cache."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from robustness.cases import Case, input_is_ready, run_command
from robustness.damage import binary_damages, tensor_damages
from sd4match.backbones import CachedBackbone, StableDiffusionConfig
from sd4match.backbones.cached import cached
from sd4match.interfaces import Backbone
from sd4match.io.cache import Cache, Store
from sd4match.io.files import read_safetensors
from sd4match.structures.images import Views
from sd4match.testing import random_photo


def cases(base: Path) -> Iterator[Case]:
    """Yield damaged entries, and folders of the user in place of a cache."""
    backbone: Backbone = StableDiffusionConfig(weights="mini").build()
    views = Views.of([backbone.prepare(random_photo((20, 30)))])

    def encoded(folder: Path) -> dict[str, torch.Tensor]:
        wrapped: CachedBackbone = cached(backbone, Cache(folder, limit=10**9))
        return dict(wrapped.encode(views).tensors)

    folder = base / "cache"
    right = sorted(encoded(folder).items())
    (entry,) = folder.rglob("*.safetensors")
    place = entry.relative_to(folder)
    tensors, metadata = read_safetensors(entry)

    def case(name: str, content: bytes | None, changed: dict[str, torch.Tensor] | None = None) -> Case:
        def act(own: Path) -> object:
            shutil.copytree(folder, own / "cache")
            if content is not None:
                (own / "cache" / place).write_bytes(content)
            if changed is not None:
                (own / "cache" / place).unlink()
                key = f"{place.parts[0]}/{place.stem}"
                Store(own / "cache").put(key, changed, {k: v for k, v in metadata.items() if k != "crc32"})
            return sorted(encoded(own / "cache").items())

        return Case("caches", name, act, ("cache",), right=right)

    for name, content in binary_damages(entry.read_bytes()):
        yield case(name, content)
    for name, changed in tensor_damages(tensors, list(tensors)):
        if not name.startswith(("whole numbers", "booleans", "surplus")):
            yield case(f"right checksum, {name}", None, changed)

    def clear(name: str, files: tuple[str, ...]) -> Case:
        def act(own: Path) -> object:
            for file in files:
                (own / "mine" / file).parent.mkdir(parents=True, exist_ok=True)
                (own / "mine" / file).write_bytes(entry.read_bytes())
            input_is_ready()
            return run_command("cache", "clear", "--folder", own / "mine")

        return Case("caches", f"clear of {name}", act, (), may_differ=True)

    yield clear("a folder of models", ("models/v1/unet.safetensors", "a/ab/abc.safetensors"))
    yield clear("a folder of prompts", ("runs/v2/prompt.safetensors",))
    yield clear("a name like a digest", (f"sub/ab/ab{'0' * 38}.safetensors",))
