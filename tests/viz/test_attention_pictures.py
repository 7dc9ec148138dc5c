"""Pictures of attention, and attention from a matcher."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match import SemanticMatcher
from sd4match.backbones import token_attention
from sd4match.errors import InputError, ShapeError
from sd4match.geometry import Grid, own_frame
from sd4match.matching import NearestNeighbor
from sd4match.prompting import TextPrompt
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import FeatureMap, PromptEmbedding, Sampling
from sd4match.testing import random_photo
from sd4match.viz import draw_attention, draw_heat_map

PHOTO = random_photo((40, 60))
ATTENTION = FeatureMap(torch.rand(1, 7, 4, 6), Grid((own_frame((40, 60)),), (4, 6), "centers"))


def test_each_token_is_a_heat_map():
    picture = np.asarray(draw_attention(PHOTO, ATTENTION, {5: "cat"}, height=160))
    alone = np.asarray(draw_heat_map(PHOTO, ATTENTION.values[0, 5], ATTENTION.grid, height=160, legend=False))
    assert np.array_equal(picture[22 : 22 + 160, -240:], alone)


def test_many_tokens_make_rows_of_five():
    one, many = (draw_attention(PHOTO, ATTENTION, {n: str(n) for n in range(count)}, height=100) for count in (4, 7))
    assert one.width == 5 * 150 + 4 * 12
    assert many.height > 2 * 100
    assert many.width < one.width


@pytest.mark.parametrize(
    ("attention", "labels", "error", "message"),
    [
        (ATTENTION, {}, InputError, "labels must be of 1 to 200 tokens, not of 0"),
        (ATTENTION, dict.fromkeys(range(201), "a"), InputError, "not of 201"),
        (ATTENTION, {7: "a"}, InputError, "the position of a label"),
        (FeatureMap(torch.rand(2, 7, 4, 6), Grid((own_frame((40, 60)),) * 2, (4, 6))), {0: "a"}, ShapeError, "of 2"),
        (FeatureMap(torch.rand(1, 7, 4, 6), Grid((own_frame((4, 6)),), (4, 6))), {0: "a"}, ShapeError, "the grid must"),
    ],
)
def test_what_cannot_be_drawn_is_named(attention, labels, error, message):
    with pytest.raises(error, match=message):
        draw_attention(PHOTO, attention, labels)


@pytest.mark.slow
def test_a_matcher_knows_its_prompt_and_its_tokens(mini):
    matcher = SemanticMatcher(backbone=mini, prompt=TextPrompt(backbone=mini), matcher=NearestNeighbor())
    attention, labels = matcher.attention(PHOTO, category="fish")
    values = matcher.prompt(ImageBatch({}, ("fish",))).values
    assert torch.equal(attention.values, token_attention(mini, PHOTO, PromptEmbedding(values), Sampling(50)).values)
    assert list(labels.values()) == ["a", "photo", "of", "a", "fish"]
    with pytest.raises(InputError, match="pair is for a prompt that depends on both photos"):
        matcher.attention(PHOTO, category="fish", pair=(PHOTO, PHOTO))


def test_a_prompt_of_pairs_needs_the_pair(mini):
    class Both(TextPrompt):
        def __init__(self):
            super().__init__(backbone=mini)
            self.scope = "pair"

        def forward(self, images, partners=None):
            assert partners is not None
            return super().forward(images)

    matcher = SemanticMatcher(backbone=mini, prompt=Both(), matcher=NearestNeighbor())
    with pytest.raises(InputError, match="depends on both photos of a pair"):
        matcher.attention(PHOTO, category="fish")
    attention, _ = matcher.attention(PHOTO, category="fish", pair=(PHOTO, random_photo((30, 30))))
    assert attention.values.shape == (1, 77, 24, 24)
