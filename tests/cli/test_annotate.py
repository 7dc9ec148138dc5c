"""`sd4match app --annotate`: what is refused, and that it serves the folder until it is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from helpers.annotation import bytes_below, write_photos
from sd4match.app.annotation_store import AnnotationStore
from sd4match.io.locks import LOCK_FILE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--annotate", "missing"], "no such folder: missing"),
        (["--annotate", "."], "holds no photo: two photos"),
        (["--annotate", ".", "--prompt", "empty", "--prompt", "text"], "--annotate takes one --prompt"),
        (["--annotate", ".", "--category", " "], "--category is empty"),
        (["--category", "cat"], "--category goes with --annotate FOLDER"),
        (["--exif"], "--exif goes with --annotate FOLDER"),
    ],
)
def test_what_cannot_be_annotated_is_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("app", *arguments)
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_serves_the_folder_until_it_is_stopped_and_leaves_no_lock(tmp_path):
    pytest.importorskip("gradio")
    write_photos(tmp_path)
    before = bytes_below(tmp_path)
    command = [sys.executable, "-m", "sd4match", "app", "--annotate", str(tmp_path), "--preset", "hog"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert "3 photos; points go to" in process.stdout.readline()
        address = process.stdout.readline().split()[4]
        with urllib.request.urlopen(f"{address}config") as page:
            assert json.load(page)["title"] == "sd4match: annotate"
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert "another run is writing into" in second.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / LOCK_FILE).exists()
    assert bytes_below(tmp_path) == before
    with AnnotationStore.open(tmp_path):
        pass
