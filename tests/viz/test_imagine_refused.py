"""What pictures of prompts refuse before a model is used."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.errors import InputError, ShapeError
from sd4match.viz.imagine import draw_grid, paint


def test_a_grid_has_rows_and_a_picture_an_embedding():
    with pytest.raises(InputError, match="rows must hold one prompt or more"):
        draw_grid([])
    with pytest.raises(InputError, match="painter must be a StableDiffusionPipeline, not 5"):
        paint(5, torch.zeros(4, 8), empty=torch.zeros(4, 8))
    with pytest.raises(ShapeError, match="embedding must be"):
        inspect.unwrap(paint)(None, torch.zeros(8), empty=torch.zeros(4, 8))


def test_labels_keep_to_their_rows_and_grow_with_the_grid():
    picture = Image.new("RGB", (8, 8), "red")
    small, large = (draw_grid([("word " * 100, (), [picture] * count)], title="t " * 300) for count in (1, 20))
    assert small.height == 160 + 6 + 22 + 12
    assert large.width < 4 * (large.width - 20 * 166 - 6) + 100  # labels take a quarter
    pixels = np.asarray(small)
    left = pixels[-166:, :190]
    assert (left < 255).any()
    assert (left[-7:] == 255).all()
