"""Single and class prompts."""

from __future__ import annotations

from inspect import unwrap

import pytest
import torch

from helpers.prompts import class_prompt, fake_backbone, photos, single_prompt
from sd4match.errors import ConfigError, InputError, NonFiniteError, ShapeError
from sd4match.prompting import (
    ClassPrompt,
    ClassPromptConfig,
    Prompt,
    SinglePrompt,
    SinglePromptConfig,
    TextPrompt,
    encode_token_vectors,
    random_token_vectors,
)
from sd4match.prompting.text import TextEmbeddings
from sd4match.testing import FakeBackbone, FakeTextEncoder


def test_single_starts_from_vocabulary_tokens_and_depends_on_its_seed(mini):
    one, same, other = (SinglePrompt(SinglePromptConfig(num_tokens=5, seed=seed), backbone=mini) for seed in (0, 0, 1))
    assert torch.equal(one.token_embeddings, same.token_embeddings)
    assert not torch.equal(one.token_embeddings, other.token_embeddings)
    vocabulary, positions = (
        mini.text_encoder.token_embeddings(),
        mini.text_encoder.model.embeddings.position_embedding.weight,
    )
    tokens = random_token_vectors(mini.text_encoder, 5, seed=0) - positions[1:6]
    assert torch.cdist(tokens, vocabulary).min(dim=1).values.max() < 1e-3
    assert isinstance(one, Prompt)
    assert one.scope == "dataset"


def test_only_the_token_vectors_learn(mini):
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=5), backbone=mini)
    values = prompt(photos("fish", None)).values
    assert values.shape == (2, 77, 128)
    values.square().sum().backward()
    assert prompt.token_embeddings.grad.abs().sum() > 0
    assert [name for name, _ in prompt.named_parameters()] == ["token_embeddings"]
    assert set(prompt.state_dict()) == {"token_embeddings"}


def test_tokens_must_fit(mini):
    with pytest.raises(ConfigError, match="at most 75"):
        SinglePrompt(SinglePromptConfig(num_tokens=76), backbone=mini)
    with pytest.raises(ConfigError, match="num_tokens"):
        SinglePrompt(SinglePromptConfig(num_tokens=0), backbone=mini)
    with pytest.raises(InputError, match="takes no prompt"):
        SinglePrompt(backbone=FakeBackbone())


def test_hidden_space_starts_uniform_and_is_the_embedding_itself(mini):
    prompt = single_prompt(mini, space="hidden", seed=4)
    values = prompt(photos(None, None)).values
    assert torch.equal(values[1], prompt.hidden_states)
    assert (values.min() >= 0, values.max() < 1, values.shape) == (True, True, (2, 77, 128))
    assert prompt.token_vectors(photos(None)) is None


def test_class_prompt_depends_on_the_category_of_each_photo():
    prompt = class_prompt(categories=("cat", "car"), num_tokens=4)
    single = single_prompt(num_tokens=4)
    values = prompt(photos("car", "cat", "car(G)")).values
    assert torch.equal(values[0], values[2])
    assert not torch.allclose(values[0], values[1])
    with torch.no_grad():
        single.token_embeddings.copy_(prompt.token_embeddings[0])
    torch.testing.assert_close(single(photos(None)).values[0], values[1])
    prompt(photos("car", "car")).values.sum().backward()
    assert [vectors.grad is None for vectors in prompt.parameters()] == [True, False]
    with pytest.raises(
        InputError, match=r"no prompt was learned for category 'cta'; did you mean 'cat'\? known: car, cat"
    ):
        prompt(photos("cta"))
    with pytest.raises(InputError, match="needs the category"):
        prompt(photos(None))
    with pytest.raises(ConfigError, match="needs to know its categories"):
        class_prompt(num_tokens=4)


def test_the_fallback_is_the_text_template(mini):
    prompt = class_prompt(mini, categories=("fish",), num_tokens=4, fallback="text")
    text = TextPrompt(backbone=mini)(photos("car")).values[0]
    values = prompt(photos("car", "fish")).values
    torch.testing.assert_close(values[0], text)
    assert not torch.allclose(values[1], text)


@pytest.mark.parametrize("space", ["token", "hidden"])
def test_learned_values_that_are_not_finite_are_refused_where_they_are_used(space):
    batch = photos("cat")
    for prompt in (
        single_prompt(num_tokens=2, space=space),
        class_prompt(categories=("cat",), num_tokens=2, space=space),
    ):
        (vectors,) = prompt.parameters()
        with torch.no_grad():
            vectors[0, 0] = float("nan")
        with pytest.raises(NonFiniteError, match=r"of the prompt.* not finite: 1 of"):
            prompt(batch)


def test_categories_that_are_none_or_stand_twice_are_refused():
    config = ClassPromptConfig(num_tokens=2)
    for categories, message in (
        (("cat", "cat"), "'cat' appears twice"),
        (("cat", ""), "is empty"),
        (("(G)",), "no words"),
    ):
        with pytest.raises(ConfigError, match=rf"categories.*{message}"):
            ClassPrompt(config.for_categories(categories), backbone=fake_backbone())
    assert class_prompt(categories=("car(G)", "car(S)"), num_tokens=2).row("car(S)") == 1


def test_a_category_that_has_no_words_is_refused():
    prompt = class_prompt(categories=("cat",), num_tokens=2, fallback="text")
    for category, message in (("", "no words"), ("(G)", "no words"), ("\udcff", "not UTF-8")):
        with pytest.raises(InputError, match=message):
            prompt(photos(category))


def test_vectors_of_another_width_are_refused():
    with pytest.raises(ShapeError, match=r"the vectors of a prompt must be \(B, _, D\) with D = 8, not \(1, 2, 7\)"):
        unwrap(encode_token_vectors)(fake_backbone().text_encoder, torch.zeros(1, 2, 7))


def test_a_text_encoder_that_overflows_is_named_with_what_helps():
    class Overflowing(FakeTextEncoder):
        def encode(self, inputs):
            return inputs * float("inf")

    encoder = Overflowing()
    with pytest.raises(
        NonFiniteError, match=r"embedded vectors of the prompt in torch\.float32.*; bfloat16 and float32"
    ):
        encode_token_vectors(encoder, torch.ones(1, 2, 8))
    with pytest.raises(NonFiniteError, match=r"embedded tokens of 'cat' in torch\.float32.*; bfloat16 and float32"):
        TextEmbeddings(encoder)(["cat"])
