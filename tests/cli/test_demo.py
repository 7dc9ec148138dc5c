"""The demo's picture, whose pairs are chosen before anything is found in them, and its commands."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from sd4match.cli.common import program
from sd4match.cli.demo_picture import Matched, chosen_pairs, draw_columns
from sd4match.data import SyntheticConfig
from sd4match.testing import random_photo


@dataclass
class Pair:
    category: str | None
    visible: np.ndarray

    @classmethod
    def of(cls, category, *visible):
        return cls(category, np.array(visible, dtype=bool))


def test_pairs_are_the_first_complete_ones_of_three_categories():
    cup, other, car = Pair.of("cup", 1, 1), Pair.of("cup", 1), Pair.of("car", 1)
    boat, face = Pair.of("boat", 1, 1, 1), Pair.of("face", 1)
    records = [Pair.of("face", 1, 0), cup, other, car, boat, face]
    assert [id(pair) for pair in chosen_pairs(records)] == [id(cup), id(car), id(boat)]
    assert chosen_pairs([Pair.of("face", 1, 0), Pair.of("cup", 0, 1)])[0].category == "face"


@pytest.mark.slow
def test_the_packaged_pairs_show_every_part():
    pairs = chosen_pairs(list(SyntheticConfig(split="test", seed=0).build()))
    assert len({pair.category for pair in pairs}) == 3
    assert all(pair.visible.all() for pair in pairs)


def test_the_picture_is_as_wide_as_a_page_and_shows_hits_and_misses():
    points = np.array([[10.0, 12.0], [50.0, 40.0]])
    source, target = random_photo((96, 96), seed=0), random_photo((96, 96), seed=1)
    pair = Matched(source, target, points, points, points, [True, False], "cup")
    picture = draw_columns(["text", "learned"], [[pair, pair], [pair, pair]])
    assert (picture.width, picture.mode) == (800, "RGB")
    pixels = np.asarray(picture)
    assert (pixels[:, :8] == 255).all()
    assert (pixels[:, -8:] == 255).all()
    left, right = pixels[60:400, 8:392], pixels[60:400, 408:792]
    assert (left == right).all()  # the same results under other titles
    assert (pixels[:30, 8:392] != pixels[:30, 408:792]).any()


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        (".venv/bin/sd4match", ".venv/bin/sd4match"),
        ("my programs/sd4match", "'my programs/sd4match'"),
        ("bin/sd4match", "bin/sd4match"),
        ("{folder}/bin/sd4match", "sd4match"),
        ("sd4match", "sd4match"),
    ],
)
def test_commands_begin_as_the_program_was_called(tmp_path, monkeypatch, called, expected):
    file = tmp_path / "bin" / "sd4match"
    file.parent.mkdir()
    file.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(file.parent))
    monkeypatch.setattr(sys, "argv", [called.format(folder=tmp_path)])
    assert program() == expected


def test_a_module_is_called_by_its_interpreter(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "sd4match" / "__main__.py")])
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == f"{python} -m sd4match"
    monkeypatch.chdir(tmp_path)
    assert program() == ".venv/bin/python -m sd4match"
    monkeypatch.setenv("PATH", str(python.parent))
    assert program() == "python -m sd4match"


@pytest.mark.slow
def test_the_demo_and_each_command_that_it_names_work_as_typed(tmp_path):
    """On a shorter training; `make demo` is the whole one."""
    short = (
        "import sys; from sd4match.config import presets; real = presets.load_preset; "
        "small = ['training.steps=3', 'data.pairs=24', 'evaluation.bootstrap_samples=20', "
        "'training.validation_pairs=4']; "
        "presets.load_preset = lambda name, overrides=(): real(name, [*overrides, *small]); "
        "sys.argv[0] = sys.argv.pop(1); from sd4match.__main__ import main; main()"
    )
    script = tmp_path / ".venv" / "bin" / "sd4match"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{short}" "$0" "$@"\n')
    script.chmod(0o755)
    environment = os.environ | {"PATH": "/usr/bin:/bin"}

    def call(line):
        return subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    done = call(".venv/bin/sd4match demo --output demo")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "demo" / "pair.png") as picture:
        assert picture.width == 800
    _, _, following = done.stdout.partition("Try next:\n")
    lines = [line.strip() for line in following.splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(".venv/bin/sd4match ")
        again = call(line)
        assert (again.returncode, "error" in again.stderr) == (0, False), (line, again.stderr)
    assert json.loads((tmp_path / "matches" / "matches.json").read_text())["source"]["path"] == "demo/source.png"
    compared = call(".venv/bin/sd4match compare demo demo --row-a single --row-b text")
    assert compared.returncode == 0, compared.stderr
    assert call(".venv/bin/sd4match demo --output demo").returncode == 0  # it replaces its own files
