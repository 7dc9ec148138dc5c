"""Locks of folders of runs."""

from __future__ import annotations

import fcntl
import signal
import sys
from pathlib import Path

import pytest

from helpers.processes import hold_folder
from sd4match.errors import InputError, TrainingError
from sd4match.io.locks import LOCK_FILE, locked_folder


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_folder_is_held_by_one_run(tmp_path):
    process = hold_folder(tmp_path / "new" / "run")
    try:
        with (
            pytest.raises(InputError, match=r"another run is writing into .*run: wait until it has ended"),
            locked_folder(tmp_path / "new" / "run"),
        ):
            pass
        assert (tmp_path / "new" / "run" / LOCK_FILE).exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with locked_folder(tmp_path / "new" / "run"):  # the system has freed it
        pass
    assert list((tmp_path / "new").rglob("*")) == [tmp_path / "new" / "run"]


def test_a_run_may_hold_what_the_code_around_it_holds(tmp_path):
    folder = tmp_path / "a" / "b"
    with locked_folder(folder), locked_folder(tmp_path / "a" / ".." / "a" / "b"):
        assert names(folder) == [LOCK_FILE]
    assert names(tmp_path) == []


def test_results_stay(tmp_path):
    with locked_folder(tmp_path / "a"):
        (tmp_path / "a" / "result").write_text("x")
    assert names(tmp_path / "a") == ["result"]


def test_a_lock_that_was_removed_meanwhile_is_made_again(tmp_path, monkeypatch):
    flock, seen = fcntl.flock, []

    def removing(handle, flags):
        flock(handle, flags)
        seen.append(handle)
        if len(seen) == 1:
            (tmp_path / LOCK_FILE).unlink()
        if len(seen) == 2:
            (tmp_path / LOCK_FILE).unlink()
            (tmp_path / LOCK_FILE).write_text("")

    monkeypatch.setattr(fcntl, "flock", removing)
    with locked_folder(tmp_path):
        assert (len(seen), names(tmp_path)) == (3, [LOCK_FILE])


def test_without_locks_nothing_is_held(tmp_path, monkeypatch):
    def refuse(handle, flags):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked_folder(tmp_path / "a"):
        assert names(tmp_path / "a") == []
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked_folder(tmp_path / "a"):
        assert names(tmp_path / "a") == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(TrainingError, match="cannot make the folder"),
        locked_folder(tmp_path / "file" / "run", error=TrainingError),
    ):
        pass
    (tmp_path / LOCK_FILE).symlink_to(Path("elsewhere"))
    with pytest.raises(InputError, match=r"cannot write .*sd4match-lock"), locked_folder(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
