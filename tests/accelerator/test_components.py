"""Every built-in component computes on an accelerator what it computes on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.timm_library import write_random_timm
from sd4match import registry
from sd4match.backbones.config import BackboneConfig
from sd4match.interfaces import Learned
from sd4match.matching.checked import checked_loss
from sd4match.matching.correlation import correlate_maps
from sd4match.structures.images import Views
from sd4match.structures.tensors import Correlation, FeatureMap, Keypoints, PromptEmbedding, Sampling
from sd4match.testing import random_correlation, random_photo
from sd4match.testing.conformance.loss import matches_for

PHOTOS = [random_photo((40, 60)), random_photo((50, 40), seed=1)]
MATCHERS = {
    "mutual": {"inner": {"kind": "kernel_soft_argmax"}}, "cycle": {"inner": {"kind": "soft_argmax"}},
    "ratio": {"inner": {"kind": "nearest_neighbor"}},
    "threshold": {"inner": {"kind": "window_soft_argmax"}, "min_score": 0.02},
}  # fmt: skip
"""Fields of the kinds that do not work without."""


def moved(map_: FeatureMap, device: torch.device | str) -> FeatureMap:
    return replace(map_, values=map_.values.to(device))


def on(correlation: Correlation, device: torch.device | str) -> Correlation:
    """Return the same correlation on a device."""
    source, target = (moved(each, device) for each in (correlation.source, correlation.target))
    return correlate_maps(source, target, correlation.query_points.to(device))


@pytest.mark.parametrize("kind", registry.matchers.kinds())
def test_a_matcher(kind, accelerator, close):
    matcher = registry.matchers.parse({"kind": kind, **MATCHERS.get(kind, {})}).build()
    correlation = random_correlation()
    expected = matcher(correlation)
    with accelerator() as device:
        found = matcher(on(correlation, device))
        assert found.points.device == device
        close(found.points, expected.points)
        close(found.scores, expected.scores)
        if expected.valid is not None:
            assert torch.equal(found.valid.cpu(), expected.valid)
        assert matcher(on(correlation, device).reversed(found.points)).points.device == device


@pytest.mark.parametrize("kind", registry.losses.kinds())
def test_a_loss_and_its_gradient(kind, accelerator, close):
    loss = registry.losses.parse(kind).build()
    correlation = random_correlation()
    targets = Keypoints(correlation.query_points.flip(1), torch.tensor([[True, False, True], [True, True, False]]))

    def gradients(device):
        source = replace(correlation.source, values=correlation.source.values.to(device, copy=True).requires_grad_())
        here = correlate_maps(source, moved(correlation.target, device), correlation.query_points.to(device))
        Learned("loss", loss).to(device)
        truth = Keypoints(targets.points.to(device), targets.visible.to(device))
        value = checked_loss(loss, here, truth, matches_for(loss, here)).value
        parameters = dict(loss.named_parameters()) if isinstance(loss, torch.nn.Module) else {}
        gradients = torch.autograd.grad(value, [source.values, *parameters.values()])
        return {"value": value, **dict(zip(("features", *parameters), gradients, strict=True))}

    expected = gradients("cpu")
    with accelerator() as device:
        for name, gradient in gradients(device).items():
            assert gradient.device == device
            close(gradient, expected[name], of=name)


@pytest.mark.parametrize("kind", registry.pair_transforms.kinds())
def test_a_pair_transform(kind, accelerator, close):
    fields = {"co_pca": {"components": 4}, "mirrored_alignment": {}}[kind]
    transform = registry.pair_transforms.parse({"kind": kind, **fields}).build()
    correlation = random_correlation(channels=12 if kind == "mirrored_alignment" else 6)
    source, target = correlation.source, correlation.target
    if kind == "mirrored_alignment":
        source, target = (replace(each, groups=(6, 6)) for each in (source, target))
    expected = transform(source, target)
    with accelerator() as device:
        found = transform(moved(source, device), moved(target, device))
        for one, other in zip(found, expected, strict=True):
            assert one.values.device == device
            close(similarities(one), similarities(other))


def similarities(features: FeatureMap) -> torch.Tensor:
    """Return the products of all cells: a principal direction has a sign that any processor chooses."""
    cells = features.values.flatten(2)
    return cells.transpose(1, 2) @ cells


def backbones(models) -> dict[str, dict]:
    """Return the smallest fields of each kind of backbone."""
    sd = {"kind": "stable_diffusion", "weights": str(models / "sd2-1"), "layers": 1}
    vit = {"kind": "vision_transformer", "weights": str(models / "dinov2-base"), "layer": 3, "image_size": 112}
    return {
        "stable_diffusion": sd, "vision_transformer": vit, "hog": {"kind": "hog"},
        "fake": {"kind": "fake"},
        "fusion": {"kind": "fusion", "backbones": [{**sd, "cells": 8}, vit]},
        "mirrored": {"kind": "mirrored", "backbone": vit},
        "debiased": {"kind": "debiased", "backbone": vit, "components": 1},
        "timm": {"kind": "timm", "weights": str(models / "resnet18")},
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", registry.backbones.kinds())
def test_a_backbone(kind, accelerator, close, small_models):
    if kind == "timm" and not (small_models / "resnet18").exists():
        write_random_timm(small_models / "resnet18")
    config = registry.backbones.parse(backbones(small_models)[kind])
    assert isinstance(config, BackboneConfig)
    sampling = Sampling(100, 2, ensemble="matched")

    def features(device):
        backbone = config.build(device=device)
        views = Views.of([backbone.prepare(photo) for photo in [PHOTOS[0], PHOTOS[0]]])
        prompt, width = None, backbone.spec.prompt_width
        if width is not None:
            values = torch.randn(1, backbone.spec.max_length, width, generator=torch.Generator().manual_seed(0))
            prompt = PromptEmbedding(values.to(device))
        with torch.no_grad():
            return backbone.extract(backbone.encode(views), prompt, sampling)

    expected = features("cpu").values
    with accelerator() as device:
        found = features(str(device)).values
        assert found.device == device or kind == "hog"
        close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", registry.image_encoders.kinds())
def test_an_image_encoder(kind, accelerator, close, small_models):
    folder = {"dinov2": "dinov2-base", "clip": "clip"}.get(kind)
    fields = {} if folder is None else {"weights": str(small_models / folder)}
    config = registry.image_encoders.parse({"kind": kind, **fields})
    model = registry.backbones.parse(backbones(small_models)["stable_diffusion"])

    def features(device):
        encoder = config.build(backbone=model.build(device=device))
        views = Views.of([encoder.prepare(photo) for photo in PHOTOS])
        return encoder.encode(views)

    expected = features("cpu")
    with accelerator() as device:
        found = features(str(device))
        close(found.local, expected.local)
        close(found.pooled, expected.pooled)
