"""Prompts of pairs."""

from __future__ import annotations

import pytest
import torch

from helpers.prompts import photos
from sd4match.prompting import ClassPrompt, ClassPromptConfig, Prompt, SinglePrompt, pair_prompts
from sd4match.structures.tensors import PromptEmbedding


def test_pair_prompts_call_a_prompt_of_pairs_once():
    class Pairwise(Prompt):
        scope = "pair"

        def __init__(self):
            super().__init__()
            self.calls = []

        def forward(self, images, partners=None):
            self.calls.append((images, partners))
            return PromptEmbedding(torch.full((1, 1, 1), float(len(self.calls))))

    prompt, one, two = Pairwise(), photos("a"), photos("b")
    source, target = pair_prompts(prompt, one, two)
    assert prompt.calls == [(one, two)]
    assert source is target
    prompt.scope = "image"
    source, target = pair_prompts(prompt, one, two)
    assert prompt.calls[1:] == [(one, None), (two, None)]
    assert source.values.item() == 2.0
    assert target.values.item() == 3.0
    for scope in ("dataset", "category"):
        prompt.scope = scope
        before = len(prompt.calls)
        source, target = pair_prompts(prompt, one, two)
        assert [images.categories for images, _ in prompt.calls[before:]] == [one.categories + two.categories]
        assert source.values.item() == target.values.item() == len(prompt.calls)


@pytest.mark.parametrize("kind", ["single", "class"])
def test_the_same_prompt_is_encoded_once_per_batch(mini, monkeypatch, kind):
    prompt = (
        SinglePrompt(backbone=mini)
        if kind == "single"
        else ClassPrompt(ClassPromptConfig(categories=("cat", "fish")), backbone=mini)
    )
    rows = []
    inner = mini.text_encoder.encode
    monkeypatch.setattr(mini.text_encoder, "encode", lambda inputs: rows.append(len(inputs)) or inner(inputs))
    source, target = pair_prompts(prompt, photos("cat", "fish", "cat"), photos("cat", "fish", "cat"))
    assert sum(rows) == {"single": 1, "class": 2}[kind]
    alone = [prompt(photos(category)).values for category in ("cat", "fish", "cat")]
    torch.testing.assert_close(source.values, torch.cat(alone), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(target.values, torch.cat(alone), atol=1e-5, rtol=1e-5)
