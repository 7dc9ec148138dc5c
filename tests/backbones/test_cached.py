"""Caches of encoded photos: the same bits as without, bounded, safe for several writers, robust to damaged files."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from helpers.model_folders import write_random_transformer
from sd4match.backbones.cached import CachedBackbone, CachedImageEncoder, CacheWarning
from sd4match.backbones.config import (
    BackboneEncoderConfig,
    Dinov2Config,
    StableDiffusionConfig,
    VisionTransformerConfig,
)
from sd4match.backbones.fusion import Fusion
from sd4match.backbones.image_encoders import BackboneEncoder
from sd4match.config.sections import CacheConfig
from sd4match.data.collate import make_images
from sd4match.errors import InputError, SD4MatchError
from sd4match.hashing import arithmetic_settings
from sd4match.interfaces import Backbone
from sd4match.io.cache import Cache, DamagedEntryWarning, Store, cache_folder
from sd4match.structures.images import Photo
from sd4match.testing import FakeBackbone, FakeTextEncoder, random_photo


class Counting(Backbone):
    """Wrapper of a backbone that counts how many photos it encodes."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.spec, self.text_encoder, self.fingerprint = backbone.spec, backbone.text_encoder, backbone.fingerprint
        self.encoded = 0

    def prepare(self, photo):
        return self.backbone.prepare(photo)

    def encode(self, views):
        self.encoded += len(views)
        return self.backbone.encode(views)

    def extract(self, encoded, prompt, sampling):
        return self.backbone.extract(encoded, prompt, sampling)

    def weights_digest(self):
        return self.backbone.weights_digest()


@pytest.fixture
def counting():
    return Counting(StableDiffusionConfig().build())


def views_of(backbone, *seeds):
    photos = [random_photo((48, 64), seed=seed) for seed in seeds]
    return make_images(photos, [None] * len(seeds), {"backbone": backbone.prepare}).views["backbone"]


def cache(folder, **options):
    return Cache(folder, **({"limit": 10**9} | options))


def equal(one, other):
    same_tensors = set(one.tensors) == set(other.tensors) and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )
    return same_tensors and (one.frames, one.keys) == (other.frames, other.keys)


def test_with_the_cache_the_bits_are_those_without(tmp_path, counting):
    views = views_of(counting, 0, 1, 2, 1)
    plain = counting.encode(views)
    wrapped = CachedBackbone(counting, cache=cache(tmp_path))
    counting.encoded = 0
    assert equal(wrapped.encode(views), plain)
    assert counting.encoded == 3
    assert equal(wrapped.encode(views[[2, 0]]), counting.encode(views[[2, 0]]))
    counting.encoded = 0
    assert equal(CachedBackbone(counting, cache=cache(tmp_path)).encode(views), plain)  # a later run
    assert counting.encoded == 0


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_missing_photos_are_encoded_as_many_at_once_as_the_backbone_allows(counting, at_once):
    counting.encoded_at_once = at_once
    sizes, encode = [], counting.encode
    counting.encode = lambda views: sizes.append(len(views)) or encode(views)
    wrapped = CachedBackbone(counting)
    wrapped.encode(views_of(counting, 3))
    views = views_of(counting, 0, 1, 0, 3, 2, 4)
    plain = encode(views)
    sizes.clear()
    assert equal(wrapped.encode(views), plain)
    assert sizes == [1] * 4 if at_once == 1 else sizes == [at_once] * (4 // at_once)
    for entry in wrapped._photos._entries.values():  # a part of a batch must not hold the whole of it in memory
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in entry.values())


def test_a_backbone_that_encodes_no_photo_at_once_is_refused(counting):
    counting.encoded_at_once = 0
    with pytest.raises(InputError, match="encoded_at_once"):
        CachedBackbone(counting)


