"""Photos of every mode, with every damage that a file or an image may have."""

from __future__ import annotations

import io
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from PIL import Image

from sd4match.backbones import preprocessing
from sd4match.errors import PhotoError
from sd4match.structures import images
from sd4match.structures.images import Photo

RAMP = np.linspace(0, 255, 24).round().astype(np.uint8).reshape(4, 6)


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ((RAMP.astype(np.uint16) * 257), "I;16"),
        ((RAMP.astype(">u2") * 257).astype(">u2"), "I;16B"),
        ((RAMP.astype(np.int32) * 257), "I"),
        (RAMP.astype(np.int32), "I"),
        ((RAMP / 255).astype(np.float32), "F"),
    ],
)
def test_deep_grey_is_scaled(values, mode, tmp_path):
    image = Image.fromarray(values)
    assert image.mode == mode
    expected = np.repeat(RAMP[:, :, None], 3, axis=2)
    assert np.array_equal(Photo.from_image(image).pixels, expected)
    image.save(tmp_path / "deep.tiff")
    assert np.array_equal(Photo.open(tmp_path / "deep.tiff").pixels, expected)
    if mode == "I;16":
        image.save(tmp_path / "deep.png")
        assert np.array_equal(Photo.open(tmp_path / "deep.png").pixels, expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.full((2, 3), 70_000, np.int32),
            r"\(pillow mode I\) has pixels from 70000 to 70000; values from 0 to 65535",
        ),
        (np.full((2, 3), -1, np.int32), r"\(pillow mode I\) has pixels from -1 to -1"),
        (np.full((2, 3), 255, np.float32), r"\(pillow mode F\) has pixels from 255 to 255; values from 0 to 1 can be"),
        (np.full((2, 3), -0.5, np.float32), r"\(pillow mode F\) has pixels from -0\.5"),
        (np.full((2, 3), np.nan, np.float32), r"\(pillow mode F\) has pixels that are not finite"),
        (np.full((2, 3), np.inf, np.float32), r"\(pillow mode F\) has pixels that are not finite"),
    ],
)
def test_values_of_unknown_range_are_refused(values, message, tmp_path):
    with pytest.raises(PhotoError, match=message):
        Photo.from_image(Image.fromarray(values))
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    with pytest.raises(PhotoError, match=rf"deep\.tiff {message}"):
        Photo.open(tmp_path / "deep.tiff")


@pytest.mark.parametrize(
    "mode", ["1", "YCbCr", "LAB", "HSV", "I", "F", "LA", "La", "PA", "RGBX", "RGBa", "I;16B", "I;16L", "I;16N"]
)
def test_rare_modes_become_rgb(mode):
    assert Photo.from_image(Image.new(mode, (6, 4))).size == (4, 6)


def test_transparency_of_every_sort_is_laid_on_white(tmp_path):
    for mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        assert Photo.from_image(Image.new(mode, (2, 2))).pixels.min() == 255
    palette = Image.new("P", (2, 2))
    palette.info["transparency"] = 0
    assert Photo.from_image(palette).pixels.min() == 255
    deep = Image.fromarray(np.array([[0, 257]], np.uint16))
    deep.info["transparency"] = 0
    assert Photo.from_image(deep).pixels[0, :, 0].tolist() == [255, 1]


def jpeg_with_exif(path, *entries, order="<"):
    """Write a JPEG, (4, 8), with TIFF entries (tag, type, count, 4 bytes) after an orientation of 6."""
    entries = ((0x0112, 3, 1, struct.pack(order + "HH", 6, 0)), *entries)
    body = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    exif = start + struct.pack(order + "H", len(entries)) + body + struct.pack(order + "I", 0)
    exif += struct.pack(order + "ii", -1, 0)  # at offset 8 + 2 + 12 N + 4
    Image.new("RGB", (8, 4)).save(path, exif=b"Exif\0\0" + exif)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pillow
def test_odd_exif_costs_no_photo(tmp_path):
    signed = (0x011A, 10, 1, struct.pack("<I", 8 + 2 + 24 + 4))  # XResolution as a signed rational, -1/0
    assert Photo.open(jpeg_with_exif(tmp_path / "a.jpg", signed)).size == (8, 4)
    assert Photo.open(tmp_path / "a.jpg", exif=False).size == Photo.size_of(tmp_path / "a.jpg") == (4, 8)
    beyond = (0x010F, 2, 1000, struct.pack("<I", 60_000))
    assert Photo.open(jpeg_with_exif(tmp_path / "b.jpg", beyond)).size == (8, 4)
    for junk in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"nonsense", b"MM\0*\0\0\0\x08\xff\xff"):
        Image.new("RGB", (8, 4)).save(tmp_path / "c.jpg", exif=b"Exif\0\0" + junk)
        assert Photo.open(tmp_path / "c.jpg").size == (4, 8)


