from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from sd4match.backbones.stable_diffusion import StableDiffusionBackbone
from sd4match.errors import ConfigError, InputError, PromptFileError, PromptMismatchError
from sd4match.interfaces import PromptProvider
from sd4match.prompting.learned import ClassPrompt, SinglePrompt
from sd4match.prompting.pairing import pair_prompts
from sd4match.prompting.serialization import UnknownWeightsWarning, load_prompt, read_prompt, save_prompt
from sd4match.prompting.text import EmptyPrompt, TextPrompt, clean_category
from sd4match.prompting.tokens import encode_slots, random_slots
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import PromptEmbedding
from sd4match.testing import FakeBackbone


def photos(*categories):
    return ImageBatch({}, categories)


def test_text_prompt_is_the_text_encoders_output(mini):
    prompt = TextPrompt(backbone=mini, by_category={"car": "a {category} with wheel"})
    values = prompt(photos("fish", "car(G)", "car")).values
    for row, text in enumerate(("a photo of a fish", "a photo of a car", "a car with wheel")):
        expected = mini.text.model(mini.text.tokenize([text])).last_hidden_state[0]
        torch.testing.assert_close(values[row], expected, atol=1e-5, rtol=1e-5)
    assert prompt.scope == "category"
    assert prompt.parameter_groups() == []


def test_empty_prompt_is_the_empty_text(mini):
    values = EmptyPrompt(backbone=mini)(photos(None, "fish")).values
    torch.testing.assert_close(
        values[0], mini.text.model(mini.text.tokenize([""])).last_hidden_state[0], atol=1e-5, rtol=1e-5
    )
    assert torch.equal(values[0], values[1])


def test_a_text_prompt_without_a_category_says_so(mini):
    with pytest.raises(InputError, match="needs a category"):
        TextPrompt(backbone=mini)(photos("fish", None))
    fixed = TextPrompt(backbone=mini, template="a photo of an object")
    assert fixed.scope == "dataset"
    assert fixed(photos(None)).values.shape == (1, 77, 128)


@pytest.mark.parametrize(
    ("category", "word"),
    [("winebottle(wC)", "winebottle"), ("duck(S)", "duck"), ("tv_monitor", "tv monitor"), ("cat", "cat")],
)
def test_willow_suffixes_are_cleaned(category, word):
    assert clean_category(category) == word


