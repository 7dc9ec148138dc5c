"""Configs of backbones: torch-free, checked before weights load, each parameter declared once."""

from __future__ import annotations

import subprocess
import sys
from typing import Literal

import pytest
from pydantic import ValidationError

from sd4match import backbones
from sd4match.backbones.config import BackboneConfig, FusionConfig, StableDiffusionConfig, VisionTransformerConfig
from sd4match.errors import ConfigError
from sd4match.interfaces import Backbone, ImageEncoder, TextEncoder
from sd4match.registry import backbones as registry
from sd4match.registry import register, register_backbone
from sd4match.testing import FakeBackbone


@pytest.mark.parametrize(
    "module",
    ["", ".config", ".fusion_spec", ".layers", ".pretrained", ".transformer_spec"],
)
def test_what_a_config_needs_loads_no_torch(module):
    code = f"import sys, sd4match.backbones{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_interfaces_are_those_of_the_package():
    assert (backbones.Backbone, backbones.ImageEncoder, backbones.TextEncoder) == (Backbone, ImageEncoder, TextEncoder)
    assert backbones.__all__ == sorted(backbones.__all__)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (StableDiffusionConfig(image_size=90), r"backbone\.image_size = 90 does not fit .* multiple of 16"),
        (VisionTransformerConfig(image_size=71), r"backbone\.image_size = 71 does not fit .* multiple of 14"),
    ],
)
def test_an_image_size_that_does_not_fit_is_refused_before_weights_load(config, message):
    with pytest.raises(ConfigError, match=message):
        config.check()
    config.model_copy(update={"image_size": None}).check()


def test_every_option_that_changes_features_changes_the_spec(mini):
    """Stored maps are found by the spec."""
    fused = [VisionTransformerConfig(), VisionTransformerConfig(facet="key")]
    configs = [
        StableDiffusionConfig(), StableDiffusionConfig(clean=True), StableDiffusionConfig(cells=12),
        StableDiffusionConfig(layers=2), *fused, VisionTransformerConfig(layer=1), FusionConfig(backbones=fused),
        FusionConfig(backbones=fused, weights=(1, 0.5)), FusionConfig(backbones=fused, normalize=False),
        FusionConfig(backbones=[fused[0], fused[0]]),
    ]  # fmt: skip
    assert len({config.spec() for config in configs}) == len(configs)
    assert mini.spec == StableDiffusionConfig().spec()


def test_layer_is_no_other_name_of_layers():
    with pytest.raises((ConfigError, ValidationError), match="unknown field 'layer'; did you mean 'layers'"):
        StableDiffusionConfig(layer=0)


def test_a_backbone_from_outside_needs_no_spec_before_it_is_built():
    with registry.temporarily():

        @register
        class TintedConfig(BackboneConfig):
            kind: Literal["tinted"] = "tinted"
            side: int = 32

            def build(self, *, device="cpu"):
                return FakeBackbone(side=self.side)

        @register_backbone("signed")
        class Signed(FakeBackbone):
            def __init__(self, *, side: int = 16) -> None:
                super().__init__(side=side)

        for kind, side in (("tinted", 32), ("signed", 16)):
            config = registry.parse(kind)
            assert (config.spec(), config.model_name, config.check()) == (None, kind, None)
            assert config.build(device="cpu").spec.native_size == (side, side)
            with pytest.raises(ConfigError, match=f"backbone '{kind}' does not declare its shapes"):
                backbones.FusionConfig(backbones=["stable_diffusion", kind]).spec()
