"""The packaged model and its painter, loaded once for tests of what is done with them."""

from __future__ import annotations

from functools import cache

import pytest


@cache
def _loaders():
    """Return loaders that keep what they loaded, and load all but `mini` anew."""
    from sd4match.backbones.stable_diffusion import load_stable_diffusion
    from sd4match.viz.imagine import load_painter

    kept, painter = cache(load_stable_diffusion), cache(load_painter)

    def backbone(config, *, device="cpu"):
        return (kept if config.weights == "mini" else load_stable_diffusion)(config, device=device)

    return backbone, lambda name, *, device="cpu": (painter if name == "mini" else load_painter)(name, device=device)


@pytest.fixture
def loaded_once(monkeypatch):
    """Share `mini` among the tests of a process, by its config: loading is not what they test."""
    backbone, painter = _loaders()
    monkeypatch.setattr("sd4match.backbones.stable_diffusion.load_stable_diffusion", backbone)
    monkeypatch.setattr("sd4match.viz.imagine.load_painter", painter)
