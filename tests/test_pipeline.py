from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sd4match import MatchResult, SemanticMatcher, save_prompt
from sd4match.errors import ConfigError, InputError, PhotoError
from sd4match.interfaces import Matcher
from sd4match.matching.matchers import (
    BilinearNearestNeighbor,
    KernelSoftArgmax,
    NearestNeighbor,
    SoftArgmax,
    WindowSoftArgmax,
)
from sd4match.prompting.config import SinglePromptConfig
from sd4match.prompting.learned import SinglePrompt
from sd4match.prompting.text import EmptyPrompt
from sd4match.testing import random_correlation, random_photo
from sd4match.viz.colors import HIT, MISS
from sd4match.viz.matches import draw_matches, stack


@pytest.fixture(scope="module")
def matcher():
    return SemanticMatcher.from_preset("mini-empty")


def test_points_go_from_photo_to_photo(matcher):
    source, target = random_photo((80, 120)), random_photo((60, 50), seed=1)
    result = matcher.match(source, target, points=[(0, 0), (119, 79), (30.5, 10)])
    assert isinstance(result, MatchResult)
    assert len(result) == 3
    assert result.target_points.shape == (3, 2)
    assert ((result.target_points >= 0) & (result.target_points <= [49, 59])).all()
    assert ((result.scores >= 0) & (result.scores <= 1)).all()
    again = matcher.match(source, target, points=[(0, 0), (119, 79), (30.5, 10)])
    assert np.array_equal(result.target_points, again.target_points)


def test_a_photo_matches_itself_whatever_its_size(matcher):
    """Convention (x, y): in a wide photo swapped coordinates would miss by far."""
    from sd4match.data.config import SyntheticConfig

    wide = Image.fromarray(SyntheticConfig(split="test").build().photo("house-1").pixels).resize((300, 150))
    sharp = SemanticMatcher(backbone=matcher.backbone, prompt=matcher.prompt, matcher=NearestNeighbor())
    points = np.array([(250.0, 30.0), (40.0, 120.0), (150.0, 75.0)])
    result = sharp.match(wide, wide, points)
    assert np.abs(result.target_points - points).max() < 300 / 23


def test_mutual_keeps_what_comes_back(matcher):
    source, target = random_photo((80, 120)), random_photo((60, 50), seed=1)
    everything = matcher.match(source, target, grid=6)
    kept = matcher.match(source, target, grid=6, mutual=True)
    assert len(everything) == 36
    assert 0 < len(kept) < 36
    assert {tuple(p) for p in kept.source_points} <= {tuple(p) for p in everything.source_points}
    same = SemanticMatcher(backbone=matcher.backbone, prompt=matcher.prompt, matcher=NearestNeighbor())
    assert len(same.match(source, source, grid=6, mutual=True)) == 36


def test_everything_a_user_may_have_is_a_photo(matcher, tmp_path):
    photo = random_photo((40, 40))
    photo.to_image().save(tmp_path / "a.png")
    results = [
        matcher.match(form, form, points=[(3, 4)]).target_points
        for form in (photo, photo.pixels, photo.to_image(), tmp_path / "a.png", str(tmp_path / "a.png"))
    ]
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(120, 5)], r"point 120,5 is outside photo, which is 40 x 30 pixels \(x from 0 to 39, y from 0 to 29\)"),
        ([(float("nan"), 5)], "outside"),
        ([], "at least one"),
        ([(1, 2, 3)], r"\(N, 2\)"),
        ([("a", "b")], "pairs of numbers"),
    ],
)
def test_points_that_cannot_be_are_named(matcher, points, message):
    photo = random_photo((30, 40)).pixels
    with pytest.raises(InputError, match=message):
        matcher.match(photo, photo, points=points)


def test_text_without_category_and_a_prompt_yet_to_learn(matcher, tmp_path):
    photo = random_photo()
    text = SemanticMatcher.from_preset("mini-text")
    with pytest.raises(InputError, match="needs a category"):
        text.match(photo, photo)
    assert len(text.match(photo, photo, category="fish", grid=2)) == 4
    with pytest.raises(ConfigError, match="give the file of a prompt"):
        SemanticMatcher.from_preset("mini-single")
    with pytest.raises(PhotoError):
        matcher.match(tmp_path / "none.png", photo)
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=4), backbone=matcher.backbone)
    path = save_prompt(prompt, tmp_path / "p.safetensors", backbone=matcher.backbone)
    assert len(SemanticMatcher.from_preset("mini-single", prompt=path).match(photo, photo, grid=2)) == 4


def test_one_component_is_swapped(matcher, other_model):
    photo = random_photo((50, 60))
    swapped = SemanticMatcher(
        backbone=matcher.backbone, prompt=EmptyPrompt(backbone=matcher.backbone), matcher=SoftArgmax()
    )
    assert len(swapped.match(photo, photo, grid=2)) == 4
    other = SemanticMatcher.from_preset("mini-text", overrides=[f"backbone.weights={other_model}"])
    result = other.match(photo, photo, category="fish", grid=3)
    assert len(result) == 9
    assert other.backbone.spec.channels == 16


