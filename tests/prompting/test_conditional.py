"""CPM and its ablations, the implicit captioner, Class, starts and spaces."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from sd4match.data.collate import make_images
from sd4match.errors import ConfigError, InputError, PromptMismatchError
from sd4match.interfaces import LooksAtPhotos, PromptProvider
from sd4match.prompting.captioner import ImplicitCaptioner
from sd4match.prompting.conditional import ConditionalPrompt
from sd4match.prompting.learned import ClassPrompt, SinglePrompt
from sd4match.prompting.pairing import pair_prompts, wanted_views
from sd4match.prompting.serialization import load_prompt, save_prompt
from sd4match.prompting.text import EmptyPrompt, TextPrompt
from sd4match.registry import ComponentConfig, image_encoders
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import ImageFeatures
from sd4match.testing import FakeBackbone, FakeImageEncoder, FakeTextEncoder, random_photo


class FakeEncoderConfig(ComponentConfig):
    kind: str = "fake"
    implementation = staticmethod(lambda backbone: FakeImageEncoder())


@pytest.fixture(scope="module", autouse=True)
def _fake_encoder():
    image_encoders.register(FakeEncoderConfig)
    yield
    del image_encoders._configs["fake"]


SETTINGS = {"image_encoder": "fake", "global_slots": 3, "slots": 5}
ABLATIONS = [
    {},
    {"features": "global"},
    {"condition_on": "image"},
    {"condition_on": "image", "features": "global"},
    {"global_slots": 0},
    {"mix_patches": False},
    {"condition_on": "image", "mix_patches": True},
]


def backbone():
    return FakeBackbone(text=FakeTextEncoder())


def photos(prompt, seeds, categories=None):
    views = wanted_views(backbone(), prompt)
    return make_images([random_photo(seed=seed) for seed in seeds], categories or [None] * len(seeds), views)


def features(seed, batch=2, spec=FakeImageEncoder.spec):
    generator = torch.Generator().manual_seed(seed)
    local = torch.randn(batch, spec.patches, spec.local, generator=generator)
    return ImageFeatures(local, torch.randn(batch, spec.pooled, generator=generator))


def adaptive_max(values, count):
    """Slot i of P patches is the largest of patches floor(i P / n) to ceil((i + 1) P / n)."""
    patches = values.shape[0]
    windows = [(i * patches // count, -(-(i + 1) * patches // count)) for i in range(count)]
    return torch.stack([values[start:end].max(dim=0).values for start, end in windows])


def literal_condition(prompt, own, partner):
    """FACTS 1.6, one photo, one patch and one slot at a time."""
    weight, bias = prompt.channel_linear.weight, prompt.channel_linear.bias
    rows = []
    for index in range(own.local.shape[0]):
        if prompt.config.features == "global":
            seen = own.pooled[index] if partner is None else torch.cat([own.pooled[index], partner.pooled[index]])
            x = (weight @ seen + bias).repeat(prompt.config.slots, 1)
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
            x = adaptive_max(x, prompt.config.slots)
        rows.append(torch.tanh(prompt.alpha) * (x + prompt.positions))
    return torch.stack(rows)


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
@given(seed=st.integers(0, 1000))
def test_the_module_is_the_formula(ablation, seed):
    prompt = ConditionalPrompt(backbone=backbone(), **{**SETTINGS, **ablation, "seed": seed})
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
    """Weights 0.01 k, alpha 1, pos 0.5, features 1 and -1: worked out by hand.

    x = W_C [1; -1] + b = sum of (first half - second half) = -48 * 48 * 0.0001 + 0.25, the same for every patch.
    """
    prompt = ConditionalPrompt(backbone=backbone(), **{**SETTINGS, "mix_patches": False})
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
    prompt = ConditionalPrompt(backbone=backbone(), **{**SETTINGS, **ablation})
    assert isinstance(prompt, PromptProvider)
    assert isinstance(prompt, LooksAtPhotos)
    sources, targets = photos(prompt, (0, 1, 2)), photos(prompt, (3, 4, 5))
    with torch.no_grad():
        source, target = pair_prompts(prompt, sources, targets)
        assert source.values.shape == (3, 16, 8)
        if prompt.config.condition_on == "pair":
            assert torch.equal(source.values, target.values)
            other = prompt(sources, photos(prompt, (6, 7, 8))).values
            assert not torch.allclose(source.values, other)
        else:
            assert not torch.allclose(source.values, target.values)
        for row in range(3):
            one, _ = pair_prompts(prompt, photos(prompt, (row,)), photos(prompt, (row + 3,)))
            torch.testing.assert_close(one.values[0], source.values[row], atol=1e-6, rtol=1e-5)


def test_everything_of_cpm_learns_and_nothing_frozen_is_saved():
    prompt = ConditionalPrompt(backbone=backbone(), **SETTINGS)
    pair_prompts(prompt, photos(prompt, (0,)), photos(prompt, (1,)))[0].values.square().sum().backward()
    groups = {group.name: group for group in prompt.parameter_groups()}
    learned = [parameter for group in groups.values() for parameter in group.parameters]
    assert {id(parameter) for parameter in learned} == {id(parameter) for parameter in prompt.parameters()}
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in learned)
    assert (groups["vectors"].scale, groups["linear"].scale) == (1.0, 0.1)
    assert set(prompt.state_dict()) == {
        "alpha", "positions", "global_embeddings", "channel_linear.weight", "channel_linear.bias",
        "patch_linear.weight", "patch_linear.bias",
    }  # fmt: skip


def test_cpm_says_what_it_lacks():
    prompt = ConditionalPrompt(backbone=backbone(), **SETTINGS)
    with pytest.raises(InputError, match="partner"):
        prompt(photos(prompt, (0,)))
    with pytest.raises(InputError, match="no view 'prompt'"):
        prompt(ImageBatch({}, (None,)), ImageBatch({}, (None,)))
    with pytest.raises(ConfigError, match="mix_patches = true needs features = local"):
        ConditionalPrompt(backbone=backbone(), **SETTINGS, features="global", mix_patches=True)
    with pytest.raises(ConfigError, match=r"global_slots \+ prompt.slots = 55 .* at most 14"):
        ConditionalPrompt(backbone=backbone(), image_encoder="fake", global_slots=5, slots=50)
    with pytest.raises(ConfigError, match="unknown image encoder kind 'dinov3'; did you mean 'dinov2'"):
        ConditionalPrompt(backbone=backbone(), image_encoder="dinov3")


def test_the_captioner_starts_at_the_empty_prompt_and_is_the_formula():
    prompt = ImplicitCaptioner(backbone=backbone(), image_encoder="fake")
    batch = photos(prompt, (0, 1))
    empty = EmptyPrompt(backbone=backbone())(batch).values
    with torch.no_grad():
        torch.testing.assert_close(prompt(batch).values, empty)
        prompt.alpha.uniform_(-1, 1)
        pooled = FakeImageEncoder().encode(batch.views["prompt"]).pooled
        for row in range(2):
            nudge = prompt.linear.weight @ pooled[row] + prompt.linear.bias + prompt.positions
            torch.testing.assert_close(
                prompt(batch).values[row], empty[row] + prompt.alpha.tanh() * nudge, atol=1e-6, rtol=1e-6
            )
    assert prompt.scope == "image"
    with pytest.raises(InputError, match="no view"):
        prompt(ImageBatch({}, (None,)))


def test_class_takes_each_photo_by_its_category():
    prompt = ClassPrompt(backbone=backbone(), categories=("cat", "car"), slots=4)
    single = SinglePrompt(backbone=backbone(), slots=4)
    values = prompt(ImageBatch({}, ("car", "cat", "car(G)"))).values
    assert torch.equal(values[0], values[2])
    assert not torch.allclose(values[0], values[1])
    with torch.no_grad():
        single.token_embeddings.copy_(prompt.token_embeddings[0])
    torch.testing.assert_close(single(ImageBatch({}, (None,))).values[0], values[1])
    prompt(ImageBatch({}, ("car", "car"))).values.sum().backward()
    assert [vectors.grad is None for vectors in prompt.parameters()] == [True, False]
    with pytest.raises(
        InputError, match=r"no prompt was learned for category 'cta'; did you mean 'cat'\? known: car, cat"
    ):
        prompt(ImageBatch({}, ("cta",)))
    with pytest.raises(InputError, match="needs the category"):
        prompt(ImageBatch({}, (None,)))
    with pytest.raises(ConfigError, match="needs to know its categories"):
        ClassPrompt(backbone=backbone(), slots=4)


def test_the_fallback_is_the_text_template(mini):
    prompt = ClassPrompt(backbone=mini, categories=("fish",), slots=4, fallback="text")
    text = TextPrompt(backbone=mini)(ImageBatch({}, ("car",))).values[0]
    values = prompt(ImageBatch({}, ("car", "fish"))).values
    torch.testing.assert_close(values[0], text)
    assert not torch.allclose(values[1], text)


def test_a_fallback_is_chosen_when_the_file_is_loaded(mini, tmp_path):
    path = save_prompt(ClassPrompt(backbone=mini, categories=("fish",), slots=4), tmp_path / "c.st", backbone=mini)
    unknown = ImageBatch({}, ("car",))
    with pytest.raises(InputError, match="no prompt was learned"):
        load_prompt(path, backbone=mini)(unknown)
    assert load_prompt(path, backbone=mini, settings={"fallback": "text"})(unknown).values.shape == (1, 77, 128)
    with pytest.raises(ConfigError, match="unknown field 'fallbak'"):
        load_prompt(path, backbone=mini, settings={"fallbak": "text"})


@pytest.mark.parametrize("make", [SinglePrompt, lambda **kw: ClassPrompt(categories=("fish",), **kw)])
@pytest.mark.parametrize("space", ["token", "hidden"])
def test_a_prompt_that_starts_from_a_text_is_that_text(mini, make, space):
    text = "a photo of a fish"
    fish = ImageBatch({}, ("fish",))
    for init, expected in ((text, TextPrompt(backbone=mini)(fish)), ("empty", EmptyPrompt(backbone=mini)(fish))):
        prompt = make(backbone=mini, init=init, space=space)
        found = prompt(fish).values
        # 75 slots, then EOS: what a causal transformer makes of BOS and the slots is what it makes of the text
        torch.testing.assert_close(found[:, :76], expected.values[:, :76], atol=1e-4, rtol=1e-4)
        names = {name.split(".")[0] for name in prompt.state_dict()}
        assert names == {"token_embeddings" if space == "token" else "hidden_states"}


def test_hidden_space_starts_uniform_and_is_the_embedding_itself(mini):
    prompt = SinglePrompt(backbone=mini, space="hidden", seed=4)
    values = prompt(ImageBatch({}, (None, None))).values
    assert torch.equal(values[1], prompt.hidden_states)
    assert (values.min() >= 0, values.max() < 1, values.shape) == (True, True, (2, 77, 128))
    assert prompt.token_vectors(ImageBatch({}, (None,))) is None


def test_a_class_prompt_may_start_from_its_category(mini):
    prompt = ClassPrompt(backbone=mini, categories=("fish", "car"), init="a photo of a {category}")
    text = TextPrompt(backbone=mini)(ImageBatch({}, ("fish", "car"))).values
    found = prompt(ImageBatch({}, ("fish", "car"))).values
    torch.testing.assert_close(found[:, :76], text[:, :76], atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match=r"only \{category\}"):
        ClassPrompt(backbone=mini, categories=("fish",), init="a {thing}")


def test_class_and_cpm_start_from_a_single(mini, tmp_path):
    single = SinglePrompt(backbone=mini, slots=30, seed=5)
    file = save_prompt(single, tmp_path / "single.safetensors", backbone=mini)
    start = {"backbone": mini, "start_from": str(file)}
    kinds = ClassPrompt(categories=("fish", "car"), slots=30, **start)
    assert all(torch.equal(vectors, single.token_embeddings) for vectors in kinds.token_embeddings)
    cpm = ConditionalPrompt(image_encoder={"kind": "backbone"}, global_slots=20, **start)
    assert torch.equal(cpm.global_embeddings, single.token_embeddings[:20])
    again = SinglePrompt(slots=30, **start)
    assert torch.equal(again.token_embeddings, single.token_embeddings)

    saved = save_prompt(cpm, tmp_path / "cpm.safetensors", backbone=mini)
    file.unlink()
    loaded = load_prompt(saved, backbone=mini)
    assert torch.equal(loaded.global_embeddings, cpm.global_embeddings)
    assert loaded.config == cpm.config


def test_what_cannot_be_started_from_says_so(mini, tmp_path):
    single = save_prompt(SinglePrompt(backbone=mini, slots=4), tmp_path / "single.st", backbone=mini)
    kinds = save_prompt(ClassPrompt(backbone=mini, categories=("fish",)), tmp_path / "class.st", backbone=mini)
    with pytest.raises(PromptMismatchError, match=r"token_embeddings \(4, 128\); this single prompt has \(5, 128\)"):
        SinglePrompt(backbone=mini, slots=5, start_from=str(single))
    with pytest.raises(PromptMismatchError, match="token space; this class needs hidden"):
        ClassPrompt(backbone=mini, categories=("fish",), space="hidden", start_from=str(single))
    with pytest.raises(PromptMismatchError, match=r"a single prompt cannot start from .* holds a class"):
        SinglePrompt(backbone=mini, start_from=str(kinds))
    with pytest.raises(PromptMismatchError, match="other categories: fish"):
        ClassPrompt(backbone=mini, categories=("car",), start_from=str(kinds))
    with pytest.raises(PromptMismatchError, match=r"holds 4 vectors; prompt\.global_slots = 25"):
        ConditionalPrompt(backbone=mini, image_encoder="backbone", start_from=str(single))


@pytest.mark.parametrize("ablation", [{}, {"features": "global"}, {"condition_on": "image"}], ids=str)
def test_conditional_files_and_back(mini, tmp_path, ablation):
    prompt = ConditionalPrompt(backbone=mini, image_encoder={"kind": "backbone", "side": 4}, **ablation)
    path = save_prompt(prompt, tmp_path / "cpm.safetensors", backbone=mini)
    again = load_prompt(path, backbone=mini)
    views = wanted_views(mini, prompt)
    one, other = (make_images([random_photo(seed=seed)], [None], views) for seed in (0, 1))
    assert torch.equal(prompt(one, other).values, again(one, other).values)
    assert again.config == prompt.config


def test_features_of_the_backbone_itself(mini):
    prompt = ConditionalPrompt(backbone=mini, image_encoder={"kind": "backbone", "side": 4, "timestep": 40})
    encoder = prompt._frozen[1]
    batch = make_images([random_photo(seed=1), random_photo(seed=2)], [None, None], wanted_views(mini, prompt))
    found = encoder.encode(batch.views["prompt"])
    assert (found.local.shape, found.pooled.shape) == ((2, 16, 96), (2, 96))
    from sd4match.structures.tensors import Sampling

    maps = mini.extract(
        mini.encode(batch.views["backbone"]), EmptyPrompt(backbone=mini)(batch), Sampling(40, posterior="mode")
    )
    pooled = F.avg_pool2d(maps.values, 6).flatten(2).transpose(1, 2)
    pooled = pooled / pooled.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(found.local, pooled, atol=1e-5, rtol=1e-4)
