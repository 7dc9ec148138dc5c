from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from sd4match.errors import PhotoError, ShapeError
from sd4match.geometry import Grid, squash_frame
from sd4match.matching import functional
from sd4match.matching.matchers import KernelSoftArgmax
from sd4match.registry import matchers
from sd4match.structures.images import ImageBatch, Photo, View, Views
from sd4match.structures.tensors import (
    Encoded,
    FeatureMap,
    ImageFeatures,
    Keypoints,
    LossValue,
    Matches,
    PromptEmbedding,
)
from sd4match.testing import FakePairs, random_correlation, random_photo


@pytest.mark.parametrize(
    ("count", "size", "rows"),
    [(1, 4, [[0, 0, 0, 0]]), (4, 2, [[0, 1], [2, 3]]), (5, 3, [[0, 1, 2], [3, 4, 4]]), (2, 1, [[0], [1]])],
)
def test_views_go_in_batches_of_one_size(count, size, rows):
    views = [
        View(torch.full((3, 2, 2), float(number)), squash_frame((2, 2), (2, 2)), str(number)) for number in range(count)
    ]
    found = [[view.key for view in batch.views] for batch in Views.of(views).filled(size)]
    assert found == [[str(number) for number in batch] for batch in rows]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "LA", "I;16", "1"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    image = Image.new(mode, (6, 4))
    assert Photo.from_image(image).pixels.shape == (4, 6, 3)


