"""Damaged folders of models: Stable Diffusion in diffusers' layout, and DINOv2 as transformers saves it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.model_folders import write_random_model, write_random_transformer
from robustness.cases import Case, input_is_ready
from robustness.damage import binary_damages, json_text, tensor_damages, text_damages, value_damages
from sd4match.backbones import StableDiffusionConfig, VisionTransformerConfig
from sd4match.cli.common import quiet_libraries
from sd4match.matching import NearestNeighbor
from sd4match.pipeline import SemanticMatcher
from sd4match.prompting import NoPromptConfig, TextPromptConfig
from sd4match.testing import random_photo

GROUP = "model folders"
_PHOTO = random_photo((40, 50))


def stable_diffusion_features(folder: Path) -> Tensor:
    """Return the features of a photo under a text prompt, by a model folder."""
    input_is_ready()
    backbone = StableDiffusionConfig(weights=str(folder / "model")).build()
    prompt = TextPromptConfig().build(backbone=backbone)
    matcher = SemanticMatcher(backbone=backbone, prompt=prompt, matcher=NearestNeighbor())
    return matcher.feature_map(_PHOTO, category="cat").values


def transformer_features(folder: Path) -> Tensor:
    """Return the features of a photo by a vision transformer's folder."""
    input_is_ready()
    backbone = VisionTransformerConfig(weights=str(folder / "model")).build()
    matcher = SemanticMatcher(backbone=backbone, prompt=NoPromptConfig().build(), matcher=NearestNeighbor())
    return matcher.feature_map(_PHOTO).values


def cases(base: Path) -> Iterator[Case]:
    """Yield every damage of every file."""
    quiet_libraries()
    diffusion, transformer = base / "diffusion" / "model", base / "transformer" / "model"
    write_random_model(diffusion)
    write_random_transformer(transformer)
    yield from _damaged(diffusion, stable_diffusion_features)
    yield from _damaged(transformer, transformer_features)
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        yield _case(f"no {part}", diffusion, stable_diffusion_features, (part,), partial(_remove, name=part))
    yield _case("a transformer as Stable Diffusion", transformer, stable_diffusion_features, ("model",), None)
    yield _case("Stable Diffusion as a transformer", diffusion, transformer_features, ("model",), None)


def _damaged(model: Path, use: Callable[[Path], Tensor]) -> Iterator[Case]:
    right = use(model.parent)
    for file in sorted(model.rglob("*")):
        name = str(file.relative_to(model))
        names = (name, file.name, file.parent.name)
        make = partial(_case, model=model, use=use, right=right)
        if file.is_dir() or file.name in ("model_index.json", "preprocessor_config.json"):
            continue
        yield make(f"{name}: missing", names=names, damage=partial(_remove, name=name))
        if file.suffix == ".json" or file.suffix == ".txt":
            for what, content in text_damages(file.read_text()):
                yield make(f"{name}: {what}", names=names, damage=partial(_write, name=name, content=content))
        else:
            for what, content in binary_damages(file.read_bytes()):
                yield make(f"{name}: {what}", names=names, damage=partial(_write, name=name, content=content))
        if file.name == "config.json":
            for what, value in value_damages(json.loads(file.read_text()), per_kind=1):
                field = what.rpartition(" ")[2].split(".")[0]
                content = json_text(value).encode()
                yield make(f"{name}: {what}", names=(*names, field), damage=partial(_write, name=name, content=content))
        if file.suffix == ".safetensors":
            tensors = load_file(file)
            floats = sorted(key for key, value in tensors.items() if value.is_floating_point() and value.numel() > 1)
            chosen = sorted({floats[len(floats) * number // 4] for number in range(4)})
            for what, changed in tensor_damages(tensors, chosen):
                if what != "surplus tensor":
                    key = what.rpartition(" ")[2]
                    yield make(
                        f"{name}: {what}", names=(*names, key), damage=partial(_save, name=name, tensors=changed)
                    )


def _case(
    name: str,
    model: Path,
    use: Callable[[Path], Tensor],
    names: tuple[str, ...],
    damage: Callable[[Path], None] | None,
    right: Any = None,
) -> Case:
    def act(folder: Path) -> Tensor:
        shutil.copytree(model, folder / "model")
        if damage is not None:
            damage(folder / "model")
        return use(folder)

    return Case(GROUP, f"{use.__name__.removesuffix('_features')}: {name}", act, names, right=right)


def _remove(model: Path, name: str) -> None:
    path = model / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write(model: Path, name: str, content: bytes) -> None:
    (model / name).write_bytes(content)


def _save(model: Path, name: str, tensors: dict[str, Tensor]) -> None:
    save_file({key: value.contiguous() for key, value in tensors.items()}, model / name, metadata={"format": "pt"})
