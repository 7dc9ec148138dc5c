"""Histograms of oriented gradients: against slow literal ones, and what follows from the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import references
from sd4match import SemanticMatcher
from sd4match.backbones.config import HogConfig
from sd4match.backbones.hog import HogBackbone
from sd4match.config.presets import load_preset
from sd4match.errors import ConfigError, ShapeError
from sd4match.matching.functional import correlate, nearest_neighbor
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.tensors import Sampling
from sd4match.testing import check_backbone, random_photo

SMALL = HogConfig(image_size=64, cell=8, window=5, sigma=2.0)


def map_of(photo, config=SMALL):
    backbone = HogBackbone(config)
    return backbone.extract(backbone.encode(Views.of([backbone.prepare(photo)])), None, Sampling(0))


def map_of_view(backbone, view):
    return backbone.extract(backbone.encode(Views.of([view])), None, Sampling(0)).values


@pytest.mark.parametrize(
    "config",
    [
        HogConfig(image_size=12, cell=4, overlap=2, orientations=3, window=3, sigma=1.0),
        HogConfig(image_size=12, cell=4, overlap=1, orientations=9, block=1, window=1, clip=1.0),
        HogConfig(image_size=15, cell=9, overlap=3, orientations=4, block=5, window=5, clip=0.1, floor=0.1),
    ],
    ids=["overlap", "cells alone", "windows beyond the photo"],
)
def test_the_fast_map_is_the_literal_one(config):
    photo = random_photo((config.image_size, config.image_size), seed=3)
    expected = references.hog(torch.from_numpy(photo.pixels).permute(2, 0, 1) / 255.0, config)
    torch.testing.assert_close(map_of(photo, config).values[0].double(), expected, atol=1e-5, rtol=1e-4)


def test_it_is_a_backbone():
    check_backbone(SMALL.build(device="cpu"))
    assert SMALL.spec() == HogBackbone(SMALL).spec
    assert SMALL.model_name == "hog"
    assert HogBackbone(SMALL).encoded_shapes == {"histograms": (18, 16, 16)}
    one, other = HogBackbone(SMALL), HogBackbone(SMALL.model_copy(update={"clip": 0.3}))
    assert one.weights_digest() == HogBackbone(SMALL).weights_digest() != other.weights_digest()
    assert one.fingerprint != other.fingerprint
    with pytest.raises(ShapeError, match="views"):
        one.encode(Views.of([other_view := HogBackbone(HogConfig(image_size=32)).prepare(random_photo())]))
    assert isinstance(other_view, View)


def test_an_edge_votes_for_its_direction_and_side():
    """Dark left of light: direction 0; light above dark: three quarters of the circle; and the same unsigned ones."""
    config = HogConfig(image_size=32, cell=8, overlap=1, orientations=4, block=1, window=1, clip=1.0)
    backbone = HogBackbone(config)
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 200
    for photo, direction in ((pixels, 0), (pixels.transpose(1, 0, 2)[::-1].copy(), 6), (pixels[:, ::-1].copy(), 4)):
        histograms = backbone.encode(Views.of([backbone.prepare(Photo(photo))])).tensors["histograms"][0]
        strength = histograms.sum(dim=(1, 2))
        assert strength.argmax() == direction
        assert strength[direction] > 0.999 * strength.sum()


@pytest.mark.parametrize("level", [0, 130, 255])
def test_a_photo_without_edges_has_a_finite_map_and_matches(level):
    plain = Photo(np.full((40, 60, 3), level, np.uint8))
    assert torch.equal(map_of(plain).values, torch.zeros_like(map_of(plain).values))
    matcher = SemanticMatcher.from_preset("hog", overrides=["backbone.image_size=64"])
    for source, target in ((plain, plain), (plain, random_photo()), (random_photo(), plain)):
        result = matcher.match(source, target, [(3.0, 4.0)])
        assert np.isfinite(result.target_points).all()
        assert np.isfinite(result.scores).all()


def test_a_darker_photo_has_the_same_map():
    """Roots of scaled intensities are scaled, and gradients are divided by those around them, but for a floor."""
    backbone = HogBackbone(SMALL.model_copy(update={"floor": 1e-5}))
    view = backbone.prepare(random_photo((64, 64)))
    darker = View((view.pixels + 1) * 0.3 - 1, view.frame, view.key)
    bright, dark = map_of_view(backbone, view), map_of_view(backbone, darker)
    torch.testing.assert_close(dark, bright, atol=1e-5, rtol=0)
    black = View(torch.full_like(view.pixels, -1.0), view.frame, view.key)
    faint = View(black.pixels + 1e-9 * (view.pixels + 1), view.frame, view.key)
    plain, almost = (map_of_view(HogBackbone(SMALL), one) for one in (black, faint))
    torch.testing.assert_close(almost, plain, atol=5e-3, rtol=0)


@pytest.mark.parametrize(("across", "down"), [(1, 0), (0, 2), (-2, 1)])
def test_a_translated_photo_finds_its_own_points(across, down):
    """A photo that is moved by whole cells: each cell away from the border finds the cell to which it moved."""
    wide = random_photo((256, 256), seed=5).pixels
    config = HogConfig(image_size=192, cell=8, window=5)
    stride = config.stride
    photos = [Photo(np.ascontiguousarray(wide[32 + y : 224 + y, 32 + x : 224 + x]))
              for x, y in ((0, 0), (-across * stride, -down * stride))]  # fmt: skip
    source, target = (map_of(photo, config) for photo in photos)
    points = torch.tensor([[[60.0, 70.0], [100.0, 96.0], [131.0, 120.0]]])
    cells = source.grid.to_cells(points).round()
    moved = nearest_neighbor(correlate(source.values, target.values, cells))
    torch.testing.assert_close(moved, cells + torch.tensor([across, down]))
    shift = target.grid.to_pixels(moved) - source.grid.to_pixels(cells)
    torch.testing.assert_close(shift, torch.tensor([across * stride, down * stride]).expand(1, 3, 2).float())


def test_the_preset_finds_a_moved_object_in_a_photo_of_another_size():
    """A bright ring before noise; the target is twice as wide and holds it elsewhere."""
    y, x = np.mgrid[:160, :160]
    rng = np.random.default_rng(0)

    def ring(center):
        away = np.hypot(x - center[0], y - center[1])
        pixels = rng.integers(90, 110, (160, 160, 3))
        pixels[(away > 25) & (away < 35)] = 240
        return pixels.astype(np.uint8)

    source, target = Photo(ring((60, 70))), Photo(ring((96, 90)).repeat(2, axis=1))
    result = SemanticMatcher.from_preset("hog").match(source, target, [(60.0, 40.0), (30.0, 70.0), (90.0, 70.0)])
    expected = np.array([(192.0, 60.0), (132.0, 90.0), (252.0, 90.0)])
    assert np.abs(result.target_points - expected).max() <= 12


def test_the_preset_is_without_prompt_and_weights():
    config = load_preset("hog")
    assert (config.backbone, config.prompt.kind) == (HogConfig(), "none")
    assert config.evaluation.protocol.name == "sd4match"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 8}, "window must be odd"),
        ({"block": 2}, "block must be odd"),
        ({"cell": 16, "overlap": 3}, "overlap must divide cell"),
        ({"image_size": 250}, "cell / overlap the image_size"),
        ({"image_size": 4096, "overlap": 16}, "the map would have"),
        ({"cell": True}, "cell: must be a valid integer"),
        ({"clip": 0}, "clip: must be greater than 0"),
        ({"floor": 0.0}, "floor: must be greater"),
        ({"sigma": float("nan")}, "sigma: must be"),
        ({"orientations": 37}, "orientations: must be less"),
    ],
)
def test_settings_that_make_no_map_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        HogConfig(**fields)
