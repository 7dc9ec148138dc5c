"""Initialization from texts and from prompt files."""

from __future__ import annotations

import pytest
import torch

from helpers.prompts import class_prompt, cpm, fake_backbone, photos, single_prompt
from sd4match.backbones.config import StableDiffusionConfig
from sd4match.errors import ConfigError, InputError, NonFiniteError, PromptMismatchError
from sd4match.prompting import EmptyPrompt, TextPrompt, load_prompt, save_prompt


@pytest.mark.parametrize("make", [single_prompt, lambda on, **fields: class_prompt(on, categories=("fish",), **fields)])
@pytest.mark.parametrize("space", ["token", "hidden"])
def test_a_prompt_that_starts_from_a_text_is_that_text(mini, make, space):
    text = "a photo of a fish"
    fish = photos("fish")
    for init, expected in ((text, TextPrompt(backbone=mini)(fish)), ("empty", EmptyPrompt(backbone=mini)(fish))):
        prompt = make(mini, init=init, space=space)
        found = prompt(fish).values
        # 75 learned tokens, then EOS: a causal transformer computes the same for BOS and these as for the text
        torch.testing.assert_close(found[:, :76], expected.values[:, :76], atol=1e-4, rtol=1e-4)
        names = {name.split(".")[0] for name in prompt.state_dict()}
        assert names == {"token_embeddings" if space == "token" else "hidden_states"}


def test_a_class_prompt_may_start_from_its_category(mini):
    prompt = class_prompt(mini, categories=("fish", "car"), init="a photo of a {category}")
    text = TextPrompt(backbone=mini)(photos("fish", "car")).values
    found = prompt(photos("fish", "car")).values
    torch.testing.assert_close(found[:, :76], text[:, :76], atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match=r"only \{category\}"):
        class_prompt(mini, categories=("fish",), init="a {thing}")


def test_class_and_cpm_start_from_a_single(mini, tmp_path):
    single = single_prompt(mini, num_tokens=30, seed=5)
    file = save_prompt(single, tmp_path / "single.safetensors", backbone=mini)
    start = {"start_from": str(file)}
    by_category = class_prompt(mini, categories=("fish", "car"), num_tokens=30, **start)
    assert all(torch.equal(vectors, single.token_embeddings) for vectors in by_category.token_embeddings)
    conditional = cpm(mini, image_encoder={"kind": "backbone"}, num_global_tokens=20, **start)
    assert torch.equal(conditional.global_embeddings, single.token_embeddings[:20])
    again = single_prompt(mini, num_tokens=30, **start)
    assert torch.equal(again.token_embeddings, single.token_embeddings)

    saved = save_prompt(conditional, tmp_path / "cpm.safetensors", backbone=mini)
    file.unlink()
    loaded = load_prompt(saved, backbone=mini)
    assert torch.equal(loaded.global_embeddings, conditional.global_embeddings)
    assert loaded.config == conditional.config


def test_files_that_a_prompt_cannot_start_from_are_refused(mini, tmp_path):
    single = save_prompt(single_prompt(mini, num_tokens=4), tmp_path / "single.st", backbone=mini)
    classes = save_prompt(class_prompt(mini, categories=("fish",)), tmp_path / "class.st", backbone=mini)
    with pytest.raises(PromptMismatchError, match=r"token_embeddings \(4, 128\); this single prompt has \(5, 128\)"):
        single_prompt(mini, num_tokens=5, start_from=str(single))
    with pytest.raises(PromptMismatchError, match="token space; this class needs hidden"):
        class_prompt(mini, categories=("fish",), space="hidden", start_from=str(single))
    with pytest.raises(PromptMismatchError, match=r"a single prompt cannot start from .* holds a class"):
        single_prompt(mini, start_from=str(classes))
    with pytest.raises(PromptMismatchError, match="other categories: fish"):
        class_prompt(mini, categories=("car",), start_from=str(classes))
    with pytest.raises(PromptMismatchError, match=r"holds 4 vectors; prompt\.num_global_tokens = 25"):
        cpm(mini, image_encoder="backbone", start_from=str(single))


@pytest.mark.parametrize("space", ["token", "hidden"])
def test_texts_that_make_no_initial_values_are_refused(other_model, mini, space):
    for init, message in {"": "is empty", "  ": "is empty", "\ud800": "not UTF-8"}.items():
        with pytest.raises(ConfigError, match=message):
            single_prompt(mini, init=init, space=space)
    few_letters = StableDiffusionConfig(weights=str(other_model)).build()
    for init in ("\u732b", "a \u732b", "3"):
        with pytest.raises(InputError, match="characters that the tokenizer does not know"):
            single_prompt(few_letters, init=init, space=space)


def test_a_text_that_is_too_long_is_refused(mini):
    with pytest.raises(InputError, match="has 4 tokens, and the prompt only 2"):
        single_prompt(mini, init="a photo of a", num_tokens=2)


def test_initial_values_are_finite():
    backbone = fake_backbone()
    with torch.no_grad():
        backbone.text_encoder.token_embeddings().fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the initial values of init 'random' are not finite"):
        single_prompt(backbone, num_tokens=2)


def test_the_shape_of_what_a_prompt_cannot_start_from_is_named(mini, tmp_path):
    file = save_prompt(cpm(mini, image_encoder={"kind": "backbone", "side": 2}), tmp_path / "cpm.st", backbone=mini)
    with pytest.raises(PromptMismatchError, match=r"cpm\.st has patch_linear\.bias \(4,\); this cpm prompt has \(9,\)"):
        cpm(mini, image_encoder={"kind": "backbone", "side": 3}, start_from=str(file))
