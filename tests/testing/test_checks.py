"""Every registered backbone keeps the contract, and the checks notice those that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.model_folders import write_random_transformer
from sd4match import registry
from sd4match.backbones.cached import CachedBackbone
from sd4match.testing import FakeBackbone
from sd4match.testing.checks import check_backbone

SD = {"kind": "stable_diffusion"}


def settings_of(folders):
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
        "fusion": {"kind": "fusion", "parts": [tiny, {**vit, "frame": "pad"}], "weights": [1.0, 0.5]},
        "fusion of three": {"kind": "fusion", "parts": [vit, {**vit, "facet": "key"}, SD], "normalize": False},
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory, other_model):
    place = tmp_path_factory.mktemp("transformers")
    return {"sd": other_model} | {
        kind: write_random_transformer(place / kind, kind=kind) for kind in ("dinov2", "dino")
    }


NAMES = list(settings_of({"sd": "", "dinov2": "", "dino": ""}))


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_backbone(name, folders):
    config = registry.backbones.parse(settings_of(folders)[name])
    backbone = registry.backbones.build(config, device="cpu")
    declared, built = config.spec(), backbone.spec
    assert declared == built
    check_backbone(backbone)
    check_backbone(CachedBackbone(backbone))


def test_no_kind_is_left_out(folders):
    tried = {one["kind"] for one in settings_of(folders).values()}
    assert tried == {kind for kind in registry.backbones.kinds() if not kind.startswith("test")}


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
        def extract(self, latents, prompt, sampling):
            made = super().extract(latents, prompt, sampling)
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
            frames = made.frames[::-1] if fault == "frames" else made.frames
            return replace(made, values=values, frames=frames)

    with pytest.raises(AssertionError, match=message):
        check_backbone(Faulty())
