"""The interfaces of vismatch, transformers and torch.hub, against fakes that behave as those libraries do."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sd4match import SemanticMatcher
from sd4match.contrib.transformers import as_pipeline
from sd4match.contrib.vismatch import as_vismatch
from sd4match.errors import InputError
from sd4match.testing import random_photo

A, B = random_photo((40, 60), seed=1), random_photo((50, 44), seed=2)


class BaseMatcher(torch.nn.Module):
    """As vismatch 1.4.0: `forward` makes tensors (3, H, W) in [0, 1], asks `_forward`, and checks its seven answers."""

    def __init__(self, device="cpu", **kwargs):
        super().__init__()
        self.device, self.ransac_reproj_thresh = device, kwargs.get("ransac_reproj_thresh", 3)

    @torch.inference_mode()
    def forward(self, img0, img1):
        images = [torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in (img0, img1)]
        outputs = self._forward(*images)
        assert len(outputs) == 7
        assert all(output is None or isinstance(output, (np.ndarray, torch.Tensor)) for output in outputs)
        matched0, matched1, all0, all1, _, _, confidences = outputs
        assert matched0.shape == matched1.shape == (len(confidences), 2)
        assert all0.shape[1] == all1.shape[1] == 2
        return {"matched_kpts0": matched0, "matched_kpts1": matched1, "matched_confidences": confidences}


@pytest.fixture(scope="module")
def matcher():
    return SemanticMatcher.from_preset("mini-empty")


def test_vismatch(matcher, monkeypatch):
    monkeypatch.setitem(sys.modules, "vismatch", types.ModuleType("vismatch"))
    module = types.ModuleType("vismatch.base_matcher")
    module.BaseMatcher = BaseMatcher
    monkeypatch.setitem(sys.modules, "vismatch.base_matcher", module)
    adapted = as_vismatch(matcher, grid=6, min_score=0.1, ransac_reproj_thresh=5)
    assert isinstance(adapted, BaseMatcher)
    assert adapted.name == "sd4match"
    assert adapted.ransac_reproj_thresh == 5
    found = adapted(A.to_image(), B.to_image())
    expected = matcher.match(A, B, grid=6, mutual=True).filter(min_score=0.1)
    np.testing.assert_allclose(found["matched_kpts1"], expected.target_points, atol=1e-4)
    np.testing.assert_allclose(found["matched_confidences"], expected.scores, atol=1e-5)


def test_vismatch_is_asked_for(matcher, monkeypatch):
    monkeypatch.setitem(sys.modules, "vismatch", None)
    with pytest.raises(InputError, match="pip install vismatch"):
        as_vismatch(matcher)


def test_transformers(matcher, tmp_path):
    match = as_pipeline(matcher, grid=4)
    A.to_image().save(tmp_path / "a.png")
    single = match([str(tmp_path / "a.png"), B.to_image()])
    assert [row["score"] for row in single] == sorted((row["score"] for row in single), reverse=True)
    assert set(single[0]) == {"keypoint_image_0", "keypoint_image_1", "score"}
    both = match([[A.to_image(), B.to_image()], [B.to_image(), A.to_image()]])
    assert len(both) == 2
    for form in ([(A.to_image(), B.to_image())], ((A.to_image(), B.to_image()),)):
        assert match(inputs=form, timeout=3.0) == match((A.to_image(), B.to_image()))
    assert both[0][0]["score"] == pytest.approx(single[0]["score"], abs=1e-5)
    least = single[3]["score"]
    assert len(match([A.to_image(), B.to_image()], threshold=least - 1e-6)) == 4
    for images in ("ab", [], 5):
        with pytest.raises(InputError, match="a pair of images, or a list of pairs"):
            match(images)
    with pytest.raises(InputError, match="threshold"):
        match([Image.new("RGB", (4, 4)), B.to_image()], threshold=2)


def test_torch_hub(monkeypatch):
    file = Path(__file__).parents[2] / "hubconf.py"
    spec = importlib.util.spec_from_file_location("hubconf", file)
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    assert all(importlib.util.find_spec(name) for name in hubconf.dependencies)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for _ in range(2):
        assert isinstance(hubconf.semantic_matcher("hog"), SemanticMatcher)
    assert sys.path.count(str(file.parent / "src")) == 1
