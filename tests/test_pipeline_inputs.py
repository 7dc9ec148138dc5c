"""What `SemanticMatcher` refuses of users, and what it says of components that answer nonsense."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match import SemanticMatcher
from sd4match.errors import ComponentError, ConfigError, InputError, NonFiniteError, PhotoError
from sd4match.matching.matchers import NearestNeighbor
from sd4match.prompting.config import TextPromptConfig
from sd4match.prompting.text import EmptyPrompt, TextPrompt
from sd4match.structures.tensors import FeatureMap, PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo

PHOTO, BACKBONE = random_photo((40, 40)), FakeBackbone(text_encoder=FakeTextEncoder())
PROMPT = EmptyPrompt(backbone=BACKBONE)


def matcher(**changes):
    return SemanticMatcher(**{"backbone": BACKBONE, "prompt": PROMPT, "matcher": NearestNeighbor(), **changes})


@pytest.mark.parametrize("value", [None, "mini", 5, FakeBackbone, NearestNeighbor, Sampling, dict])
@pytest.mark.parametrize("name", ["backbone", "prompt", "matcher", "sampling", "pair_transform", "protocol"])
def test_a_component_of_another_type_is_named(name, value):
    if value is None and name in ("sampling", "pair_transform", "protocol"):
        return
    with pytest.raises(InputError, match=f"^{name} must be"):
        matcher(**{name: value})


@pytest.mark.parametrize("config", [None, "text", {}, 5])
def test_a_config_of_another_type_is_named(config):
    with pytest.raises(InputError, match="config must be an ExperimentConfig"):
        SemanticMatcher.from_config(config)


@pytest.mark.parametrize("device", ["meta", "cuda:77", "mps", "tpu9", "", None, 5])
def test_a_device_that_is_none_is_named(device, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises((ConfigError, InputError), match="device"):
        SemanticMatcher.from_preset("mini-empty", device=device)


@pytest.mark.parametrize("photo", [None, 5, [PHOTO], {"a": 1}, b"a.png", io.BytesIO(b"")])
def test_a_photo_of_another_type_is_refused(photo):
    for call in (
        lambda: matcher().match(photo, PHOTO),
        lambda: matcher().match(PHOTO, photo),
        lambda: matcher().match_candidates(photo, PHOTO, [(1, 1)]),
        lambda: matcher().match_dense(PHOTO, photo),
        lambda: matcher().feature_map(photo),
    ):
        with pytest.raises(PhotoError, match="a photo is a path"):
            call()


@pytest.mark.parametrize(
    "points",
    [
        [(10**400, 1)], [("1", "2")], [(1, "a")], "12", [(math.nan, 1)], [(math.inf, 1)], [(1, 2, 3)], [1, 2], [[]], [],
        [(True, False)], [(1j, 2)], [(None, 1)], {"a": 1}, 5, [(-0.1, 3)], [(40, 3)], [(1,), (1, 2)],
        np.zeros((1_000_001, 2)),
    ],
)  # fmt: skip
def test_points_that_are_none_are_refused_in_a_short_line(points):
    with pytest.raises(InputError, match="point") as caught:
        matcher().match(PHOTO, PHOTO, points)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("category", [5, b"cat", ["cat"], ("cat", "dog", "cow"), ("cat", 5), "", "  ", "\ud800"])
def test_a_category_that_is_no_text_is_refused(category):
    text = TextPrompt(TextPromptConfig(template="{category}"), backbone=BACKBONE)
    for prompt in (PROMPT, text):
        with pytest.raises(InputError, match="category"):
            matcher(prompt=prompt).match(PHOTO, PHOTO, category=category)
        with pytest.raises(InputError, match="category"):
            matcher(prompt=prompt).feature_map(PHOTO, category=category)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({"grid": value}, "grid") for value in (0, -1, "8", None, True, 2.5, 10**9)],
        *[({"mutual": value}, "mutual") for value in (1, "yes", None)],
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        matcher().match(PHOTO, PHOTO, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({"count": value}, "count must be") for value in (0, -1, 2.5, None, True)],
        *[({"count": value}, "candidates are in a map of 8 x 8 cells") for value in (64, 65, 10**6)],
        *[({"temperature": value}, "temperature") for value in (0, -1.0, math.nan, "1", None)],
    ],
)
def test_candidates_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        matcher().match_candidates(PHOTO, PHOTO, [(1, 1)], **options)


def test_a_missing_category_is_refused_in_one_place():
    class Foreign(EmptyPrompt):
        scope = "category"

        def forward(self, images, partners=None):
            return PromptEmbedding(self._embed([f"a {name}" for name in images.categories]))

    foreign = matcher(prompt=Foreign(backbone=BACKBONE))
    with pytest.raises(InputError, match="the prompt Foreign needs a category, and random-0 has none"):
        foreign.match(PHOTO, PHOTO)
    assert len(foreign.match(PHOTO, PHOTO, category="cat", grid=2)) == 4
    foreign.prompt.scope = "imag"
    with pytest.raises(InputError, match="unknown scope of the prompt Foreign 'imag'; did you mean 'image'"):
        foreign.match(PHOTO, PHOTO, category="cat")


def test_every_cell_of_a_square_photo_lies_in_it():
    assert matcher().match_dense(PHOTO, PHOTO).inside.all()


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (None, ComponentError, "the prompt Mine must return PromptEmbedding, not None"),
        (torch.zeros(2, 16, 8), ComponentError, "must return PromptEmbedding"),
        (
            PromptEmbedding(torch.zeros(3, 16, 8)),
            ComponentError,
            "the prompt Mine must return 1 or 2 embeddings, not 3",
        ),
        (
            PromptEmbedding(torch.full((1, 16, 8), math.nan)),
            NonFiniteError,
            "the embeddings of the prompt Mine are not",
        ),
    ],
)
def test_a_prompt_that_answers_something_else_is_named(answer, error, message):
    class Mine(EmptyPrompt):
        def forward(self, images, partners=None):
            return answer

    with pytest.raises(error, match=message):
        matcher(prompt=Mine(backbone=BACKBONE)).match(PHOTO, PHOTO)


def changed(maps, **fields):
    return FeatureMap(**{"values": maps.values, "grid": maps.grid, **fields})


@pytest.mark.parametrize(
    ("method", "answer", "error", "message"),
    [
        ("prepare", lambda view: None, ComponentError, "must return View, not None"),
        ("prepare", lambda view: FakeBackbone().prepare(random_photo((9, 9))), ComponentError, r"its size \(40, 40\)"),
        ("encode", lambda encoded: None, ComponentError, "must return Encoded"),
        ("extract", lambda maps: None, ComponentError, "must return FeatureMap"),
        ("extract", lambda maps: maps[:1], ComponentError, "one map for each of 2 photos"),
        ("extract", lambda maps: changed(maps, values=maps.values[:, :5]), ComponentError, "48 channels, not 5"),
        ("extract", lambda maps: changed(maps, values=maps.values * math.nan), NonFiniteError,
         "the features of random-0 in float32 are not finite: 3072 of 3072 values are NaN or infinite; the weights"),
        ("extract", lambda maps: 1 / 0, ComponentError, "the backbone Mine failed: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_backbone_that_answers_something_else_is_named(method, answer, error, message):
    class Mine(FakeBackbone):
        pass

    inner = getattr(FakeBackbone, method)
    setattr(Mine, method, lambda self, *arguments: answer(inner(self, *arguments)))
    with pytest.raises(error, match=message):
        matcher(backbone=Mine(text_encoder=FakeTextEncoder())).match(PHOTO, PHOTO)


def test_an_overflow_in_float16_says_what_helps():
    from dataclasses import replace

    class Half(FakeBackbone):
        def __init__(self):
            super().__init__(text_encoder=FakeTextEncoder())
            self.spec = replace(self.spec, dtype="float16", layer=1)

        def extract(self, encoded, prompt, sampling):
            maps = super().extract(encoded, prompt, sampling)
            values = maps.values.clone()
            values[1] = math.inf
            return changed(maps, values=values)

    with pytest.raises(NonFiniteError, match=r"random-1 at layer 1 in float16 .* bfloat16 or float32"):
        matcher(backbone=Half()).match(PHOTO, random_photo(seed=1))


def test_a_batch_of_pairs_is_of_equal_sides():
    from sd4match.prompting.pairing import pair_prompts
    from sd4match.structures.images import ImageBatch

    with pytest.raises(InputError, match="1 sources and 2 targets"):
        pair_prompts(PROMPT, ImageBatch({}, ("a",)), ImageBatch({}, ("a", "b")))
    with pytest.raises(InputError, match="one photo or more"):
        pair_prompts(PROMPT, ImageBatch({}, ()), ImageBatch({}, ()))
