"""Any model of timm with intermediates: the maps are timm's own, and what cannot be read is one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from huggingface_hub import constants
from torch.nn import functional as F

from helpers.model_folders import change_json, change_weights, write_pointer
from helpers.timm_library import import_timm, write_random_timm
from sd4match import SemanticMatcher
from sd4match.backbones import timm_models
from sd4match.backbones.config import TimmConfig
from sd4match.backbones.joined import joined
from sd4match.backbones.pretrained import likely_kinds
from sd4match.backbones.timm_backbone import TimmBackbone
from sd4match.cli.models import _parse_fields
from sd4match.errors import CheckpointError, ConfigError, InputError, NonFiniteError, ShapeError
from sd4match.registry import backbones
from sd4match.structures.images import Views
from sd4match.structures.tensors import Sampling
from sd4match.testing import random_photo

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # timm's and torch's own, where models are made

VIT = {"embed_dim": 24, "depth": 3, "num_heads": 2}
SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 2}
FAMILIES = {
    "vit_tiny_patch16_224": ({"img_size": 64, **VIT}, 96),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 70, **VIT}, 98),
    "vit_small_patch16_dinov3": (VIT, 96),
    "eva02_tiny_patch14_224": ({"img_size": 70, **VIT}, 98),
    "vit_base_patch16_siglip_224": ({"img_size": 64, **VIT}, 96),
    "naflexvit_base_patch16_radio_v3": (VIT, 96),
    "beit_base_patch16_224": ({"img_size": 64, **VIT}, 96),
    "convnext_atto": ({"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 20)}, 96),
    "swin_tiny_patch4_window7_224": ({"img_size": 64, **SWIN}, 96),
    "resnet26": ({"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 8), "stem_width": 8}, 96),
    "maxvit_nano_rw_256": ({"img_size": 64, "depths": (1, 1, 1, 1), "embed_dim": (32, 32, 32, 32)}, 96),
    "mobilenetv3_small_050": ({}, 96),
}
"""Small versions of models, and another image size than their own."""


@pytest.fixture(scope="module")
def timm():
    return import_timm()


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    """Save a random model of timm once, and return it with its folder."""
    saved = {}

    def model_and_folder(name, **options):
        key = (name, str(options))
        if key not in saved:
            folder = tmp_path_factory.mktemp("timm") / name
            saved[key] = write_random_timm(folder, **{**FAMILIES[name][0], **options}), folder
        return saved[key]

    return model_and_folder


@pytest.fixture
def folder(save, tmp_path):
    """A folder that a test may change."""
    return shutil.copytree(save("vit_tiny_patch16_224")[1], tmp_path / "vit")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("SD4MATCH_MODELS", raising=False)


def views_of(backbone, *sizes):
    return Views.of([backbone.prepare(random_photo(size, seed=size[0])) for size in sizes or [(50, 70), (64, 40)]])


def timms_own(model, views, layers):
    """The maps of some layers from the whole model."""
    with torch.no_grad():
        maps = model.forward_intermediates(
            views.pixels, indices=sorted(layers), output_fmt="NCHW", intermediates_only=True
        )
    return [maps[sorted(layers).index(layer)] for layer in layers]


# families


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_gives_the_map_of_timm_on_the_prepared_photos(name, save):
    model, folder = save(name)
    backbone = TimmConfig(weights=str(folder)).build()
    views = views_of(backbone)
    made = backbone.extract(backbone.encode(views), None, Sampling(0))
    torch.testing.assert_close(made.values, *timms_own(model, views, (len(model.feature_info) - 1,)))
    assert not made.values.requires_grad
    assert made.values.shape[1:] == (backbone.spec.channels, *[backbone.image_size[0] // backbone.spec.stride] * 2)
    points = torch.tensor([[[3.0, 5.0], [39.5, 20.0]]]).expand(2, 2, 2)
    torch.testing.assert_close(made.grid.to_pixels(made.grid.to_cells(points)), points, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_takes_another_image_size(name, save):
    folder, side = save(name)[1], FAMILIES[name][1]
    backbone = TimmConfig(weights=str(folder), image_size=side, layers=1, frame="pad").build()
    encoded = backbone.encode(views_of(backbone, (50, 70)))
    cells = side // backbone.spec.stride
    assert encoded.tensors["features"].shape == (1, backbone.spec.channels, cells, cells)


@pytest.mark.parametrize(("name", "layers"), [("vit_tiny_patch16_224", (0, 2)), ("resnet26", (4, 2, 3))])
def test_several_layers_are_brought_to_the_finest(name, layers, save):
    model, folder = save(name)
    config = TimmConfig(weights=str(folder), layers=layers)
    declared, backbone = config.spec(), config.build()
    views = views_of(backbone)
    made = backbone.extract(backbone.encode(views), None, Sampling(0))
    maps = timms_own(model, views, layers)
    size = max(one.shape[-1] for one in maps)
    expected = torch.cat([F.interpolate(one, (size, size), mode="bilinear") for one in maps], dim=1)
    torch.testing.assert_close(made.values, expected)
    assert declared == backbone.spec
    assert declared.groups == made.groups == tuple(one.shape[1] for one in maps)
    assert declared.layer == "+".join(map(str, layers))


@pytest.mark.slow
def test_resnet_101_is_the_whole_one(tmp_path):
    model = write_random_timm(tmp_path / "resnet101", num_classes=1000)
    backbone = TimmConfig(weights=str(tmp_path / "resnet101"), layers=(3, 4)).build()
    assert (backbone.spec.channels, backbone.spec.stride, backbone.spec.groups) == (3072, 16, (1024, 2048))
    views = views_of(backbone, (50, 70))
    made = backbone.encode(views).tensors["features"]
    torch.testing.assert_close(made, joined(timms_own(model, views, (3, 4)), (14, 14)), atol=1e-4, rtol=1e-4)


def test_cells_lie_in_the_middle_of_their_patches(save):
    backbone = TimmConfig(weights=str(save("vit_tiny_patch16_224")[1])).build()
    grid = backbone.extract(backbone.encode(views_of(backbone, (64, 64))), None, Sampling(0)).grid
    assert grid.alignment == "centers"
    torch.testing.assert_close(grid.to_pixels(torch.tensor([[[0.0, 3.0]]])), torch.tensor([[[7.5, 55.5]]]))


def test_half_precision_is_near(save):
    folder = str(save("convnext_atto")[1])
    whole, half = (TimmConfig(weights=folder, dtype=dtype).build() for dtype in ("float32", "bfloat16"))
    one, other = (b.encode(views_of(b)).tensors["features"] for b in (whole, half))
    assert other.dtype == torch.float32
    assert 0 < (one - other).norm() < 0.05 * one.norm()


# what the model says of itself


def test_colors_are_normalized_as_the_data_config_says(save):
    _, folder = save("resnet26", data_config={"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 0.125)})
    photo = random_photo((224, 224))
    pixels = torch.from_numpy(photo.pixels).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.1, 0.2, 0.3), (0.5, 0.25, 0.125)))
    backbone = TimmConfig(weights=str(folder)).build()
    torch.testing.assert_close(backbone.prepare(photo).pixels, (pixels - mean) / std, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "channels", "stride", "native", "mean"),
    [
        ("vit_small_patch14_dinov2.lvd142m", 384, 14, 518, 0.485),
        ("vit_so400m_patch14_siglip_384", 1152, 14, 378, 0.5),
        ("vit_7b_patch16_dinov3", 4096, 16, 256, 0.485),
        ("resnet101.a1_in1k", 2048, 32, 224, 0.485),
    ],
)
def test_names_declare_their_shapes_without_weights(timm, name, channels, stride, native, mean):
    found = timm_models.declared(TimmConfig(weights=name))
    assert (found.spec.channels, found.spec.stride, found.spec.native_size) == (channels, stride, (native, native))
    assert found.normalization[0][0] == mean


def test_the_default_is_a_model_of_timm(timm):
    assert TimmConfig().spec().architecture == "timm vit_small_patch14_reg4_dinov2 384 x 12 layers"


def test_settings_without_weights_change_digest_and_fingerprint(save):
    one, same, other = (
        TimmConfig(weights=str(save("vit_tiny_patch16_224", **options)[1])).build()
        for options in ({}, {}, {"num_heads": 3})
    )
    assert (one.weights_digest(), one.fingerprint) == (same.weights_digest(), same.fingerprint)
    assert one.weights_digest() != other.weights_digest()
    assert one.fingerprint.split(":")[1] != other.fingerprint.split(":")[1]
    layer = TimmConfig(weights=str(save("vit_tiny_patch16_224")[1]), layers=1).build()
    assert (layer.weights_digest() != one.weights_digest(), layer.fingerprint) == (True, one.fingerprint)


# where models are


@pytest.mark.parametrize("about", [{}, {"fixed_input_size": True}, {"fixed_input_size": False}])
def test_a_config_by_hand_need_not_repeat_the_image_size(timm, folder, about):
    content = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": {"img_size": 64, **VIT}}
    cfg = {"input_size": [3, 224, 224], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "num_classes": 0, **about}
    (folder / "config.json").write_text(json.dumps({**content, "pretrained_cfg": cfg}))
    for side, cells in ((None, 4), (96, 6)):
        backbone = TimmConfig(weights=str(folder), image_size=side).build()
        assert backbone.spec.native_size == (64, 64)
        assert backbone.encode(views_of(backbone)).tensors["features"].shape == (2, 24, cells, cells)
    assert backbone._mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_a_folder_of_models_is_searched(folder, monkeypatch):
    monkeypatch.setenv("SD4MATCH_MODELS", str(folder.parent))
    for name in ("vit", "owner/vit", "hf-hub:owner/vit"):
        assert TimmConfig(weights=name).spec().channels == 24


def test_the_kind_of_a_folder_is_seen(folder):
    assert likely_kinds(str(folder)) == ("timm",)
    assert likely_kinds("hf-hub:timm/resnet18.a1_in1k") == ("timm",)
    config = backbones.parse({"kind": "timm", "weights": str(folder), **_parse_fields(None, ["layers=[0, 2]"])})
    assert config.spec().groups == (24, 24)


def test_it_matches_photos_alone_and_fused(folder, save):
    backbone = {"kind": "timm", "weights": str(folder)}
    more = {"kind": "timm", "weights": str(save("resnet26")[1]), "layers": 3}
    for config in (backbone, {"kind": "fusion", "backbones": [backbone, more]}):
        matcher = SemanticMatcher.from_preset("dinov2", overrides=[f"backbone={json.dumps(config)}", *PLAIN])
        found = matcher.match(random_photo((40, 60)), random_photo((50, 40), seed=1), [(10.0, 12.0), (50.0, 30.0)])
        assert found.target_points.shape == (2, 2)


PLAIN = ["evaluation.protocol=sd4match"]


# refused


def refused(error, message, **options):
    with pytest.raises(error, match=message) as caught:
        TimmConfig(**options).build()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("failure", [ModuleNotFoundError("No module named 'timm'"), RuntimeError("nms does not exist")])
def test_without_timm_an_error_says_to_install_it(monkeypatch, failure):
    def nothing(name):
        raise failure

    monkeypatch.setattr(timm_models, "import_module", nothing)
    for call in (TimmConfig().spec, TimmConfig().check, TimmConfig().build):
        with pytest.raises(ConfigError, match=r"needs the library timm.*pip install 'sd4match\[timm\]'"):
            call()


def test_a_config_loads_neither_torch_nor_timm():
    code = (
        "import sys; from sd4match.registry import backbones; backbones.parse({'kind': 'timm', 'layers': [1, 2]}); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": "no_such_model"}, CheckpointError, r"timm cannot load 'no_such_model': Unknown model \(no_such"),
        ({"weights": "owner/model"}, CheckpointError, r"timm cannot load 'owner/model': .*hub"),
        ({"weights": "vit_tiny_patch16_224", "layers": 12}, CheckpointError, "layer 12 does not exist .* are 0 to 11"),
        ({"weights": "vit_tiny_patch16_224", "layers": (1, 1)}, ConfigError, r"each once, not \(1, 1\)"),
        ({"weights": "vit_tiny_patch16_224", "layers": ()}, ConfigError, r"at least one, each once, not \(\)"),
        ({"weights": "vit_tiny_patch16_224.untrained"}, CheckpointError, "timm cannot load"),
        ({"layers": -1}, ConfigError, "layers"),
        ({"layers": "1"}, ConfigError, "layers"),
        ({"weights": ""}, ConfigError, "weights"),
    ],
)
def test_what_cannot_be_read_is_one_line(timm, options, error, message):
    refused(error, message, **options)


def test_a_model_without_intermediates_is_refused():
    with pytest.raises(CheckpointError, match="'x' is a Linear, which has no forward_intermediates"):
        timm_models._feature_info(torch.nn.Linear(2, 2), "'x'")


def test_a_folder_that_is_not_whole_is_one_line(timm, folder):
    options = {"weights": str(folder)}
    refused(InputError, "image_size must be a multiple of 16, not 70", image_size=70, **options)
    with pytest.raises(ConfigError, match=r"backbone\.image_size = 70 does not fit"):
        TimmConfig(image_size=70, **options).check()
    weights, whole = folder / "model.safetensors", (folder / "model.safetensors").read_bytes()
    for change, message in (
        (lambda name, value: None if name == "blocks.1.attn.proj.bias" else (name, value), "Missing key"),
        (lambda name, value: (f"x.{name}", value), "Missing key"),
        (lambda name, value: (name, value[:3] if name == "norm.bias" else value), "size mismatch for norm.bias"),
        (lambda name, value: (name, value * torch.nan if name == "norm.bias" else value), r"not finite .*: norm\.bias"),
    ):
        change_weights(weights, change)
        refused(CheckpointError, message, **options)
        weights.write_bytes(whole)
    weights.write_bytes(b"short")
    refused(CheckpointError, "timm cannot load", **options)
    write_pointer(weights)
    refused(CheckpointError, "is a Git-LFS pointer", **options)
    weights.unlink()
    refused(CheckpointError, "No suitable checkpoints found", **options)
    (folder / "config.json").write_text("{}")
    refused(CheckpointError, r"timm cannot load '.*': 'architecture'", **options)
    (folder / "config.json").unlink()
    refused(CheckpointError, "Config file not found", **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 7}, "declares 0 classes for weights of 7|declares 7 classes"),
        ({"model_args": {"img_size": 64, **VIT, "num_classes": 5}}, "declares 5 classes for weights of 0"),
        ({"model_args": {"img_size": 64, **VIT, "in_chans": 1}}, "takes images of 1 channels, and photos have 3"),
        ({"model_args": {"no_such_argument": 1}}, "no_such_argument"),
        ({"model_args": {"img_size": 64, **VIT, "num_heads": 5}}, "timm cannot load"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_one_line(timm, folder, fields, message):
    change_json(folder / "config.json", **fields)
    refused(CheckpointError, message, weights=str(folder))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"std": [0.0, 1.0, 1.0]}, r"data config\): std of a color must be"),
        ({"mean": 0.5}, r"data config\): mean must be 3 numbers, for red, green and blue, not 0\.5"),
        ({"mean": [0.5, 0.5]}, "mean must be 3 numbers"),
        ({"input_size": 64}, "timm cannot load"),
        ({"input_size": [3, 0, 64], "fixed_input_size": False}, "input_size must be a list of whole numbers"),
    ],
)
def test_a_data_config_that_cannot_be_is_named(timm, folder, fields, message):
    cfg = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    change_json(folder / "config.json", pretrained_cfg={**cfg, **fields})
    refused(CheckpointError, message, weights=str(folder))


def test_what_goes_wrong_in_the_model_is_named(save):
    folder = save("vit_tiny_patch16_224")[1]
    config = TimmConfig(weights=str(folder))
    backbone = config.build()
    views = views_of(backbone)
    with pytest.raises(ShapeError, match=r"expected views \(B, 3, 64, 64\), got"):
        backbone.encode(Views.of([replace(view, pixels=view.pixels[:, :32]) for view in views.views]))
    wrong = TimmBackbone(
        config, model=backbone.model, spec=replace(backbone.spec, channels=25), normalization=((0.5,) * 3,) * 2
    )
    with pytest.raises(CheckpointError, match=r"declares features \(25, 4, 4\), and computes \(24, 4, 4\)"):
        wrong.encode(views)
    backbone.model.patch_embed.proj.weight.data.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match=r"the features of .* at layer 2 in float32"):
        backbone.encode(views)

    def broken(*inputs, **options):
        raise failure

    backbone.model.forward_intermediates = broken
    failure = AssertionError("bad\nwindow")
    with pytest.raises(CheckpointError, match="cannot compute features of an image of 64 x 64 pixels: bad window"):
        backbone.encode(views)
    failure = torch.OutOfMemoryError("full")
    with pytest.raises(torch.OutOfMemoryError):
        backbone.encode(views)
