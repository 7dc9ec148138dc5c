"""Stored maps: keyed by everything that decides their bits, never of values that are not finite, believed if whole."""

from __future__ import annotations

import pytest
import torch

from sd4match.errors import NonFiniteError
from sd4match.evaluation.photo_maps import PhotoMaps
from sd4match.io.cache import DamagedEntryWarning, Store
from sd4match.prompting.text import EmptyPrompt
from sd4match.structures.tensors import FeatureMap, Sampling
from sd4match.testing import FakeBackbone, FakePairs, FakeTextEncoder


class Known(FakeBackbone):
    """Fake backbone whose weights are known, and whose features may be scaled."""

    def __init__(self, scale=1.0, *, weight=0.0):
        super().__init__(text_encoder=FakeTextEncoder())
        self.fingerprint = "0.5"
        self.scale = scale
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.extracted = 0

    def extract(self, encoded, prompt, sampling):
        self.extracted += len(encoded)
        features = super().extract(encoded, prompt, sampling)
        return FeatureMap(features.values.detach() * self.scale, features.grid)


def maps_of(folder, backbone, *, keep=True, dtype=torch.float32):
    data = FakePairs()
    maps = PhotoMaps(
        backbone=backbone, prompt=EmptyPrompt(backbone=backbone), sampling=Sampling(0), dataset=data, batch_size=2,
        store=Store(folder), keep=keep, budget=1, dtype=dtype,
    )  # fmt: skip
    maps.extract_all(skip_bad=False, progress=lambda *_: None)
    return [one.values for key in maps.order for one in maps.of_pair(data.keys[key])]


def test_other_weights_or_settings_are_other_maps(tmp_path):
    backbone = Known()
    maps_of(tmp_path, backbone)
    count = backbone.extracted
    for again, expected in ((Known(), 0), (Known(weight=1.0), count)):
        maps_of(tmp_path, again)
        assert again.extracted == expected
    again = Known()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps_of(tmp_path, again)
    assert again.extracted == count


@pytest.mark.parametrize(
    ("scale", "dtype", "message"),
    [
        (float("nan"), torch.float32, "the features of .* in float32 are not finite"),
        (float("inf"), torch.float32, "the features of .* in float32 are not finite"),
        (1e6, torch.float16, "the stored features of .* in float16 are not finite: .* bfloat16 or float32 has"),
    ],
)
def test_maps_that_are_not_finite_are_not_stored(tmp_path, scale, dtype, message):
    with pytest.raises(NonFiniteError, match=message):
        maps_of(tmp_path, Known(scale), dtype=dtype)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values, meta: ({"values": values[:3]}, meta), "values must be"),
        (lambda values, meta: ({"values": values[0]}, meta), "values must be"),
        (lambda values, meta: ({"values": values.half()}, meta), "values must be torch.float32"),
        (lambda values, meta: ({"values": values * torch.nan}, meta), "the values are not finite"),
        (lambda values, meta: ({"x": values}, meta), "no map of this evaluation"),
        (lambda values, meta: ({"values": values}, {**meta, "frame": "[]"}), "frame must have"),
        (lambda values, meta: ({"values": values}, {}), "alignment must be"),
    ],
)
def test_a_stored_map_that_this_evaluation_cannot_have_written_is_computed_again(tmp_path, change, message):
    expected = maps_of(tmp_path, Known())
    store = Store(tmp_path)
    for file in tmp_path.rglob("*.safetensors"):
        tensors, metadata = store.get(file.stem)
        store.put(file.stem, *change(tensors["values"], metadata))
    with pytest.warns(DamagedEntryWarning, match=message):
        found = maps_of(tmp_path, Known())
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