def test_another_view_frame_or_weight_is_another_entry(tmp_path, counting):
    """Flipped, of another size, or under other weights: nothing is taken for another."""
    pixels = random_photo((48, 64)).pixels
    wrapped = CachedBackbone(counting, cache=cache(tmp_path))

    def encode(backbone, *photos):
        return backbone.encode(make_images(photos, [None] * len(photos), {"b": backbone.prepare}).views["b"])

    encode(wrapped, Photo(pixels), Photo(np.ascontiguousarray(pixels[:, ::-1])))
    assert counting.encoded == 2
    encode(wrapped, Photo(np.ascontiguousarray(pixels[:40])))
    assert counting.encoded == 3
    with torch.no_grad():
        counting.backbone.vae.encoder.conv_in.weight[0, 0, 0, 0] += 1e-3
    encode(CachedBackbone(counting, cache=cache(tmp_path)), Photo(pixels))
    assert counting.encoded == 4
    encode(CachedBackbone(counting, cache=cache(tmp_path, dtype=torch.float16)), Photo(pixels))
    assert counting.encoded == 5


def test_image_encoders_are_cached_with_their_backbone(tmp_path, mini, counting):
    backbone = CachedBackbone(counting, cache=cache(tmp_path / "cache"))
    folder = write_random_transformer(tmp_path / "dinov2")
    for config in (Dinov2Config(weights=str(folder)), BackboneEncoderConfig(side=4, timestep=40)):
        first, again, plain = (config.build(backbone=b) for b in (backbone, backbone, mini))
        photos = [random_photo((48, 64), seed=seed) for seed in range(3)]
        views = make_images(photos, [None] * 3, {"it": first.prepare}).views["it"]
        expected = plain.encoder.encode(views)
        found = first.encode(views)
        again.encoder.encode = None  # not called any more
        for features in (found, again.encode(views)):
            assert torch.equal(features.local, expected.local)
            assert torch.equal(features.pooled, expected.pooled)
    assert set(backbone.cache.usage()) == {"encoded", "image-features"}


def test_fusions_and_transformers_are_cached_too(tmp_path, mini):
    transformer = VisionTransformerConfig(weights=str(write_random_transformer(tmp_path / "dinov2"))).build()
    for backbone in (transformer, Fusion(backbones=[mini, transformer])):
        views = views_of(backbone, 0, 1)
        plain = backbone.encode(views)
        for _ in range(2):
            found = CachedBackbone(backbone, cache=cache(tmp_path / "cache")).encode(views)
            assert equal(found, plain)


def test_without_a_weights_digest_it_is_cached_in_memory_only(tmp_path):
    backbone = CachedBackbone(FakeBackbone(), cache=cache(tmp_path / "cache"))
    backbone.encode(views_of(backbone, 0))
    assert not (tmp_path / "cache").exists()
    assert Fusion(backbones=[FakeBackbone(), PromptlessFake()]).weights_digest() is None
    assert BackboneEncoder(backbone=FakeBackbone(text_encoder=FakeTextEncoder())).weights_digest() is None


class PromptlessFake(FakeBackbone):
    """Fake backbone that takes no prompt, as all but one of a fusion must."""

    def __init__(self):
        super().__init__()
        from dataclasses import replace

        self.spec = replace(self.spec, prompt_width=None)


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

    wrapped = CachedBackbone(counting, cache=cache(tmp_path / "cache"), max_bytes=1)
    plain = counting.encode(views_of(counting, 0, 1))
    wrapped.encode(views_of(counting, 0, 1))
    shutil.rmtree(tmp_path / "cache")
    assert equal(wrapped.encode(views_of(counting, 0, 1)), plain)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) >= 1


def test_a_disk_that_takes_nothing_costs_one_line(tmp_path, counting):
    (tmp_path / "cache").write_text("a file where the folder should be")
    wrapped = CachedBackbone(counting, cache=cache(tmp_path / "cache"), max_bytes=1)
    with pytest.warns(CacheWarning, match="cannot write .*; going on without keeping more") as said:
        found = wrapped.encode(views_of(counting, 0, 1, 2))
    assert len(said) == 1
    assert equal(found, counting.encode(views_of(counting, 0, 1, 2)))


def test_half_precision_is_the_same_whether_cached_or_fresh_and_near(tmp_path, counting):
    views = views_of(counting, 0, 1)
    exact = counting.encode(views)
    runs = [CachedBackbone(counting, cache=cache(tmp_path, dtype=torch.float16)).encode(views) for _ in range(2)]
    assert equal(*runs)
    assert runs[0].tensors["mean"].dtype == torch.float32
    assert not equal(runs[0], exact)
    assert torch.allclose(runs[0].tensors["mean"], exact.tensors["mean"], rtol=1e-3, atol=1e-3)


