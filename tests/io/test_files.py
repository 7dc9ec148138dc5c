"""Files that are written whole or not at all, and damaged safetensors files."""

from __future__ import annotations

import errno
import json
import os
import struct

import pytest
import torch

from helpers.unchecked import unchecked  # noqa: F401 - a fixture
from sd4match.errors import InputError, PromptFileError, SD4MatchError
from sd4match.io import files
from sd4match.io.files import (
    check_output_file,
    read_safetensors,
    remove,
    safetensors_buffers,
    to_safetensors,
    write_atomically,
    write_together,
)


def everything(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def full_disk(monkeypatch, *, after):
    """Let the disk be full after some files."""
    left, real = [after], os.fdopen

    def fdopen(handle, mode):
        left[0] -= 1
        if left[0] >= 0:
            return real(handle, mode)
        os.close(handle)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fdopen", fdopen)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, after):
    (tmp_path / "a").write_text("old")
    before = everything(tmp_path)
    full_disk(monkeypatch, after=after)
    with pytest.raises(SD4MatchError, match="cannot write the report: No space left on device"):
        write_together(
            {tmp_path / "a": b"1", tmp_path / "b": b"2", tmp_path / "new" / "deep" / "c": b"3"}, name="the report"
        )
    assert everything(tmp_path) == before


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, MemoryError])
def test_whatever_interrupts_leaves_nothing(tmp_path, stop):
    def buffers():
        yield b"half"
        raise stop

    with pytest.raises(stop):
        write_together({tmp_path / "new" / "a": b"whole", tmp_path / "new" / "b": buffers()})
    assert everything(tmp_path) == {}


def test_what_is_in_the_way_is_named_and_nothing_is_written(tmp_path):
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "c")
    (tmp_path / "file").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    for path, part in (
        (tmp_path / "b", "b is a folder"), (tmp_path / "c", "c is not a regular file"),
        (tmp_path / "file" / "below", "Not a directory"), (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / ("y" * 300) / "z", "File name too long"),
    ):  # fmt: skip
        with pytest.raises(PromptFileError, match=f"cannot write .*{part}"):
            write_together({tmp_path / "a": b"1", path: b"2"}, error=PromptFileError)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("links", [True, False])
def test_what_fails_in_its_last_step_leaves_the_old_ones(tmp_path, monkeypatch, links):
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    before = everything(tmp_path)
    real = files.Path.replace

    def replace(path, target):
        if target.name == "c":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, target)

    def no_link(path, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(files.Path, "replace", replace)
    if not links:
        monkeypatch.setattr(files.Path, "hardlink_to", no_link)
    with pytest.raises(SD4MatchError, match="Input/output error"):
        write_together({tmp_path / name: b"new" for name in ("a", "new", "b", "c", "d")})
    assert everything(tmp_path) == before


def test_a_whole_one_replaces_the_old_one(tmp_path):
    write_atomically(tmp_path / "new" / "a", b"old")
    write_together({tmp_path / "new" / "a": [b"n", b"ew"], tmp_path / "b": b"2"}, durable=True)
    assert everything(tmp_path) == {"new": False, "new/a": b"new", "b": b"2"}
    remove(tmp_path / "b")
    remove(tmp_path / "b")
    with pytest.raises(SD4MatchError, match="cannot remove"):
        remove(tmp_path / "new")


def test_an_output_is_no_input_and_no_file_of_another_sort(tmp_path):
    source, other = tmp_path / "source", tmp_path / "other"
    source.write_text("x")
    other.write_text("y")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert check_output_file(tmp_path / "new") == tmp_path / "new"
    assert check_output_file(other, is_own=lambda path: True) == other
    for path, options, part in (
        (tmp_path, {}, "is not a file"), (tmp_path / "link", {"inputs": [source]}, "is an input of this command"),
        (tmp_path / "link", {"is_own": lambda path: True}, "is a link, and would be replaced"),
        (tmp_path / "gone", {}, "is a link, and would be replaced"),
        (other, {"is_own": lambda path: False, "what": "prompt file"}, "is no prompt file of sd4match"),
        (other, {}, "exists and is no file"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=part):
            check_output_file(path, **options)


# safetensors


def header_of(fields, data=b""):
    content = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return struct.pack("<Q", len(content)) + content + data


def tensor(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


WHOLE = to_safetensors({"x": torch.ones(2)}, {"a": "b"})


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x", WHOLE[:4], WHOLE[:20], WHOLE[:-1], WHOLE + b"x", b"no safetensors file",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}", header_of(b""), header_of(b"[]"), header_of(b"[" * 100_000),
        header_of(b'{"__metadata__":' + b"[" * 100_000), header_of({"__metadata__": {"a": 1}}), header_of({"x": 3}),
        header_of({"x": tensor(), "y": tensor()}, b"abcd"), header_of({"x": tensor(offsets=(0, 8))}, b"abcd"),
        header_of({"x": tensor(offsets=(4, 0))}, b"abcd"), header_of({"x": tensor(shape=(2**62, 8))}, b"abcd"),
        header_of({"x": tensor(shape=(-1,))}, b"abcd"), header_of({"x": tensor("F6_E2M3", (4,), (0, 3))}, b"abc"),
        header_of({"x": tensor("Q4")}, b"abcd"), b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n",
    ],
)  # fmt: skip
def test_a_damaged_file_is_a_value_error(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - the message is of safetensors
        read_safetensors(tmp_path / "x.safetensors")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(ValueError, match="not a regular file"):
            read_safetensors(path)
    for path in (tmp_path / "none", tmp_path / ("x" * 300)):
        with pytest.raises(OSError):  # noqa: PT011
            read_safetensors(path)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.uint16, torch.uint64, torch.complex64]
)
def test_dtypes_come_back(tmp_path, dtype):
    values = torch.tensor([0, 1]).to(dtype)
    content = b"".join(safetensors_buffers({"x": values}, {"a": "b"}))
    assert content == to_safetensors({"x": values}, {"a": "b"})
    (tmp_path / "x").write_bytes(content)
    tensors, metadata = read_safetensors(tmp_path / "x")
    assert torch.equal(tensors["x"], values)
    assert metadata == {"a": "b"}


def test_a_dtype_that_cannot_be_stored_is_named():
    with pytest.raises(InputError, match=r"the tensor x is of torch\.complex128, which cannot be stored"):
        safetensors_buffers({"x": torch.zeros(1, dtype=torch.complex128)})
