"""Conditional prompting module and its ablations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers.prompts import cpm, photos, photos_for
from sd4match.data.collate import make_images
from sd4match.errors import ConfigError, InputError, NonFiniteError
from sd4match.prompting import EmptyPrompt, Prompt, pair_prompts
from sd4match.prompting.pairing import preprocessors
from sd4match.structures.tensors import ImageFeatures, Sampling
from sd4match.testing import FakeImageEncoder, random_photo

FIELDS = {"image_encoder": "fake", "num_global_tokens": 3, "num_tokens": 5}
ABLATIONS = [
    {},
    {"features": "global"},
    {"condition_on": "image"},
    {"condition_on": "image", "features": "global"},
    {"num_global_tokens": 0},
    {"mix_patches": False},
    {"condition_on": "image", "mix_patches": True},
]


def features(seed, batch=2, spec=FakeImageEncoder.spec):
    generator = torch.Generator().manual_seed(seed)
    local = torch.randn(batch, spec.patches, spec.local, generator=generator)
    return ImageFeatures(local, torch.randn(batch, spec.pooled, generator=generator))


def adaptive_max(values, count):
    """Pool patches floor(i P / n) to ceil((i + 1) P / n) of P into token i of n."""
    patches = values.shape[0]
    windows = [(i * patches // count, -(-(i + 1) * patches // count)) for i in range(count)]
    return torch.stack([values[start:end].max(dim=0).values for start, end in windows])


def literal_condition(prompt, own, partner):
    """Compute the module photo by photo and patch by patch, as written in FACTS 1.6."""
    weight, bias = prompt.channel_linear.weight, prompt.channel_linear.bias
    rows = []
    for index in range(own.local.shape[0]):
        if prompt.config.features == "global":
            seen = own.pooled[index] if partner is None else torch.cat([own.pooled[index], partner.pooled[index]])
            x = (weight @ seen + bias).repeat(prompt.config.num_tokens, 1)
        else:
            patches = []
            for patch in range(own.local.shape[1]):
                seen = own.local[index, patch]
                if partner is not None:
                    seen = torch.cat([seen, partner.local[index, patch]])
                patches.append(weight @ seen + bias)
            x = torch.stack(patches)
            if prompt.patch_linear is not None:
                x = prompt.patch_linear.weight @ x + prompt.patch_linear.bias[:, None]
            x = adaptive_max(x, prompt.config.num_tokens)
        rows.append(torch.tanh(prompt.alpha) * (x + prompt.positions))
    return torch.stack(rows)


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
@given(seed=st.integers(0, 1000))
def test_the_module_is_the_formula(ablation, seed):
    prompt = cpm(**{**FIELDS, **ablation, "seed": seed})
    own, partner = features(seed), features(seed + 1)
    partner = partner if prompt.config.condition_on == "pair" else None
    with torch.no_grad():
        torch.testing.assert_close(
            prompt.condition(own, partner), literal_condition(prompt, own, partner), atol=1e-6, rtol=1e-6
        )
    local_pair = prompt.config.condition_on == "pair" and prompt.config.features == "local"
    asked = prompt.config.mix_patches
    assert (prompt.patch_linear is not None) == (local_pair if asked is None else asked)


def test_golden_values():
    """Compare with a result computed by hand, for weights 1e-4 k, alpha 1, pos 0.5, features 1 and -1.

    x = W_C [1; -1] + b = sum of (first half - second half) = -48 * 48 * 0.0001 + 0.25, the same for every patch.
    """
    prompt = cpm(**{**FIELDS, "mix_patches": False})
    with torch.no_grad():
        prompt.channel_linear.weight.copy_(torch.arange(96.0).expand(8, -1) * 1e-4)
        prompt.channel_linear.bias.fill_(0.25)
        prompt.alpha.fill_(1.0)
        prompt.positions.fill_(0.5)
        one = ImageFeatures(torch.ones(1, 16, 48), torch.ones(1, 48))
        other = ImageFeatures(-torch.ones(1, 16, 48), -torch.ones(1, 48))
        found = prompt.condition(one, other)
    expected = 0.7615941559557649 * (-48 * 48 * 1e-4 + 0.25 + 0.5)
    torch.testing.assert_close(found, torch.full((1, 5, 8), expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_a_pair_has_one_prompt_and_batching_changes_nothing(ablation):
    prompt = cpm(**{**FIELDS, **ablation})
    assert isinstance(prompt, Prompt)
    assert list(prompt.views) == ["prompt"]
    sources, targets = photos_for(prompt, (0, 1, 2)), photos_for(prompt, (3, 4, 5))
    with torch.no_grad():
        source, target = pair_prompts(prompt, sources, targets)
        assert source.values.shape == (3, 77, 8)
        if prompt.config.condition_on == "pair":
            assert torch.equal(source.values, target.values)
            other = prompt(sources, photos_for(prompt, (6, 7, 8))).values
            assert not torch.allclose(source.values, other)
        else:
            assert not torch.allclose(source.values, target.values)
        for row in range(3):
            one, _ = pair_prompts(prompt, photos_for(prompt, (row,)), photos_for(prompt, (row + 3,)))
            torch.testing.assert_close(one.values[0], source.values[row], atol=1e-6, rtol=1e-5)


def test_all_parameters_of_cpm_learn_and_nothing_frozen_is_saved():
    prompt = cpm(**FIELDS)
    pair_prompts(prompt, photos_for(prompt, (0,)), photos_for(prompt, (1,)))[0].values.square().sum().backward()
    groups = {group.name: group for group in prompt.parameter_groups()}
    learned = [parameter for group in groups.values() for parameter in group.parameters]
    assert {id(parameter) for parameter in learned} == {id(parameter) for parameter in prompt.parameters()}
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in learned)
    assert (groups["vectors"].scale, groups["linear"].scale) == (1.0, 0.1)
    assert set(prompt.state_dict()) == {
        "alpha", "positions", "global_embeddings", "channel_linear.weight", "channel_linear.bias",
        "patch_linear.weight", "patch_linear.bias",
    }  # fmt: skip


def test_cpm_names_what_is_missing():
    prompt = cpm(**FIELDS)
    with pytest.raises(InputError, match="partner"):
        prompt(photos_for(prompt, (0,)))
    with pytest.raises(InputError, match="no view 'prompt'"):
        prompt(photos(None), photos(None))
    with pytest.raises(ConfigError, match="mix_patches = true needs features = local"):
        cpm(**FIELDS, features="global", mix_patches=True)
    with pytest.raises(ConfigError, match=r"num_global_tokens \+ prompt.num_tokens = 80 .* at most 75"):
        cpm(image_encoder="fake", num_global_tokens=30, num_tokens=50)
    with pytest.raises(ConfigError, match="unknown image encoder kind 'dinov3'; did you mean 'dinov2'"):
        cpm(image_encoder="dinov3")


def test_features_of_the_backbone_itself(mini):
    prompt = cpm(mini, image_encoder={"kind": "backbone", "side": 4, "timestep": 40})
    encoder = prompt.image_encoder
    batch = make_images([random_photo(seed=1), random_photo(seed=2)], [None, None], preprocessors(mini, prompt))
    found = encoder.encode(batch.views["prompt"])
    assert (found.local.shape, found.pooled.shape) == ((2, 16, 96), (2, 96))
    maps = mini.extract(
        mini.encode(batch.views["backbone"]), EmptyPrompt(backbone=mini)(batch), Sampling(40, posterior="mode")
    )
    pooled = F.avg_pool2d(maps.values, 6).flatten(2).transpose(1, 2)
    pooled = pooled / pooled.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(found.local, pooled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["local", "pooled"])
def test_image_features_that_are_not_finite_are_refused_and_named(monkeypatch, name):
    prompt = cpm(**FIELDS)
    encode = prompt.image_encoder.encode

    def broken(views):
        found = encode(views)
        getattr(found, name)[0, 0] = float("nan")
        return found

    monkeypatch.setattr(prompt.image_encoder, "encode", broken)
    batch = photos_for(prompt, (0,))
    with pytest.raises(
        NonFiniteError, match=f"the {name} image features of CachedImageEncoder in torch.float32 are not"
    ):
        prompt(batch, batch)
