"""Fusion, co-PCA, several layers: against slow literal versions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import references
from helpers.model_folders import write_random_transformer
from helpers.strategies import distinct_values
from sd4match import registry
from sd4match.backbones.cached import CachedBackbone
from sd4match.backbones.config import FusionConfig, FusionOptions
from sd4match.backbones.fusion import Fusion
from sd4match.config.experiment import ExperimentConfig, build_components
from sd4match.config.presets import load_preset
from sd4match.config.protocols import EvaluationProtocol
from sd4match.data.collate import make_images
from sd4match.errors import ConfigError, InputError
from sd4match.evaluation.evaluator import Evaluator
from sd4match.geometry import Grid, pad_frame, squash_frame
from sd4match.io.cache import Cache
from sd4match.matching.matchers import NearestNeighbor
from sd4match.matching.pair_transforms import CoPCA
from sd4match.prompting.text import NoPrompt
from sd4match.structures.images import View, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import Encoded, FeatureMap, PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder, random_photo
from sd4match.training.run import train


class Padded(FakeBackbone):
    """Colors of patches of a padded view; takes no prompt."""

    def __init__(self, side=48):
        super().__init__(side=side)
        spec = FeatureSpec(48, 4, None, 0, 1, (side, side), 4, "padded", frame="pad")
        self.spec = spec

    def prepare(self, photo):
        from sd4match.backbones.preprocessing import pad

        return pad(photo, self.side)


def maps_of(backbone, *photos, prompt=None):
    encoded = backbone.encode(Views.of([backbone.prepare(photo) for photo in photos]))
    return backbone.extract(encoded, prompt, Sampling(0))


def test_maps_are_normalized_weighted_and_resampled_on_the_first_grid():
    """Literally: each cell of the first map -> photo pixel -> cell of the other map, bilinear."""
    squashed, padded = FakeBackbone(text_encoder=FakeTextEncoder()), Padded()
    photos = [random_photo((24, 40)), random_photo((37, 20), seed=1)]
    fusion = Fusion(FusionOptions(weights=(1.0, 0.5)), backbones=[squashed, padded])
    fused = maps_of(fusion, *photos, prompt=PromptEmbedding(torch.ones(2, 16, 8)))
    one = maps_of(squashed, *photos, prompt=PromptEmbedding(torch.ones(2, 16, 8)))
    other = maps_of(padded, *photos)
    assert fused.values.shape == (2, 96, 8, 8)
    assert fused.groups == (48, 48)
    assert fused.grid == one.grid
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


def nested():
    """Fusion of three backbones with views of 32, 48 and 32 pixels, two of them in a fusion of their own."""
    return Fusion(backbones=[FakeBackbone(), Fusion(backbones=[Padded(), Padded(side=32)])])


def test_views_of_all_backbones_stay_together_in_batches():
    backbone = nested()
    photos = [random_photo((24 + seed, 40), seed=seed) for seed in range(3)]
    batch = Views.of([backbone.prepare(photo) for photo in photos])
    whole, joined = backbone.encode(batch), backbone.encode(batch[[0]] + batch[[1, 2]])
    assert {name: tensor.shape[-1] for name, tensor in whole.tensors.items() if name.endswith("pixels")} == {
        "0.pixels": 32, "1.0.pixels": 48, "1.1.pixels": 32,
    }  # fmt: skip
    assert whole.tensors.keys() == joined.tensors.keys()
    assert all(torch.equal(tensor, joined.tensors[name]) for name, tensor in whole.tensors.items())
    assert whole.keys == joined.keys == tuple(photo.key for photo in photos)
    with pytest.raises(InputError, match="encodes only the views that it prepares"):
        backbone.encode(Views.of([FakeBackbone().prepare(photos[0])]))


def test_each_backbone_gets_back_its_own_frames_and_tensors():
    backbone, photos = nested(), [random_photo((24 + seed, 41), seed=seed) for seed in range(2)]
    seen = []
    for inner in (backbone.backbones[0], *backbone.backbones[1].backbones):
        extract = inner.extract
        inner.extract = lambda encoded, *rest, extract=extract: seen.append(encoded) or extract(encoded, *rest)
    maps_of(backbone, *photos)
    for encoded, frame in zip(
        seen,
        (
            lambda size: squash_frame(size, (32, 32)),
            lambda size: pad_frame(size, 48),
            lambda size: pad_frame(size, 32),
        ),
        strict=True,
    ):
        assert set(encoded.tensors) == {"pixels"}
        assert encoded.frames == tuple(frame(photo.size) for photo in photos)
        assert encoded.keys == tuple(photo.key for photo in photos)


def test_the_digest_of_a_view_covers_the_views_of_all_backbones():
    photo = random_photo((24, 40))
    fusions = [Fusion(backbones=[FakeBackbone(), Padded(side=side)]) for side in (48, 48, 32)]
    one, same, other = (fusion.prepare(photo) for fusion in fusions)
    assert one.digest == same.digest
    assert torch.equal(one.pixels, other.pixels)
    assert one.digest != other.digest
    assert nested().prepare(photo).digest != other.digest


def test_a_cache_in_half_precision_does_not_round_frames(tmp_path):
    fusion, photos = Fusion(backbones=[FakeBackbone(), Padded()]), [random_photo((23, 41))]
    views = Views.of([fusion.prepare(photo) for photo in photos])
    fusion.weights_digest = lambda: "known"
    exact = fusion.encode(views)
    for _ in range(2):
        store = Cache(tmp_path, limit=10**9, dtype=torch.float16)
        found = CachedBackbone(fusion, cache=store).encode(views)
        assert torch.equal(found.tensors["frame.1"], exact.tensors["frame.1"])
        assert not torch.equal(found.tensors["1.pixels"], exact.tensors["1.pixels"])


def test_a_config_builds_a_fusion_and_checks_each_backbone(tmp_path):
    transformer = {"kind": "vision_transformer", "weights": str(write_random_transformer(tmp_path / "dinov2"))}
    config = FusionConfig(backbones=["stable_diffusion", transformer], weights=(1, 0.5), normalize=False)
    fusion = config.build()
    assert (fusion.weights, fusion.config.normalize) == ((1.0, 0.5), False)
    assert fusion.spec.channels == config.spec().channels == 96 + 24
    assert fusion.text_encoder is fusion.backbones[0].text_encoder
    assert (config.model_name, config.backbones[0].model_name) == ("fusion", "mini")
    with pytest.raises(ConfigError, match=r"image_size = 71 .* multiple of 14"):
        FusionConfig(backbones=["stable_diffusion", {**transformer, "image_size": 71}]).check()


def test_what_cannot_be_fused_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at most one backbone of a fusion may take a prompt"):
        Fusion(backbones=[FakeBackbone(), FakeBackbone()])
    with pytest.raises(ConfigError, match="two backbones or more, and a weight for each"):
        Fusion(FusionOptions(weights=(1.0,)), backbones=[FakeBackbone(), Padded()])
    mini = {"kind": "stable_diffusion"}
    for backbones, message in (
        ([mini, mini], "at most one backbone"),
        ([mini], "at least 2"),
        ([mini, {"kind": "vision_transformer", "layer": 99}], "its blocks are 0 to 11"),
    ):
        with pytest.raises(Exception, match=message):
            load_preset("text", [f"backbone={{kind: fusion, backbones: {backbones}}}".replace("'", '"')])
    with pytest.raises(ConfigError, match="weights must be one for each of the 2 backbones"):
        registry.backbones.parse({"kind": "fusion", "backbones": [mini, "vision_transformer"], "weights": [1]})


def random_maps(data, channels, cells=(4, 5)):
    grid = Grid((squash_frame((20, 20), (32, 32)),) * 2, cells)
    return [
        FeatureMap(
            data.draw(distinct_values((2, sum(channels), *cells))), grid, groups=channels if len(channels) > 1 else ()
        )
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


def test_co_pca_keeps_groups_and_weights_blocks():
    generator = torch.Generator().manual_seed(0)
    grid = Grid((squash_frame((20, 20), (32, 32)),), (4, 4))
    source, target = (
        FeatureMap(torch.randn(1, 18, 4, 4, generator=generator), grid, groups=(6, 6, 6)) for _ in range(2)
    )
    made, _ = CoPCA(components=(2, 3, 0), blocks=(2, 1), weights=(0.25, 2.0))(source, target)
    assert made.groups == (2, 3, 6)
    torch.testing.assert_close(made.values[:, :5].norm(dim=1), torch.full((1, 4, 4), 0.25))
    torch.testing.assert_close(made.values[:, 5:], 2 * torch.nn.functional.normalize(source.values[:, 12:], dim=1))
    for fields in ({"components": (2, 2)}, {"blocks": (1, 1)}):
        with pytest.raises(InputError, match="co-PCA has"):
            CoPCA(**fields)(source, target)
    for fields in ({"weights": (1.0, 1.0)}, {"blocks": (1, 1), "weights": (1.0,)}, {"weights": (-1.0,)},
                   {"components": (2, 2), "blocks": (1, 2)}):  # fmt: skip
        with pytest.raises(ConfigError, match=r"do not go with|must be greater"):
            CoPCA(**fields)


def evaluator(backbone, **options):
    return Evaluator(
        backbone=backbone, protocol=EvaluationProtocol(), matchers={"it": NearestNeighbor()}, sampling=Sampling(0),
        **options,
    )  # fmt: skip


def test_a_pair_transform_runs_between_the_store_and_the_matcher():
    seen = []

    class Negated:
        def __call__(self, source, target):
            from dataclasses import replace

            seen.append(len(source))
            return source, replace(target, values=-target.values)

    data, backbone = FakePairs(pairs=60), FakeBackbone()
    plain, changed = (
        evaluator(backbone, pair_transform=transform).evaluate(data, NoPrompt())["it"]
        for transform in (None, Negated())
    )
    assert sum(seen) == 60
    assert (plain.correct != changed.correct).any()


def test_a_config_builds_the_transform_and_training_refuses_it(tmp_path):
    config = load_preset("single", ["pair_transform={kind: co_pca, components: 8}"])
    assert ExperimentConfig.model_validate(config.model_dump(mode="json")) == config
    components = build_components(config)
    assert isinstance(components.pair_transform, CoPCA)
    with pytest.raises(ConfigError, match="pair_transform is for matching"):
        train(config, components, tmp_path)


def test_fused_images_reach_the_evaluator_and_single_views_stay_single():
    backbone = Fusion(backbones=[FakeBackbone(), Padded()])
    images = make_images([random_photo()], [None], {"backbone": backbone.prepare})
    assert isinstance(images.views["backbone"], Views)
    assert isinstance(backbone.prepare(random_photo()), View)
    assert isinstance(backbone.encode(images.views["backbone"]), Encoded)
    scores = evaluator(backbone).evaluate(FakePairs(), NoPrompt())
    assert len(scores["it"]) == 6
