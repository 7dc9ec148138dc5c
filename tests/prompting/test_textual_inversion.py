"""Export to textual inversion."""

from __future__ import annotations

from inspect import unwrap
from types import SimpleNamespace

import pytest
import torch

from helpers.prompts import photos, photos_for
from sd4match.errors import InputError, NonFiniteError
from sd4match.prompting import (
    ClassPrompt,
    ClassPromptConfig,
    ConditionalPrompt,
    ConditionalPromptConfig,
    ImplicitCaptioner,
    ImplicitCaptionerConfig,
    SinglePrompt,
    SinglePromptConfig,
    export_textual_inversion,
    save_prompt,
)
from sd4match.prompting.textual_inversion import _check_tokenizer
from sd4match.testing import FakeTextEncoder

check_tokenizer = unwrap(_check_tokenizer)


@pytest.fixture(scope="module")
def pipeline():
    from sd4match.viz.imagine import load_painter

    return lambda: load_painter("mini")


def embedding_of(pipeline, token, file):
    pipeline.load_textual_inversion(str(file))
    return pipeline.encode_prompt(token, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]


@pytest.mark.parametrize("num_tokens", [1, 30, 75])
def test_any_pipeline_reproduces_an_exported_single(mini, pipeline, tmp_path, num_tokens):
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=num_tokens, seed=2), backbone=mini)
    nothing = photos(None)
    file = export_textual_inversion(prompt, tmp_path / "learned.safetensors", backbone=mini, images=nothing)
    found = embedding_of(pipeline(), "<sd4match>", file)
    torch.testing.assert_close(found, prompt(nothing).values, atol=1e-5, rtol=1e-5)


def test_any_pipeline_reproduces_an_exported_class_and_cpm(mini, pipeline, tmp_path):
    classes = ClassPrompt(ClassPromptConfig(categories=("fish", "car"), num_tokens=20), backbone=mini)
    car = photos("car")
    for word in ("", " ", "__metadata__"):
        with pytest.raises(InputError, match="the new word must be a word"):
            export_textual_inversion(classes, tmp_path / "no.safetensors", backbone=mini, images=car, token=word)
    file = export_textual_inversion(classes, tmp_path / "car.safetensors", backbone=mini, images=car, token="<car>")
    torch.testing.assert_close(embedding_of(pipeline(), "<car>", file), classes(car).values, atol=1e-5, rtol=1e-5)

    cpm = ConditionalPrompt(ConditionalPromptConfig(image_encoder="backbone"), backbone=mini)
    pair = [photos_for(cpm, [seed], mini) for seed in (0, 1)]
    file = export_textual_inversion(
        cpm, tmp_path / "pair.safetensors", backbone=mini, images=pair[0], partners=pair[1], token="<pair>"
    )
    torch.testing.assert_close(embedding_of(pipeline(), "<pair>", file), cpm(*pair).values, atol=1e-4, rtol=1e-4)


WORDS = {
    "two words": "try 'two-words'", "a\tb": "try 'a-b'", "<Cat-Face>": "try '<cat-face>'",
    "a": r"a token already.* try '<a>'", "!": "try '<!>'", "\udcff": "not UTF-8",
    "x" * 101: "101 characters; at most 100", "<|endoftext|>": "try '<endoftext>'", "<|": "try '<sd4match>'",
    "\x1b[31m": "not printed",
    "<e\u0301>": "try '<\u00e9>'", " x": "must be a word", "": "must be a word", "__metadata__": "must be a word",
    5: "must be a word", None: "must be a word",
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS, ids=lambda word: repr(word)[:20])
def test_words_that_diffusers_would_change_split_or_refuse_are_refused(mini, tmp_path, word):
    prompt, path = SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=mini), tmp_path / "x.st"
    with pytest.raises(InputError, match=WORDS[word]):
        unwrap(export_textual_inversion)(prompt, path, backbone=mini, images=photos(None), token=word)
    assert not path.exists()


@pytest.mark.parametrize("word", ["<sd4match>", "<\u00e9>", "<cat-face>", "x_1"])
def test_words_that_are_exported_give_the_prompt_in_a_pipeline(mini, pipeline, tmp_path, word):
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=12, seed=2), backbone=mini)
    file = export_textual_inversion(prompt, tmp_path / "x.safetensors", backbone=mini, images=photos(None), token=word)
    found = embedding_of(pipeline(), word, file)
    torch.testing.assert_close(found, prompt(photos(None)).values, atol=1e-5, rtol=1e-5)


def test_a_word_that_the_tokenizer_does_not_find_is_refused(mini):
    class Stubborn:
        def get_vocab(self):
            return {}

        def add_tokens(self, words):
            pass

        def __call__(self, text):
            return SimpleNamespace(input_ids=[0, 1, 2])

        def tokenize(self, text):
            return list(text)

    with pytest.raises(InputError, match="splits or changes the new word '<x>'"):
        check_tokenizer("<x>", SimpleNamespace(tokenizer=Stubborn()), 1)
    check_tokenizer("<x>", FakeTextEncoder(), 1)


def test_an_export_replaces_exports_alone(mini, tmp_path):
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=mini)
    learned = save_prompt(prompt, tmp_path / "p.safetensors", backbone=mini)
    content = learned.read_bytes()
    for path, message in ((learned, "exists and is no textual inversion"), (tmp_path, "is not a file")):
        with pytest.raises(InputError, match=message):
            export_textual_inversion(prompt, path, backbone=mini, images=photos(None))
    assert learned.read_bytes() == content
    for _ in range(2):
        export_textual_inversion(prompt, tmp_path / "x.safetensors", backbone=mini, images=photos(None))
    with torch.no_grad():
        prompt.token_embeddings[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="the vectors of the prompt are not finite: 1 of"):
        export_textual_inversion(prompt, tmp_path / "nan.safetensors", backbone=mini, images=photos(None))
    assert not (tmp_path / "nan.safetensors").exists()


def test_prompts_without_token_vectors_are_not_exported(mini, tmp_path):
    nothing = photos(None)
    for prompt in (
        SinglePrompt(SinglePromptConfig(space="hidden"), backbone=mini),
        ImplicitCaptioner(ImplicitCaptionerConfig(image_encoder="backbone"), backbone=mini),
    ):
        with pytest.raises(InputError, match=f"{type(prompt).__name__} .* cannot be exported"):
            export_textual_inversion(prompt, tmp_path / "x.st", backbone=mini, images=nothing)
    with pytest.raises(InputError, match="one prompt; 2 photos"):
        export_textual_inversion(
            SinglePrompt(backbone=mini), tmp_path / "x.st", backbone=mini, images=photos(None, None)
        )
    assert list(tmp_path.iterdir()) == []
