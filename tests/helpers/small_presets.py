"""Every preset on checkpoints of the real classes and layout that are small and have random weights."""

from __future__ import annotations

from pathlib import Path

from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from helpers.model_folders import write_random_model, write_random_transformer
from sd4match.config import ExperimentConfig, load_preset

_DATA = ["data={kind: synthetic, photos_per_category: 2, pairs: 4}"]
_TRAINING = [
    "training.steps=2", "training.batch_size=2", "training.validate_every=2", "training.validation_pairs=2",
    "evaluation.bootstrap_samples=20", "evaluation.sampling.ensemble_size=2",
]  # fmt: skip
_BACKBONES = {
    "sd-dino-star": ["backbone.image_size=64", "backbone.cells=8", "pair_transform.components=8"],
    "sd-dino": [
        "backbone.backbones=["
        "{kind: stable_diffusion, weights: sd1-5, layers: ['0.1', '1.1', '2.1'], image_size: 64, frame: pad, cells: 8},"
        " {kind: vision_transformer, weights: dinov2-base, layer: 3, image_size: 112, frame: pad}]",
        "pair_transform.components=[8, 8, 8, 0]",
    ],
    "dinov2": ["backbone.layer=3", "backbone.image_size=70"],
    "dino": ["backbone.layer=3", "backbone.image_size=64"],
}


def write_small_models(folder: Path) -> Path:
    """Write the models that presets name; SD4MATCH_MODELS must be the folder."""
    write_random_model(folder / "sd2-1")
    write_random_model(folder / "sd1-5", like="1.5")
    unet = UNet2DConditionModel.from_pretrained(folder / "sd2-1", subfolder="unet")
    save_file(unet.state_dict(), folder / "cleandift_sd21_unet.safetensors")
    for name, kind in (("dinov2-base", "dinov2"), ("dino-vitb8", "dino"), ("clip", "clip")):
        write_random_transformer(folder / name, kind=kind)
    return folder


def small_preset(name: str, models: Path, *overrides: str) -> ExperimentConfig:
    """Return a preset on the small models and a few synthetic pairs."""
    changes = [*_DATA, *_TRAINING, *_BACKBONES.get(name, []), *overrides]
    if getattr(load_preset(name, changes).backbone, "weights", None) == "mini":
        changes.append(f"backbone.weights={models / 'sd2-1'}")
    encoder = getattr(getattr(load_preset(name, changes).prompt, "image_encoder", None), "kind", None)
    folder = {"dinov2": models / "dinov2-base", "clip": models / "clip"}.get(encoder)
    weights = [] if folder is None else [f"prompt.image_encoder={{kind: {encoder}, weights: {folder}}}"]
    return load_preset(name, [*changes, *weights])
