"""Initialization from texts and from prompt files."""

from __future__ import annotations

import pytest
import torch

from helpers.prompts import class_prompt, cpm, photos, single_prompt
from sd4match.errors import ConfigError, PromptMismatchError
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
