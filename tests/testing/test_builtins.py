"""Every registered component keeps the promises of its interface."""

from __future__ import annotations

import pytest

from helpers import layouts
from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here, which makes them quick
from helpers.learned_parts import Tempered, Weighted, learned_parts
from helpers.model_folders import write_random_transformer
from helpers.timm_library import write_random_timm
from sd4match import registry
from sd4match.backbones.cached import CachedBackbone
from sd4match.matching import KernelSoftArgmax, Mutual
from sd4match.registry import backbones
from sd4match.structures.specs import FeatureSpec
from sd4match.testing import (
    FakeBackbone,
    check_backbone,
    check_dataset,
    check_image_encoder,
    check_loss,
    check_matcher,
    check_pair_transform,
    check_prompt,
)

SD = {"kind": "stable_diffusion"}


def configs_of(folders):
    """At least one config of each registered kind."""
    vit = {"kind": "vision_transformer", "weights": str(folders["dinov2"])}
    tiny = {**SD, "weights": str(folders["sd"])}
    return {
        "mini": SD,
        "mini, padded": {**SD, "frame": "pad"},
        "mini, layers": {**SD, "layers": ["0.1", 1], "image_size": 64},
        "other": {**tiny, "layers": 2},
        "other, sub-blocks": {**tiny, "layers": ["0.1", "1.1", "2.1"], "cells": 8},
        "other, clean": {**tiny, "clean": True},
        "dinov2": vit,
        "dinov2, keys": {**vit, "facet": "key", "layer": 1, "image_size": 98, "frame": "pad"},
        "dino": {**vit, "weights": str(folders["dino"]), "layer": 2},
        "timm": {"kind": "timm", "weights": str(folders["timm"]), "layers": [2, 3]},
        "fusion": {"kind": "fusion", "backbones": [tiny, {**vit, "frame": "pad"}], "weights": [1.0, 0.5]},
        "fake": {"kind": "fake"},
        "hog": {"kind": "hog", "image_size": 64, "cell": 8, "window": 3},
        "mirrored": {"kind": "mirrored", "backbone": vit},
        "debiased": {"kind": "debiased", "components": 1, "backbone": vit},
        "fusion of three": {"kind": "fusion", "backbones": [vit, {**vit, "facet": "key"}, SD], "normalize": False},
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory, other_model):
    folder = tmp_path_factory.mktemp("transformers")
    return {"sd": other_model, "timm": folder / "resnet26"} | {
        kind: write_random_transformer(folder / kind, kind=kind) for kind in ("dinov2", "dino", "clip")
    }


QUICK = ("mini", "dinov2", "timm", "fusion", "hog", "fake", "mirrored", "debiased")
"""One of each kind; others are slow tests."""
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in configs_of({"sd": "", "dinov2": "", "dino": "", "timm": ""})
]


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_backbone(name, folders):
    if name == "timm":
        write_random_timm(folders["timm"], channels=(4, 4, 8, 8), stem_width=8)
    config = backbones.parse(configs_of(folders)[name])
    backbone = config.build(device="cpu")
    declared, built = config.spec(), backbone.spec
    assert declared == built
    check_backbone(CachedBackbone(backbone) if name == "mini" else backbone)


def test_no_kind_is_left_out(folders):
    tried = {config["kind"] for config in configs_of(folders).values()}
    assert tried == {kind for kind in backbones.kinds() if not kind.startswith("test")}


@pytest.mark.parametrize("kind", registry.image_encoders.kinds())
def test_every_registered_image_encoder(kind, folders):
    check_image_encoder({"kind": kind, **({"weights": str(folders[kind])} if kind in folders else {})})


PROMPTS = {"cpm": {"image_encoder": "fake"}, "implicit_captioner": {"image_encoder": "fake"}}
VARIANTS = [
    {"kind": "single", "space": "hidden"}, {"kind": "class", "space": "hidden", "fallback": "text"},
    {"kind": "text", "template": "{category}"}, {"kind": "text", "by_category": {"cat": "a cat"}},
    {"kind": "cpm", "image_encoder": "fake", "condition_on": "image"},
    {"kind": "cpm", "image_encoder": "fake", "features": "global"},
    {"kind": "cpm", "image_encoder": {"kind": "backbone", "side": 4}},
]  # fmt: skip


@pytest.mark.parametrize("kind", registry.prompts.kinds())
def test_every_registered_prompt(kind):
    backbone = None
    if kind == "none":
        backbone = FakeBackbone()
        backbone.spec = FeatureSpec(**{**vars(backbone.spec), "prompt_width": None, "max_length": 0})
    check_prompt({"kind": kind, **PROMPTS.get(kind, {})}, backbone=backbone)


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_variants_of_prompts(fields):
    check_prompt(fields)


@pytest.mark.parametrize("init", ["a photo of a {category}", "empty", "uniform"])
def test_prompts_with_their_defaults_fit_the_fake_text_encoder(init):
    check_prompt({"kind": "class", "init": init}, categories=("potted_plant", "motorbike"))


@pytest.mark.slow
def test_a_prompt_on_a_real_model(mini):
    check_prompt("single", backbone=mini)
    check_prompt({"kind": "cpm", "image_encoder": "backbone"}, backbone=mini)


@pytest.mark.parametrize("kind", registry.matchers.kinds())
def test_every_registered_matcher(kind):
    check_matcher(kind)


@pytest.mark.parametrize("kind", registry.losses.kinds())
def test_every_registered_loss(kind):
    check_loss(kind)


def test_a_loss_that_learns():
    check_loss({"kind": "gaussian_cross_entropy", "temperature": "learned"})


@pytest.mark.parametrize("kind", registry.pair_transforms.kinds())
def test_every_registered_pair_transform(kind):
    fields = {"co_pca": {"components": 4}}.get(kind, {})
    groups = (24, 24) if kind == "mirrored_alignment" else ()
    spec = FeatureSpec(**{**vars(FakeBackbone().spec), "groups": groups})
    check_pair_transform({"kind": kind, **fields}, spec=spec)


def test_a_transform_inside_another():
    spec = FeatureSpec(**{**vars(FakeBackbone().spec), "groups": (12, 12, 12, 12)})
    then = {"kind": "co_pca", "components": 3}
    check_pair_transform({"kind": "mirrored_alignment", "then": then}, spec=spec)


LAYOUTS = {
    "spair": layouts.write_spair, "pf_pascal": layouts.write_pf_pascal, "pf_willow": layouts.write_pf_willow,
    "ap10k": layouts.write_ap10k, "folder": layouts.write_folder,
}  # fmt: skip


@pytest.mark.parametrize("kind", registry.datasets.kinds())
def test_every_registered_data_set(kind, tmp_path):
    fields = {"split": "test"}
    if kind in LAYOUTS:
        LAYOUTS[kind](tmp_path)
        fields["root"] = str(tmp_path)
    elif kind == "synthetic":
        fields |= {"pairs": 3, "photos_per_category": 2}
    check_dataset({"kind": kind, **fields})


def test_parts_that_learn():
    check_matcher(Tempered())
    check_matcher(Mutual(inner=KernelSoftArgmax()).model_copy(update={"inner": "nearest_neighbor"}))
    check_pair_transform(Weighted(channels=FakeBackbone().spec.channels))
    with learned_parts():
        check_matcher({"kind": "mutual", "inner": {"kind": "tempered", "start": 0.1}})
        check_pair_transform({"kind": "weighted", "channels": FakeBackbone().spec.channels})
