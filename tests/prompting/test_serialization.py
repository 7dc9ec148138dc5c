"""Prompt files."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from helpers.model_folders import write_random_model
from helpers.prompts import class_prompt, cpm, photos, photos_for, single_prompt
from sd4match.backbones.config import StableDiffusionConfig
from sd4match.errors import ConfigError, InputError, PromptFileError, PromptMismatchError
from sd4match.prompting import (
    EmptyPrompt,
    ImplicitCaptionerConfig,
    Prompt,
    SinglePrompt,
    SinglePromptConfig,
    load_prompt,
    read_prompt,
    save_prompt,
)
from sd4match.prompting.serialization import UnknownWeightsWarning, write_prompt
from sd4match.registry import prompts, register_prompt
from sd4match.structures.tensors import PromptEmbedding


def test_prompts_are_saved_and_loaded(mini, tmp_path):
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=7, seed=3), backbone=mini)
    path = save_prompt(prompt, tmp_path / "deep" / "single.safetensors", backbone=mini, details={"layer": 1})
    info, tensors = read_prompt(path)
    assert (info.config.kind, info.config.num_tokens, info.details["layer"]) == ("single", 7, 1)
    assert info.architecture == mini.spec.architecture
    assert set(tensors) == {"token_embeddings"}
    again = load_prompt(path, backbone=mini)
    assert torch.equal(again.token_embeddings, prompt.token_embeddings)
    assert os.listdir(path.parent) == ["single.safetensors"]  # noqa: PTH208


@pytest.mark.parametrize("ablation", [{}, {"features": "global"}, {"condition_on": "image"}], ids=str)
def test_conditional_prompts_are_saved_and_loaded(mini, tmp_path, ablation):
    prompt = cpm(mini, image_encoder={"kind": "backbone", "side": 4}, **ablation)
    path = save_prompt(prompt, tmp_path / "cpm.safetensors", backbone=mini)
    again = load_prompt(path, backbone=mini)
    source, target = (photos_for(prompt, [seed], mini) for seed in (0, 1))
    assert torch.equal(prompt(source, target).values, again(source, target).values)
    assert again.config == prompt.config


def test_another_architecture_is_refused_and_names_both(mini, other_model, tmp_path):
    other = StableDiffusionConfig(weights=str(other_model)).build()
    path = save_prompt(
        SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=mini), tmp_path / "p.safetensors", backbone=mini
    )
    with pytest.raises(PromptMismatchError, match=r"48-96-192.*8-16-16-16"):
        load_prompt(path, backbone=other)


def test_other_weights_of_the_same_architecture_warn(other_model, tmp_path):
    one = StableDiffusionConfig(weights=str(other_model)).build()
    two = StableDiffusionConfig(weights=str(write_random_model(tmp_path / "again", seed=9))).build()
    path = save_prompt(
        SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=one), tmp_path / "p.safetensors", backbone=one
    )
    with pytest.warns(UnknownWeightsWarning, match="other"):
        load_prompt(path, backbone=two)


def test_files_that_are_no_prompts_are_refused(mini, tmp_path):
    with pytest.raises(PromptFileError, match="no such prompt file"):
        read_prompt(tmp_path / "none.safetensors")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nonsense")
    with pytest.raises(PromptFileError, match="not a safetensors file"):
        read_prompt(bad)
    save_file({"a": torch.zeros(1)}, bad)
    with pytest.raises(PromptFileError, match="not a prompt of sd4match"):
        read_prompt(bad)
    save_file({"a": torch.zeros(1)}, bad, {"format": "sd4match-prompt", "format_version": "99"})
    with pytest.raises(PromptFileError, match="format version 99"):
        read_prompt(bad)
    metadata = {"format": "sd4match-prompt", "format_version": "1", "config": json.dumps({"kind": "nothing"})}
    save_file({"a": torch.zeros(1)}, bad, metadata)
    with pytest.raises(PromptFileError, match="damaged: unknown prompt kind"):
        read_prompt(bad)
    path = save_prompt(
        SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=mini), tmp_path / "good.safetensors", backbone=mini
    )
    info, _ = read_prompt(path)
    save_file(
        {"token_embeddings": torch.zeros(4, 128)},
        bad,
        {
            "format": "sd4match-prompt", "format_version": "1", "config": info.config.model_dump_json(),
            "architecture": info.architecture, "fingerprint": info.fingerprint, "library_version": "0", "details": "{}",
        },
    )  # fmt: skip
    with pytest.raises(PromptFileError, match="damaged"):
        load_prompt(bad, backbone=mini)


def test_a_prompt_without_parameters_is_not_saved(mini, tmp_path):
    with pytest.raises(InputError, match="nothing learned"):
        save_prompt(EmptyPrompt(backbone=mini), tmp_path / "p.safetensors", backbone=mini)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PromptFileError, match="cannot write"):
        save_prompt(
            SinglePrompt(SinglePromptConfig(num_tokens=1), backbone=mini),
            tmp_path / "file" / "p.safetensors",
            backbone=mini,
        )
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_the_fallback_can_be_changed_when_the_file_is_loaded(mini, tmp_path):
    path = save_prompt(class_prompt(mini, categories=("fish",), num_tokens=4), tmp_path / "c.st", backbone=mini)
    unknown = photos("car")
    with pytest.raises(InputError, match="no prompt was learned"):
        load_prompt(path, backbone=mini)(unknown)
    assert load_prompt(path, backbone=mini, changes={"fallback": "text"})(unknown).values.shape == (1, 77, 128)
    with pytest.raises(ConfigError, match="unknown field 'fallbak'"):
        load_prompt(path, backbone=mini, changes={"fallbak": "text"})


def test_changes_are_not_blamed_for_a_damaged_file(mini, tmp_path):
    path = save_prompt(single_prompt(mini, num_tokens=3), tmp_path / "good.safetensors", backbone=mini)
    info, tensors = read_prompt(path, changes={"seed": 4})
    assert info.config == SinglePromptConfig(num_tokens=3, seed=4)
    bad = tmp_path / "bad.safetensors"
    write_prompt(
        replace(info, config=info.config.model_construct(**{**dict(info.config), "num_tokens": 0})), tensors, bad
    )
    with pytest.raises(PromptFileError, match="damaged: num_tokens"):
        load_prompt(bad, backbone=mini, changes={"seed": 4})


@pytest.mark.parametrize(
    "make",
    [
        lambda backbone: single_prompt(backbone, init="a photo of a fish"),
        lambda backbone: single_prompt(backbone, space="hidden"),
        lambda backbone: class_prompt(backbone, categories=("fish", "car"), fallback="text"),
        lambda backbone: cpm(backbone, image_encoder={"kind": "backbone", "side": 4}),
        lambda backbone: ImplicitCaptionerConfig(image_encoder={"kind": "backbone"}).build(backbone=backbone),
    ],
    ids=["single", "hidden", "class", "cpm", "captioner"],
)
def test_loading_validates_the_config_once_and_draws_no_random_numbers(mini, tmp_path, monkeypatch, make):
    prompt = make(mini)
    path = save_prompt(prompt, tmp_path / "p.safetensors", backbone=mini)
    validated = []
    config_class = type(prompt.config)
    validate = config_class.__init__

    def count(config, **fields):
        validated.append(fields)
        validate(config, **fields)

    def refuse(*args, **options):
        raise AssertionError("a random number is drawn")

    monkeypatch.setattr(config_class, "__init__", count)
    for name in ("rand", "randn", "randint", "Generator"):
        monkeypatch.setattr(torch, name, refuse)
    before = torch.get_rng_state()
    loaded = load_prompt(path, backbone=mini, changes={"seed": 11})
    assert len(validated) == 1
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.config == prompt.config.model_copy(update={"seed": 11})
    assert loaded.state_dict().keys() == prompt.state_dict().keys()
    assert all(torch.equal(value, prompt.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_a_prompt_registered_by_its_signature_is_saved_and_loaded(mini, tmp_path):
    with prompts.temporarily():

        @register_prompt("constant")
        class Constant(Prompt):
            scope = "category"

            def __init__(self, *, backbone, value: float = 0.5, initialize: bool = True):
                super().__init__()
                self.backbone, self.initialized = backbone, initialize
                self.vectors = nn.Parameter(torch.full((77, 128), value))

            def forward(self, images, partners=None):
                return PromptEmbedding(self.vectors.expand(len(images), -1, -1))

        config = prompts.parse({"kind": "constant", "value": 2})
        assert config.needs_category
        prompt = config.build(backbone=mini)
        assert prompt.config is config
        assert config.model_dump() == {"kind": "constant", "value": 2.0}
        assert set(prompt.state_dict()) == {"vectors"}
        path = save_prompt(prompt, tmp_path / "constant.safetensors", backbone=mini)
        loaded = load_prompt(path, backbone=mini)
        assert isinstance(loaded, Constant)
        assert (prompt.initialized, loaded.initialized) == (True, False)
        assert torch.equal(loaded.vectors, torch.full((77, 128), 2.0))
        assert loaded.config == config