def test_half_precision_does_not_depend_on_the_disk(tmp_path, counting):
    """Nowhere to write, and no room at all: rounded all the same."""
    views = views_of(counting, 0, 1)
    expected = CachedBackbone(counting, cache=cache(tmp_path / "good", dtype=torch.float16)).encode(views)
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(CacheWarning):
        found = CachedBackbone(counting, cache=cache(tmp_path / "file", dtype=torch.float16)).encode(views)
    assert equal(found, expected)
    none = CacheConfig(folder=str(tmp_path / "none"), limit="0", dtype="float16").open()
    assert equal(CachedBackbone(counting, cache=none).encode(views), expected)
    assert not (tmp_path / "none").exists()
    assert CacheConfig(limit="0").open() is None


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
import os, random, sys, torch, warnings
from pathlib import Path
from sd4match.io.cache import Cache
torch.set_num_threads(1)  # no thread may run when this process forks
warnings.simplefilter("error")
children = []
for seed in range(4):
    child = os.fork()
    if child:
        children.append(child)
        continue
    cache, rng = Cache(Path(sys.argv[1]), limit=40_000), random.Random(seed)
    for _ in range(150):
        key = rng.randrange(40)
        found = cache.get(f"latents/{key:040x}")
        if found is None:
            cache.put(f"latents/{key:040x}", {"x": torch.full((400,), float(key))})
        else:
            assert found[0]["x"].eq(key).all()
    assert cache.total() <= 50_000  # for a moment
    os._exit(0)
assert not any([os.waitpid(child, 0)[1] for child in children])
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
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
    encoder = BackboneEncoder(BackboneEncoderConfig(side=4), backbone=mini)
    small = CachedImageEncoder(encoder, max_bytes=1)
    photos = [random_photo((48, 64), seed=seed) for seed in range(2)]
    views = make_images(photos, [None, None], {"it": small.prepare}).views["it"]
    assert torch.equal(small.encode(views).local, encoder.encode(views).local)
    assert len(small._photos._entries) == 1


