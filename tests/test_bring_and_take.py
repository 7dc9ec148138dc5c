"""Photos in every form, features once, many pairs, and results in the forms of other libraries."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match import Photo, SemanticMatcher
from sd4match.errors import ConfigError, InputError, PhotoError, ShapeError
from sd4match.matching import BilinearNearestNeighbor, KernelSoftArgmax, NearestNeighbor, PixelNearestNeighbor
from sd4match.prompting import EmptyPrompt, SinglePrompt, SinglePromptConfig, TextPrompt, TextPromptConfig
from sd4match.results import Features, MatchResult
from sd4match.structures.tensors import PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo

A, B = random_photo((40, 60), seed=1), random_photo((50, 44), seed=2)


def fake_matcher(**changes):
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    parts = {"backbone": backbone, "prompt": EmptyPrompt(backbone=backbone), "matcher": KernelSoftArgmax(), **changes}
    return SemanticMatcher(**parts)


class ImagePrompt(EmptyPrompt):
    """Prompt that looks at the photo that it is for, as the backbone sees it."""

    scope = "image"

    def __init__(self, backbone):
        super().__init__(backbone=backbone)
        self.views = {"look": backbone.prepare}


class PairPrompt(EmptyPrompt):
    scope = "pair"

    def forward(self, images, partners=None):
        return PromptEmbedding(torch.zeros(len(images), 16, 8))


# photos


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_tensor_is_a_photo(dtype, channels_first):
    tensor = torch.from_numpy(A.pixels)
    tensor = tensor if dtype == torch.uint8 else (tensor.double() / 255).to(dtype).requires_grad_()
    found = Photo.from_array(tensor.permute(2, 0, 1) if channels_first else tensor)
    assert np.abs(found.pixels.astype(int) - A.pixels).max() <= (1 if dtype == torch.bfloat16 else 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_an_array_of_floats_is_a_photo(dtype):
    assert np.array_equal(Photo.from_array((A.pixels / 255).astype(dtype)).pixels, A.pixels)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (A.pixels.astype(np.float32), "divide by 255"),
        (np.full((4, 4, 3), -0.5), r"in \[0, 1\], not from -0.5"),
        (np.full((4, 4, 3), np.nan), "nan"),
        (np.zeros((4, 4)), r"\(H, W, 3\)"),
        (torch.zeros(1, 3, 4, 4), r"\(H, W, 3\)"),
        (torch.zeros(4, 4, 3, dtype=torch.int32), "int32"),
        (np.zeros((0, 4, 3), dtype=np.float32), r"\(H, W, 3\)"),
        ([[0]], r"\(H, W, 3\)"),
        (torch.zeros(3, 4, 4, device="meta"), "a dense tensor of numbers, not .* on meta"),
        (torch.zeros(4, 4, 3).to_sparse(), "a dense tensor of numbers, not .* torch.sparse_coo"),
    ],
)
def test_other_arrays_are_refused(array, message):
    with pytest.raises(PhotoError, match=message):
        Photo.from_array(array)


@pytest.mark.parametrize("url", ["https://example.com/a.png", "s3://bucket/a.png", "file:///tmp/a.png"])
def test_a_url_says_to_download_it(url):
    with pytest.raises(PhotoError, match="is a URL: download the photo"):
        fake_matcher().match(url, B)


def test_every_form_gives_the_same_matches():
    matcher = fake_matcher()
    tensor = torch.from_numpy(A.pixels).permute(2, 0, 1) / 255
    expected = matcher.match(A, B, [(3, 4)]).target_points
    for form in (tensor, A.pixels / 255, A.pixels, A.to_image()):
        assert np.array_equal(matcher.match(form, B, torch.tensor([[3.0, 4.0]])).target_points, expected)


# masks


def masked(photo, rows, columns):
    mask = np.zeros(photo.size, dtype=bool)
    mask[rows, columns] = True
    return Photo(photo.pixels, photo.name, mask)


@pytest.mark.parametrize("mask", [np.ones((40, 60)), np.ones((2, 2), dtype=bool), [[True]], np.zeros((40, 60), bool)])
def test_a_mask_must_fit(mask):
    with pytest.raises(PhotoError, match="mask"):
        Photo(A.pixels, mask=mask)


@pytest.mark.parametrize("kind", [NearestNeighbor, BilinearNearestNeighbor, PixelNearestNeighbor])
@given(top=st.integers(0, 40), left=st.integers(0, 34))
@settings(max_examples=8)
def test_points_are_matched_into_the_mask(kind, top, left):
    """To a cell that the mask touches: a cell of the fake backbone is 1/8 of the photo."""
    target = masked(B, slice(top, top + 6), slice(left, left + 6))
    found = fake_matcher(matcher=kind()).match(A, target).target_points
    cell = np.array([44, 50]) / 7
    low, high = np.array([left, top]) - cell, np.array([left + 5, top + 5]) + cell
    assert ((found >= low) & (found <= high)).all()


def test_a_mask_of_any_strides_and_a_tensor_are_masks():
    plain = masked(A, slice(10, 20), slice(30, 50))
    mirrored, fixed = plain.mask[:, ::-1].copy()[:, ::-1], np.broadcast_to(plain.mask, (40, 60))
    expected = fake_matcher().match(plain, plain)
    for mask in (mirrored, fixed, torch.from_numpy(plain.mask)):
        photo = Photo.from_array(A.pixels, mask=mask)
        found = fake_matcher().match(photo, photo)
        assert np.array_equal(found.source_points, expected.source_points)
        assert np.array_equal(found.target_points, expected.target_points)
    with pytest.raises(PhotoError, match="a dense tensor of numbers"):
        Photo.from_array(A.pixels, mask=torch.ones(40, 60, dtype=torch.bool, device="meta"))
    with pytest.raises(PhotoError, match="`numbers > 0`"):
        Photo.from_array(A.pixels, mask=torch.ones(40, 60))


def test_points_are_taken_from_the_mask_of_the_source():
    matcher, source = fake_matcher(), masked(A, slice(10, 20), slice(30, 50))
    found = matcher.match(source, B).source_points
    assert len(found) == 64
    assert ((found >= [29.5, 9.5]) & (found <= [49.5, 19.5])).all()
    with pytest.raises(InputError, match="point 2,2 is outside the mask of random-1"):
        matcher.match(source, B, [(35, 12), (2, 2)])
    diagonal = np.eye(40, 60, dtype=bool)
    assert len(matcher.match(Photo(A.pixels, mask=diagonal), B, grid=1)) == 1


def test_masks_change_no_feature_and_reach_the_views_of_prompts():
    seen = []

    class Looking(ImagePrompt):
        def forward(self, images, partners=None):
            seen.extend(view.mask for view in images.view("look").views)
            return super().forward(images)

    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    matcher = fake_matcher(backbone=backbone, prompt=Looking(backbone))
    plain, with_mask = (matcher.extract(photo) for photo in (A, masked(A, slice(0, 20), slice(0, 60))))
    assert torch.equal(plain.map.values, with_mask.map.values)
    assert seen[0] is None
    assert seen[1][:16].all()
    assert not seen[1][16:].any()


def test_a_prompt_that_reads_masks_gives_each_mask_its_own_features():
    class Looking(ImagePrompt):
        def forward(self, images, partners=None):
            shares = [
                0.0 if view.mask is None else float(view.mask.float().mean()) for view in images.view("look").views
            ]
            return PromptEmbedding(torch.tensor(shares)[:, None, None] * torch.arange(8.0).expand(len(shares), 16, 8))

    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    matcher = fake_matcher(backbone=backbone, prompt=Looking(backbone))
    photos = [masked(A, slice(10, 20), slice(30, 50)), masked(A, slice(0, 40), slice(0, 60)), A]
    rows = [(photo, B, [(35, 12)]) for photo in photos]
    for row, found in zip(rows, matcher.match_pairs(rows), strict=True):
        np.testing.assert_allclose(found.target_points, matcher.match(*row).target_points, atol=1e-5)


def test_the_mask_holds_for_the_way_back_too():
    source = masked(A, slice(0, 10), slice(0, 10))
    correlation = fake_matcher().correlate(source, B, [(3, 4)])
    back = correlation.reversed(torch.tensor([[[20.0, 20.0]]]))
    assert torch.equal(back.values.isfinite(), back.target.mask[:, None])
    assert not back.target.mask.all()


# features, computed once


def test_one_source_and_twelve_targets_take_thirteen_extractions():
    matcher = fake_matcher()
    targets = [random_photo((30, 30), seed=10 + number) for number in range(12)]
    source = matcher.extract(A)
    single = [matcher.match(source, target) for target in targets]
    assert matcher.backbone.extracted == matcher.backbone.encoded == 13
    matcher.backbone.extracted = matcher.backbone.encoded = 0
    many = matcher.match_many(A, targets)
    assert matcher.backbone.extracted == matcher.backbone.encoded == 13
    for one, other in zip(single, many, strict=True):
        np.testing.assert_allclose(one.target_points, other.target_points, atol=1e-5)


def test_features_stand_for_their_photo_on_either_side():
    matcher = fake_matcher()
    expected = matcher.match(A, B)
    left, right = matcher.extract(A), matcher.extract(B)
    for sides in ((left, B), (A, right), (left, right), (left.to("cpu"), right)):
        found = matcher.match(*sides)
        np.testing.assert_allclose(found.target_points, expected.target_points, atol=1e-5)
        assert found.source.name == A.name
    assert repr(left) == "Features(random-1 60 x 40: 48 x 8 x 8, scope='dataset')"
    assert left.size == A.size
    assert matcher.match_pairs([(left, right)])[0].target_points.shape == (64, 2)


def test_features_have_descriptors_at_pixels():
    features = fake_matcher().extract(A)
    corners = features.at([(0, 0), (59, 39)])
    assert torch.equal(corners[0], features.map.values[0, :, 0, 0])
    torch.testing.assert_close(corners[1], features.map.values[0, :, 7, 7])
    for points in ([1, 2], [(1, 2, 3)], [("a", "b")], None, torch.zeros(1, 2, device="meta")):
        with pytest.raises((InputError, ShapeError), match="points"):
            features.at(points)


@pytest.mark.parametrize("what", ["prompt", "sampling", "backbone"])
def test_features_of_another_matcher_are_refused(what):
    matcher = fake_matcher()
    features = matcher.extract(A)
    if what == "prompt":
        matcher.prompt = SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=matcher.backbone)
    if what == "sampling":
        matcher.sampling = Sampling(100)
    if what == "backbone":
        matcher = fake_matcher(backbone=FakeBackbone(side=64, text_encoder=FakeTextEncoder()))
    with pytest.raises(InputError, match="extracted with another backbone, prompt or sampling"):
        matcher.match(features, B)


def test_a_prompt_of_pairs_has_no_features_of_one_photo():
    matcher = fake_matcher(prompt=PairPrompt(backbone=FakeBackbone(text_encoder=FakeTextEncoder())))
    features = fake_matcher().extract(A)
    for call in (
        lambda: matcher.extract(A), lambda: matcher.match(features, B), lambda: matcher.match_pairs([(A, features)]),
    ):  # fmt: skip
        with pytest.raises(InputError, match="depends on both photos of a pair"):
            call()


# many pairs


@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=7),
    batch_size=st.integers(1, 4),
    of_pairs=st.booleans(),
    mutual=st.booleans(),
)
@settings(max_examples=12)
def test_pairs_are_matched_as_one_by_one(pairs, batch_size, of_pairs, mutual):
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    prompt = (PairPrompt if of_pairs else EmptyPrompt)(backbone=backbone)
    matcher = fake_matcher(backbone=backbone, prompt=prompt)
    photos = [random_photo((24 + 4 * number, 32), seed=number) for number in range(5)]
    rows = [(photos[one], photos[other], [(3.0, 5.0), (20.0, 7.0)]) for one, other in pairs]
    done = []
    found = matcher.match_pairs(rows, batch_size=batch_size, mutual=mutual, progress=lambda *at: done.append(at))
    assert backbone.encoded == len({number for pair in pairs for number in pair})
    assert done == [(number + 1, len(rows)) for number in range(len(rows))]
    for row, result in zip(rows, found, strict=True):
        alone = matcher.match(*row, mutual=mutual)
        np.testing.assert_allclose(result.target_points, alone.target_points, atol=1e-5)
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-5)
        assert np.array_equal(result.indices, alone.indices)


def test_maps_beyond_the_memory_are_dropped(monkeypatch):
    monkeypatch.setattr("sd4match.pipeline._MAPS_IN_MEMORY", 0)
    matcher = fake_matcher()
    photos = [random_photo((30, 30), seed=number) for number in range(4)]
    matcher.match_pairs([(photos[0], photos[1]), (photos[2], photos[3]), (photos[0], photos[1])], batch_size=1)
    assert (matcher.backbone.encoded, matcher.backbone.extracted) == (4, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.match_pairs(5), "pairs must be a list"),
        (lambda m: m.match_pairs("ab"), "pairs must be a list"),
        (lambda m: m.match_pairs([(A,)]), r"pairs\[0\] must be \(source, target\)"),
        (lambda m: m.match_pairs([(A, B)], category=["cat", "cat"]), "one for each of 1 pairs, not 2"),
        (lambda m: m.match_pairs([(A, B)], batch_size=0), "batch_size"),
        (lambda m: m.match_pairs([(A, B)], progress="bar"), "progress must be"),
        (lambda m: m.match_many(A, "photos.png"), "targets must be a list of photos"),
        (lambda m: m.match_many(A, B), "targets must be a list of photos"),
        (lambda m: m.match(A, B, category=("cat",)), "a pair for source and target"),
        (lambda m: m.correlate(A, B, [(1, 1)], grad="yes"), "grad"),
    ],
)
def test_what_is_no_pair_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(fake_matcher())


def test_no_pairs_are_no_results(capsys):
    assert fake_matcher().match_pairs([]) == []
    fake_matcher().match_pairs([(A, B)], progress=True)


def test_each_photo_may_have_a_category_of_its_own():
    asked = []

    class Asking(TextPrompt):
        def forward(self, images, partners=None):
            asked.extend(images.categories)
            return super().forward(images)

    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    matcher = fake_matcher(backbone=backbone, prompt=Asking(TextPromptConfig(template="{category}"), backbone=backbone))
    matcher.match(A, B, category=("cat", "dog"))
    matcher.match_pairs([(A, B), (B, A)], category=[("cat", "dog"), "cow"])
    assert asked == ["cat", "dog", "cat", "dog", "cow", "cow"]


# the middle


def test_the_correlation_is_differentiable_in_the_prompt():
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=backbone)
    matcher = fake_matcher(backbone=backbone, prompt=prompt)
    assert not matcher.correlate(A, B, [(3, 4)]).values.requires_grad
    matcher.correlate(A, B, [(3, 4)], grad=True).values.sum().backward()
    assert prompt.token_embeddings.grad.abs().sum() > 0


def test_the_full_correlation_is_that_of_every_cell():
    correlation = fake_matcher().correlate(A, B, [(3, 4)])
    full = correlation.full()
    assert full.values.shape == (1, 64, 8, 8)
    source, target = (
        side.values[0].flatten(1) / side.values[0].flatten(1).norm(dim=0) for side in (full.source, full.target)
    )
    torch.testing.assert_close(full.values[0].flatten(1), source.T @ target, atol=1e-5, rtol=0)
    again = correlation.source.grid.to_cells(full.query_points)[0]
    torch.testing.assert_close(again[9], torch.tensor([1.0, 1.0]), atol=1e-4, rtol=0)


# results


@pytest.fixture
def result():
    points = np.array([[1.0, 2.0], [3.5, 4.0], [5.0, 6.0]])
    return MatchResult(A, B, points, points + 1, np.array([0.2, 0.9, 0.5]), np.array([0, 4, 7]))


def test_matches_have_the_names_of_others(result):
    assert result.keypoints0 is result.source_points
    assert result.keypoints1 is result.target_points
    assert result.matching_scores is result.scores
    assert result.as_dicts()[0] == {
        "keypoint_image_0": {"x": 3.5, "y": 4.0}, "keypoint_image_1": {"x": 4.5, "y": 5.0}, "score": 0.9,
    }  # fmt: skip
    assert [match["score"] for match in result.as_dicts()] == [0.9, 0.5, 0.2]


def test_an_index_is_a_whole_number(result):
    with pytest.raises(InputError, match="indices must be whole numbers"):
        replace(result, indices=result.scores)


def test_a_refusal_to_save_names_no_option_of_the_command_line(result, tmp_path):
    (tmp_path / "matches.json").write_text("{}")
    with pytest.raises(InputError, match=r"^the folder's .*matches\.json exists and is no result"):
        result.save(tmp_path)


def test_details_do_not_replace_what_makes_a_result(result, tmp_path):
    for name in ("format", "matches"):
        with pytest.raises(InputError, match=f"other names than {name}"):
            result.save(tmp_path / "found", details={name: "mine"})
    assert not (tmp_path / "found").exists()


def test_matches_are_filtered_with_their_indices(result):
    kept = result.filter(min_score=0.5)
    assert kept.indices.tolist() == [4, 7]
    assert kept.scores.tolist() == [0.9, 0.5]
    assert len(result.filter(min_score=1.0)) == 0
    assert repr(result.filter(min_score=1.0)) == "MatchResult(0 matches, random-1 60 x 40 -> random-2 44 x 50)"
    with pytest.raises(InputError, match="min_score"):
        result.filter(min_score=2)


def test_indices_are_those_of_the_callers_points():
    matcher = fake_matcher()
    points = [(3, 4), (30, 20), (50, 30), (10, 35)]
    everything, kept = matcher.match(A, B, points), matcher.match(A, B, points, mutual=True)
    assert everything.indices.tolist() == [0, 1, 2, 3]
    assert np.array_equal(np.array(points, dtype=float)[kept.indices], kept.source_points)


def test_matches_are_drawn_and_saved(result, tmp_path):
    assert result.draw(height=100).height >= 100
    assert result._repr_png_().startswith(b"\x89PNG")
    folder = result.save(tmp_path / "out", details={"note": "mine"})
    content = json.loads((folder / "matches.json").read_text())
    assert content["note"] == "mine"
    assert content["matches"][1] == {"source": [3.5, 4.0], "target": [4.5, 5.0], "score": 0.9, "index": 4}
    result.save(folder)  # replaces its own
    (folder / "matches.json").write_text("{}")
    with pytest.raises(InputError, match=r"matches\.json"):
        result.save(folder)
    with pytest.raises(InputError, match="must be JSON"):
        result.save(tmp_path / "other", details={"a": object()})


def test_matches_go_to_opencv(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="pip install opencv-python-headless"):
        result.to_opencv()
    cv2 = types.SimpleNamespace(
        KeyPoint=lambda x, y, size: (x, y), DMatch=lambda query, train, far: (query, train, far)
    )
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    left, right, matches = result.to_opencv()
    assert (left[1], right[1]) == ((3.5, 4.0), (4.5, 5.0))
    assert matches[1] == pytest.approx((1, 1, 0.1))


def test_features_must_be_of_their_photo():
    features = fake_matcher().extract(A)
    with pytest.raises(ShapeError, match="map of one photo"):
        Features(B, features.map, "dataset")


# devices and precision


def test_device_and_precision_are_resolved_as_on_the_command_line():
    matcher = SemanticMatcher.from_preset("mini-empty", device=torch.device("cpu"), dtype=torch.bfloat16)
    assert matcher.backbone.unet.conv_in.weight.dtype == torch.bfloat16
    assert matcher.config.backbone.dtype == "bfloat16"
    assert matcher.to("cpu") is matcher
    assert matcher.device == torch.device("cpu")
    for dtype in ("float8", torch.int32, 5):
        with pytest.raises((ConfigError, InputError), match="dtype must be"):
            SemanticMatcher.from_preset("mini-empty", dtype=dtype)
    with pytest.raises(ConfigError, match="cuda:7"):
        matcher.to("cuda:7")
    with pytest.raises(ConfigError, match="dtype is for one model"):
        SemanticMatcher.from_preset("sd-dino", dtype="float16")
