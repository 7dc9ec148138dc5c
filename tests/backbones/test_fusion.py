"""Fusion, co-PCA, several layers: against slow literal versions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import references
from sd4match import registry
from sd4match.backbones.fusion import Fusion
from sd4match.config.experiment import ExperimentConfig, build, load_preset
from sd4match.config.protocols import Measurement
from sd4match.data.collate import make_images
from sd4match.errors import ConfigError, InputError
from sd4match.evaluation.evaluator import Evaluator, Rule
from sd4match.geometry import pad_frame, squash_frame
from sd4match.matching.matchers import NearestNeighbor
from sd4match.matching.pair_transforms import CoPCA
from sd4match.prompting.text import NoPrompt
from sd4match.structures.images import View, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import FeatureMap, Latents, PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder, random_photo, tensors
from sd4match.training.run import learn


class Padded(FakeBackbone):
    """Colours of patches of a padded view; takes no prompt."""

    def __init__(self, side=48):
        super().__init__(side=side)
        spec = FeatureSpec(48, 4, None, 0, 1, (side, side), 4, "padded", frame="pad")
        self.spec = spec

    def prepare(self, photo):
        from sd4match.backbones.preprocessing import pad

        return pad(photo, self.side)


def maps_of(backbone, *photos, prompt=None):
    latents = backbone.encode(Views.of([backbone.prepare(photo) for photo in photos]))
    return backbone.extract(latents, prompt, Sampling(0))


def test_parts_are_normalised_weighted_and_laid_on_the_firsts_grid():
    """Literally: each cell of the first map -> photo pixel -> cell of the other map, bilinear."""
    squashed, padded = FakeBackbone(text=FakeTextEncoder()), Padded()
    photos = [random_photo((24, 40)), random_photo((37, 20), seed=1)]
    fused = maps_of(Fusion([squashed, padded], [1.0, 0.5]), *photos, prompt=PromptEmbedding(torch.ones(2, 16, 8)))
    one = maps_of(squashed, *photos, prompt=PromptEmbedding(torch.ones(2, 16, 8)))
    other = maps_of(padded, *photos)
    assert fused.values.shape == (2, 96, 8, 8)
    assert fused.groups == (48, 48)
    assert fused.frames == one.frames
    for row, photo in enumerate(photos):
        (height, width), frame = photo.size, pad_frame(photo.size, 48)
        for y in range(8):
            for x in range(8):
                px, py = x * 31 / 7 * width / 32, y * 31 / 7 * height / 32  # corners of 8 cells on 32 pixels
                qx, qy = (
                    (px * frame.scale[0] + frame.offset[0]) * 11 / 47,
                    (py * frame.scale[1] + frame.offset[1]) * 11 / 47,
                )
                expected = references.lerp_feature(other.values[row], qx, qy)
                expected = 0.5 * expected / expected.norm()
                torch.testing.assert_close(fused.values[row, 48:, y, x], expected, atol=1e-4, rtol=1e-4)
                own = one.values[row, :, y, x]
                torch.testing.assert_close(fused.values[row, :48, y, x], own / own.norm(), atol=1e-5, rtol=1e-5)


def test_views_of_all_parts_travel_together():
    backbone = Fusion([FakeBackbone(), Fusion([Padded(), Padded(side=32)])])
    views = [backbone.prepare(random_photo(seed=seed)) for seed in range(3)]
    batch = Views.of(views)
    assert [other.pixels.shape[-1] for other in (batch.others[0], batch.others[0].others[0])] == [48, 32]
    joined = batch[[0]] + batch[[1, 2]]
    assert torch.equal(joined.others[0].others[0].pixels, batch.others[0].others[0].pixels)
    assert joined.others[0].keys == batch.others[0].keys


def test_what_cannot_be_fused_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at most one part of a fusion may take a prompt"):
        Fusion([FakeBackbone(), FakeBackbone()])
    with pytest.raises(ConfigError, match="two parts or more, and a weight for each"):
        Fusion([FakeBackbone(), Padded()], [1.0])
    mini = {"kind": "stable_diffusion"}
    for parts, message in (
        ([mini, mini], "at most one part"),
        ([mini], "at least 2"),
        ([mini, {"kind": "vision_transformer", "layer": 99}], "its blocks are 0 to 11"),
    ):
        with pytest.raises(Exception, match=message):
            load_preset("text", [f"backbone={{kind: fusion, parts: {parts}}}".replace("'", '"')])
    with pytest.raises(ConfigError, match="weights must be one for each of the 2 parts"):
        registry.backbones.parse({"kind": "fusion", "parts": [mini, "vision_transformer"], "weights": [1]})


def random_maps(data, channels, cells=(4, 5)):
    frames = (squash_frame((20, 20), (32, 32)),) * 2
    return [
        FeatureMap(data.draw(tensors((2, sum(channels), *cells))), frames, groups=channels if len(channels) > 1 else ())
        for _ in range(2)
    ]


@given(st.data(), st.sampled_from([(12,), (9, 7, 5)]), st.integers(1, 4))
def test_co_pca_is_the_projection_onto_the_main_directions_of_both_maps(data, channels, components):
    """Literally, with an SVD of each pair's cells; signs of directions are free, so inner products are compared."""
    source, target = random_maps(data, channels)
    reduced = CoPCA(components=components)(source, target)
    for row in range(2):
        pieces = []
        for one, other in zip(source.values.split(channels, 1), target.values.split(channels, 1), strict=True):
            cells = torch.cat([one[row].flatten(1), other[row].flatten(1)], dim=1).double().T
            cells = cells - cells.mean(0)
            _, _, directions = torch.linalg.svd(cells, full_matrices=False)
            pieces.append(cells @ directions[:components].T)
        expected = torch.nn.functional.normalize(torch.cat(pieces, dim=1), dim=1)
        made = torch.cat([side.values[row].flatten(1).T for side in reduced]).double()
        torch.testing.assert_close(made @ made.T, expected @ expected.T, atol=1e-3, rtol=1e-3)
    assert reduced[0].groups == ((components,) * len(channels) if len(channels) > 1 else ())


