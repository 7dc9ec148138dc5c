"""Implicit captioner."""

from __future__ import annotations

import pytest
import torch

from helpers.prompts import fake_backbone, photos, photos_for
from sd4match.errors import InputError, NonFiniteError
from sd4match.prompting import EmptyPrompt, ImplicitCaptioner, ImplicitCaptionerConfig
from sd4match.testing import FakeImageEncoder


def test_the_captioner_starts_at_the_empty_prompt_and_is_the_formula():
    prompt = ImplicitCaptioner(ImplicitCaptionerConfig(image_encoder="fake"), backbone=fake_backbone())
    batch = photos_for(prompt, (0, 1))
    empty = EmptyPrompt(backbone=fake_backbone())(batch).values
    with torch.no_grad():
        torch.testing.assert_close(prompt(batch).values, empty)
        prompt.alpha.uniform_(-1, 1)
        pooled = FakeImageEncoder().encode(batch.views["prompt"]).pooled
        for row in range(2):
            added = prompt.linear.weight @ pooled[row] + prompt.linear.bias + prompt.positions
            torch.testing.assert_close(
                prompt(batch).values[row], empty[row] + prompt.alpha.tanh() * added, atol=1e-6, rtol=1e-6
            )
    assert prompt.scope == "image"
    with pytest.raises(InputError, match="no view"):
        prompt(photos(None))


def test_a_captioner_that_diverged_is_refused():
    prompt = ImplicitCaptioner(ImplicitCaptionerConfig(image_encoder="fake"), backbone=fake_backbone())
    with torch.no_grad():
        prompt.alpha[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"the values of the prompt in torch\.float32 are not finite"):
        prompt(photos_for(prompt, (0, 1)))
