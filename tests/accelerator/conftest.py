"""The device of these tests: a pretended one, or the real one that SD4MATCH_TEST_DEVICE names."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest
import torch

from helpers.small_presets import write_small_models
from sd4match.testing import pretend_accelerator

REAL = os.environ.get("SD4MATCH_TEST_DEVICE")


@contextmanager
def _real_accelerator():
    """Yield the real device, with float32 that is float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield torch.device(REAL)


@pytest.fixture
def accelerator():
    """Context in which a test has its device; what is computed outside it is the CPU's."""
    return pretend_accelerator if REAL is None else _real_accelerator


@pytest.fixture
def close():
    """Compare with the CPU's numbers: to 1e-5, or on a real device to 1e-3."""
    tolerance = 1e-5 if REAL is None else 1e-3

    def compare(found, expected, *, of: str = "") -> None:
        found, expected = (torch.as_tensor(value).detach().cpu() for value in (found, expected))
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance, msg=lambda text: f"{of}: {text}")

    return compare


@pytest.fixture(scope="session")
def small_models(tmp_path_factory):
    return write_small_models(tmp_path_factory.mktemp("small-models"))


@pytest.fixture(autouse=True)
def models_of_presets(small_models, monkeypatch):
    monkeypatch.setenv("SD4MATCH_MODELS", str(small_models))