@pytest.mark.parametrize("value", [0, 9, 77, 65_535, -1, "six", (6, 6), b"\6", None])
def test_orientations_that_do_not_exist_are_ignored(value):
    image = Image.new("RGB", (8, 4))
    image.getexif()[0x0112] = value
    assert Photo.from_image(image).size == (4, 8)


@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_is_undone_as_pillow_does(value):
    from PIL import ImageOps

    image = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    image.getexif()[0x0112] = value
    assert np.array_equal(Photo.from_image(image).pixels, np.array(ImageOps.exif_transpose(image)))


def files(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for suffix in ("avif", "dds", "jp2", "png", "jpg", "webp", "tiff", "gif", "bmp", "ico", "tga", "ppm"):
        file = tmp_path / f"whole.{suffix}"
        Image.fromarray(pixels).save(file)
        yield file, file.read_bytes()


def test_cut_files_are_refused(tmp_path):
    for file, content in files(tmp_path):
        assert Photo.open(file).size in ((40, 50), (26, 32))
        for length in (0, 4, len(content) // 3):
            file.write_bytes(content[:length])
            with pytest.raises(PhotoError, match=rf"not a readable image: .*whole{file.suffix}"):
                Photo.open(file)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pillow
def test_any_damage_of_a_photo_is_refused_or_read(tmp_path):
    whole = list(files(tmp_path))
    damaged = tmp_path / "damaged"

    @settings(max_examples=150)
    @given(st.integers(0, len(whole) - 1), st.floats(0, 0.2), st.binary(min_size=1, max_size=4))
    def damage(number, place, new):
        content = whole[number][1]
        start = int(place * len(content))
        damaged.write_bytes(content[:start] + new + content[start + len(new) :])
        for read in (Photo.open, Photo.size_of):
            try:
                read(damaged)
            except PhotoError:
                continue

    damage()


def test_pillow_images_that_cannot_be_read_are_refused(tmp_path):
    png = tmp_path / "whole.png"
    Image.new("RGB", (40, 40)).save(png)
    closed = Image.open(png)
    closed.close()
    with pytest.raises(PhotoError, match="not a readable image: photo"):
        Photo.from_image(closed)
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(noise, "png")
    with pytest.raises(PhotoError, match="not a readable image: mine"):
        Photo.from_image(Image.open(io.BytesIO(noise.getvalue()[:9000])), name="mine")
    with pytest.raises(PhotoError, match="a photo is"):
        Photo.from_image(Image.new("RGB", (0, 5)))


def test_paths_that_are_no_photo_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, message in (
        (tmp_path / "fifo", "is not a regular file: give a photo"),
        ("/dev/zero", "is not a regular file: give a photo"),
        (tmp_path, "is a folder: give a photo"),
        ("~nobody-at-all/x.png", "names a user that does not exist"),
        ("x" * 5000, "cannot read the photo"),
        ("a\0.png", "holds a null character"),
        ("", "photo is empty"),
        (tmp_path / "none.png", "no such photo"),
    ):
        for read in (Photo.open, Photo.size_of):
            with pytest.raises(PhotoError, match=message):
                read(path)


def test_photos_are_bounded(tmp_path, monkeypatch):
    Image.new("1", (70_000, 1)).save(tmp_path / "long.png")
    for read in (Photo.open, Photo.size_of):
        with pytest.raises(PhotoError, match=r"long\.png is too large, 70000 x 1 pixels: it may have 65,535 a side"):
            read(tmp_path / "long.png")
    with pytest.raises(PhotoError, match="photo is too large, 70000 x 1 pixels"):
        Photo.from_image(Image.new("L", (70_000, 1)))
    with pytest.raises(PhotoError, match="photo is too large, 1 x 70000 pixels"):
        Photo(np.zeros((70_000, 1, 3), np.uint8))
    bomb = io.BytesIO()
    Image.new("1", (16, 16)).save(bomb, "png")
    content = bytearray(bomb.getvalue())
    content[16:24] = struct.pack(">II", 60_000, 60_000)  # the header alone says so
    from zlib import crc32

    content[29:33] = struct.pack(">I", crc32(bytes(content[12:29])))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(PhotoError, match=r"bomb\.png has too many pixels: it may have 65,535 a side"):
        Photo.open(tmp_path / "bomb.png")
    monkeypatch.setattr(images, "MOST_PIXELS", 99)
    with pytest.raises(PhotoError, match="photo is too large, 10 x 10 pixels: it may have 65,535 a side, 99 in all"):
        Photo(np.zeros((10, 10, 3), np.uint8))


def test_the_first_frame_of_several_is_read(tmp_path):
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert Photo.open(tmp_path / "two.gif").pixels[0, 0].tolist() == [255, 0, 0]


def test_a_strip_is_cropped_without_resizing_all_of_it(monkeypatch):
    photo = Photo(np.random.default_rng(0).integers(0, 256, (7, 300, 3), dtype=np.uint8))
    arguments = {"shorter": 24, "side": 20, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    whole = preprocessing.center_crop(photo, **arguments)
    monkeypatch.setattr(preprocessing, "_LONGEST_RESIZED", 100)
    alone = preprocessing.center_crop(photo, **arguments)
    assert (whole.pixels - alone.pixels).abs().max() <= 1.01 / 255
    assert whole.frame == alone.frame
    strip = Photo(np.zeros((1, 60_000, 3), np.uint8))
    assert preprocessing.center_crop(strip, **arguments).pixels.shape == (3, 20, 20)


WRONG = """
import numpy as np, torch
from pathlib import Path
from PIL import Image
from sd4match.data import Subset, SyntheticConfig, first, of_categories, make_images, make_pairs
from sd4match.data.ap10k_pairs import draw_pairs
from sd4match.errors import SD4MatchError
from sd4match.structures.images import Photo
from sd4match.structures.pairs import PairRecord
from sd4match.testing import FakePairs

pairs = FakePairs()
synthetic = SyntheticConfig(split="test", pairs=2, photos_per_category=3).build()
good = vars(pairs[0])
point = np.ones((1, 2)); one = np.ones(1, bool)
def record(**changes):
    return PairRecord(**{**good, "source_points": point, "target_points": point, "visible": one, **changes})
record()
calls = {
    **{f"Photo({value!r})"[:40]: (lambda value=value: Photo(value)) for value in
       (None, 5, [1], "x", b"x", torch.zeros(4, 4, 3), {}, np.zeros((4, 4)), np.zeros((4, 4, 3)))},
    "four channels": lambda: Photo(np.zeros((4, 4, 4), np.uint8)),
    **{f"open {value!r}"[:40]: (lambda value=value: Photo.open(value)) for value in (None, 5, [1], b"x", {}, iter(""))},
    **{f"image {value!r}"[:40]: (lambda value=value: Photo.from_image(value)) for value in (None, "x", np.zeros(3))},
    **{f"index {value!r}": (lambda value=value: synthetic[value]) for value in (None, "x", 1.0, True, 2, -3, 10**30)},
    **{f"photo {value!r}": (lambda value=value: synthetic.photo(value)) for value in (None, 5, "fish-²", "fish--1")},
    **{f"subset {value!r}": (lambda value=value: Subset(pairs, value)) for value in ([99], ["x"], [None], [-7])},
    **{f"first {value!r}": (lambda value=value: first(pairs, value)) for value in (-1, 0, True, 2.5, "3")},
    **{f"categories {value!r}": (lambda value=value: of_categories(pairs, value)) for value in ("left", [5], ["lef"])},
    "task": lambda: draw_pairs({}, task="all", pairs_per_group=1, seed=0),
    "no photos": lambda: make_images([], [], {}),
    "categories of other number": lambda: make_images([pairs.photo("0")], [], {}),
    "no pairs": lambda: make_pairs([], pairs, {}),
    "visible of numbers": lambda: record(visible=np.ones(1, int)),
    "visible of 2 dimensions": lambda: record(visible=np.ones((1, 1), bool)),
    "visible list": lambda: record(visible=[True]),
    "points list": lambda: record(source_points=[[1, 2]]),
    "points shape": lambda: record(source_points=np.ones((2, 2))),
    "points words": lambda: record(source_points=np.array([["a", "b"]])),
    "points nan": lambda: record(target_points=np.array([[np.nan, 1]])),
    "size words": lambda: record(source_size=("a", "b")),
    "size negative": lambda: record(source_size=(-1, 4)),
    "size float": lambda: record(source_size=(1.5, 4)),
    "size bool": lambda: record(source_size=(True, True)),
    "size 3": lambda: record(source_size=(1, 2, 3)),
    "size None": lambda: record(target_size=None),
    "box nan": lambda: record(target_box=(0, 0, float("nan"), 4)),
    "box inf": lambda: record(target_box=(0, 0, float("inf"), 4)),
    "box 3": lambda: record(target_box=(0, 0, 4)),
    "box inside out": lambda: record(target_box=(5, 5, 1, 1)),
    "box of nothing": lambda: record(target_box=(5, 5, 5, 5)),
    "box words": lambda: record(target_box=("a", "b", "c", "d")),
}
for name, call in calls.items():
    try:
        answer = call()
    except SD4MatchError as error:
        if "\\n" in str(error) or len(str(error)) > 400:
            print(name, "LONG", error)
    except Exception as error:
        print(name, type(error).__name__, error)
    else:
        print(name, "accepted")
print(len(calls))
"""


def test_values_of_wrong_types_are_refused(capsys):
    """Without the shape checks that the tests install."""
    config.update("jaxtyping_disable", True)
    try:
        exec(compile(WRONG, "wrong", "exec", dont_inherit=True), {"__name__": "wrong"})
    finally:
        config.update("jaxtyping_disable", False)
    assert capsys.readouterr() == ("65\n", "")