@pytest.mark.parametrize(
    "matcher_class", [NearestNeighbor, SoftArgmax, KernelSoftArgmax, WindowSoftArgmax, BilinearNearestNeighbor]
)
def test_every_matcher_answers_in_photo_pixels(matcher_class):
    correlation = random_correlation()
    matches = matcher_class()(correlation)
    assert isinstance(matcher_class(), Matcher)
    assert matches.points.shape == (2, 3, 2)
    assert ((matches.points >= 0) & (matches.points <= torch.tensor([48.0, 32.0]))).all()
    assert ((matches.scores >= 0) & (matches.scores <= 1)).all()


def test_pictures_show_hits_misses_and_truth():
    source, target = random_photo((40, 60)), random_photo((80, 40), seed=1)
    points, found = np.array([[5.0, 5.0], [50.0, 30.0]]), np.array([[10.0, 60.0], [30.0, 10.0]])
    picture = draw_matches(
        source, target, points, found, hits=[True, False], truth=found, scores=[1.0, 0.2], title="t", height=200
    )
    colors = {color for _, color in picture.getcolors(1 << 20)}
    assert HIT in colors
    assert MISS in colors
    assert picture.size == (300 + 12 + 100, 222)
    assert stack([picture, picture]).size == (412, 222 + 12 + 222)


def test_several_candidates_are_apart_and_in_order(matcher):
    source, target = random_photo((80, 120)), random_photo((60, 50), seed=1)
    points = [(10.0, 20.0), (100.0, 60.0)]
    found = matcher.match_candidates(source, target, points, count=4)
    assert found.target_points.shape == (2, 4, 2)
    assert found.scores.shape == (2, 4)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    sharp = SemanticMatcher(backbone=matcher.backbone, prompt=matcher.prompt, matcher=NearestNeighbor())
    sharp.sampling = matcher.sampling
    assert np.allclose(found.target_points[:, 0], sharp.match(source, target, points).target_points, atol=1e-3)
    cells = found.target_points * (23 / 95) * np.array([96 / 50, 96 / 60])
    for row in cells:
        for i in range(4):
            for j in range(i):
                assert np.abs(row[i] - row[j]).max() > 1.4
    with pytest.raises(InputError, match="candidates are in a map of 24 x 24 cells: lower count"):
        matcher.match_candidates(source, target, points, count=400)


def test_a_dense_match_has_a_match_for_every_cell(matcher):
    photo = random_photo((80, 120))
    dense = matcher.match_dense(photo, photo)
    assert dense.source_points.shape == dense.target_points.shape == (24, 24, 2)
    assert dense.inside.all()
    away = np.abs(dense.target_points - dense.source_points)
    assert np.median(away) < 120 / 23
    few = matcher.match(photo, photo, dense.source_points[4, 3:6].clip(0, [119, 79]))
    assert np.allclose(few.target_points, dense.target_points[4, 3:6], atol=1e-2)
    padded = SemanticMatcher.from_preset("mini-empty", overrides=["backbone.frame=pad", "evaluation.protocol=sd-dino"])
    dense = padded.match_dense(random_photo((40, 120)), photo)
    assert 7 <= dense.inside.any(axis=1).sum() <= 9  # a third of the rows
    assert dense.inside.any(axis=0).all()


def test_features_of_one_photo_and_back_from_a_file(matcher, tmp_path):
    from sd4match.io.features import read_features, write_features

    photo = random_photo((80, 120))
    features = matcher.feature_map(photo)
    assert features.values.shape == (1, 96, 24, 24)
    write_features(features, tmp_path / "f.safetensors", provenance={"who": "mini"})
    back, provenance = read_features(tmp_path / "f.safetensors")
    assert provenance == {"who": "mini"}
    assert (back.grid, back.groups) == (features.grid, features.groups)
    assert torch.equal(back.values, features.values)
    for content in (b"no", b""):
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="is not a file of features"):
            read_features(tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match="is not a file of features"):
        read_features(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["sd4match", "dift", "geoaware"])
def test_a_match_is_the_one_that_its_benchmark_counts(name):
    """The pipeline and the evaluator lay cells and read points alike."""
    from sd4match.config.protocols import get_protocol
    from sd4match.data.config import SyntheticConfig
    from sd4match.evaluation.evaluator import Evaluator

    frame = get_protocol(name).frame
    matcher = SemanticMatcher.from_preset("text", overrides=[f"backbone.frame={frame}", f"evaluation.protocol={name}"])
    data = SyntheticConfig(split="test", pairs=4, photos_per_category=2).build()
    scores = Evaluator(
        backbone=matcher.backbone, protocol=matcher.protocol, matchers={"it": matcher.matcher},
        sampling=matcher.sampling,
    ).evaluate(data, matcher.prompt)["it"]  # fmt: skip
    for record, right in zip(data, scores.correct, strict=True):
        seen = record.visible
        photos = data.photo(record.source_id), data.photo(record.target_id)
        found = matcher.match(*photos, record.source_points[seen], category=record.category).target_points
        correct = matcher.protocol.correct(
            torch.from_numpy(found)[None],
            torch.from_numpy(record.target_points[seen])[None],
            torch.ones(1, int(seen.sum()), dtype=torch.bool),
            photo_sizes=[record.target_size],
            boxes=[record.target_box],
        )
        assert correct[0].sum(0).tolist() == right.tolist()
