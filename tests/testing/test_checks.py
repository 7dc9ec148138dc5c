"""Every registered backbone keeps the contract, and the checks notice those that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.model_folders import write_random_transformer
from helpers.timm_library import write_random_timm
from sd4match.backbones.cached import CachedBackbone
from sd4match.registry import backbones
from sd4match.testing import FakeBackbone, check_backbone

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
        "hog": {"kind": "hog", "image_size": 64, "cell": 8, "window": 3},
        "mirrored": {"kind": "mirrored", "backbone": vit},
        "debiased": {"kind": "debiased", "components": 2, "backbone": tiny},
        "fusion of three": {"kind": "fusion", "backbones": [vit, {**vit, "facet": "key"}, SD], "normalize": False},
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory, other_model):
    folder = tmp_path_factory.mktemp("transformers")
    return {"sd": other_model, "timm": folder / "resnet26"} | {
        kind: write_random_transformer(folder / kind, kind=kind) for kind in ("dinov2", "dino")
    }


NAMES = list(configs_of({"sd": "", "dinov2": "", "dino": "", "timm": ""}))


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_backbone(name, folders):
    if name == "timm":
        write_random_timm(folders["timm"], channels=(4, 4, 8, 8), stem_width=8)
    config = backbones.parse(configs_of(folders)[name])
    backbone = config.build(device="cpu")
    declared, built = config.spec(), backbone.spec
    assert declared == built
    check_backbone(backbone)
    check_backbone(CachedBackbone(backbone))


def test_no_kind_is_left_out(folders):
    tried = {config["kind"] for config in configs_of(folders).values()}
    assert tried == {kind for kind in backbones.kinds() if not kind.startswith("test")}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("channels", "the spec says"),
        ("frames", "carry the frames"),
        ("nan", "finite"),
        ("batch", "batch size changes"),
        ("random", "the same bits"),
        ("deaf", "no influence"),
        ("half", "float32"),
    ],
)
def test_faults_are_noticed(fault, message):
    class Faulty(FakeBackbone):
        def extract(self, encoded, prompt, sampling):
            made = super().extract(encoded, prompt, sampling)
            values = made.values
            if fault == "batch":
                values = values + values.mean(dim=0, keepdim=True)
            elif fault == "random":
                values = values + torch.rand_like(values)
            elif fault == "nan":
                values = values / 0
            elif fault == "deaf":
                values = values.detach() + 0 * values.sum()
            elif fault == "half":
                values = values.half()
            elif fault == "channels":
                values = values[:, 1:]
            grid = made.grid[[2, 1, 0][: len(made)]] if fault == "frames" and len(made) == 3 else made.grid
            return replace(made, values=values, grid=grid)

    with pytest.raises(AssertionError, match=message):
        check_backbone(Faulty())