def test_a_cache_that_cannot_be_cleared_says_so(tmp_path, monkeypatch):
    store = cache(tmp_path)
    store.put("latents/aa", {"x": torch.zeros(10)})

    def refuse(self, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(SD4MatchError, match=r"cannot remove .*: Permission denied"):
        store.clear()


def test_a_training_in_another_precision_leaves_the_entries_of_float32(tmp_path, counting):
    """Written in a bfloat16 autocast and read without one: the numbers of no cache."""
    views = views_of(counting, 0, 1)
    plain = counting.encode(views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        CachedBackbone(counting, cache=cache(tmp_path)).encode(views)
    counting.encoded = 0
    assert equal(CachedBackbone(counting, cache=cache(tmp_path)).encode(views), plain)
    assert counting.encoded == 0


def test_what_decides_bits_is_in_the_key(tmp_path, counting, monkeypatch):
    views = views_of(counting, 0)
    CachedBackbone(counting, cache=cache(tmp_path)).encode(views)
    seen = set()
    for number, change in enumerate((
        lambda patch: patch.setattr(torch.backends.cudnn, "benchmark", True),
        lambda patch: patch.setattr(torch.backends.mkldnn, "enabled", False, raising=False),
        lambda patch: patch.setattr(torch, "__version__", "0.0"),
        lambda patch: patch.setattr(torch, "get_float32_matmul_precision", lambda: "medium"),
        lambda patch: patch.setattr(torch.backends.cuda, "flash_sdp_enabled", lambda: "other"),
    )):  # fmt: skip
        with monkeypatch.context() as patch:
            change(patch)
            seen.add(arithmetic_settings("cpu"))
            counting.encoded = 0
            CachedBackbone(counting, cache=cache(tmp_path)).encode(views)
            assert counting.encoded == 1, number
    assert len(seen) == 5
    assert arithmetic_settings("cpu") not in seen


@pytest.mark.parametrize(
    "tensors",
    [
        {"mean": torch.zeros(3, 12, 12), "log_variance": torch.zeros(3, 12, 12)},
        {"mean": torch.zeros(12, 24, 24)},
        {"mean": torch.full((12, 24, 24), torch.nan), "log_variance": torch.zeros(12, 24, 24)},
        {},
    ],
)
def test_an_entry_of_other_shapes_or_values_is_not_believed(tmp_path, counting, tensors):
    """Its checksum is right."""
    views = views_of(counting.backbone, 0)
    plain = counting.encode(views)
    CachedBackbone(counting.backbone, cache=cache(tmp_path)).encode(views)
    (file,) = tmp_path.rglob("*.safetensors")
    cache(tmp_path).put(f"encoded/{file.stem}", tensors)
    with pytest.warns(DamagedEntryWarning, match=r"its shapes are|its values are not finite"):
        assert equal(CachedBackbone(counting.backbone, cache=cache(tmp_path)).encode(views), plain)


def test_features_of_an_image_encoder_have_the_shapes_of_its_spec(tmp_path, mini):
    encoder = BackboneEncoder(BackboneEncoderConfig(side=4), backbone=mini)
    views = make_images([random_photo()], [None], {"it": encoder.prepare}).views["it"]
    CachedImageEncoder(encoder, cache=cache(tmp_path)).encode(views)
    (file,) = tmp_path.rglob("*.safetensors")
    cache(tmp_path).put(f"image-features/{file.stem}", {"local": torch.zeros(3, 3), "pooled": torch.zeros(3)})
    with pytest.warns(DamagedEntryWarning, match="its shapes are"):
        CachedImageEncoder(encoder, cache=cache(tmp_path)).encode(views)


FOREIGN = {
    "sub/ab/mine.safetensors", "models/v1/unet.safetensors", "encoded/ab/abcdef0123.safetensors",
    "encoded/cd/abcdef0123.safetensors", "encoded/ab/.mine.part", "runs/v2/prompt.safetensors",
    "encoded/ab/notes.txt", "encoded/ab/ab12.safetensors",
}  # fmt: skip


def put_foreign_files(folder):
    for name in sorted(FOREIGN):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("ab12.safetensors"):
            (folder / name).write_bytes(b"\xff" * 20)
        elif name.endswith(".safetensors"):
            save_file({"x": torch.zeros(400)}, folder / name, metadata={"format": "pt"})
        else:
            (folder / name).write_text("mine")


def files_of(folder):
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_files_of_the_user_are_never_counted_evicted_or_cleared(tmp_path):
    put_foreign_files(tmp_path)
    store = cache(tmp_path, limit=1_300)
    for number in range(6):
        store.put(f"encoded/ab{number:038x}", {"x": torch.zeros(100)})
        assert 0 < store.total() <= 1_300
    assert set(store.usage()) == {"encoded"}
    assert files_of(tmp_path) > FOREIGN
    assert cache(tmp_path).clear().entries == 2
    assert files_of(tmp_path) == FOREIGN


def test_a_link_to_an_entry_is_not_removed(tmp_path):
    store = cache(tmp_path / "one")
    store.put("encoded/ab12", {"x": torch.zeros(10)})
    (tmp_path / "two/encoded/ab").mkdir(parents=True)
    (tmp_path / "two/encoded/ab/ab12.safetensors").symlink_to(store.path("encoded/ab12"))
    assert cache(tmp_path / "two").clear().entries == 0


def test_what_a_killed_process_left_is_removed(tmp_path):
    import os

    store = cache(tmp_path, limit=600)
    store.put("encoded/ab12", {"x": torch.zeros(10)})
    left = tmp_path / "encoded/ab/.ab34.safetensors.abcd1234.part"
    left.write_bytes(bytes(10))
    os.utime(left, (1, 1))
    cache(tmp_path, limit=600).put("encoded/ab56", {"x": torch.zeros(80)})
    assert not left.exists()


@pytest.mark.parametrize(
    "key", ["../ab", "a/../ab", "encoded/../../ab", "/etc/ab", "a/b/ab", "", "a", "ab.", "x" * 300, "ab\0", 5, None]
)
def test_a_key_that_leaves_the_folder_is_refused(tmp_path, key):
    with pytest.raises(InputError, match="a key is a digest"):
        inspect.unwrap(Store.path)(cache(tmp_path), key)


def test_the_default_folder_must_be_a_path(monkeypatch):
    monkeypatch.setenv("SD4MATCH_CACHE", "~nobody-here/cache")
    with pytest.raises(InputError, match=r"SD4MATCH_CACHE: .* a user that does not exist"):
        cache_folder()
