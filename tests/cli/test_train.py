"""`sd4match train` as a process: stopped, resumed, launched twice; `sd4match cache`."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from helpers.command_line import sets

SMALL = ["data.photos_per_category=2", "data.pairs=4", "training.batch_size=2", "prompt.num_tokens=4",
         "training.validate_every=1000", "training.validation_pairs=2", "training.checkpoint_every=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Leave out the curves, which take as long as the training."""
    monkeypatch.setattr("sd4match.training.run.figure_to_image", lambda figure: Image.new("RGB", (1, 1)))


def start(*arguments):
    command = [sys.executable, "-m", "sd4match", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(check, seconds=90):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


def check_stopped(run, out, screen):
    """A training of 5000 steps stopped by itself, saved its state, and can go on."""
    step = int(re.search(r"Stopped after step (\d+) of 5000\. Go on with: sd4match train --resume", screen)[1])
    assert (out / "checkpoints" / f"step-{step:08d}.safetensors").is_file()
    assert not (out / "report.json").exists()
    code, screen, error = run("train", "--resume", out, "--steps", step + 2)
    assert (code, f"Learned for {step + 2} steps" in screen) == (0, True), error
    report = json.loads((out / "report.json").read_text())
    assert report["training"]["steps"] == step + 2
    assert report["results"][0]["pairs"] == 2
    assert len((out / "losses.csv").read_text().splitlines()) == step + 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_says_how_to_go_on_and_leaves_with_0(run, tmp_path, number):
    out = tmp_path / "it"
    process = start("--output", out, "--steps", 5000, "--seed", 1, *sets(*SMALL, "training.schedule=constant"))
    wait_for(lambda: (out / "checkpoints" / "step-00000003.safetensors").is_file())
    process.send_signal(number)
    screen, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    check_stopped(run, out, screen)


def test_asked_to_stop_in_this_process_it_does_the_same(run, tmp_path):
    out = tmp_path / "it"

    def ask():
        wait_for(lambda: (out / "checkpoints" / "step-00000002.safetensors").is_file())
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    options = sets(*SMALL, "training.schedule=constant")
    code, screen, error = run("train", "--output", out, "--steps", 5000, "--seed", 1, *options)
    asking.join()
    assert code == 0, error
    check_stopped(run, out, screen)


@pytest.mark.slow
def test_killed_while_models_load_it_can_go_on_all_the_same(run, tmp_path):
    out = tmp_path / "it"
    process = start("--output", out, "--steps", 2, *sets(*SMALL))
    wait_for(lambda: (out / "config.yaml").is_file())
    process.kill()
    process.communicate()
    assert not (out / "checkpoints").exists()
    code, screen, error = run("train", "--resume", out)
    assert (code, "Learned for 2 steps" in screen) == (0, True), error


def test_going_on_is_refused_where_it_would_be_another_training(run, tmp_path):
    out = tmp_path / "it"
    assert run("train", "--output", out, "--steps", 2, *sets(*SMALL))[0] == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    for arguments, message in [
        (("--resume", out, *sets("training.learning_rate=0.5")), "training.learning_rate = 0.5 (0.01 there)"),
        (("--resume", out, "--seed", "4"), "seed = 4"),
        (("--resume", out, "--steps", "9"), "training.steps = 9 (2 there)"),  # cosine
        (("--resume", out, *sets("prompt.num_tokens=5")), "prompt.num_tokens = 5 (4 there)"),
        (("--resume", out, "--output", out), "leave --output out"),
        (("--resume", out, "--preset", "cpm"), "leave --preset out"),
        (("--resume", tmp_path / "nothing"), "there is no training in it"),
        (("--output", out, "--steps", "2", *sets(*SMALL)), "holds a training already"),
        (("--output", tmp_path / "other", "--track", "nobody", *sets(*SMALL)), "unknown tracker"),
        (("--output", tmp_path / "other", "--track", "wandb", *sets(*SMALL)), "wandb is not installed"),
        (("--output", tmp_path / "other", "--cache-limit", "much"), "a size is written as"),
    ]:
        code, _, error = run("train", *map(str, arguments))
        assert (code, message in error, error.count("\n")) == (2, True, 1), (arguments, error)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    assert not (tmp_path / "other").exists()
    code, _, error = run("train", "--output", out, "--overwrite", "--track", "wandb", *sets(*SMALL))
    assert (code, "not installed" in error) == (2, True)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.yaml").write_text("prompt: {kind: single}\n")
    assert (
        run("train", "--config", own / "config.yaml", "--dataset", "synthetic", "--output", own, "--track", "wandb")[0]
        == 2
    )
    assert (own / "config.yaml").read_text() == "prompt: {kind: single}\n"
    assert run("train", "--output", out, "--steps", 3, "--overwrite", *sets(*SMALL))[0] == 0
    assert run("train", "--resume", out)[0] == 0  # at its end already: nothing to do, and everything is there


def test_a_damaged_checkpoint_costs_one_line(run, tmp_path):
    out = tmp_path / "it"
    assert run("train", "--output", out, "--steps", 3, *sets(*SMALL))[0] == 0
    prompt = (out / "prompt.safetensors").read_bytes()
    (out / "checkpoints" / "step-00000003.safetensors").write_bytes(b"half")
    with pytest.warns(UserWarning, match=r"step-00000003.* is damaged .*; going on from step 2"):
        code, _, error = run("train", "--resume", out)
    assert code == 0, error
    assert (out / "prompt.safetensors").read_bytes() == prompt
    for file in (out / "checkpoints").iterdir():
        file.write_bytes(b"half")
    code, _, error = run("train", "--resume", out)
    assert (code, "no checkpoint in" in error, error.count("\n")) == (2, True, 1)


@pytest.mark.filterwarnings("ignore")  # tensorboard's own
def test_trackers_get_what_the_csv_gets(run, tmp_path):
    out = tmp_path / "it"
    code, _, error = run("train", "--output", out, "--steps", 2, "--track", "tensorboard", *sets(*SMALL))
    assert code == 0, error
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = next(file.parent for file in out.rglob("events.out.tfevents.*"))
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2]
    assert events.Scalars("validation_pck@0.1")
    del events
    gc.collect()  # here, where what tensorboard leaves open may be said