def test_exif_rotation_is_for_users_not_for_annotations(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert Photo.open(tmp_path / "turned.jpg").size == (8, 4)
    assert Photo.open(tmp_path / "turned.jpg", exif=False).size == (4, 8)


def test_transparency_is_laid_on_white():
    assert Photo.from_image(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).pixels.min() == 255


def test_missing_broken_and_misshapen_photos_are_named(tmp_path):
    with pytest.raises(PhotoError, match=r"no such photo: .*nowhere\.png"):
        Photo.open(tmp_path / "nowhere.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(PhotoError, match=r"not a readable image: .*broken\.png"):
        Photo.open(broken)
    with pytest.raises(PhotoError, match="is a folder: give a photo"):
        Photo.open(tmp_path)
    whole = tmp_path / "whole.png"
    random_photo((40, 40)).to_image().save(whole)
    broken.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(PhotoError, match="not a readable image"):
        Photo.open(broken)
    with pytest.raises(PhotoError, match=r"\(H, W, 3\) uint8"):
        Photo(np.zeros((4, 4, 3), dtype=np.float32).astype(np.uint8)[..., :2])


def test_key_is_of_the_pixels():
    photo = random_photo(seed=1)
    same = Photo(photo.pixels.copy(), "another name")
    mirrored = Photo(photo.pixels[:, ::-1].copy(), "mirrored")
    assert photo.key == same.key != mirrored.key
    tall, wide = Photo(np.zeros((2, 8, 3), np.uint8)), Photo(np.zeros((8, 2, 3), np.uint8))
    assert tall.key != wide.key


def grid(count, size=(2, 2), *rest):
    return Grid(tuple(squash_frame((10 + row, 20), (8, 16)) for row in range(count)), size, *rest)


def test_a_feature_map_needs_a_grid_of_its_batch_and_size():
    maps = FeatureMap(torch.arange(24.0).reshape(3, 2, 2, 2), grid(3))
    assert maps[[2, 0]].values[0, 0, 0, 0] == 16
    assert maps[[2, 0]].grid.frames == (maps.grid.frames[2], maps.grid.frames[0])
    assert len(maps[1:]) == len(maps[1:].grid) == 2
    with pytest.raises(ShapeError, match=r"expected a grid of 3 images and \(2, 2\) cells, got 1 images"):
        FeatureMap(torch.zeros(3, 2, 2, 2), grid(1))
    with pytest.raises(ShapeError, match=r"got 3 images and \(2, 4\) cells"):
        FeatureMap(torch.zeros(3, 2, 2, 2), grid(3, (2, 4)))


def maps(count, *, channels=3, size=(2, 4)):
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(count, channels, *size, generator=generator)
    return FeatureMap(values, grid(count, size, "patch", 0.5), (1, 2))


def test_maps_on_another_grid_share_values_and_norms():
    features = maps(2)
    moved = features.with_grid(dataclasses.replace(features.grid, alignment="centers", offset=None))
    again = moved.with_grid(features.grid)
    assert moved.values is features.values
    assert moved.norms is features.norms is again.norms
    assert features.with_grid(grid(2, (2, 4), "patch", 0.5)) is features
    torch.testing.assert_close(features.norms, features.values.norm(dim=1))
    half = FeatureMap(maps(1).values.half(), maps(1).grid)
    torch.testing.assert_close(maps(1).norms, half.norms, atol=1e-2, rtol=0)
    assert half.norms.dtype == torch.float32


def test_other_values_have_norms_of_their_own():
    moved = maps(2).with_grid(grid(2, (2, 4)))
    assert moved.norms.sum() > 0
    doubled = dataclasses.replace(moved, values=2 * moved.values)
    assert torch.equal(doubled.norms, 2 * moved.norms)


def test_other_correlations_have_peaks_of_their_own():
    correlation = random_correlation()
    assert correlation.peak is correlation.peak
    assert correlation.probability(0.1) is correlation.probability(0.1)
    flipped = dataclasses.replace(correlation, values=correlation.values.flip(-1))
    assert torch.equal(flipped.peak, functional.nearest_neighbor(flipped.values))
    assert not torch.equal(flipped.peak, correlation.peak)
    expected = functional.match_probability(flipped.values, temperature=0.1)
    assert torch.equal(flipped.probability(0.1), expected)


@pytest.mark.parametrize("kind", [kind for kind in matchers.kinds() if kind != "threshold"])  # which reads them
def test_scores_are_computed_when_they_are_read(kind, monkeypatch):
    calls = []
    inner = functional.mass_around
    monkeypatch.setattr(functional, "mass_around", lambda *a, **k: calls.append(1) or inner(*a, **k))
    matches = matchers.parse(kind).build()(random_correlation())
    assert matches.points.shape == (2, 3, 2)
    assert not calls
    assert matches.scores is matches.scores
    assert len(calls) == 1
    assert ((matches.scores >= 0) & (matches.scores <= 1)).all()


@pytest.mark.parametrize("kind", matchers.kinds())
def test_what_another_matcher_computed_changes_nothing(kind):
    matcher = matchers.parse(kind).build()
    alone = matcher(random_correlation())
    shared = random_correlation()
    KernelSoftArgmax()(shared)
    assert torch.equal(matcher(shared).points, alone.points)
    assert torch.equal(matcher(shared).scores, alone.scores)


def test_matches_pickle_with_scores_that_were_not_read_yet():
    matches = KernelSoftArgmax()(random_correlation())
    again = pickle.loads(pickle.dumps(matches))
    assert torch.equal(again.points, matches.points)
    assert torch.equal(again.scores, matches.scores)


def holders():
    correlation, photo = random_correlation(), random_photo()
    view = View(torch.zeros(3, 4, 4), squash_frame((4, 4), (4, 4)), "key")
    points = Keypoints(torch.zeros(1, 2, 2), torch.ones(1, 2, dtype=torch.bool))
    yield from (correlation, correlation.source, photo, view, Views.of([view]), points)
    yield from (PromptEmbedding(torch.zeros(1, 2, 3)), ImageFeatures(torch.zeros(1, 2, 3), torch.zeros(1, 3)))
    yield from (
        Encoded({"x": torch.zeros(1)}, (view.frame,), ("key",)),
        Matches(torch.zeros(1, 2, 2), torch.zeros(1, 2)),
    )
    yield from (LossValue(torch.tensor(1.0)), FakePairs()[0], ImageBatch({}, (None,), (photo,)))


@pytest.mark.parametrize("holder", list(holders()), ids=lambda holder: type(holder).__name__)
def test_structures_with_tensors_are_compared_by_identity(holder):
    same = copy.copy(holder)
    assert holder == holder
    assert holder != same
    assert {holder: 1}[holder] == 1
    assert same not in {holder}
