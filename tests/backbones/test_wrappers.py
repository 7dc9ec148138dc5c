"""Backbones around others: mirrored alignment and positional debiasing, with known answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.model_folders import write_random_transformer
from sd4match import SemanticMatcher
from sd4match.backbones.cached import CachedBackbone
from sd4match.backbones.config import BackboneConfig, DebiasedConfig, HogConfig, MirroredConfig
from sd4match.backbones.debiased import DebiasedBackbone
from sd4match.backbones.fusion import Fusion
from sd4match.backbones.hog import HogBackbone
from sd4match.backbones.mirrored import MirroredBackbone
from sd4match.backbones.preprocessing import pad, squash
from sd4match.config.experiment import ExperimentConfig, parse_config
from sd4match.config.presets import load_preset
from sd4match.config.protocols import EvaluationProtocol
from sd4match.errors import ConfigError, InputError
from sd4match.evaluation.evaluator import Evaluator
from sd4match.geometry import Grid, own_frame, pad_frame
from sd4match.interfaces import Backbone
from sd4match.matching.matchers import NearestNeighbor
from sd4match.matching.pair_transforms import CoPCA, MirroredAlignment
from sd4match.prompting.text import NoPrompt
from sd4match.structures.images import Photo, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import Encoded, FeatureMap, PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder, check_backbone, random_photo


def maps_of(backbone, *photos, prompt=None):
    encoded = backbone.encode(Views.of([backbone.prepare(photo) for photo in photos]))
    return backbone.extract(encoded, prompt, Sampling(0))


def turned(photo):
    return Photo(np.ascontiguousarray(photo.pixels[:, ::-1]))


class Padded(FakeBackbone):
    """Colors of patches of a padded view; takes no prompt."""

    def __init__(self):
        super().__init__()
        self.spec = FeatureSpec(48, 4, None, 0, 1, (32, 32), 4, "padded", frame="pad")

    def prepare(self, photo):
        return pad(photo, self.side)


@pytest.mark.parametrize("make", [FakeBackbone, Padded, lambda: Fusion(backbones=[FakeBackbone(), Padded()])])
def test_a_mirrored_map_is_that_of_the_mirror_image_turned_back(make):
    photos = [random_photo((24, 40)), random_photo((36, 20), seed=1)]
    inner = make()
    both = maps_of(MirroredBackbone(inner), *photos)
    plain, mirrored = maps_of(inner, *photos), maps_of(inner, *map(turned, photos))
    assert both.grid == plain.grid
    assert both.groups == 2 * (plain.groups or (48,)) == MirroredBackbone(inner).spec.groups
    half = plain.values.shape[1]
    torch.testing.assert_close(both.values[:, :half], plain.values)
    torch.testing.assert_close(both.values[:, half:], mirrored.values.flip(-1))


def test_wrapped_backbones_are_backbones():
    text = FakeBackbone(text_encoder=FakeTextEncoder())
    small = HogConfig(image_size=32, cell=8, window=3, orientations=3)
    for inner in (text, HogBackbone(small)):
        for wrapped in (MirroredBackbone(inner), DebiasedBackbone(debias(3), backbone=inner)):
            check_backbone(wrapped)
            check_backbone(CachedBackbone(wrapped))
            assert wrapped.fingerprint == inner.fingerprint
            assert wrapped.text_encoder is inner.text_encoder
    hog = HogBackbone(small)
    assert MirroredBackbone(hog).encoded_shapes == {"photo.histograms": (6, 8, 8), "mirrored.histograms": (6, 8, 8)}
    assert DebiasedBackbone(debias(3), backbone=hog).encoded_shapes == hog.encoded_shapes
    assert DebiasedBackbone(debias(3), backbone=hog).weights_digest() == hog.weights_digest()
    assert MirroredBackbone(hog).weights_digest() not in (None, hog.weights_digest())
    assert MirroredBackbone(text).weights_digest() is MirroredBackbone(text).encoded_shapes is None
    with pytest.raises(InputError, match="only the views that it prepares"):
        MirroredBackbone(hog).encode(Views.of([hog.prepare(random_photo())]))


def debias(components, **fields):
    return DebiasedConfig(backbone="hog", components=components, **fields)


def mirroring_matcher(backbone, **fields):
    return SemanticMatcher(
        backbone=MirroredBackbone(backbone), prompt=NoPrompt(), matcher=NearestNeighbor(),
        pair_transform=MirroredAlignment(**fields),
    )  # fmt: skip


POINTS = [(31 / 7 * column, 31 / 7 * row) for column, row in ((1, 2), (6, 0), (3, 7))]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_mirrored_photo_is_found_point_by_point(every):
    """Colors of patches of noise match nothing of the mirror image, unless the source is mirrored too."""
    photo = random_photo((32, 32), seed=7)
    plain = SemanticMatcher(backbone=FakeBackbone(), prompt=NoPrompt(), matcher=NearestNeighbor())
    matcher = mirroring_matcher(FakeBackbone(), every=every)
    expected = [(31 - x, y) for x, y in POINTS]
    np.testing.assert_allclose(matcher.match(photo, turned(photo), POINTS).target_points, expected, atol=1e-4)
    np.testing.assert_allclose(matcher.match(photo, photo, POINTS).target_points, POINTS, atol=1e-4)
    assert np.abs(plain.match(photo, turned(photo), POINTS).target_points - expected).max() > 4
    mutual = matcher.match(photo, turned(photo), POINTS, mutual=True)
    assert len(mutual) == len(POINTS)


def literal_score(values, target, frame_holds):
    """Mean over cells of the largest cosine, one number at a time."""
    best = []
    for row in range(values.shape[1]):
        for column in range(values.shape[2]):
            if frame_holds(row, column):
                cell = values[:, row, column].double()
                cosines = [
                    float(cell @ target[:, i, j].double() / (cell.norm() * target[:, i, j].double().norm()))
                    for i in range(target.shape[1]) for j in range(target.shape[2])
                ]  # fmt: skip
                best.append(max(cosines))
    return sum(best) / len(best)


def test_each_pair_of_a_batch_keeps_the_half_of_the_higher_score():
    generator = torch.Generator().manual_seed(1)
    frames = (pad_frame((40, 20), 32), pad_frame((20, 40), 32), pad_frame((30, 30), 32), pad_frame((32, 32), 32))
    grid = Grid(frames, (4, 4), "centers")
    source, target = (
        FeatureMap(torch.randn(4, 6, 4, 4, generator=generator), grid, groups=(1, 2, 1, 2)) for _ in range(2)
    )
    kept, own = MirroredAlignment(every=1)(source, target)
    chosen = []
    for row in range(4):
        inside = {(i, j) for i in range(4) for j in range(4)
                  if frames[row].holds(torch.tensor([8.0 * j + 3.5, 8.0 * i + 3.5]))}  # fmt: skip
        assert len(inside) == (8 if row < 2 else 16)
        scores = [literal_score(half, target.values[row, :3], lambda i, j, inside=inside: (i, j) in inside)
                  for half in source.values[row].split(3)]  # fmt: skip
        chosen.append(scores[1] > scores[0])
        torch.testing.assert_close(kept.values[row], source.values[row].split(3)[int(chosen[-1])])
    assert len(set(chosen)) == 2
    assert torch.equal(own.values, target.values[:, :3])
    assert kept.groups == own.groups == (1, 2)
    then, _ = MirroredAlignment(every=1, then=CoPCA(components=1))(source, target)
    assert then.groups == (1, 1)


def test_the_score_counts_cells_in_the_masks_alone():
    """The left half of the cells resembles the target as it is, the right half mirrored."""
    basis = torch.eye(4)[:, :, None, None]
    plain, mirrored = basis[:1].repeat(2, 1, 4, 6), basis[1:2].repeat(2, 1, 4, 6)
    mirrored[..., :3], plain[..., 3:] = basis[2], basis[3]
    other = basis[:1].repeat(2, 1, 4, 6)
    other[..., 3:] = basis[1]
    grid = Grid((own_frame((40, 60)),) * 2, (4, 6), "centers")
    left = torch.zeros(2, 4, 6, dtype=torch.bool)
    left[..., :3] = True
    mixed = torch.stack([left[0], ~left[1]])
    source = FeatureMap(torch.cat([plain, mirrored], 1), grid, (4, 4))
    target = FeatureMap(torch.cat([other, other], 1), grid, (4, 4))
    for source_mask, target_mask, is_mirrored in (
        (mixed, None, [False, True]), (None, mixed, [False, True]), (mixed, mixed, [False, True]),
        (None, None, [False, False]),
    ):  # fmt: skip
        kept, _ = MirroredAlignment()(replace(source, mask=source_mask), replace(target, mask=target_mask))
        for row, expected in enumerate(is_mirrored):
            assert torch.equal(kept.values[row], (mirrored if expected else plain)[row])


def test_a_pair_transform_sees_the_masks_of_photos():
    seen = []

    def look(source, target):
        seen.extend((source.mask, target.mask))
        return source, target

    photo = random_photo((32, 32))
    mask = np.zeros((32, 32), dtype=bool)
    mask[:16] = True
    matcher = SemanticMatcher(
        backbone=FakeBackbone(), prompt=NoPrompt(), matcher=NearestNeighbor(), pair_transform=look
    )
    matcher.match(photo, Photo(photo.pixels, mask=mask))
    assert seen[0] is None
    assert seen[1][0, :4].all()
    assert not seen[1][0, 4:].any()


def test_maps_without_a_mirrored_half_are_refused():
    plain = maps_of(FakeBackbone(), random_photo())
    with pytest.raises(InputError, match="backbone of kind 'mirrored'"):
        MirroredAlignment()(plain, plain)
    with pytest.raises(ConfigError, match="put the backbone into one of kind 'mirrored'"):
        load_preset("hog", ["pair_transform=mirrored_alignment"])
    with pytest.raises(ConfigError, match="of kind 'mirrored'"):
        load_preset("hog", ["backbone={kind: mirrored, backbone: hog}",
                            "pair_transform={kind: mirrored_alignment, then: mirrored_alignment}"])  # fmt: skip
    with pytest.raises(ConfigError, match="every"):
        MirroredAlignment(every=0)


def test_an_evaluation_mirrors_too():
    def evaluate(backbone, transform):
        evaluator = Evaluator(
            backbone=backbone, protocol=EvaluationProtocol(), matchers={"it": NearestNeighbor()}, sampling=Sampling(0),
            pair_transform=transform,
        )  # fmt: skip
        return evaluator.evaluate(FakePairs(pairs=8), NoPrompt())["it"].correct

    plain = evaluate(FakeBackbone(), None)
    assert (plain != evaluate(MirroredBackbone(FakeBackbone()), MirroredAlignment(every=1))).any()
    assert (plain == evaluate(MirroredBackbone(FakeBackbone()), lambda a, b: (half(a), half(b)))).all()


def half(features):
    return FeatureMap(features.values[:, :48], features.grid)


class Placed(Backbone):
    """Features = content + position: colors in three directions of a basis, places in two others."""

    def __init__(self, strength=3.0):
        super().__init__()
        self.strength, self.extracted = strength, 0
        self.basis = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0))).Q
        self.spec = FeatureSpec(8, 4, None, 0, 1, (32, 32), 4, "placed")

    def prepare(self, photo):
        return squash(photo, (32, 32))

    def encode(self, views):
        return Encoded({"pixels": views.pixels}, views.frames, views.keys)

    def extract(self, encoded, prompt, sampling):
        self.extracted += len(encoded)
        content = torch.einsum("kc,bkij->bcij", self.basis[:3], colors(encoded.tensors["pixels"]))
        y, x = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-0.5, 0.5, 8), indexing="ij")
        places = torch.einsum("kc,kij->cij", self.basis[3:5], torch.stack([x, y]))
        return FeatureMap(content + self.strength * places, Grid(encoded.frames, (8, 8), "centers"))


def colors(pixels):
    return torch.nn.functional.avg_pool2d(pixels, 4)


def test_debiasing_leaves_the_content():
    photos = [random_photo((32, 32)), random_photo((60, 40), seed=1)]
    inner = Placed()
    backbone = DebiasedBackbone(debias(2), backbone=inner)
    content = maps_of(Placed(strength=0.0), *photos).values
    torch.testing.assert_close(maps_of(backbone, *photos).values, content, atol=1e-5, rtol=1e-4)
    assert (maps_of(inner, *photos).values - content).abs().max() > 1
    # the first direction is the one in which places differ most: y
    first = maps_of(DebiasedBackbone(debias(1), backbone=inner), *photos).values
    along = torch.einsum("kc,bcij->bkij", inner.basis[3:5], first)
    torch.testing.assert_close(along[:, 1], torch.zeros_like(along[:, 1]), atol=1e-5, rtol=0)
    assert along[:, 0].abs().max() > 1


def test_debiasing_finds_what_position_hid():
    """Each photo shows four colors in other places."""
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)

    def photo(order):
        return Photo(palette[list(order)].reshape(2, 2, 3).repeat(16, axis=0).repeat(16, axis=1))

    source, target = photo((0, 1, 2, 3)), photo((3, 2, 1, 0))
    points = [(7.5, 7.5), (23.5, 7.5), (7.5, 23.5), (23.5, 23.5)]
    plain, debiased = (
        SemanticMatcher(backbone=backbone, prompt=NoPrompt(), matcher=NearestNeighbor()).match(source, target, points)
        for backbone in (Placed(), DebiasedBackbone(debias(2), backbone=Placed()))
    )
    there = [(x < 16, y < 16) for x, y in debiased.target_points]
    assert there == [(False, False), (True, False), (False, True), (True, True)]
    assert [(x < 16, y < 16) for x, y in plain.target_points] != there


def test_a_backbone_without_positions_loses_nothing():
    photos = [random_photo()]
    for inner in (Placed(strength=0.0), HogBackbone(HogConfig(image_size=32, cell=8, window=3))):
        debiased = maps_of(DebiasedBackbone(debias(4), backbone=inner), *photos).values
        assert torch.equal(debiased, maps_of(inner, *photos).values)


def test_groups_lose_their_own_directions():
    fused = Fusion(backbones=[Placed(), Placed(strength=0.3)])
    debiased = maps_of(DebiasedBackbone(debias(2), backbone=fused), random_photo())
    assert debiased.groups == (8, 8)
    for group, inner in zip(debiased.values.split(8, dim=1), (Placed(), Placed(strength=0.3)), strict=True):
        along = torch.einsum("kc,bcij->bkij", inner.basis[3:5], group)
        assert along.abs().max() < 0.02  # of unit vectors; a brightness of 128 is not quite no color


class Tinted(FakeBackbone):
    """Adds to each cell its row, in a direction that depends on the prompt."""

    def extract(self, encoded, prompt, sampling):
        made = super().extract(encoded, prompt, sampling)
        tint = torch.zeros(len(encoded), 48)
        tint[:, 8:16] = prompt.values.mean(dim=1).expand(len(encoded), -1)
        rows = torch.arange(8.0)[:, None].expand(8, 8)
        return FeatureMap(made.values + 10 * tint[..., None, None] * rows, made.grid)


def test_the_blank_image_is_extracted_once_for_each_prompt():
    inner = Tinted(text_encoder=FakeTextEncoder())
    backbone = DebiasedBackbone(debias(1), backbone=inner)
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(1, 16, 8, generator=generator) for _ in range(2))
    photos = [random_photo(seed=seed) for seed in range(3)]
    prompt = PromptEmbedding(torch.cat([one, two, one]).requires_grad_())
    made = maps_of(backbone, *photos, prompt=prompt)
    assert (inner.encoded, inner.extracted) == (4, 3 + 2)
    for row, vectors in enumerate((one, two, one)):
        tint = vectors.mean(dim=1)[0]
        along = torch.einsum("c,cij->ij", tint / tint.norm(), made.values[row, 8:16])
        assert along.abs().max() < 1e-4
    shared = maps_of(backbone, *photos[:2], prompt=PromptEmbedding(two))
    assert (inner.encoded, inner.extracted) == (6, 7)
    torch.testing.assert_close(shared.values[1], made.values[1])
    made.values.sum().backward()
    assert prompt.values.grad.abs().max() > 0
    for step in range(70):
        backbone.extract(
            backbone.encode(Views.of([backbone.prepare(photos[0])])), PromptEmbedding(one + step), Sampling(0)
        )
    assert len(backbone._known) == 64


def test_directions_are_principal_ones_of_a_transformer(tmp_path):
    """Literally, with an SVD of the blank image's cells."""
    folder = write_random_transformer(tmp_path / "vit", kind="dinov2")
    config = DebiasedConfig.model_validate(
        {"backbone": {"kind": "vision_transformer", "weights": str(folder)}, "components": 3, "brightness": 0.25}
    )
    config.check()
    backbone = config.build()
    assert config.spec() == backbone.spec
    assert config.model_name == str(folder)
    height, width = backbone.spec.native_size
    blank = maps_of(backbone.backbone, Photo(np.full((height, width, 3), 64, np.uint8))).values[0].flatten(1).double()
    directions = torch.linalg.svd(blank - blank.mean(dim=1, keepdim=True)).U[:, :3]
    photo = maps_of(backbone.backbone, random_photo()).values[0].flatten(1).double()
    expected = photo - directions @ (directions.T @ photo)
    made = maps_of(backbone, random_photo()).values[0].flatten(1).double()
    assert not math.isclose(float(made.norm()), float(photo.norm()), rel_tol=1e-3)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-3)


