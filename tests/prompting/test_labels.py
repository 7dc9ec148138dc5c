"""Names of tokens: words of a text, numbers of what is learned."""

from __future__ import annotations

import pytest
import torch

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.errors import InputError
from sd4match.prompting import EmptyPrompt, SinglePromptConfig, TextPrompt, TextPromptConfig, token_labels
from sd4match.structures.images import ImageBatch
from sd4match.testing import FakeBackbone, FakeTextEncoder

CAT = ImageBatch({}, ("cat",))


@pytest.fixture
def fake():
    return FakeBackbone(text_encoder=FakeTextEncoder())


def test_words_stand_where_their_tokens_are(mini):
    """Token 0 begins the text; a word that the vocabulary does not have is split."""
    prompt = TextPrompt(backbone=mini)
    labels = token_labels(prompt, CAT, backbone=mini)
    assert labels == {1: "a", 2: "photo", 3: "of", 4: "a", 5: "ca", 6: "t"}
    ids = mini.text_encoder.tokenize(["a photo of a cat"])[0]
    assert [ids[position].item() for position in labels] == [320, 675, 665, 320, 565, 339]


def test_tokens_without_a_tokenizer_and_learned_ones_have_numbers(fake):
    """The fake text encoder has a token for each letter."""
    text = TextPrompt(TextPromptConfig(template="{category}"), backbone=fake)
    assert token_labels(text, CAT, backbone=fake) == {1: "1", 2: "2", 3: "3"}
    single = SinglePromptConfig(num_tokens=4).build(backbone=fake)
    assert token_labels(single, CAT, backbone=fake) == {1: "1", 2: "2", 3: "3", 4: "4"}
    hidden = SinglePromptConfig(space="hidden").build(backbone=fake)
    assert token_labels(hidden, CAT, backbone=fake) == {number: str(number + 1) for number in range(77)}
    assert token_labels(EmptyPrompt(backbone=fake), CAT, backbone=fake) == {0: "start", 1: "end"}


def test_a_backbone_without_a_prompt_is_refused():
    with pytest.raises(InputError, match="takes no prompt"):
        token_labels(TextPrompt(backbone=FakeBackbone(text_encoder=FakeTextEncoder())), CAT, backbone=FakeBackbone())


def test_the_text_of_a_category(fake):
    prompt = TextPrompt(TextPromptConfig(by_category={"fish": "a fish with {category}"}), backbone=fake)
    assert prompt.text("cat") == "a photo of a cat"
    assert prompt.text("fish") == "a fish with fish"
    with pytest.raises(InputError, match="needs a category"):
        prompt.text(None)
    assert torch.equal(prompt(CAT).values, prompt(CAT).values)