def test_co_pca_keeps_groups_and_weights_parts():
    generator = torch.Generator().manual_seed(0)
    frames = (squash_frame((20, 20), (32, 32)),)
    source, target = (
        FeatureMap(torch.randn(1, 18, 4, 4, generator=generator), frames, groups=(6, 6, 6)) for _ in range(2)
    )
    made, _ = CoPCA(components=(2, 3, 0), parts=(2, 1), weights=(0.25, 2.0))(source, target)
    assert made.groups == (2, 3, 6)
    torch.testing.assert_close(made.values[:, :5].norm(dim=1), torch.full((1, 4, 4), 0.25))
    torch.testing.assert_close(made.values[:, 5:], 2 * torch.nn.functional.normalize(source.values[:, 12:], dim=1))
    for settings in ({"components": (2, 2)}, {"parts": (1, 1)}, {"weights": (1.0, 1.0)}):
        with pytest.raises(InputError, match="co-PCA has"):
            CoPCA(**settings)(source, target)


def test_a_pair_transform_runs_between_the_store_and_the_matcher():
    seen = []

    class Negated:
        def __call__(self, source, target):
            from dataclasses import replace

            seen.append(len(source.frames))
            return source, replace(target, values=-target.values)

    rules = {"it": Rule(Measurement(), NearestNeighbor())}
    data, backbone = FakePairs(pairs=60), FakeBackbone()
    plain, changed = (
        Evaluator(backbone=backbone, rules=rules, sampling=Sampling(0), pair_transform=transform).evaluate(
            data, NoPrompt(backbone=None)
        )["it"]
        for transform in (None, Negated())
    )
    assert sum(seen) == 60
    assert (plain.correct != changed.correct).any()


def test_a_config_builds_the_transform_and_training_refuses_it(tmp_path):
    config = load_preset("single", ["pair_transform={kind: co_pca, components: 8}"])
    assert ExperimentConfig.model_validate(config.model_dump(mode="json")) == config
    parts = build(config)
    assert isinstance(parts.pair_transform, CoPCA)
    with pytest.raises(ConfigError, match="pair_transform is for matching"):
        learn(config, parts, tmp_path)


def test_fused_images_reach_the_evaluator_and_single_views_stay_single():
    backbone = Fusion([FakeBackbone(), Padded()])
    images = make_images([random_photo()], [None], {"backbone": backbone.prepare})
    assert isinstance(images.views["backbone"], Views)
    assert isinstance(backbone.prepare(random_photo()), View)
    assert isinstance(backbone.encode(images.views["backbone"]), Latents)
    rules = {"it": Rule(Measurement(), NearestNeighbor())}
    scores = Evaluator(backbone=backbone, rules=rules, sampling=Sampling(0)).evaluate(
        FakePairs(), NoPrompt(backbone=None)
    )
    assert len(scores["it"]) == 6
