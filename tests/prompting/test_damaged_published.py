"""Published prompts that are damaged, hostile or of other shapes: refused in one line; nothing is executed."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from inspect import unwrap

import pytest
import torch

from sd4match.errors import PromptFileError
from sd4match.prompting import read_published
from sd4match.prompting.published import is_converted

SINGLE, CLASS = "Single_spair_sd2-1_TokenEmbeds75", "Class_spair_sd2-1_TokenEmbeds75"
HIDDEN, CPM = "Single_spair_sd2-1_HiddenState", "CPM_spair_sd2-1_Img-DINO-Head-G2-C3"


def folder(tmp_path, name, content):
    """Write a published folder: bytes as they are, anything else as torch saves it."""
    path = tmp_path / name
    path.mkdir(exist_ok=True)
    file = path / ("ckpt.pt" if name.startswith("CPM") else "caption.pt")
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    return path


def assert_refused(path, message="", error=PromptFileError):
    with pytest.raises(error, match=message) as caught:
        read_published(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def whole():
    return torch.randn(1, 77, 1024, generator=torch.Generator().manual_seed(0))


def with_value(value, *, dtype=torch.float32):
    values = whole().to(dtype)
    values[0, 3, 3] = value
    return values


VECTORS = {
    "NaN": (lambda: with_value(float("nan")), "is not finite: 1 of"),
    "infinite": (lambda: with_value(float("inf")), "is not finite"),
    "infinite in float32": (lambda: with_value(1e300, dtype=torch.float64), "infinite in float32"),
    "a batch of 0": (lambda: whole()[:0], "holds no values"),
    "a batch of 5": (lambda: whole().expand(5, -1, -1).clone(), r"it is \(5, 77, 1024\)"),
    "no width": (lambda: whole()[..., :0], "holds no values"),
    "another width": (lambda: whole()[..., :4].clone(), "D = 1024"),
    "no rows": (lambda: whole()[:, :0], "holds no values"),
    "few rows": (lambda: whole()[:, :50].clone(), "text tokens"),
    "many rows": (lambda: torch.randn(1, 78, 1024), "has 78 text tokens; Stable Diffusion 2.1 has 77"),
    "of rank 2": (lambda: whole()[0], "must hold"),
    "of rank 0": (lambda: torch.tensor(1.0), "must hold"),
    "integers": (lambda: whole().long(), "must be a dense tensor of float16"),
    "booleans": (lambda: whole() > 0, "not bool"),
    "complex": (lambda: whole().to(torch.complex64), "not complex64"),
    "float8": (lambda: whole().to(torch.float8_e4m3fn), "not float8_e4m3fn"),
    "sparse": (lambda: whole().to_sparse(), "sparse_coo"),
    "meta": (lambda: torch.empty(1, 77, 1024, device="meta"), "a meta tensor"),
    "more than stored": (lambda: torch.zeros(1).expand(10**9, 77, 1024), "of which the file holds a part"),
    "text": (lambda: "x", "it is str"),
    "None": (lambda: None, "it is NoneType"),
    "nested": (lambda: {"a": 1}, "it is dict"),
}


@pytest.mark.parametrize("damage", VECTORS)
@pytest.mark.parametrize("name", [SINGLE, HIDDEN, CLASS])
def test_vectors_that_are_none_are_refused(tmp_path, name, damage):
    make, message = VECTORS[damage]
    if name == HIDDEN and "rows" in damage:
        message = "text tokens|holds no values"
    content = {"cat": whole(), "dog": make()} if name == CLASS else {"spair": make()}
    assert_refused(folder(tmp_path, name, content), message)


@pytest.mark.filterwarnings("ignore:.*quantized tensor:UserWarning")
def test_quantized_vectors_are_refused(tmp_path):
    quantized = torch.quantize_per_tensor(whole(), 0.1, 0, torch.qint8)
    assert_refused(folder(tmp_path, SINGLE, {"spair": quantized}), "caption.pt")


def test_half_precision_is_taken(tmp_path):
    stored = whole()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        found = read_published(folder(tmp_path, SINGLE, {"spair": stored.to(dtype)}))
        assert torch.equal(found.tensors["token_embeddings"], stored.to(dtype).float()[0, 1:76])


@pytest.mark.parametrize("name", [1, None, b"x", (1,), 2.5, "", " ", "(G)", "\ud800"], ids=repr)
def test_names_that_are_no_categories_are_refused(tmp_path, name):
    assert_refused(folder(tmp_path, CLASS, {name: whole()}), r"no text|no category|caption\.pt")


@pytest.mark.parametrize("content", [{}, [], (), None, 1, "x", torch.zeros(1)], ids=lambda value: type(value).__name__)
def test_files_that_hold_no_tensors_by_name_are_refused(tmp_path, content):
    assert_refused(folder(tmp_path, SINGLE, content), "holds")


class Evil:
    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("new_format", [True, False], ids=["archive", "legacy"])
def test_files_that_are_cut_or_changed_are_refused(tmp_path, new_format):
    buffer = io.BytesIO()
    torch.save({"spair": torch.zeros(1, 77, 4)}, buffer, _use_new_zipfile_serialization=new_format)
    content = buffer.getvalue()
    for length in (0, 1, 2, 4, 10, 100, 500, len(content) // 2, len(content) - 100, len(content) - 1):
        assert_refused(folder(tmp_path, SINGLE, content[:length]), r"caption\.pt")
    for position in [*range(0, 300, 7), *range(len(content) - 300, len(content), 7)]:
        changed = bytearray(content)
        changed[position] ^= 0x55
        assert_refused(folder(tmp_path, SINGLE, bytes(changed)), r"caption\.pt")


def test_files_of_other_formats_are_refused_and_nothing_is_executed(tmp_path):
    Evil.mark = str(tmp_path / "executed")
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for content, message in (
        (lfs, "Git-LFS pointer: fetch the file"), (b"hello world", r"caption\.pt"),
        (b"PK\x05\x06" + b"\0" * 18, r"caption\.pt"),
        (pickle.dumps({"spair": [1]}), r"caption\.pt"), (pickle.dumps({"spair": Evil()}), "more than tensors"),
        (b"\x08" + b"\0" * 7 + b"{}      ", r"caption\.pt"),
    ):  # fmt: skip
        assert_refused(folder(tmp_path, SINGLE, content), message)
    assert not (tmp_path / "executed").exists()


def test_archives_that_expand_are_not_opened(tmp_path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 1_000_000)
    assert_refused(folder(tmp_path, SINGLE, bomb.getvalue()), "is compressed, which torch.save never writes")
    with (folder(tmp_path, SINGLE, b"") / "caption.pt").open("wb") as file:
        file.truncate((16 << 30) + 1)
    assert_refused(tmp_path / SINGLE, "is too large")


def test_paths_that_are_no_published_prompts_are_named_for_what_they_are(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / SINGLE / "caption.pt").mkdir(parents=True)
    cases = {
        tmp_path / "fifo": "not a regular file", tmp_path / "loop": "no such folder", tmp_path / SINGLE: "is a folder",
        tmp_path / ("x" * 300): "no such folder", "~nobody-here/x": "a user that does not exist", "": "is empty",
        None: "must be a path", 5: "must be a path", "/dev/zero": "not a regular file",
    }  # fmt: skip
    for path, message in cases.items():
        with pytest.raises(PromptFileError, match=message):
            unwrap(read_published)(path)


def cpm_state():
    return {
        "global_embeds": torch.randn(1, 2, 1024), "positional_embedding": torch.randn(1, 3, 1024),
        "alpha_cond": torch.randn(1, 3, 1024), "linear.weight": torch.randn(1024, 768),
        "linear.bias": torch.randn(1024),
    }  # fmt: skip


def odise_state():
    return {
        "alpha_cond": torch.randn(1, 77, 768), "clip_project.positional_embedding": torch.randn(1, 77, 768),
        "clip_project.linear.weight": torch.randn(768, 768), "clip_project.linear.bias": torch.randn(768),
    }  # fmt: skip


def damaged(value):
    yield value[..., :-1].clone()
    yield value[None, None]
    yield torch.cat([value, value])
    yield torch.cat([value, value], dim=-1)
    yield value[:0]
    yield value.long()
    yield value * float("nan")
    yield torch.tensor(1.0)
    yield value.to("meta")
    yield value.to_sparse()
    yield "text"


def test_tensors_of_a_cpm_that_cannot_load_are_refused(tmp_path):
    state = cpm_state()
    assert set(read_published(folder(tmp_path, CPM, state)).tensors) == {
        "alpha", "positions", "global_embeddings", "channel_linear.weight", "channel_linear.bias",
    }  # fmt: skip
    for name, value in state.items():
        for wrong in damaged(value):
            assert_refused(folder(tmp_path, CPM, {**state, name: wrong}), r"ckpt\.pt")
        assert_refused(folder(tmp_path, CPM, {k: v for k, v in state.items() if k != name}), "does not hold")
    assert_refused(folder(tmp_path, CPM, {**state, 5: torch.zeros(1)}), "the name 5, which is no text")
    assert_refused(folder(tmp_path, CPM.replace("C3", "C0"), state), "describes no prompt: num_tokens")


def test_tensors_of_odise_that_cannot_load_are_refused(tmp_path):
    file, state = tmp_path / "odise.pth", odise_state()
    torch.save({"model": {**state, 5: 6}}, file)
    assert read_published(file).config.kind == "implicit_captioner"
    for name in ("alpha_cond", "clip_project.linear.bias"):
        for wrong in damaged(state[name]):
            torch.save({"model": {**state, name: wrong}}, file)
            assert_refused(file, r"odise\.pth")
    for content in ({"model": 5}, {"model": None}, {"model": [1]}):
        torch.save(content, file)
        assert_refused(file, "holds no state dict")


def test_only_converted_prompts_are_recognized_as_such(tmp_path):
    assert not is_converted(tmp_path / "nothing")
    (tmp_path / "text").write_text("mine")
    assert not is_converted(tmp_path / "text")
