"""Export to textual inversion."""

from __future__ import annotations

import pytest
import torch

from helpers.prompts import photos, photos_for
from sd4match.errors import InputError
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
)


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
