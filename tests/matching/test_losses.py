"""The loss as a module, its config, and matchers' configs: defaults, bounds, and a temperature that is learned."""

from __future__ import annotations

import math

import pytest
import torch

from sd4match.errors import ConfigError
from sd4match.matching import (
    BilinearNearestNeighbor,
    CoPCA,
    CycleConsistent,
    GaussianCrossEntropyConfig,
    KernelSoftArgmax,
    MirroredAlignment,
    Mutual,
    NearestNeighbor,
    PixelNearestNeighbor,
    RatioTest,
    SoftArgmax,
    Threshold,
    WindowSoftArgmax,
    functional,
)
from sd4match.matching.gaussian_cross_entropy import GaussianCrossEntropy
from sd4match.structures.tensors import Keypoints
from sd4match.testing import random_correlation

CORRELATION = random_correlation()
TRUTH = Keypoints(torch.rand(2, 3, 2) * 30, torch.tensor([[True, True, False], [True, False, True]]))


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (GaussianCrossEntropyConfig, {"temperature": 0.04, "initial_temperature": None, "kernel_size": 7}),
        (NearestNeighbor, {"temperature": 0.04}),
        (SoftArgmax, {"temperature": 0.04}),
        (KernelSoftArgmax, {"temperature": 0.04, "sigma": 7.0}),
        (WindowSoftArgmax, {"temperature": 0.02, "window": 15}),
        (BilinearNearestNeighbor, {"temperature": 0.04}),
        (PixelNearestNeighbor, {"temperature": 0.04}),
        (Threshold, {"inner": KernelSoftArgmax(), "min_score": 0.1}),
        (Mutual, {"inner": KernelSoftArgmax()}),
        (CycleConsistent, {"inner": KernelSoftArgmax(), "cells": 1.5}),
        (RatioTest, {"inner": KernelSoftArgmax(), "ratio": 0.9, "radius": 2.5}),
        (CoPCA, {"components": 256, "blocks": None, "weights": None}),
        (MirroredAlignment, {"every": 2, "then": None}),
    ],
)
def test_the_defaults_are_the_published_ones(config, fields):
    assert {name: value for name, value in config() if name != "kind"} == fields


@pytest.mark.parametrize(
    ("config", "inside", "outside"),
    [
        (GaussianCrossEntropyConfig, {"kernel_size": 3}, {"kernel_size": 1}),
        (GaussianCrossEntropyConfig, {"kernel_size": 255}, {"kernel_size": 257}),
        (GaussianCrossEntropyConfig, {"kernel_size": 5}, {"kernel_size": 4}),
        (GaussianCrossEntropyConfig, {"temperature": "learned", "initial_temperature": 1}, {"initial_temperature": 1}),
        (WindowSoftArgmax, {"window": 1}, {"window": -1}),
        (WindowSoftArgmax, {"window": 255}, {"window": 257}),
        (WindowSoftArgmax, {"window": 5}, {"window": 4}),
        (Threshold, {"min_score": 0.0}, {"min_score": -0.01}),
        (Threshold, {"min_score": 1.0}, {"min_score": 1.01}),
        (RatioTest, {"ratio": 0.01}, {"ratio": 0.0}),
        (RatioTest, {"ratio": 1.0}, {"ratio": 1.01}),
        (MirroredAlignment, {"every": 1024}, {"every": 1025}),
        (CoPCA, {"weights": (2.0,)}, {"weights": (2.0, 1.0)}),
        (CoPCA, {"weights": (2.0, 1.0), "blocks": (1, 2)}, {"weights": (2.0,), "blocks": (1, 2)}),
        (CoPCA, {"components": (4, 4, 4), "blocks": (1, 2)}, {"components": (4, 4), "blocks": (1, 2)}),
        (CoPCA, {"components": 4, "blocks": (1, 2)}, {"components": -1}),
        (CoPCA, {"components": (4, 4)}, {"components": (4, -1)}),
    ],
)  # fmt: skip
def test_fields_have_bounds(config, inside, outside):
    made = config(**inside)
    assert {name: getattr(made, name) for name in inside} == inside
    with pytest.raises(ConfigError):
        config(**outside)


@pytest.mark.parametrize(("fields", "temperature"), [({}, 0.04), ({"temperature": 0.5}, 0.5)])
def test_a_fixed_temperature_is_that_of_the_function(fields, temperature):
    loss = GaussianCrossEntropyConfig(kernel_size=5, **fields).build()
    assert isinstance(loss, GaussianCrossEntropy)
    assert loss.has_lower_bound
    found = loss(CORRELATION, TRUTH)
    value, bound = functional.gaussian_cross_entropy_with_bound(
        CORRELATION.values, CORRELATION.target.grid.to_cells(TRUTH.points), TRUTH.visible,
        temperature=temperature, kernel_size=5,
    )  # fmt: skip
    assert torch.equal(found.value, value)
    assert torch.equal(found.lower_bound, bound)
    assert (loss.temperature, loss.parameter_groups(), loss.log_values()) == (temperature, [], {})
    assert not list(loss.parameters())


@pytest.mark.parametrize(("fields", "start"), [({}, 0.04), ({"initial_temperature": 0.3}, 0.3)])
def test_a_learned_temperature_is_the_exponential_of_a_parameter(fields, start):
    loss = GaussianCrossEntropyConfig(temperature="learned", **fields).build()
    assert loss.temperature.item() == pytest.approx(start)
    assert loss.log_temperature.item() == pytest.approx(math.log(start))
    assert loss.log_values() == {"temperature": start}
    [group] = loss.parameter_groups()
    assert (group.name, group.parameters) == ("temperature", (loss.log_temperature,))
    found = loss(CORRELATION, TRUTH)
    fixed = GaussianCrossEntropyConfig(temperature=start).build()(CORRELATION, TRUTH)
    torch.testing.assert_close(found.value, fixed.value)
    assert found.value.requires_grad
    assert not found.lower_bound.requires_grad
    found.value.backward()
    assert loss.log_temperature.grad.abs() > 0
    assert GaussianCrossEntropy().config == GaussianCrossEntropyConfig()


def test_a_logged_temperature_has_six_decimals():
    assert GaussianCrossEntropyConfig(temperature="learned", initial_temperature=0.1234567).build().log_values() == {
        "temperature": 0.123457
    }
