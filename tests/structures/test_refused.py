"""What the structures refuse when they are made: each message names the field."""

# ruff: noqa: E501 - a table

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from sd4match.errors import InputError, NonFiniteError, ShapeError
from sd4match.geometry import Grid, squash_frame
from sd4match.matching import correlate_maps
from sd4match.results import Candidates, MatchResult
from sd4match.structures.images import View, Views
from sd4match.structures.tensors import (
    Encoded,
    EvaluationNoise,
    FeatureMap,
    ImageFeatures,
    Keypoints,
    LossValue,
    Matches,
    ParameterGroup,
    PromptEmbedding,
    Sampling,
    TrainingNoise,
)
from sd4match.testing import random_correlation, random_photo

CORRELATION, FRAME, POINTS = random_correlation(), squash_frame((4, 4), (4, 4)), torch.rand(2, 3, 2)
SEEN, SCORES, NAN = torch.ones(2, 3, dtype=torch.bool), torch.rand(2, 3), math.nan


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        *[(lambda value=value: Sampling(value), InputError, "timestep") for value in (-1, 1000, 2.5, "3", None, True)],
        *[(lambda value=value: Sampling(50, value), InputError, "ensemble_size") for value in (0, -1, 10**12, 1.5)],
        (lambda: Sampling(50, posterior="median"), InputError, "posterior"),
        (lambda: Sampling(50, noise=3), InputError, "noise"),
        (lambda: EvaluationNoise(-1), InputError, "seed"),
        (lambda: EvaluationNoise(2**64), InputError, "seed"),
        (lambda: TrainingNoise(0, -1), InputError, "step"),
        (lambda: TrainingNoise(0, 1, [1]), InputError, "indices"),
        (lambda: TrainingNoise(0, 1, (-1,)), InputError, "indices"),
        (lambda: Keypoints(POINTS, SEEN[:, :1]), ShapeError, "visible"),
        (lambda: Keypoints(POINTS, SEEN.long()), InputError, "visible"),
        (lambda: Keypoints(POINTS[0], SEEN), ShapeError, "points"),
        (lambda: Keypoints(POINTS, SEEN.to("meta")), InputError, "visible is on meta"),
        (lambda: PromptEmbedding(torch.rand(3, 4)), ShapeError, "prompt"),
        (lambda: PromptEmbedding(torch.ones(1, 3, 4, dtype=torch.long)), InputError, "prompt"),
        (lambda: ImageFeatures(torch.rand(2, 3, 4), torch.rand(1, 4)), ShapeError, "pooled"),
        (lambda: ImageFeatures(torch.rand(2, 3), torch.rand(2, 4)), ShapeError, "local"),
        (lambda: Encoded({"x": torch.zeros(2)}, (FRAME,), ("a",)), ShapeError, "first dimension"),
        (lambda: Encoded({"x": None}, (FRAME,), ("a",)), InputError, "tensors must be a mapping"),
        (lambda: Encoded({}, (FRAME,), ("a", "b")), ShapeError, "a frame for each of 2 photos"),
        (lambda: Encoded({}, (None,), ("a",)), InputError, "frames"),
        (lambda: Encoded({}, (FRAME,), "a"), InputError, "keys"),
        (lambda: Encoded(None, (FRAME,), ("a",)), InputError, "tensors"),
        (lambda: FeatureMap(torch.zeros(1, 2, 4, 4, dtype=torch.int32), Grid((FRAME,), (4, 4))), InputError, "feature"),
        (lambda: FeatureMap(torch.zeros(2, 4, 4), Grid((FRAME,), (4, 4))), ShapeError, "feature map"),
        (lambda: FeatureMap(torch.zeros(1, 0, 4, 4), Grid((FRAME,), (4, 4))), ShapeError, "feature map"),
        (lambda: FeatureMap(torch.zeros(1, 2, 4, 4), None), InputError, "grid"),
        (lambda: FeatureMap(torch.zeros(1, 2, 4, 4), Grid((FRAME,), (4, 4)), (1, 2)), ShapeError, "2 channels"),
        (lambda: FeatureMap(torch.zeros(1, 2, 4, 4), Grid((FRAME,), (4, 4)), [2]), InputError, "groups"),
        (lambda: replace(CORRELATION, values=CORRELATION.values[:1]), ShapeError, "query_points"),
        (lambda: replace(CORRELATION, values=CORRELATION.values[..., 1:]), ShapeError, "cells"),
        (lambda: replace(CORRELATION, values=CORRELATION.values > 0), InputError, "correlation"),
        (lambda: replace(CORRELATION, source=CORRELATION.source[:1]), ShapeError, "source of 2 maps"),
        (lambda: replace(CORRELATION, target=None), InputError, "target"),
        (lambda: replace(CORRELATION, query_mode="nearest"), InputError, "query_mode"),
        (lambda: Matches(POINTS[0], SCORES), ShapeError, "points"),
        (lambda: Matches(POINTS, SCORES[:, :1]), ShapeError, "scores"),
        (lambda: Matches(POINTS, None), InputError, "scores"),
        (lambda: Matches(POINTS, SCORES + 1).scores, InputError, r"in \[0, 1\]"),
        (lambda: Matches(POINTS, lambda: SCORES[:1]).scores, ShapeError, "scores"),
        (lambda: LossValue(torch.ones(2)), ShapeError, "value of a loss"),
        (lambda: LossValue(torch.tensor(1.0), torch.ones(1)), ShapeError, "lower bound"),
        (lambda: ParameterGroup("", ()), InputError, "name"),
        (lambda: ParameterGroup("a", (torch.ones(1),)), InputError, "parameters"),
        (lambda: ParameterGroup("a", (), -1.0), InputError, "scale"),
        (lambda: View(torch.zeros(1, 4, 4), FRAME, "a"), ShapeError, "view"),
        (lambda: View(torch.zeros(3, 4, 4), None, "a"), InputError, "ImageFrame"),
        (lambda: Views(None), InputError, "views"),
        (lambda: Views(()).pixels, ShapeError, "views of one size, got none"),
        (lambda: Views.of(View(torch.zeros(3, 4, n), FRAME, "a") for n in (4, 5)).pixels, ShapeError, "one size"),
        (lambda: correlate_maps(CORRELATION.source, CORRELATION.target, POINTS[0]), ShapeError, "query_points"),
        (lambda: correlate_maps(CORRELATION.source, CORRELATION.target, POINTS[:1]), ShapeError, "query_points"),
        (lambda: correlate_maps(CORRELATION.source, None, POINTS), InputError, "target"),
        (lambda: correlate_maps(CORRELATION.source, CORRELATION.target, POINTS, query_mode="x"), InputError, "query_mode"),
        (lambda: MatchResult(random_photo(), random_photo(), np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(1)), ShapeError, "scores"),
        (lambda: MatchResult(random_photo(), random_photo(), np.zeros((1, 2)), np.full((1, 2), NAN), np.zeros(1)), NonFiniteError, "target_points"),
        (lambda: Candidates(np.zeros((1, 2)), np.zeros((1, 3, 2)), np.zeros((1, 2))), ShapeError, "target_points"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_points_of_integers_and_maps_of_half_precision_are_read_between_cells():
    source = CORRELATION.source
    whole = torch.tensor([[[20, 10]]] * 2)
    exact = correlate_maps(source, CORRELATION.target, whole.float()).query_cells
    assert torch.equal(correlate_maps(source, CORRELATION.target, whole).query_cells, exact)
    halved = replace(source, values=source.values.half())
    assert torch.equal(correlate_maps(halved, CORRELATION.target, whole).query_cells, exact)


def test_other_values_of_maps_keep_the_grid_of_several_pairs():
    changed = replace(CORRELATION.source, values=2 * CORRELATION.source.values)
    assert changed.grid is CORRELATION.source.grid
    assert torch.equal(changed.norms, 2 * CORRELATION.source.norms)
