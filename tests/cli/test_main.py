"""The program around the commands: signals, output that cannot be written, a working folder that is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from helpers.command_line import sets
from sd4match import __main__ as program
from sd4match.config.presets import load_preset
from sd4match.errors import InputError

SMALL = sets("data.photos_per_category=2", "data.pairs=4", "evaluation.bootstrap_samples=20")
BASELINE = ["evaluate", "--dataset", "synthetic", "--baseline", "identity", *SMALL]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("no such\nphoto"), 2, "sd4match: error: no such photo"),
        (OSError(28, "No space left on device", "/x/y"), 2, "sd4match: error: No space left on device: /x/y"),
        (MemoryError(), 2, "sd4match: error: memory does not suffice"),
        (BrokenPipeError(), 1, ""),
        (KeyboardInterrupt(), 130, "sd4match: stopped"),
    ],
)
def test_what_ends_a_command_is_one_line_at_most(run, monkeypatch, error, code, line):
    from sd4match.cli import app

    def fail(**_):
        raise error

    monkeypatch.setattr(app, "app", fail)
    found, _, told = run("--help")
    assert (found, told.startswith(line), told.count("\n")) == (code, True, int(bool(line)))


def test_a_fault_of_the_program_keeps_its_traceback(run, monkeypatch):
    from sd4match.cli import app

    def fail(**_):
        raise RecursionError

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(RecursionError):
        run("--help")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_system_ends_a_command_as_control_c_does(run, monkeypatch, number):
    from sd4match.cli import app

    removed = []

    def wait(**_):
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), number)  # a second one does not interrupt the removal
            removed.append("scratch")

    monkeypatch.setattr(app, "app", wait)
    before = signal.getsignal(number)
    if before == signal.SIG_IGN:
        pytest.skip("the shell ignores this signal, as nohup does, and so does the command")
    assert run("--help") == (128 + number, "", "sd4match: stopped\n")
    assert removed == ["scratch"]
    assert signal.getsignal(number) == before


def test_ignored_signals_and_other_threads_are_left_alone():
    seen = []

    def look():
        with program._ending_on_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with program._ending_on_signals():
            seen.append(signal.getsignal(signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [signal.SIG_DFL, signal.SIG_IGN]


def shell(command, folder):
    environment = os.environ | {"P": f"{sys.executable} -m sd4match"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("$P --version > /dev/full", 2, "sd4match: error: No space left on device\n"),
        ("mkdir gone; cd gone; rmdir ../gone; $P --version", 2, "sd4match: error: the working folder does not exist"),
    ],
)
def test_output_and_folders_that_are_not_there(tmp_path, command, code, line):
    found, told = shell(command, tmp_path)
    assert (found, told.startswith(line), told.count("\n")) == (code, True, 1), told


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    assert shell("$P --help | true; exit ${PIPESTATUS[0]}", tmp_path) == (1, "")


def test_a_call_without_a_command_prints_help_and_near_misses_get_a_suggestion(run):
    for words, part in (
        ((), "Usage: sd4match [OPTIONS] COMMAND"),
        (("prompts",), "Usage: sd4match prompts [OPTIONS] COMMAND"),
        (("evalaute",), "No such command 'evalaute'. Did you mean 'evaluate'?"),
        (("models", "lst"), "Did you mean 'list'?"),
        (("evaluate", "--prtocol", "dift"), "Possible options: --protocol"),
    ):
        code, screen, told = run(*words)
        assert (code, screen, part in told) == (2, "", True), told
    assert "\nExit codes:\n  0 done; 1 `data check`" in run("--help")[1]


@pytest.mark.slow
def test_an_evaluation_that_is_ended_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "sd4match", "evaluate", "--preset", "text", "--output", "out",
               *sets("data.photos_per_category=9", "data.pairs=90")]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list(tmp_path.iterdir()) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told.splitlines()[-1]) == (143, "sd4match: stopped"), told
    assert not list(tmp_path.iterdir())


def everything(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_runs_do_not_take_the_folders_of_others(run, tmp_path):
    training, evaluation = tmp_path / "runs" / "single", tmp_path / "evaluation"
    small = sets("data.photos_per_category=2", "data.pairs=4", "training.batch_size=2", "prompt.num_tokens=4",
                 "training.validation_pairs=2", "evaluation.bootstrap_samples=20")  # fmt: skip
    (training / "checkpoints").mkdir(parents=True)
    (training / "config.yaml").write_text(load_preset("single").to_yaml())
    for file in ("prompt.safetensors", "checkpoints/step-00000001.safetensors"):
        (training / file).write_bytes(b"learned")
    for _ in range(2):  # an evaluation replaces its own report
        code, _, told = run(*BASELINE, "--output", evaluation)
        assert code == 0, told
    own, picture = tmp_path / "own", tmp_path / "picture"
    own.mkdir()
    (own / "config.yaml").write_text("# why\nprompt: {kind: single}\n")
    (picture / "pair.png").mkdir(parents=True)
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "report.csv").write_text("mine")
    before = everything(tmp_path)
    for arguments, part in (
        ([*BASELINE, "--output", training], "holds a training"),
        (["demo", "--output", training], "holds a training"),
        (["demo", "--output", evaluation], "holds an evaluation"),
        (["demo", "--output", picture], "pair.png in it is in the way"),
        (["train", "--output", evaluation, *small], "holds an evaluation"),
        (["train", "--output", evaluation, "--overwrite", *small], "holds an evaluation"),
        (["train", "--resume", evaluation], "no config.yaml"),
        (["train", "--output", training, *small], "holds a training already"),
        (["train", "--config", own / "config.yaml", "--dataset", "synthetic", "--output", own], "config.yaml"),
        (["sweep", "prompts", "--output", tmp_path / "runs", "--only", "single", *small], "single holds a training"),
        (["sweep", "prompts", "--output", training, "--only", "single", *small], "holds a training"),
        (["sweep", "prompts", "--output", tmp_path / "table", "--only", "single", *small], "report.csv in it"),
        ([*BASELINE, "--output", tmp_path / "table"], "report.csv in it"),
        ([*BASELINE, "--output", tmp_path / "new", "--maps", own / "config.yaml"], "--maps"),
    ):
        code, screen, told = run(*arguments)
        assert (code, screen, part in told, told.count("\n")) == (2, "", True, 1), (arguments, told)
        assert everything(tmp_path) == before, arguments
    (training / "config.yaml").write_text(f"# why\n{(training / 'config.yaml').read_text()}")
    code, _, told = run("train", "--config", training / "config.yaml", "--output", training, "--overwrite")
    assert (code, "lies in --output" in told, told.count("\n")) == (2, True, 1), told


@pytest.mark.slow
def test_a_resumed_training_keeps_the_comments_of_its_config(run, tmp_path):
    small = sets("data.photos_per_category=2", "data.pairs=4", "training.batch_size=2", "prompt.num_tokens=4",
                 "training.validation_pairs=2", "evaluation.bootstrap_samples=20")  # fmt: skip
    assert run("train", "--output", tmp_path, "--steps", 1, *small)[0] == 0
    commented = f"# why\n{(tmp_path / 'config.yaml').read_text()}"
    (tmp_path / "config.yaml").write_text(commented)
    code, _, told = run("train", "--resume", tmp_path)
    assert code == 0, told
    assert (tmp_path / "config.yaml").read_text() == commented
    assert json.loads((tmp_path / "report.json").read_text())["training"]["steps"] == 1


def test_compare_bounds_what_is_asked_for(run, tmp_path):
    assert run(*BASELINE, "--output", tmp_path)[0] == 0
    for arguments in (["--samples", 10**10], ["--samples", 0], ["--samples", -1], ["--seed", -1], ["--seed", 2**64]):
        code, screen, told = run("compare", tmp_path, tmp_path, *arguments)
        assert (code, screen, told.count("\n")) == (2, "", 1), told
