from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model

from sd4match.backbones.cached import CachedImageEncoder
from sd4match.backbones.image_encoders import Dinov2Encoder
from sd4match.errors import CheckpointError
from sd4match.geometry import to_model
from sd4match.interfaces import ImageEncoder
from sd4match.registry import image_encoders
from sd4match.structures.images import Views
from sd4match.testing import FakeBackbone, FakeImageEncoder, FakeTextEncoder, random_photo

SIZES = [(300, 200), (200, 333), (256, 256), (60, 90)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small DINOv2 and CLIP folders, as transformers saves them."""
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=518)
    ).save_pretrained(root / "dinov2")
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=224,
            patch_size=32, projection_dim=12,
        )
    ).save_pretrained(root / "clip")  # fmt: skip
    return root


@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_encoders_are_the_models_they_load(folders, kind):
    config = image_encoders.parse({"kind": kind, "weights": str(folders / kind)})
    encoder = config.build(backbone=FakeBackbone(text_encoder=FakeTextEncoder()))
    assert isinstance(encoder, ImageEncoder)
    views = Views.of([encoder.prepare(random_photo(size, seed=i)) for i, size in enumerate(SIZES)])
    found = encoder.encode(views)
    model_class = Dinov2Model if kind == "dinov2" else CLIPVisionModelWithProjection
    with torch.no_grad():
        expected = model_class.from_pretrained(folders / kind).eval()(pixel_values=views.pixels)
    pooled = expected.pooler_output if kind == "dinov2" else expected.image_embeds
    torch.testing.assert_close(found.local, expected.last_hidden_state[:, 1:])
    torch.testing.assert_close(found.pooled, pooled)
    spec = encoder.spec
    assert (found.local.shape, found.pooled.shape) == ((4, spec.patches, spec.local), (4, spec.pooled))
    assert spec.patches == (256 if kind == "dinov2" else 49)


@pytest.mark.parametrize(("kind", "resize"), [("dinov2", 256), ("clip", 224)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_views_are_those_of_the_models_own_processor(folders, kind, resize, size):
    from transformers import BitImageProcessorPil, CLIPImageProcessorPil

    processor = (
        BitImageProcessorPil(
            size={"shortest_edge": resize}, crop_size=224, resample=3, do_convert_rgb=True,
            image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
        )
        if kind == "dinov2"
        else CLIPImageProcessorPil()
    )  # fmt: skip
    photo = random_photo(size)
    config = image_encoders.parse({"kind": kind, "weights": str(folders / kind)})
    encoder = config.build(backbone=FakeBackbone(text_encoder=FakeTextEncoder()))
    expected = torch.as_tensor(processor(photo.to_image(), return_tensors="pt").pixel_values[0])
    torch.testing.assert_close(encoder.prepare(photo).pixels, expected, atol=1e-5, rtol=1e-5)


def test_a_crop_knows_where_it_lies():
    encoder = Dinov2Encoder(Dinov2Model(Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2)))
    view = encoder.prepare(random_photo((300, 600)))
    center = to_model(torch.tensor([[[300.0, 150.0]]]), [view.frame])[0, 0]
    torch.testing.assert_close(center, torch.tensor([112.0, 112.0]), atol=1.0, rtol=0)


def test_what_is_no_encoder_is_one_line(folders, tmp_path):
    for weights in (tmp_path / "none", tmp_path):
        with pytest.raises(CheckpointError, match="cannot load the image encoder") as caught:
            image_encoders.parse({"kind": "dinov2", "weights": str(weights)}).build(backbone=FakeBackbone())
        assert "\n" not in str(caught.value)


def test_a_photo_is_encoded_once():
    class Counting(FakeImageEncoder):
        seen = 0

        def encode(self, views):
            self.seen += len(views.keys)
            return super().encode(views)

    inner = Counting()
    encoder = CachedImageEncoder(inner)
    one, two, three = (encoder.prepare(random_photo(seed=seed)) for seed in range(3))
    first = encoder.encode(Views.of([one, two, one]))
    again = encoder.encode(Views.of([two, three]))
    assert inner.seen == 3
    assert torch.equal(first.local[1], again.local[0])
    assert torch.equal(again.pooled, inner.encode(Views.of([two, three])).pooled)
    small = CachedImageEncoder(inner := Counting(), max_bytes=1)
    small.encode(Views.of([one, two]))
    torch.testing.assert_close(small.encode(Views.of([one, two])).local, first.local[:2])
    assert inner.seen > 2