def test_configs_compose():
    text = """
backbone:
  kind: mirrored
  backbone: {kind: debiased, components: 4, backbone: {kind: stable_diffusion, weights: mini}}
pair_transform: {kind: mirrored_alignment, then: {kind: co_pca, components: 32}}
"""
    config = parse_config(text, origin="these lines")
    assert isinstance(config.backbone, MirroredConfig)
    assert ExperimentConfig.model_validate(config.model_dump(mode="json")) == config
    assert config.backbone.model_name == "mini"
    assert config.evaluation.sampling == load_preset("mini-empty").evaluation.sampling  # the settings of its model
    spec = config.backbone.spec()
    assert (spec.groups[0] == spec.groups[1], spec.options) == (True, "without 4 directions of a blank image, mirrored")


class Undeclared(BackboneConfig):
    """A backbone that does not tell its shapes."""

    kind: str = "undeclared"


def test_wrappers_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="components must be less than the 6 channels"):
        DebiasedConfig(backbone={"kind": "hog", "orientations": 2, "window": 1}, components=6).check()
    with pytest.raises(ConfigError, match="does not declare its shapes"):
        MirroredConfig(backbone=Undeclared()).check()
    with pytest.raises(ConfigError, match="brightness"):
        debias(2, brightness=1.5)
    with pytest.raises(ConfigError, match="backbone"):
        MirroredConfig()
