"""What the package promises as a whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

import sd4match
from sd4match.backbones.pretrained import MINI_FOLDER

ROOT = Path(__file__).parents[1]


def test_help_answers_at_once():
    """Well under a second even beside other tests; the best of three."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "sd4match", "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert "match" in done.stdout
    assert min(seconds) < 1.0


def test_mini_is_small_and_has_a_card():
    size = sum(file.stat().st_size for file in MINI_FOLDER.rglob("*") if file.is_file())
    assert size < 24e6
    card = (MINI_FOLDER / "README.md").read_text(encoding="utf-8")
    for word in ("license: apache-2.0", "Disclosure", "Recipe", "Data", "Figures"):
        assert word in card
    assert json.loads((MINI_FOLDER / "unet" / "config.json").read_text())["_class_name"] == "UNet2DConditionModel"


def test_the_version_is_one():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", text, re.MULTILINE).group(1) == sd4match.__version__
    assert f"[{sd4match.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_nothing_of_the_place_it_was_written_in():
    """Code, docs and configs speak of the project alone."""
    words = re.compile("|".join(("/wo" + "rk/", "/ro" + "ot/", "farm" + "-studio")))
    for folder in ("src", "tests", "docs", "tools"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in {".py", ".md", ".yaml", ".toml", ".json"}:
                assert not words.search(file.read_text(encoding="utf-8")), file


@pytest.mark.slow
def test_wheel_in_another_environment(tmp_path):
    """Built, installed beside the same dependencies but without this checkout, and used."""

    def run(*command):
        return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, cwd=tmp_path)

    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    where = run(python, "-c", "import sd4match; print(sd4match.__file__)").stdout
    assert str(tmp_path) in where
    command = tmp_path / "env" / "bin" / "sd4match"
    assert run(command, "--version").stdout.strip() == f"sd4match {sd4match.__version__}"
    code = "from sd4match.testing import random_photo as r; [r(seed=i).to_image().save(f'{i}.png') for i in (0, 1)]"
    run(python, "-c", code)
    run(command, "match", "0.png", "1.png", "--output", "out")
    assert json.loads((tmp_path / "out" / "matches.json").read_text())["matches"]


def test_no_test_module_imports_from_another():
    """What several of them use lies in tests/helpers."""
    for file in (ROOT / "tests").rglob("*.py"):
        assert not re.search(r"^\s*(?:from|import) (?:tests|test_|conftest)", file.read_text(encoding="utf-8"), re.M), (
            file
        )


def test_tests_mirror_the_source():
    """Each folder of tests is named after a package, or after what else it tests."""
    packages = {folder.name for folder in (ROOT / "src" / "sd4match").iterdir() if folder.is_dir()}
    others = {"accelerator", "benchmarks", "helpers", "tools"}
    folders = {folder.name for folder in (ROOT / "tests").iterdir() if any(folder.glob("*.py"))}
    assert folders <= packages | others
