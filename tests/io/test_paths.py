"""Paths as users give them never raise what is not ours, and reading one always ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sd4match.errors import DatasetError, InputError
from sd4match.paths import as_path, exists, is_file, is_folder, read_bytes, require_file, require_folder, resolved

LONG = Path("x" * 300)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "--root must be a path, not None"), (b"a", "must be a path"), ("", "--root is empty"),
        ("  ", "--root is empty"), ("a\0b", "null character"), ("a\udcff", "is not UTF-8"),
        ("~no-such-user/x", "a user that does not exist"),
    ],
)  # fmt: skip
def test_what_is_no_path(value, message):
    with pytest.raises(DatasetError, match=message):
        as_path(value, what="--root", error=DatasetError)


def test_home_is_expanded():
    assert as_path("~/x", what="file") == Path.home() / "x"


def test_a_name_that_no_file_can_have_is_not_there():
    assert not exists(LONG)
    assert not is_file(LONG)
    assert not is_folder(LONG)
    with pytest.raises(InputError, match=r"cannot read the photo x+: File name too long"):
        require_file(LONG, what="photo")
    with pytest.raises(InputError, match=r"cannot read the folder x+: File name too long"):
        require_folder(LONG, what="folder")


def test_only_regular_files_are_read(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        with pytest.raises(InputError, match=f"{path} is not a regular file: give a report"):
            read_bytes(path, what="report")
    with pytest.raises(InputError, match="is a folder: give a report"):
        read_bytes(tmp_path, what="report")
    with pytest.raises(InputError, match="no such report"):
        read_bytes(tmp_path / "none", what="report")
    with pytest.raises(InputError, match="no such data set"):
        require_folder(tmp_path / "none", what="data set")
    with pytest.raises(InputError, match="is not a folder: give a data set"):
        require_folder(fifo, what="data set")
    assert require_folder(tmp_path, what="data set") == tmp_path
    (tmp_path / "a").write_bytes(b"abc")
    assert read_bytes(tmp_path / "a", what="report") == b"abc"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission(tmp_path):
    file = tmp_path / "a"
    file.touch(mode=0)
    with pytest.raises(InputError, match=r"cannot read the report .*Permission denied"):
        read_bytes(file, what="report")


def test_links_that_form_a_loop_are_a_path_that_is_not_there(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert resolved(loop) == loop
    assert not exists(loop)
    with pytest.raises(InputError, match="Too many levels of symbolic links"):
        require_file(loop, what="report")
