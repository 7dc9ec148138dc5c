"""Errors that nothing else provokes: each names what is wrong."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers import layouts
from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from helpers.model_folders import write_random_transformer
from sd4match import SemanticMatcher, load_preset
from sd4match.backbones.config import BackboneEncoderConfig, StableDiffusionConfig, VisionTransformerConfig
from sd4match.backbones.image_encoders import BackboneEncoder
from sd4match.backbones.loading import load_whole
from sd4match.backbones.pretrained import declared_transformer
from sd4match.backbones.vision_transformer import VisionTransformerBackbone
from sd4match.config.protocols import EvaluationProtocol
from sd4match.data.base import pair_index
from sd4match.data.checked import check_dataset
from sd4match.data.collate import make_images, pad_points
from sd4match.data.config import SPairConfig
from sd4match.errors import (
    CheckpointError,
    ComponentError,
    ConfigError,
    InputError,
    NonFiniteError,
    PhotoError,
    ShapeError,
)
from sd4match.evaluation import compare_reports, evaluate, write_report
from sd4match.evaluation.counting import count_pairs
from sd4match.io.cache import Cache, DamagedEntryWarning
from sd4match.matching.matchers import NearestNeighbor
from sd4match.prompting.config import ClassPromptConfig, SinglePromptConfig
from sd4match.prompting.initial import initial_vectors
from sd4match.structures.images import Views
from sd4match.structures.tensors import PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder, random_photo
from sd4match.training.batches import BatchSplit
from sd4match.training.stopping import stop_on_signals
from sd4match.training.sweep import _shared_config, sweep_prompts

PHOTO = random_photo()


def test_an_image_encoder_of_a_backbone_without_prompts():
    with pytest.raises(InputError, match="takes no prompt, and so cannot be an image encoder"):
        BackboneEncoder(BackboneEncoderConfig(), backbone=FakeBackbone())


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json missing"):
        declared_transformer(str(tmp_path))


def test_a_timestep_beyond_the_schedule_of_a_model():
    backbone = StableDiffusionConfig(weights="mini").build()
    backbone.alphas_cumprod = backbone.alphas_cumprod[:100]
    encoded = backbone.encode(Views.of([backbone.prepare(PHOTO)]))
    with pytest.raises(InputError, match=r"timestep must be in \[0, 100\), not 261"):
        backbone.extract(encoded, PromptEmbedding(torch.zeros(1, 77, 128)), Sampling(261))


def test_a_vision_transformer_of_another_size_or_layer(tmp_path):
    folder = write_random_transformer(tmp_path / "vit")
    whole = VisionTransformerConfig(weights=str(folder))
    backbone = whole.build()
    with pytest.raises(ShapeError, match="expected views"):
        backbone.encode(Views.of([FakeBackbone().prepare(PHOTO)]))
    for changes, message in (({"image_size": 33}, "multiple of the patch"), ({"layer": 99}, "layer")):
        with pytest.raises((InputError, ConfigError, CheckpointError), match=message):
            VisionTransformerConfig(weights=str(folder), **changes).build()


def test_data_that_are_none():
    with pytest.raises(InputError, match="a pair is read by a whole number, not 'a'"):
        pair_index("a", 3)
    with pytest.raises(InputError, match="the data set must be a PairDataset, not 5"):
        check_dataset(5)
    with pytest.raises(InputError, match="a batch has photos and one category"):
        make_images([], [], {})
    with pytest.raises(InputError, match="arrays to pad must be a list of NumPy arrays"):
        pad_points([np.ones(())])


def test_predictions_that_are_none_of_the_pairs():
    def counted(points):
        data = FakePairs(pairs=1)
        return count_pairs(
            data, lambda pairs: [{"it": points} for _ in pairs], EvaluationProtocol(), ("it",), batches=[[0]]
        )

    with pytest.raises(ComponentError, match=r"'it' on pair .* must predict points"):
        counted(torch.zeros(1, 3))
    with pytest.raises(NonFiniteError, match=r"'it' on pair .* predicts points that are not finite"):
        counted(torch.full_like(torch.from_numpy(FakePairs(pairs=1)[0].target_points), torch.nan))


def test_texts_without_a_visible_character():
    with pytest.raises(ConfigError, match="has no visible character"):
        StableDiffusionConfig(weights="\u200b")
    with pytest.raises(InputError, match=r"'a{15,}.*' has \d+ tokens; there is room for \d+"):
        FakeTextEncoder().tokenize(["a" * 99])
    with pytest.raises(InputError, match="has no words: 'empty' is the empty text"):
        initial_vectors(FakeTextEncoder(), space="token", num_tokens=2, init=" ", seed=0)
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    with pytest.raises((InputError, ConfigError), match="init"):
        SinglePromptConfig(num_tokens=2, init=" ").build(backbone=backbone)
    with pytest.raises(ConfigError, match="twice"):
        ClassPromptConfig(num_tokens=2, categories=("cat", "cat")).build(backbone=backbone)
    with pytest.raises(ConfigError, match="is fewer pairs than there are processes"):
        BatchSplit(batch_size=2, devices=3, per_device=1)


def test_an_entry_of_a_cache_under_another_name(tmp_path):
    cache = Cache(tmp_path, limit=10**6)
    cache.put("latents/aa", {"x": torch.zeros(3)})
    cache.path("latents/bb").parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(cache.path("latents/aa"), cache.path("latents/bb"))
    with pytest.warns(DamagedEntryWarning, match="another entry, renamed"):
        assert cache.get("latents/bb") is None


def test_points_with_a_mask_and_a_photo_under_a_prompt_of_pairs():
    from sd4match.interfaces import Prompt

    class OfPairs(Prompt):
        scope = "pair"

        def forward(self, images, partners=None):
            return PromptEmbedding(torch.zeros(len(images), 16, 8))

    matcher = SemanticMatcher(backbone=FakeBackbone(), prompt=OfPairs(), matcher=NearestNeighbor())
    with pytest.raises(InputError, match="points must be an array without a mask"):
        matcher.match(PHOTO, PHOTO, np.ma.masked_array([[1.0, 1.0]], mask=[[True, False]]))
    with pytest.raises(InputError, match="depends on both photos of a pair"):
        matcher.feature_map(PHOTO)


def test_a_prompt_of_another_width():
    from sd4match.interfaces import Prompt

    class Narrow(Prompt):
        def forward(self, images, partners=None):
            return PromptEmbedding(torch.zeros(len(images), 16, 5))

    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    matcher = SemanticMatcher(backbone=backbone, prompt=Narrow(), matcher=NearestNeighbor())
    with pytest.raises(ShapeError, match=r"reads prompt embeddings \(B, L, 8\), not \(B, 16, 5\)"):
        matcher.match(PHOTO, PHOTO, [(1, 1)])


def test_a_second_ctrl_c_interrupts():
    with stop_on_signals() as flag:
        os.kill(os.getpid(), signal.SIGINT)
        assert flag()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_sweeps_that_make_no_table(tmp_path):
    with pytest.raises(ConfigError, match="a sweep needs at least one experiment"):
        sweep_prompts(tmp_path / "a", names=())
    configs = {"a": load_preset("text"), "b": load_preset("text", ["evaluation.seed=5"])}
    with pytest.raises(ConfigError, match="b and a differ in evaluation: no table can hold both"):
        _shared_config(configs)


def test_a_pipeline_that_does_not_load(other_model, tmp_path):
    from sd4match.viz.imagine import load_painter

    folder = tmp_path / "model"
    shutil.copytree(other_model, folder)
    (folder / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot load a pipeline from"):
        load_painter(str(folder))


def test_photos_that_are_not_named_by_a_text(tmp_path):
    layouts.write_spair(tmp_path)
    data = SPairConfig(root=str(tmp_path), split="test").build()
    with pytest.raises(PhotoError, match="is named by a text, not 5"):
        data.photo(5)


def test_a_library_that_fails_to_load(tmp_path):
    class Failing:
        @staticmethod
        def from_pretrained(*args, **options):
            raise KeyError("a field")

    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot load the model in .*: 'a field'"):
        load_whole(Failing, tmp_path, stem="model")


def test_a_transformer_that_its_spec_does_not_fit(tmp_path):
    config = VisionTransformerConfig(weights=str(write_random_transformer(tmp_path / "vit")))
    built = config.build()
    for changes, spec, message in (
        ({"image_size": 33}, built.spec, "image_size must be a multiple of the patch, 14, not 33"),
        ({}, replace(built.spec, layer=99), "layer must be a block, 0 to 3, not 99"),
    ):
        with pytest.raises(InputError, match=message):
            VisionTransformerBackbone(config.model_copy(update=changes), model=config.build().model, spec=spec)


def test_reports_of_other_alphas_are_not_compared(tmp_path):
    small = ["data.photos_per_category=2", "data.pairs=2", "evaluation.bootstrap_samples=10"]
    for name, alpha in (("a", 0.1), ("b", 0.05)):
        config = load_preset("empty", small)
        protocol = config.evaluation.protocol.derive(alphas=(alpha,))
        config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"protocol": protocol})})
        write_report(evaluate(config), tmp_path / name, title="Empty")
    with pytest.raises(InputError, match="have no alpha in common"):
        compare_reports(tmp_path / "a", tmp_path / "b")