def test_slots_of_real_words_give_the_text_itself(mini):
    """The learned vectors carry their positions: put a text's own vectors in, get the text's embedding."""
    text = mini.text
    ids = text.tokenize(["a photo of a fish"])
    slots = text.embed(ids)[:, 1:6]
    torch.testing.assert_close(encode_slots(text, slots), text.model(ids).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_single_starts_from_words_and_depends_on_its_seed(mini):
    one, same, other = (SinglePrompt(backbone=mini, slots=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.token_embeddings, same.token_embeddings)
    assert not torch.equal(one.token_embeddings, other.token_embeddings)
    vocabulary, positions = mini.text.vocabulary(), mini.text.model.embeddings.position_embedding.weight
    words = random_slots(mini.text, 5, seed=0) - positions[1:6]
    assert torch.cdist(words, vocabulary).min(dim=1).values.max() < 1e-3
    assert isinstance(one, PromptProvider)
    assert one.scope == "dataset"


def test_only_the_slots_learn(mini):
    prompt = SinglePrompt(backbone=mini, slots=5)
    values = prompt(photos("fish", None)).values
    assert values.shape == (2, 77, 128)
    values.square().sum().backward()
    assert prompt.token_embeddings.grad.abs().sum() > 0
    assert [name for name, _ in prompt.named_parameters()] == ["token_embeddings"]
    assert set(prompt.state_dict()) == {"token_embeddings"}


def test_slots_must_fit(mini):
    with pytest.raises(ConfigError, match="at most 75"):
        SinglePrompt(backbone=mini, slots=76)
    with pytest.raises(ConfigError, match="slots"):
        SinglePrompt(backbone=mini, slots=0)
    with pytest.raises(InputError, match="takes no prompt"):
        SinglePrompt(backbone=FakeBackbone())


def test_pair_prompts_ask_a_pair_scope_once():
    class Pairwise:
        scope = "pair"
        calls: list = []  # noqa: RUF012

        def __call__(self, images, partners=None):
            self.calls.append((images, partners))
            return PromptEmbedding(torch.full((1, 1, 1), float(len(self.calls))))

        def parameter_groups(self):
            return []

    provider, one, two = Pairwise(), photos("a"), photos("b")
    source, target = pair_prompts(provider, one, two)
    assert provider.calls == [(one, two)]
    assert source is target
    provider.scope = "image"
    source, target = pair_prompts(provider, one, two)
    assert provider.calls[1:] == [(one, None), (two, None)]
    assert source.values.item() == 2.0
    assert target.values.item() == 3.0
    for scope in ("dataset", "category"):
        provider.scope = scope
        before = len(provider.calls)
        source, target = pair_prompts(provider, one, two)
        assert [images.categories for images, _ in provider.calls[before:]] == [one.categories + two.categories]
        assert source.values.item() == target.values.item() == len(provider.calls)


@pytest.mark.parametrize("kind", ["single", "class"])
def test_what_a_batch_shares_goes_through_the_text_encoder_once(mini, monkeypatch, kind):
    prompt = SinglePrompt(backbone=mini) if kind == "single" else ClassPrompt(backbone=mini, categories=("cat", "fish"))
    rows = []
    inner = mini.text.transform
    monkeypatch.setattr(mini.text, "transform", lambda inputs: rows.append(len(inputs)) or inner(inputs))
    source, target = pair_prompts(prompt, photos("cat", "fish", "cat"), photos("cat", "fish", "cat"))
    assert sum(rows) == {"single": 1, "class": 2}[kind]
    alone = [prompt(photos(category)).values for category in ("cat", "fish", "cat")]
    torch.testing.assert_close(source.values, torch.cat(alone), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(target.values, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_file_and_back(mini, tmp_path):
    prompt = SinglePrompt(backbone=mini, slots=7, seed=3)
    path = save_prompt(prompt, tmp_path / "deep" / "single.safetensors", backbone=mini, details={"layer": 1})
    info, tensors = read_prompt(path)
    assert (info.config.kind, info.config.slots, info.details["layer"]) == ("single", 7, 1)
    assert info.architecture == mini.spec.architecture
    assert set(tensors) == {"token_embeddings"}
    again = load_prompt(path, backbone=mini)
    assert torch.equal(again.token_embeddings, prompt.token_embeddings)
    assert os.listdir(path.parent) == ["single.safetensors"]  # noqa: PTH208


def test_another_architecture_is_refused_and_names_both(mini, other_model, tmp_path):
    other = StableDiffusionBackbone.from_folder(str(other_model))
    path = save_prompt(SinglePrompt(backbone=mini, slots=3), tmp_path / "p.safetensors", backbone=mini)
    with pytest.raises(PromptMismatchError, match=r"48-96-128.*8-16-16-16"):
        load_prompt(path, backbone=other)


def test_other_weights_of_the_same_architecture_warn(other_model, tmp_path):
    from helpers.model_folders import write_random_model

    one = StableDiffusionBackbone.from_folder(str(other_model))
    two = StableDiffusionBackbone.from_folder(str(write_random_model(tmp_path / "again", seed=9)))
    path = save_prompt(SinglePrompt(backbone=one, slots=3), tmp_path / "p.safetensors", backbone=one)
    with pytest.warns(UnknownWeightsWarning, match="other"):
        load_prompt(path, backbone=two)


def test_files_that_are_no_prompts(mini, tmp_path):
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
    path = save_prompt(SinglePrompt(backbone=mini, slots=3), tmp_path / "good.safetensors", backbone=mini)
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


def test_what_holds_nothing_learned_is_not_saved(mini, tmp_path):
    with pytest.raises(InputError, match="nothing learned"):
        save_prompt(EmptyPrompt(backbone=mini), tmp_path / "p.safetensors", backbone=mini)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PromptFileError, match="cannot write"):
        save_prompt(SinglePrompt(backbone=mini, slots=1), tmp_path / "file" / "p.safetensors", backbone=mini)
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208
