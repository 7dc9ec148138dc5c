"""The checks notice components that break a promise, say which, and take those that keep all."""

from __future__ import annotations

import pytest

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from helpers.faults import FAULTS, Good, Learned, Projection, Scaled, center, prompts
from sd4match import registry, testing
from sd4match.testing import FakeBackbone, FakeImageEncoder, FakePairs

CASES = [(sort, fault) for sort, faults in FAULTS.items() for fault in faults]


@pytest.fixture(autouse=True)
def forget_kinds():
    with registry.prompts.temporarily():
        yield


@pytest.mark.parametrize(("sort", "fault"), CASES, ids=[f"{sort}: {fault}" for sort, fault in CASES])
def test_a_fault_is_noticed_and_named(sort, fault):
    make, message = FAULTS[sort][fault]
    with pytest.raises(AssertionError, match=message) as error:
        getattr(testing, f"check_{sort}")(make())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sort", FAULTS)
def test_what_keeps_its_promises_is_taken(sort):
    good = {
        "backbone": [FakeBackbone(), Good()], "image_encoder": [FakeImageEncoder()], "prompt": [prompts()()],
        "matcher": [Scaled()], "loss": [Learned()], "pair_transform": [center, Projection()], "dataset": [FakePairs()],
    }  # fmt: skip
    for component in good[sort]:
        getattr(testing, f"check_{sort}")(component)
