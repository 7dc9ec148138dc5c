from __future__ import annotations

import json

import pytest
import torch

from sd4match.errors import InputError, NonFiniteError, ShapeError
from sd4match.geometry import Grid, pad_frame
from sd4match.io.features import read_features, write_features
from sd4match.io.files import to_safetensors, write_atomically
from sd4match.structures.tensors import FeatureMap


@pytest.mark.parametrize(("alignment", "offset"), [("corners", None), ("centers", None), ("patch", 6.5)])
def test_grid_and_groups_come_back(tmp_path, alignment, offset):
    grid = Grid((pad_frame((200, 100), 96),), (8, 8), alignment, offset)
    features = FeatureMap(torch.randn(1, 5, 8, 8), grid, (2, 3))
    write_features(features, tmp_path / "x.safetensors", provenance={"prompt": "text"})
    found, provenance = read_features(tmp_path / "x.safetensors")
    assert (found.grid, found.groups, provenance) == (grid, (2, 3), {"prompt": "text"})
    assert torch.equal(found.values, features.values)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"no features")
    for path in (tmp_path / "x", tmp_path / "none"):
        with pytest.raises(InputError, match="is not a file of features"):
            read_features(path)


def grid_of(**fields):
    return {
        "format": "sd4match-features", "provenance": "{}", "alignment": "corners", "offset": "null", "groups": "[2, 3]",
        "frame": json.dumps({"original_size": [4, 6], "model_size": [8, 8], "scale": [1.0, 2.0], "offset": [0, 0]}),
    } | fields  # fmt: skip


def frame(**fields):
    return json.dumps(json.loads(grid_of()["frame"]) | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "other"}, "its format must be 'sd4match-features'"),
        ({"alignment": "middle"}, "alignment must be corners, centers, patch, not 'middle'"),
        ({"alignment": "patch"}, "offset must be a number for the alignment 'patch'"),
        ({"offset": "6.5"}, "offset must be a number for the alignment 'patch'"),
        ({"alignment": "patch", "offset": "true"}, "the offset must be a number"),
        ({"offset": "{"}, "'offset' of the metadata is not valid JSON"),
        ({"groups": "[2, 2]"}, "groups must have 5 channels together, not 4"),
        ({"groups": "5"}, "groups must be a list"),
        ({"groups": "[5.0]"}, "channels of a group must be a whole number"),
        ({"groups": "[6, -1]"}, "channels of a group must be a whole number"),
        ({"provenance": "[]"}, "provenance is no JSON object"),
        ({"provenance": "[" * 100_000}, "nests too deep"),
        ({"frame": "[]"}, "frame must have original_size"),
        ({"frame": frame(original_size=[0, 6])}, "original_size of the frame must be a whole number"),
        ({"frame": frame(model_size=[8])}, "model_size of the frame must be two numbers"),
        ({"frame": frame(scale=[0, 1])}, "scale of the frame must be finite, at least"),
        ({"frame": frame(offset=["1", 0])}, "offset of the frame must be a number"),
        ({"frame": frame(more=1)}, "frame must have original_size"),
    ],
)
def test_a_field_that_cannot_be_is_named(tmp_path, fields, message):
    file = tmp_path / "x.safetensors"
    write_atomically(file, to_safetensors({"features": torch.ones(5, 4, 4)}, grid_of()))
    assert read_features(file)[0].groups == (2, 3)
    write_atomically(file, to_safetensors({"features": torch.ones(5, 4, 4)}, grid_of(**fields)))
    with pytest.raises(InputError, match=message) as caught:
        read_features(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("name", ["frame", "alignment", "offset", "groups", "provenance", "format"])
def test_a_field_that_is_missing_is_named(tmp_path, name):
    metadata = grid_of()
    del metadata[name]
    write_atomically(tmp_path / "x", to_safetensors({"features": torch.ones(5, 4, 4)}, metadata))
    with pytest.raises(InputError, match=f"{name}|valid JSON"):
        read_features(tmp_path / "x")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"features": torch.ones(5, 4)}, "features must be"),
        ({"features": torch.ones(5, 0, 4)}, "features must be"),
        ({"features": torch.ones(5, 4, 4).long()}, "features must be floating-point"),
        ({"features": torch.full((5, 4, 4), torch.nan)}, "the features are not finite"),
        ({"values": torch.ones(5, 4, 4)}, "with one tensor `features`"),
        ({"features": torch.ones(5, 4, 4), "more": torch.ones(1)}, "with one tensor `features`"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path, tensors, message):
    write_atomically(tmp_path / "x", to_safetensors(tensors, grid_of()))
    with pytest.raises(InputError, match=message):
        read_features(tmp_path / "x")


def test_what_cannot_be_read_again_is_not_written(tmp_path):
    grid = Grid((pad_frame((200, 100), 96),), (2, 2))
    good = FeatureMap(torch.ones(1, 5, 2, 2), grid)
    for features, provenance, error in (
        (FeatureMap(good.values * torch.inf, grid), {}, NonFiniteError),
        (good, {"score": float("nan")}, InputError),
        (good, {"what": object()}, InputError),
        (FeatureMap(torch.ones(2, 5, 2, 2), Grid(grid.frames * 2, (2, 2))), {}, ShapeError),
    ):
        with pytest.raises(error):
            write_features(features, tmp_path / "x", provenance=provenance)
    assert not (tmp_path / "x").exists()
