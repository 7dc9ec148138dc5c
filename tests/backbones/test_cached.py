"""What is kept on disk: the same bits as without, bounded, shared by writers, damaged entries computed again."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.model_folders import write_random_transformer
from sd4match.backbones.cached import CachedBackbone, CachedImageEncoder, CacheWarning
from sd4match.backbones.fusion import Fusion
from sd4match.backbones.image_encoders import BackboneEncoder, load_backbone_encoder, load_dinov2
from sd4match.backbones.stable_diffusion import StableDiffusionBackbone
from sd4match.backbones.vision_transformer import VisionTransformerBackbone
from sd4match.config.sections import CacheSettings
from sd4match.data.collate import make_images
from sd4match.errors import SD4MatchError
from sd4match.io.cache import Cache, DamagedEntryWarning
from sd4match.structures.images import Photo
from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo


class Counting(StableDiffusionBackbone):
    """Mini, counting how many photos it encodes."""

    encoded = 0

    def encode(self, views):
        self.encoded += len(views.keys)
        return super().encode(views)


@pytest.fixture
def counting():
    return Counting.from_folder("mini")


def views_of(backbone, *seeds):
    photos = [random_photo((48, 64), seed=seed) for seed in seeds]
    return make_images(photos, [None] * len(seeds), {"backbone": backbone.prepare}).views["backbone"]


def cache(folder, **options):
    return Cache(folder, **({"limit": 10**9} | options))


def equal(one, other):
    return torch.equal(one.mean, other.mean) and torch.equal(one.log_variance, other.log_variance)


def test_with_the_cache_the_bits_are_those_without(tmp_path, counting):
    views = views_of(counting, 0, 1, 2, 1)
    plain = counting.encode(views)
    kept = CachedBackbone(counting, cache=cache(tmp_path))
    counting.encoded = 0
    assert equal(kept.encode(views), plain)
    assert counting.encoded == 3
    assert equal(kept.encode(views[[2, 0]]), counting.encode(views[[2, 0]]))
    counting.encoded = 0
    assert equal(CachedBackbone(counting, cache=cache(tmp_path)).encode(views), plain)  # a later run
    assert counting.encoded == 0


def test_another_view_frame_or_weight_is_another_entry(tmp_path, counting):
    """Flipped, of another size, or under other weights: nothing is taken for another."""
    pixels = random_photo((48, 64)).pixels
    kept = CachedBackbone(counting, cache=cache(tmp_path))

    def encode(backbone, *photos):
        return backbone.encode(make_images(photos, [None] * len(photos), {"b": backbone.prepare}).views["b"])

    encode(kept, Photo(pixels), Photo(np.ascontiguousarray(pixels[:, ::-1])))
    assert counting.encoded == 2
    encode(kept, Photo(np.ascontiguousarray(pixels[:40])))
    assert counting.encoded == 3
    with torch.no_grad():
        counting.vae.encoder.conv_in.weight[0, 0, 0, 0] += 1e-3
    encode(CachedBackbone(counting, cache=cache(tmp_path)), Photo(pixels))
    assert counting.encoded == 4
    encode(CachedBackbone(counting, cache=cache(tmp_path, dtype=torch.float16)), Photo(pixels))
    assert counting.encoded == 5


def test_image_encoders_are_kept_beside_their_backbone(tmp_path, mini, counting):
    backbone = CachedBackbone(counting, cache=cache(tmp_path / "cache"))
    folder = write_random_transformer(tmp_path / "dinov2")
    for load in (lambda b: load_dinov2(str(folder), backbone=b), lambda b: load_backbone_encoder(4, 40, backbone=b)):
        first, again, plain = load(backbone), load(backbone), load(mini)
        photos = [random_photo((48, 64), seed=seed) for seed in range(3)]
        views = make_images(photos, [None] * 3, {"it": first.prepare}).views["it"]
        expected = plain.encoder.encode(views)
        found = first.encode(views)
        again.encoder.encode = None  # not called any more
        for kept in (found, again.encode(views)):
            assert torch.equal(kept.local, expected.local)
            assert torch.equal(kept.pooled, expected.pooled)
    assert set(backbone.cache.sizes()) == {"latents", "image-features"}


def test_fusions_and_transformers_are_kept_too(tmp_path, mini):
    transformer = VisionTransformerBackbone.from_folder(str(write_random_transformer(tmp_path / "dinov2")))
    for backbone in (transformer, Fusion([mini, transformer])):
        views = views_of(backbone, 0, 1)
        plain = backbone.encode(views)
        for _ in range(2):
            found = CachedBackbone(backbone, cache=cache(tmp_path / "cache")).encode(views)
            assert equal(found, plain)
            assert all(equal(one, other) for one, other in zip(found.others, plain.others, strict=True))


def test_what_cannot_say_its_weights_is_kept_in_memory_alone(tmp_path):
    backbone = CachedBackbone(FakeBackbone(), cache=cache(tmp_path / "cache"))
    backbone.encode(views_of(backbone, 0))
    assert not (tmp_path / "cache").exists()
    assert Fusion([FakeBackbone(), VisionlessFake()]).weights_digest() is None
    assert BackboneEncoder(FakeBackbone(text=FakeTextEncoder())).weights_digest() is None


class VisionlessFake(FakeBackbone):
    """Of a fusion, only one part may take a prompt."""

    def __init__(self):
        super().__init__()
        from dataclasses import replace

        self.spec, self.text = replace(self.spec, prompt_width=None), None


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_entry_is_computed_again_and_said(tmp_path, counting, damage):
    views = views_of(counting, 0)
    plain = counting.encode(views)
    CachedBackbone(counting, cache=cache(tmp_path)).encode(views)
    (file,) = tmp_path.rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes({"cut": content[:-9], "changed": content, "empty": b""}[damage])
    with pytest.warns(DamagedEntryWarning, match="is damaged .*; it is computed again"):
        assert equal(CachedBackbone(counting, cache=cache(tmp_path)).encode(views), plain)
    assert equal(CachedBackbone(counting, cache=cache(tmp_path)).encode(views), plain)  # whole again, and silent


def test_a_folder_that_vanishes_is_made_again(tmp_path, counting):
    import shutil

    kept = CachedBackbone(counting, cache=cache(tmp_path / "cache"), max_bytes=1)
    plain = counting.encode(views_of(counting, 0, 1))
    kept.encode(views_of(counting, 0, 1))
    shutil.rmtree(tmp_path / "cache")
    assert equal(kept.encode(views_of(counting, 0, 1)), plain)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) >= 1


def test_a_disk_that_takes_nothing_costs_one_line(tmp_path, counting):
    (tmp_path / "cache").write_text("a file where the folder should be")
    kept = CachedBackbone(counting, cache=cache(tmp_path / "cache"), max_bytes=1)
    with pytest.warns(CacheWarning, match="cannot write .*; going on without keeping more") as said:
        found = kept.encode(views_of(counting, 0, 1, 2))
    assert len(said) == 1
    assert equal(found, counting.encode(views_of(counting, 0, 1, 2)))


def test_half_precision_is_the_same_whether_kept_or_fresh_and_near(tmp_path, counting):
    views = views_of(counting, 0, 1)
    exact = counting.encode(views)
    runs = [CachedBackbone(counting, cache=cache(tmp_path, dtype=torch.float16)).encode(views) for _ in range(2)]
    assert equal(*runs)
    assert runs[0].mean.dtype == torch.float32
    assert not equal(runs[0], exact)
    assert torch.allclose(runs[0].mean, exact.mean, rtol=1e-3, atol=1e-3)


def test_half_precision_does_not_depend_on_the_disk(tmp_path, counting):
    """Nowhere to write, and no room at all: rounded all the same."""
    views = views_of(counting, 0, 1)
    expected = CachedBackbone(counting, cache=cache(tmp_path / "good", dtype=torch.float16)).encode(views)
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(CacheWarning):
        found = CachedBackbone(counting, cache=cache(tmp_path / "file", dtype=torch.float16)).encode(views)
    assert equal(found, expected)
    none = CacheSettings(folder=str(tmp_path / "none"), limit="0", dtype="float16").open()
    assert equal(CachedBackbone(counting, cache=none).encode(views), expected)
    assert not (tmp_path / "none").exists()
    assert CacheSettings(limit="0").open() is None


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 60)), min_size=1, max_size=30), st.integers(600, 3_000))
def test_the_limit_holds_whatever_is_written(tmp_path_factory, writes, limit):
    store = cache(tmp_path_factory.mktemp("cache"), limit=limit)
    for key, size in writes:
        store.put(f"latents/{key:040x}", {"x": torch.zeros(size)})
        assert store.total() <= limit


def test_what_was_used_last_stays(tmp_path):
    import os

    store = cache(tmp_path, limit=1_000)
    for number, key in enumerate(("aa", "bb")):
        store.put(f"latents/{key}", {"x": torch.zeros(80)})
        os.utime(store.path(f"latents/{key}"), (number, number))
    assert store.get("latents/aa") is not None  # used now, though written first
    store.put("latents/cc", {"x": torch.zeros(80)})
    assert ["latents/" + key in store for key in ("aa", "bb", "cc")] == [True, False, True]
    store.put("latents/dd", {"x": torch.zeros(1_000)})  # larger than the limit: not kept, and nothing is lost for it
    assert "latents/cc" in store
    assert "latents/dd" not in store


def test_several_writers_at_once(tmp_path):
    """Four processes write and read the same and other entries in a cache that is too small for all."""
    code = """
