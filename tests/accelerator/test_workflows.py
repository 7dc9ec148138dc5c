"""What users do with an accelerator: resume, share caches with the CPU, move a matcher, take its results."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.learned_parts import learned_parts
from helpers.small_presets import small_preset
from sd4match import SemanticMatcher, testing
from sd4match.cli.match_pictures import KINDS, Pictures
from sd4match.config import build_components
from sd4match.config.experiment import build_dataset
from sd4match.evaluation.run import evaluate_prompts
from sd4match.io.cache import Cache
from sd4match.structures.images import Views
from sd4match.testing import pretend_accelerator, random_photo
from sd4match.training import TrainerCallbacks, train

pytestmark = pytest.mark.slow
A, B = random_photo((40, 60), seed=1), random_photo((50, 44), seed=2)
POINTS = [(10.0, 12.0), (50.0, 30.0)]


def losses(config, device, folder, *, steps=None, resume=False):
    """Train, up to a number of steps in this call, and return the losses of all steps."""
    components = build_components(config, device=device)
    made = []
    callbacks = TrainerCallbacks(on_step=made.append)  # called after `stop`
    return train(
        config, components, folder, resume=resume, stop=lambda: len(made) + 1 == steps, callbacks=callbacks
    ).losses


@pytest.fixture
def config(small_models):
    return small_preset("cpm", small_models, "training.steps=4", "training.validate_every=4")


def test_a_training_that_is_resumed_gives_the_same_bits(accelerator, close, config, tmp_path):
    expected = losses(config, "cpu", tmp_path / "cpu", steps=2)
    with accelerator() as device:
        whole = losses(config, str(device), tmp_path / "whole")
        assert len(losses(config, str(device), tmp_path / "stopped", steps=2)) == 2
        resumed = losses(config, str(device), tmp_path / "stopped", resume=True)
        close(resumed, whole)
        close(whole[:2], expected)
        close(losses(config, str(device), tmp_path / "cpu", resume=True), whole)  # begun on the CPU


def test_what_learns_beside_the_prompt(accelerator, close, config, small_models, tmp_path):
    channels = config.backbone.spec().channels
    changes = [
        "matcher={kind: mutual, inner: {kind: tempered}}", f"pair_transform={{kind: weighted, channels: {channels}}}",
        "loss=end_point_error", "training.steps=4", "training.validate_every=2",
    ]  # fmt: skip
    with learned_parts():
        config = small_preset("single", small_models, *changes)
        expected = losses(config, "cpu", tmp_path / "cpu")
        file = tmp_path / "cpu" / "prompt.safetensors"
        points = SemanticMatcher.from_config(config, prompt=file, device="cpu").match(A, B, POINTS).target_points
        with accelerator() as device:
            close(losses(config, str(device), tmp_path / "there"), expected)
            there = SemanticMatcher.from_config(config, prompt=file, device=str(device))
            assert there.pair_transform.weights.device.type == device.type
            close(there.match(A, B, POINTS).target_points, points)


def test_encoded_photos_are_kept_for_each_type_of_device(accelerator, close, config, tmp_path):
    cache = Cache(tmp_path / "cache", limit=10**8)
    names = [f"photo {index}" for index in range(2)]

    def encoded(device):
        backbone = build_components(config, device=device, cache=cache).backbone
        views = Views.of([backbone.prepare(random_photo((30, 40), seed=seed)) for seed, _ in enumerate(names)])
        return backbone.encode(views).tensors

    expected = encoded("cpu")
    with accelerator() as device:
        for _ in range(2):  # computed, and read
            for name, values in encoded(str(device)).items():
                close(values, expected[name], of=name)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 4  # their last bits differ


def test_maps_in_half_precision_and_on_disk(accelerator, close, config):
    changed = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"map_dtype": "float16", "memory": "0"})}
    )

    def correct(device):
        components = build_components(changed, device=device)
        (measured,) = evaluate_prompts(changed, components, build_dataset(changed, "test"), {"": components.prompt})
        return measured.scores.correct

    expected = correct("cpu")
    with accelerator() as device:
        close(correct(str(device)), expected)


def test_a_prompt_learned_there_is_used_on_the_cpu(accelerator, close, config, tmp_path):
    with accelerator() as device:
        losses(config, str(device), tmp_path / "run")
        prompt = tmp_path / "run" / "prompt.safetensors"
        components = build_components(config, prompt_file=prompt, device=str(device))
        found = SemanticMatcher.from_components(components, config).match(A, B, POINTS, category="fish")
    components = build_components(config, prompt_file=prompt)
    expected = SemanticMatcher.from_components(components, config).match(A, B, POINTS, category="fish")
    close(found.target_points, expected.target_points)


def test_a_matcher_is_moved_and_answers_as_before(accelerator, close, config):
    matcher = SemanticMatcher.from_components(build_components(config), config)
    photos = {"category": "fish"}
    expected = matcher.match(A, B, POINTS, mutual=True, **photos)
    dense = matcher.match_dense(A, B, **photos)
    with accelerator() as device:
        moved = SemanticMatcher.from_components(build_components(config, device=str(device)), config)
        assert moved.device == device
        found = moved.match(A, B, POINTS, mutual=True, **photos)
        close(found.target_points, expected.target_points)
        close(found.scores, expected.scores)
        assert np.array_equal(found.indices, expected.indices)
        close(moved.match_dense(A, B, **photos).target_points, dense.target_points)
        correlation = moved.correlate(A, B, POINTS, grad=True, **photos)
        correlation.values.square().sum().backward()
        assert all(p.grad is not None and p.grad.device == device for p in moved.prompt.parameters())
        (pair,) = moved.match_pairs([(A, B, POINTS)], **photos)
        close(pair.target_points, expected.target_points)


def test_features_are_taken_from_one_device_to_another(accelerator, close, small_models):
    config = small_preset("text", small_models)
    matcher = SemanticMatcher.from_components(build_components(config), config)
    expected = matcher.match(A, B, POINTS, category="fish")
    here = matcher.extract(A, category="fish")
    with accelerator() as device:
        matcher.to(str(device))
        assert matcher.device == device
        there = matcher.extract(B, category="fish")
        close(matcher.match(here.to(str(device)), there, POINTS).target_points, expected.target_points)
        many = matcher.match_many(A, [B, B], POINTS, category="fish")
        close(many[1].target_points, expected.target_points)
        matcher.to("cpu")
        close(matcher.match(here, there.to("cpu"), POINTS).target_points, expected.target_points)


def test_pictures_are_those_of_the_cpu(accelerator, close, small_models):
    config = small_preset("text", small_models)

    def drawn(device):
        matcher = SemanticMatcher.from_components(build_components(config, device=device), config)
        photos = (A, B)
        result = matcher.match(*photos, POINTS, category="fish")
        pictures = Pictures(matcher, photos, photos, result, POINTS, "fish", "text", {})
        return pictures.draw(KINDS), matcher.attention(A, category="fish")[0].values

    expected, attention = drawn("cpu")
    with accelerator() as device:
        found, there = drawn(str(device))
        close(there, attention)
    assert list(found) == list(KINDS)
    for kind, picture in found.items():
        near = np.abs(np.asarray(picture, dtype=int) - np.asarray(expected[kind], dtype=int)) <= 3
        assert near.mean() > 0.99, kind  # a last bit may move a mark or a line by a pixel


@pytest.mark.parametrize("sort", ["matcher", "loss", "pair_transform"])
def test_checks_of_components_take_the_accelerator(sort, accelerator):
    kinds = {"matcher": "kernel_soft_argmax", "loss": "gaussian_cross_entropy", "pair_transform": "co_pca"}
    with accelerator():
        getattr(testing, f"check_{sort}")(kinds[sort])


@pytest.mark.parametrize("name", ["sd2-1-single", "sd2-1-cpm", "sd1-5-implicit-captioner"])
def test_bfloat16_is_near(name, accelerator, small_models, tmp_path):
    if accelerator is pretend_accelerator:
        pytest.skip("a pretended device has no autocast")
    exact = losses(small_preset(name, small_models), "cpu", tmp_path / "cpu")
    with accelerator() as device:
        mixed = small_preset(name, small_models, "training.mixed_precision=bf16")
        half = small_preset(name, small_models, "backbone.dtype=bfloat16")
        for config in (mixed, half):
            found = losses(config, str(device), tmp_path / config.backbone.dtype)
            torch.testing.assert_close(torch.tensor(found), torch.tensor(exact), rtol=0.05, atol=0.05)