def test_cache_info_and_clear(run, tmp_path):
    assert run("cache", "info", "--folder", tmp_path)[1].splitlines()[1:] == ["  nothing yet"]
    limits = sets(*SMALL, f"cache.folder={tmp_path}")
    assert run("train", "--output", tmp_path / "it", "--steps", 1, *limits)[0] == 0
    code, screen, _ = run("cache", "info", "--folder", tmp_path)
    assert code == 0
    entries = int(re.search(r"encoded: (\d+) entries, .* KB", screen)[1])
    assert entries > 2
    code, screen, _ = run("cache", "clear", "--folder", tmp_path)
    assert f"Removed {entries} entries" in screen
    assert not list(tmp_path.glob("encoded/*/*"))
    assert run("train", "--output", tmp_path / "off", "--steps", 1, "--cache-limit", "0", *limits)[0] == 0
    assert not list(tmp_path.glob("encoded/*/*"))


@pytest.mark.slow
def test_launched_twice_it_reports_what_one_process_reports(tmp_path):
    """Through accelerate's own launcher: training, then evaluation of the same prompt file."""

    def launch(count, *arguments):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        several = ["--multi_gpu"] if count > 1 else []  # the launcher's word for several processes, on CPUs too
        launcher = [sys.executable, "-m", "accelerate.commands.launch", *several, "--num_processes", str(count),
                    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
        command = [*launcher, "-m", "sd4match", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    small = sets(*SMALL, "data.pairs=8", "training.batch_size=5", "evaluation.bootstrap_samples=50")
    folders = [tmp_path / f"in-{count}" for count in (1, 2)]
    for count, folder in zip((1, 2), folders, strict=True):
        launch(count, "train", "--steps", 5, "--seed", 1, "--output", folder, *small)
        launch(count, "evaluate", "--prompt", folders[0] / "prompt.safetensors", "--output", folder / "test", *small)
    reports = [json.loads((folder / "report.json").read_text()) for folder in folders]
    assert reports[0]["results"] == reports[1]["results"]
    assert "2 devices" in reports[1]["training"]["batch"]
    tests = [json.loads((folder / "test" / "report.json").read_text()) for folder in folders]
    for test in tests:
        del test["wall_seconds"]
    assert tests[0] == tests[1]
    assert Path(folders[1] / "prompt.safetensors").is_file()