import random, sys, torch, warnings
from pathlib import Path
from sd4match.io.cache import Cache
warnings.simplefilter("error")
cache, rng = Cache(Path(sys.argv[1]), limit=40_000), random.Random(int(sys.argv[2]))
for _ in range(150):
    key = rng.randrange(40)
    found = cache.get(f"latents/{key:040x}")
    if found is None:
        cache.put(f"latents/{key:040x}", {"x": torch.full((400,), float(key))})
    else:
        assert found[0]["x"].eq(key).all()
print(cache.total())
"""
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(seed)], stdout=subprocess.PIPE, text=True)
        for seed in range(4)
    ]
    answers = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert max(map(int, answers)) <= 50_000  # for a moment
    cache(tmp_path, limit=40_000).put("latents/ff", {"x": torch.zeros(10)})
    assert cache(tmp_path).total() <= 40_000


def test_clearing_takes_only_what_it_wrote(tmp_path):
    store = cache(tmp_path)
    store.put("latents/aa", {"x": torch.zeros(10)})
    (tmp_path / "letter.txt").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "model.safetensors").write_text("mine")
    assert store.clear().entries == 1
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"letter.txt", "model.safetensors"}


def test_memory_alone_keeps_what_fits(mini):
    encoder = BackboneEncoder(mini, side=4)
    small = CachedImageEncoder(encoder, max_bytes=1)
    photos = [random_photo((48, 64), seed=seed) for seed in range(2)]
    views = make_images(photos, [None, None], {"it": small.prepare}).views["it"]
    assert torch.equal(small.encode(views).local, encoder.encode(views).local)
    assert len(small._kept._rows) == 1


def test_a_cache_that_cannot_be_cleared_says_so(tmp_path, monkeypatch):
    store = cache(tmp_path)
    store.put("latents/aa", {"x": torch.zeros(10)})

    def refuse(self, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(SD4MatchError, match=r"cannot remove .*: Permission denied"):
        store.clear()
