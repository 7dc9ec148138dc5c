"""The modules of the training of `mini`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from mini.autoencoder import build_autoencoder, patch_statistics  # noqa: E402
from mini.captions import (  # noqa: E402
    ALL_PART_WORDS,
    Labels,
    build_tokenizer,
    caption_places,
    part_words,
    targets,
    vocabulary,
    write_caption,
)
from mini.grounding import grounding_loss, record_cross_attention  # noqa: E402
from mini.harder import HARDER  # noqa: E402
from mini.photos import part_coverage, read_files, render_files  # noqa: E402
from sd4match.data.synthetic.anatomy import ANATOMIES  # noqa: E402
from sd4match.data.synthetic.scene import render  # noqa: E402
from tabulate_sweeps import interval, read, tables  # noqa: E402


class SerialPool:
    """A pool of processes that is none."""

    def __init__(self, workers):
        assert workers == 1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def imap_unordered(self, work, jobs):
        return map(work, jobs)


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
    assert max(len(tokenizer(caption).input_ids) for caption in captions) <= 77
    ids = np.array(tokenizer(loose, padding="max_length", truncation=True, max_length=77).input_ids)  # some are cut
    for row, column in np.argwhere(places := caption_places(ids, FISH, tokenizer)):
        word = "fish" if column == 8 else FISH.part_words[column]
        assert tokenizer.convert_ids_to_tokens(int(ids[row, places[row, column]])) == f"{word}</w>"


def test_targets_stand_at_the_words(tokenizer):
    eye, tail = FISH.part_words.index("eye"), FISH.part_words.index("tail")
    words = tokenizer.convert_ids_to_tokens(ids := tokenizer("a photo of a fish with eye").input_ids)
    places = caption_places(np.array([ids]), FISH, tokenizer)
    assert places[0, eye] == words.index("eye</w>")
    assert places[0, -1] == words.index("fish</w>")
    assert places[0, tail] == 0
    coverage = torch.zeros(1, 8, 2, 2)
    coverage[0, eye, 0, 0] = 1.0
    coverage[0, tail, 1, 1] = 0.5
    for grounded, expected in ((1.0, 0.5), (0.5, 0.25), (0.0, 0.0)):
        tokens, wanted = targets(torch.from_numpy(places), coverage, category_grounding=grounded)
        assert tokens[0, eye] == words.index("eye</w>")
        assert wanted[0, eye, 0, 0] == 1.0
        assert tokens[0, tail] == words.index("fish</w>")
        assert wanted[0, tail, 1, 1] == expected
        assert wanted.sum() == 1.0 + expected
    unnamed = caption_places(np.array([tokenizer("a photo of an object with wheel").input_ids]), FISH, tokenizer)
    assert not unnamed.any()
    assert targets(torch.from_numpy(unnamed), coverage, category_grounding=1.0)[1].sum() == 0


def test_the_harder_world_shares_parts_and_is_harder():
    added = set(HARDER.anatomies) - set(ANATOMIES)
    assert len(added) == 8
    known = {word for category in ANATOMIES for word in part_words(category)}
    for category in added:
        assert known & set(part_words(category)), category
        scenes = [render(3, index, category=category, world=HARDER, distractors=0.5) for index in range(4)]
        for scene in scenes:
            assert scene.category == category
            assert scene.part_words == part_words(category)
            assert len(scene.part_words) <= 8
            assert scene.part_ids.any()
    turns = [abs(render(3, index, world=HARDER).turn) for index in range(40)]
    assert max(turns) > 22
    assert (render(3, 0).pixels == render(3, 0, world=HARDER).pixels).mean() < 0.9


def test_photos_are_written_and_read_as_they_were_rendered(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("mini.photos.PHOTOS_A_FILE", 6)
    monkeypatch.setattr("mini.photos.get_context", lambda _: SimpleNamespace(Pool=SerialPool))
    render_files(tmp_path, 12, workers=1, harder=0.5, distractors=0.5, absent=0.5)
    first = next(read_files(tmp_path, 0))
    assert sum(len(photos.pixels) for photos in read_files(tmp_path, 0)) == 12
    assert len(list(read_files(tmp_path, 1))) == 1
    assert first.pixels.shape[1:] == (3, 96, 96)
    captions = tokenizer.decode(first.tokens[0, 0].tolist(), skip_special_tokens=True)
    assert set(captions.replace(",", " ").split()) <= set(vocabulary())
    before = [file.stat().st_mtime_ns for file in sorted(tmp_path.iterdir())]
    render_files(tmp_path, 12, workers=1, harder=0.5, distractors=0.5, absent=0.5)
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.iterdir())] == before
    scene = render(3, 1)
    counted = part_coverage(scene)
    assert counted.sum() == (scene.part_ids > 0).sum()
    assert counted[0, 5, 7] == (scene.part_ids[20:24, 28:32] == 1).sum()


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
    tokens, coverage = torch.full((1, 8), 3), torch.zeros(1, 8, 24, 24)
    coverage[:, 0] = 1.0
    right, wrong = torch.full((1, 144, 77), 1e-3), torch.full((1, 144, 77), 1e-3)
    right[..., 3], wrong[..., 5] = 0.9, 0.9
    record.maps[:] = [right]
    good = grounding_loss(record, tokens, coverage)
    record.maps[:] = [wrong]
    bad = grounding_loss(record, tokens, coverage)
    assert good[0] < bad[0]
    assert (good[1].item(), bad[1].item()) == (1.0, 0.0)


@pytest.mark.slow
def test_training_resumes_where_it_stopped(tmp_path):
    """Four steps in one go and two plus two give the same weights."""

    photos = tmp_path / "photos"
    tool = [sys.executable, str(ROOT / "tools" / "render_mini.py"), "--output", str(photos), "--photos", "1000"]
    subprocess.run([*tool, "--workers", "2"], check=True, capture_output=True)

    def train(folder, *more):
        command = [
            sys.executable, str(ROOT / "tools" / "train_mini.py"), "--photos", str(photos), "--batch", "4",
            "--steps", "4", "--device", "cpu", "--output", str(folder),
        ]  # fmt: skip
        subprocess.run([*command, *more], check=True, capture_output=True)
        return torch.load(folder / "checkpoint.pt", weights_only=True)

    whole = train(tmp_path / "whole", "--checkpoint-every", "2")
    stopped = tmp_path / "stopped"
    train(stopped, "--stop-after", "2")
    resumed = train(stopped)
    assert resumed["step"] == whole["step"] == 4
    for one, other in zip(whole["modules"], resumed["modules"], strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4)


# tables of sweeps


def write_sweep(folder, correct, pair_ids=("a", "b")):
    """Write what is read of a sweep: counts of two pairs with four points each, by prompt."""
    folder.mkdir()
    counts = {"pair_ids": list(pair_ids), "alphas": [0.05, 0.1], "visible": [4, 4]}
    results = [
        {"prompt": prompt, "counts": {**counts, "correct": [[0, one] for one in pairs]}}
        for prompt, pairs in correct.items()
    ]
    (folder / "report.json").write_text(json.dumps({"results": results}))
    return folder


def test_sweeps_are_tabulated_by_pair_and_seed(tmp_path):
    folders = [
        write_sweep(tmp_path / "0", {"text": (1, 1), "single": (2, 4)}),
        write_sweep(tmp_path / "1", {"text": (1, 1), "single": (4, 4)}),
    ]
    values = read(folders)
    np.testing.assert_array_equal(values["single"], [[50.0, 100.0], [100.0, 100.0]])
    assert interval(values["text"]) == "25.0 [25.0, 25.0]"
    assert interval(values["single"]) == "87.5 [50.0, 100.0]"  # seed 0 and pair "a" alone, to the other ones
    text = tables({"now": values})
    assert "| text | 25.0 [25.0, 25.0] (25.0, 25.0) |" in text
    assert "| single - text | +62.5 [+25.0, +75.0] |" in text
    other = write_sweep(tmp_path / "2", {"text": (1, 1)}, pair_ids=("a", "c"))
    with pytest.raises(SystemExit, match="of different pairs"):
        read([*folders, other])
