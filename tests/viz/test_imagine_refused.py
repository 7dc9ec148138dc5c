"""What pictures of prompts refuse before a model is used."""

from __future__ import annotations

import inspect

import pytest
import torch

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
