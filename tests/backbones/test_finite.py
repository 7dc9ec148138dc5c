"""A value that is not finite never passes: a check where it is made names photo, layer, dtype, what helps."""

from __future__ import annotations

import pytest
import torch

from helpers.model_folders import change_weights, copy_of, write_random_transformer
from sd4match.backbones.config import Dinov2Config, StableDiffusionConfig, VisionTransformerConfig
from sd4match.backbones.fusion import Fusion
from sd4match.backbones.precision import without_autocast, working_dtype
from sd4match.backbones.pretrained import MINI_FOLDER
from sd4match.checks import check_each_finite, range_hint
from sd4match.errors import InputError, NonFiniteError, ShapeError
from sd4match.prompting.text import EmptyPrompt
from sd4match.structures.images import ImageBatch, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import FeatureMap, PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo

CPU = torch.device("cpu")


def empty(backbone):
    return EmptyPrompt(backbone=backbone)(ImageBatch({}, (None,)))


def views_of(backbone, *seeds):
    return Views.of([backbone.prepare(random_photo(seed=seed)) for seed in seeds])


def test_features_beyond_float16_are_an_error_that_says_what_helps(tmp_path):
    folder = copy_of(MINI_FOLDER, tmp_path / "m")
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    change_weights(file, lambda name, value: (name, value * 4e4 if name == "conv_in.weight" else value))
    half = StableDiffusionConfig(weights=str(folder), dtype="float16").build()
    encoded = half.encode(views_of(half, 3))
    with pytest.raises(NonFiniteError, match=r"features of random-3 at layer 1 in float16 .* bfloat16 or float32 has"):
        half.extract(encoded, empty(half), Sampling(40))
    whole = StableDiffusionConfig(weights=str(folder), dtype="bfloat16").build()
    assert whole.extract(encoded, empty(whole), Sampling(40)).values.isfinite().all()


def test_prompts_latents_and_clean_features_are_checked(mini, monkeypatch):
    encoded = mini.encode(views_of(mini, 0))
    values = empty(mini).values.clone()
    values[0, 3, 5] = torch.nan
    with pytest.raises(NonFiniteError, match=r"prompt embedding in float32 are not finite: 1 of 9856"):
        mini.extract(encoded, PromptEmbedding(values), Sampling(40))
    for wrong, error in (
        (values[0], ShapeError), (values[:, :0], InputError), (values.nan_to_num().long(), InputError),
        (values.expand(2, -1, -1), ShapeError),
    ):  # fmt: skip
        prompt = PromptEmbedding(torch.zeros(1, 1, 1))
        object.__setattr__(prompt, "values", wrong)
        with pytest.raises(error, match="prompt"):
            mini.extract(encoded, prompt, Sampling(40))
    weight = mini.vae.quant_conv.bias
    monkeypatch.setattr(weight, "data", weight.data * torch.inf)
    with pytest.raises(NonFiniteError, match=r"the latents of random-0 in float32 are not finite"):
        mini.encode(views_of(mini, 0))


def test_transformers_and_image_encoders_are_checked(tmp_path):
    folder = write_random_transformer(tmp_path / "m")
    backbone = VisionTransformerConfig(weights=str(folder)).build()
    encoder = Dinov2Config(weights=str(folder)).build(backbone=FakeBackbone(text_encoder=FakeTextEncoder())).encoder
    for model in (backbone.model, encoder.model):
        with torch.no_grad():
            model.embeddings.cls_token.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match=r"the features of random-1 at layer 3 in float32"):
        backbone.encode(views_of(backbone, 1))
    with pytest.raises(NonFiniteError, match=r"the image features of random-1 in float32"):
        encoder.encode(views_of(encoder, 1))


class Broken(FakeBackbone):
    """Backbone of a plugin whose features are not finite."""

    def __init__(self):
        super().__init__()
        self.spec = FeatureSpec(**{**vars(self.spec), "prompt_width": None})

    def extract(self, encoded, prompt, sampling):
        features = super().extract(encoded, PromptEmbedding(torch.zeros(1, 1, 8)), sampling)
        return FeatureMap(features.values * torch.nan, features.grid)


def test_a_fusion_is_checked():
    fusion = Fusion(backbones=[FakeBackbone(text_encoder=FakeTextEncoder()), Broken()])
    with pytest.raises(NonFiniteError, match="the fused features of random-2 in float32"):
        fusion.extract(fusion.encode(views_of(fusion, 2)), PromptEmbedding(torch.zeros(1, 16, 8)), Sampling(0))


def test_the_dtype_of_an_autocast_is_named():
    assert working_dtype(torch.float32, CPU) == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert working_dtype(torch.float32, CPU) == torch.bfloat16
        with without_autocast(CPU):
            assert working_dtype(torch.float32, CPU) == torch.float32
    with without_autocast(torch.device("meta")):
        assert working_dtype(torch.float16, torch.device("meta")) == torch.float16
    assert "bfloat16" in range_hint(torch.float16)
    assert "weights" in range_hint(torch.float32)


def test_values_whose_sum_overflows_are_finite_all_the_same():
    check_each_finite("the features", ("a", "b"), "", torch.full((2, 4), 3e38), torch.float32)


@pytest.mark.parametrize("kind", ["stable_diffusion", "vision_transformer", "dinov2"])
def test_photos_are_encoded_outside_of_an_autocast(mini, kind, tmp_path):
    """What is cached does not depend on the precision of a training."""
    if kind == "stable_diffusion":
        encoder = mini
    else:
        folder = write_random_transformer(tmp_path / "m")
        encoder = (
            VisionTransformerConfig(weights=str(folder)).build()
            if kind == "vision_transformer"
            else Dinov2Config(weights=str(folder)).build(backbone=mini).encoder
        )
    views = views_of(encoder, 0)

    def tensors():
        encoded = encoder.encode(views)
        return list(encoded.tensors.values()) if hasattr(encoded, "tensors") else [encoded.local, encoded.pooled]

    plain = tensors()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = tensors()
    assert all(torch.equal(one, other) for one, other in zip(plain, cast, strict=True))
