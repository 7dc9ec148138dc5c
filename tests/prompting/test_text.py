"""Prompts without parameters."""

from __future__ import annotations

from inspect import unwrap

import pytest
import torch
from torch import nn

from helpers.prompts import photos
from sd4match.errors import ConfigError, InputError
from sd4match.prompting import EmptyPrompt, NoPrompt, Prompt, SinglePromptConfig, TextPrompt, TextPromptConfig
from sd4match.prompting.text import clean_category
from sd4match.testing import FakeBackbone, FakeTextEncoder


def test_text_prompt_is_the_text_encoders_output(mini):
    prompt = TextPrompt(TextPromptConfig(by_category={"car": "a {category} with wheel"}), backbone=mini)
    values = prompt(photos("fish", "car(G)", "car")).values
    for row, text in enumerate(("a photo of a fish", "a photo of a car", "a car with wheel")):
        expected = mini.text_encoder.model(mini.text_encoder.tokenize([text])).last_hidden_state[0]
        torch.testing.assert_close(values[row], expected, atol=1e-5, rtol=1e-5)
    assert prompt.scope == "category"
    assert prompt.parameter_groups() == []


def test_empty_prompt_is_the_empty_text(mini):
    values = EmptyPrompt(backbone=mini)(photos(None, "fish")).values
    torch.testing.assert_close(
        values[0], mini.text_encoder.model(mini.text_encoder.tokenize([""])).last_hidden_state[0], atol=1e-5, rtol=1e-5
    )
    assert torch.equal(values[0], values[1])


def test_a_text_prompt_without_a_category_says_so(mini):
    with pytest.raises(InputError, match="needs a category"):
        TextPrompt(backbone=mini)(photos("fish", None))
    fixed = TextPrompt(TextPromptConfig(template="a photo of an object"), backbone=mini)
    assert fixed.scope == "dataset"
    assert fixed(photos(None)).values.shape == (1, 77, 128)


@pytest.mark.parametrize(
    ("category", "word"),
    [("winebottle(wC)", "winebottle"), ("duck(S)", "duck"), ("tv_monitor", "tv monitor"), ("cat", "cat")],
)
def test_willow_suffixes_are_cleaned(category, word):
    assert clean_category(category) == word


@pytest.mark.parametrize("cls", [EmptyPrompt, TextPrompt, NoPrompt])
def test_prompts_without_parameters_have_a_config_and_no_state(mini, cls):
    prompt = cls(backbone=mini)
    prompt(photos("fish"))
    assert prompt.config == type(prompt.config)()
    assert dict(prompt.state_dict()) == {}
    assert list(prompt.parameters()) == prompt.parameter_groups() == []
    assert prompt.token_vectors(photos("fish")) is None


def test_frozen_parameters_are_not_learned():
    class Vectors(Prompt):
        def __init__(self):
            super().__init__()
            self.learned, self.fixed = (nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1), requires_grad=False))

        def forward(self, images, partners=None):
            raise NotImplementedError

    prompt = Vectors()
    (group,) = prompt.parameter_groups()
    assert group.parameters == (prompt.learned,)


def test_templates_of_single_categories_need_a_category():
    """Config and prompt agree, so that a missing category is refused before anything is computed."""
    config = TextPromptConfig(template="a photo", by_category={"car": "a car"})
    assert config.needs_category
    assert not TextPromptConfig(template="a photo").needs_category


def test_a_category_without_words_is_refused(mini):
    prompt = TextPrompt(backbone=mini)
    for category, message in (("", "no words"), ("  ", "no words"), ("(G)", "no words"), ("_", "no words"),
                              ("\udcff", "not UTF-8 text")):  # fmt: skip
        with pytest.raises(InputError, match=f"the category .* {message}"):
            prompt(photos(category))
    for category in (5, None, b"cat", ["cat"]):
        with pytest.raises(InputError, match="a category must be text, not"):
            unwrap(clean_category)(category)
    fixed = TextPrompt(TextPromptConfig(template="a photo of an object"), backbone=mini)
    assert torch.equal(fixed(photos("(G)")).values, fixed(photos(None)).values)
    with pytest.raises(ConfigError, match=r"template: .* not UTF-8"):
        TextPromptConfig(template="a \ud800")


@pytest.mark.parametrize("category", ["\u200b", "\ufeff", "\0", "_", "\u3164", "(G)", "a\nb", "\x1b[2J", "a\u2028b"])
def test_categories_that_cannot_be_read_are_refused(mini, category):
    with pytest.raises(InputError, match="category"):
        TextPrompt(backbone=mini)(photos(category))
    with pytest.raises(InputError, match="category"):
        clean_category(category)


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|startoftext|>"])
def test_texts_hold_no_special_token(mini, special):
    backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    for text in (f"cat{special}", f"{special} cat", f"a{special}b"):
        for call in (
            lambda text=text: TextPrompt(backbone=mini)(photos(text)),
            lambda text=text: TextPrompt(TextPromptConfig(template="{category}"), backbone=backbone)(photos(text)),
            lambda text=text: TextPrompt(TextPromptConfig(template=text), backbone=mini)(photos("cat")),
            lambda text=text: SinglePromptConfig(init=text, num_tokens=8).build(backbone=mini),
        ):
            with pytest.raises(InputError, match=r"holds <\|(end|start)oftext\|>, which begins or ends a text"):
                call()
