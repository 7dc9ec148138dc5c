"""The checks notice components that break a promise, say which, and take those that keep all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from helpers.faults import FAULTS, Good, Learned, Projection, Scaled, Vectors, center, plain_tensor, prompts
from sd4match import registry, testing
from sd4match.errors import SD4MatchError
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


@pytest.mark.parametrize("value", [5, None, [], Path, int, FakeBackbone, {"kind": "unknown"}, "unknown"], ids=str)
@pytest.mark.parametrize("sort", [sort for sort in FAULTS if sort != "backbone"])
def test_what_is_no_component_is_refused(sort, value):
    with pytest.raises(SD4MatchError):
        getattr(testing, f"check_{sort}")(value)


def test_a_torch_that_cannot_pretend_a_device_leaves_that_out(monkeypatch):
    from sd4match.testing.conformance import common

    def refuse():
        raise RuntimeError("too old")

    monkeypatch.setattr(common, "pretend_accelerator", refuse)
    testing.check_backbone(FAULTS["backbone"]["a tensor left behind"][0]())


def test_what_cannot_be_copied_stays_where_it_is():
    make, _ = FAULTS["loss"]["a tensor left behind"]
    loss = make()
    loss.__dict__["lock"] = threading.Lock()
    testing.check_loss(loss)


def test_a_prompt_of_no_kind_is_checked_as_far_as_it_can_be():
    """It cannot be saved; it is moved together with the backbone that it was built on."""
    backbone = Good()
    testing.check_prompt(Vectors(backbone=backbone))
    testing.check_prompt(Vectors(backbone=backbone), backbone=backbone)
    forgetful = type("Forgetful", (Vectors,), {"begin": plain_tensor, "change": staticmethod(add_bias)})
    with pytest.raises(AssertionError, match="on the device that it is moved to"):
        testing.check_prompt(forgetful(backbone=backbone), backbone=backbone)


def add_bias(self, values, images, partners):
    return values + self.bias


def test_every_check_notices_five_faults_and_more():
    assert {sort: len(faults) for sort, faults in FAULTS.items() if len(faults) < 20} == {}
