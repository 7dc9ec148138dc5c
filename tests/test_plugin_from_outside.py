"""The walk of a package outside sd4match: built, installed, listed, trained, killed, resumed, matched with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

import sd4match
from sd4match.testing import random_photo

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "sd4match-lowrank"
TRAINING = {
    "steps": 6, "batch_size": 2, "checkpoint_every": 1, "validate_every": 3, "validation_pairs": 2,
}  # fmt: skip
DATA = {"kind": "synthetic", "pairs": 4, "photos_per_category": 3}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return the interpreter of a fresh environment, which borrows the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join([str(Path(sd4match.__file__).parents[1]), *borrowed]))
    return folder / "bin" / "python"


def run(*command, fails=False, **options):
    """Run a command to its end; return what it prints."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def install(python, project, folder):
    """Build the wheel of a project in a copy of it, and install it; return the copy."""
    copy = folder / project.name
    if project != copy:
        shutil.copytree(project, copy)
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", wheels, copy)
    (wheel,) = wheels.glob(f"{project.name.replace('-', '_')}-*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    return copy


def components(python):
    rows = json.loads(run(python, "-m", "sd4match", "components", "--json"))
    return {(row["sort"], row["kind"]): row for row in rows}


@pytest.mark.slow
def test_an_example_package_goes_the_whole_way(python, tmp_path):
    project = install(python, EXAMPLE, tmp_path)
    listed = components(python)
    for sort, kind in (("prompt", "lowrank"), ("matcher", "mutual_ratio"), ("loss", "tempered")):
        assert listed[sort, kind]["package"] == "sd4match-lowrank 0.1.0"
        assert listed[sort, kind]["summary"].endswith(".")
    assert listed["prompt", "lowrank"]["fields"] == {"num_tokens": "20", "rank": "4", "seed": "0"}
    assert "passed" in run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", project / "tests", cwd=tmp_path)

    fields = yaml.safe_load((project / "lowrank.yaml").read_text())
    config = tmp_path / "lowrank.yaml"
    config.write_text(yaml.safe_dump({**fields, "training": TRAINING, "data": DATA}))
    output = tmp_path / "run"
    training = subprocess.Popen(
        [str(python), "-m", "sd4match", "train", "--config", str(config), "--output", str(output)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while len(list(output.glob("checkpoints/step-*.safetensors"))) < 2 and training.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(training.pid, signal.SIGKILL)
    assert training.wait() == -signal.SIGKILL, "it was over before it could be killed"
    assert "Learned for 6 steps" in run(python, "-m", "sd4match", "train", "--resume", output)

    learned = output / "prompt.safetensors"
    described = json.loads(run(python, "-m", "sd4match", "prompts", "inspect", learned, "--json"))
    assert (described["kind"], described["config"]["rank"]) == ("lowrank", 2)
    assert described["components"]["loss"]["kind"] == "tempered"
    for name, seed in (("a", 0), ("b", 1)):
        Image.fromarray(random_photo((60, 80), seed=seed).pixels).save(tmp_path / f"{name}.png")
    run(
        python, "-m", "sd4match", "match", tmp_path / "a.png", tmp_path / "b.png", "--prompt", learned,
        "--point", "30,20", "--output", tmp_path / "matches",
    )  # fmt: skip
    assert len(json.loads((tmp_path / "matches" / "matches.json").read_text())["matches"]) <= 1

    without = run(sys.executable, "-m", "sd4match", "prompts", "inspect", learned, fails=True)
    assert "needs components of 'sd4match-lowrank 0.1.0': install it" in without


@pytest.mark.slow
def test_a_new_plugin_passes_its_own_tests_and_the_checkers(python, tmp_path):
    run(python, "-m", "sd4match", "new", "plugin", "sd4match-mine", cwd=tmp_path)
    project = install(python, tmp_path / "sd4match-mine", tmp_path)
    listed = components(python)
    assert {("prompt", "mine_prompt"), ("matcher", "mine_matcher"), ("loss", "mine_loss")} <= set(listed)
    assert "passed" in run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", project / "tests", cwd=tmp_path)
    changes = {"training": {**TRAINING, "steps": 2, "validate_every": 2}, "data": DATA}
    fields = yaml.safe_load((project / "experiment.yaml").read_text())
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**fields, **changes}))
    run(python, "-m", "sd4match", "train", "--config", tmp_path / "own.yaml", "--output", tmp_path / "run")
    sources = (project / "src", EXAMPLE / "src")
    run(sys.executable, "-m", "mypy", "--strict", "--config-file=", *sources)
    run(sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", *sources)
