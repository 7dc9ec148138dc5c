from __future__ import annotations

import pytest
import torch

from sd4match.errors import InputError
from sd4match.geometry import Grid, pad_frame
from sd4match.io.features import read_features, write_features
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
