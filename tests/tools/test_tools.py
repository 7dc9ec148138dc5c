"""The modules of the training of `mini`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from mini.autoencoder import build_autoencoder, patch_statistics  # noqa: E402
from mini.captions import ALL_PART_WORDS, Labels, build_tokenizer, target_tokens, vocabulary, write_caption  # noqa: E402
from mini.grounding import grounding_loss, record_cross_attention  # noqa: E402
from sd4match.data.synthetic.anatomy import part_words  # noqa: E402
from sd4match.data.synthetic.scene import render  # noqa: E402

FISH = Labels("fish", part_words("fish"), ("red",) * 6, "blue", "left")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_every_caption_word_is_one_token_and_any_text_survives(tokenizer, mini):
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 3, word
    odd = "a photo of a zebra, ünïcode!"
    assert tokenizer.decode(tokenizer(odd).input_ids, skip_special_tokens=True).replace(" ", "") == odd.replace(" ", "")
    assert mini.text_encoder.tokenizer(odd).input_ids == tokenizer(odd).input_ids


def test_captions_fit_and_say_what_is_true(tokenizer):
    rng = np.random.default_rng(0)
    captions = [write_caption(FISH, rng) for _ in range(300)]
    assert "" in captions
    assert "a photo of a fish" in captions
    mentioned = {word for caption in captions for word in caption.replace(",", "").split() if word in ALL_PART_WORDS}
    assert mentioned == set(FISH.part_words)
    loose = [write_caption(FISH, rng, absent_words=1.0) for _ in range(300)]
    assert any("wheel" in caption for caption in loose)
    assert any("an object" in caption for caption in loose)
    assert max(len(tokenizer(caption).input_ids) for caption in loose) <= 77


def test_targets_stand_at_the_words(tokenizer):
    word_ids = {word: tokenizer(word).input_ids[1] for word in vocabulary()}
    ids = tokenizer("a photo of a fish with eye", padding="max_length", max_length=77, return_tensors="pt").input_ids
    coverage = torch.zeros(1, 8, 2, 2)
    eye, tail = FISH.part_words.index("eye"), FISH.part_words.index("tail")
    coverage[0, eye, 0, 0] = 1.0
    coverage[0, tail, 1, 1] = 0.5
    for grounded, expected in ((1.0, 0.5), (0.5, 0.25), (0.0, 0.0)):
        targets = target_tokens(ids, [FISH], coverage, word_ids, category_grounding=grounded)
        assert targets[0, ids[0].tolist().index(word_ids["eye"]), 0, 0] == 1.0
        assert targets[0, ids[0].tolist().index(word_ids["fish"]), 1, 1] == expected
        assert targets.sum() == 1.0 + expected


def test_the_encoder_is_the_pca_it_claims_to_be():
    pixels = np.stack([render(9, index).pixels for index in range(40)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    mean, directions, variances = patch_statistics(images)
    vae = build_autoencoder(images)
    unshuffle = torch.nn.functional.pixel_unshuffle
    patches = unshuffle(unshuffle(images, 2), 2).double() - mean[None, :, None, None]
    expected = torch.einsum("nchw,ck->nkhw", patches, directions / variances.pow(0.25))
    with torch.no_grad():
        found = vae.encode(images).latent_dist.mean
    assert (found - expected).abs().max() < 0.01
    assert float((found * vae.config.scaling_factor).std()) == pytest.approx(1.0, abs=0.05)


def test_recording_changes_nothing_and_the_loss_prefers_the_right_word():
    from sd4match.backbones.pretrained import MINI_FOLDER

    unet = UNet2DConditionModel.from_pretrained(MINI_FOLDER, subfolder="unet").eval()
    noisy, context = torch.randn(1, 12, 24, 24), torch.randn(1, 77, 128)
    with torch.no_grad():
        plain = unet(noisy, 40, context).sample
        record = record_cross_attention(unet)
        torch.testing.assert_close(unet(noisy, 40, context).sample, plain, atol=1e-4, rtol=1e-4)
    assert all(torch.allclose(one.sum(-1), torch.ones(())) for one in record.maps)
    targets = torch.zeros(1, 77, 12, 12)
    targets[:, 3] = 1.0
    right, wrong = torch.full((1, 144, 77), 1e-3), torch.full((1, 144, 77), 1e-3)
    right[..., 3], wrong[..., 5] = 0.9, 0.9
    record.maps[:] = [right]
    good = grounding_loss(record, targets, torch.ones(1))
    record.maps[:] = [wrong]
    bad = grounding_loss(record, targets, torch.ones(1))
    assert good[0] < bad[0]
    assert (good[1].item(), bad[1].item()) == (1.0, 0.0)


@pytest.mark.slow
def test_training_resumes_where_it_stopped(tmp_path):
    """Four steps in one go and two plus two give the same weights."""

    def train(folder, *more):
        command = [
            sys.executable,
            str(ROOT / "tools" / "train_mini.py"),
            "--photos",
            "64",
            "--batch",
            "4",
            "--steps",
            "4",
        ]
        subprocess.run([*command, "--output", str(folder), *more], check=True, capture_output=True)
        return torch.load(folder / "checkpoint.pt", weights_only=True)

    whole = train(tmp_path / "whole", "--checkpoint-every", "2")
    stopped = tmp_path / "stopped"
    train(stopped, "--stop-after", "2")
    resumed = train(stopped)
    assert resumed["step"] == whole["step"] == 4
    for one, other in zip(whole["modules"], resumed["modules"], strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4)
