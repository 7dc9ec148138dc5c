"""Which files a run may replace, and temporary folders that killed processes leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sd4match.cli.run_folder import check_is_free, config_on_disk, held
from sd4match.config.presets import load_preset
from sd4match.errors import InputError, NonFiniteError, SD4MatchError
from sd4match.evaluation.run_folders import (
    check_maps_folder,
    check_resumed_folder,
    check_run_folder,
    check_sweep_folder,
    earlier_report,
    is_written_config,
    kind_of_run,
)
from sd4match.evaluation.scratch import SCRATCH_PREFIX, scratch_folder

KINDS = ("training", "evaluation", "sweep", "demo")
FIELDS = {"training": "training", "evaluation": "prompt_file", "sweep": "seconds", "demo": "best_step"}


def a_run(folder, kind):
    """Write what a run of some kind leaves, as far as it is looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps({"schema_version": 3, "results": [], FIELDS[kind]: {}}))
    return folder


def a_started_training(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(load_preset("single").to_yaml())
    return folder


def a_stopped_training(folder, prompt="prompt.safetensors"):
    (a_started_training(folder) / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-00000001.safetensors").write_bytes(b"x")
    (folder / prompt).write_bytes(b"x")
    return folder


def content(folder):
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("found", KINDS)
def test_a_run_replaces_its_own_kind_only(tmp_path, found):
    folder = a_run(tmp_path / found, found)
    before = content(folder)
    assert kind_of_run(folder) == found
    check_run_folder(folder, found)
    for kind in KINDS:
        if kind != found:
            with pytest.raises(InputError, match=rf"--output .* holds an? {found}, whose files would be lost"):
                check_run_folder(folder, kind)
    assert content(folder) == before


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_and_other_files_are_no_obstacle(tmp_path, kind):
    check_run_folder(tmp_path / "none", kind)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "cat.jpg").write_bytes(b"photo")
    check_run_folder(tmp_path, kind)
    assert kind_of_run(tmp_path) is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, f"report.{end}") for kind in KINDS for end in ("json", "md", "csv", "tex")]
    + [(kind, name) for kind in ("training", "demo") for name in ("config.yaml", "losses.csv", "loss.png")]
    + [("evaluation", f"report-{name}.png") for name in ("alpha", "categories", "pairs")]
    + [("training", "prompt.safetensors"), ("demo", "single.safetensors"), ("demo", "pair.png")],
)
def test_files_that_no_run_has_made_are_not_replaced(tmp_path, kind, name):
    (tmp_path / name).write_text("# mine\n")
    with pytest.raises(InputError, match="--output"):
        check_run_folder(tmp_path, kind)
    assert content(tmp_path) == {name: b"# mine\n"}
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(InputError):
        check_run_folder(tmp_path, kind)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 99999, '{"schema_version": 3}', '{"results": []}'])
def test_a_report_of_something_else_is_said(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=r"a report\.json that is of no run"):
        check_run_folder(tmp_path, "evaluation")


def test_trainings_and_demos_without_a_report_are_known(tmp_path):
    started, stopped = a_started_training(tmp_path / "a"), a_stopped_training(tmp_path / "b")
    demo = a_stopped_training(tmp_path / "c", prompt="single.safetensors")
    assert [kind_of_run(folder) for folder in (started, stopped, demo)] == ["training", "training", "demo"]
    check_run_folder(started, "training")
    check_run_folder(started, "demo")  # nothing is learned there yet
    check_run_folder(demo, "demo")
    for folder, kind in ((stopped, "demo"), (stopped, "evaluation"), (started, "evaluation"), (demo, "training")):
        with pytest.raises(InputError, match="whose files would be lost"):
            check_run_folder(folder, kind)
    (stopped / "loss.png").mkdir()
    with pytest.raises(InputError, match=r"loss\.png in it is in the way"):
        check_resumed_folder(stopped)


def test_a_config_that_a_user_has_written_is_known_by_its_bytes(tmp_path):
    file = a_started_training(tmp_path) / "config.yaml"
    assert is_written_config(file)
    file.write_text(f"# why\n{file.read_text()}")
    assert not is_written_config(file)
    check_resumed_folder(tmp_path)  # a training goes on with what its user has written
    with pytest.raises(InputError, match=r"config\.yaml in it was not made by such a run"):
        check_run_folder(tmp_path, "training")
    with pytest.raises(InputError, match="holds an evaluation, not a training"):
        check_resumed_folder(a_run(tmp_path / "e", "evaluation"))


def test_a_folder_of_a_sweep_is_known_by_its_scores(tmp_path):
    for make in (
        a_stopped_training,
        lambda folder: a_run(folder, "training"),
        lambda folder: a_run(folder, "evaluation"),
    ):
        folder = make(tmp_path / str(len(list(tmp_path.iterdir()))))
        with pytest.raises(InputError, match="whose files would be lost"):
            check_sweep_folder(folder, can_resume=lambda: True)
    own = tmp_path / "own"
    own.mkdir()
    check_sweep_folder(own, can_resume=lambda: False)
    (own / "prompt.safetensors").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"prompt\.safetensors in it was not made"):
        check_sweep_folder(own, can_resume=lambda: True)
    (own / "scores.json").write_text("{ half")
    check_sweep_folder(own, can_resume=lambda: True)
    with pytest.raises(InputError, match=r"scores\.json is damaged, or of no sweep"):
        check_sweep_folder(own, can_resume=lambda: False)
    (own / "scores.json").write_text('{"config": {}, "split": "test", "fingerprint": "1"}')
    check_sweep_folder(own, can_resume=lambda: False)
    assert kind_of_run(own) == "sweep"


# temporary folders


def test_a_scratch_folder_is_removed_also_after_an_error(tmp_path):
    def fail():
        with scratch_folder(tmp_path) as folder:
            (folder / "ab").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())
    with (
        pytest.raises(SD4MatchError, match="cannot make a folder for feature maps in"),
        scratch_folder(tmp_path / "none"),
    ):
        pass


def test_folders_of_killed_processes_are_removed_and_those_of_others_stay(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    with scratch_folder(tmp_path) as own:
        host = own.name.removeprefix(SCRATCH_PREFIX).rsplit("-", 2)[0]
        theirs = tmp_path / f"{SCRATCH_PREFIX}{host}-{process.pid}-abcdefgh"
        names = [
            f"{SCRATCH_PREFIX}mine",
            f"{SCRATCH_PREFIX}otherhost-1-abcdefgh",
            f"{SCRATCH_PREFIX}{host}-1-notes.txt",
        ]
        for folder in (theirs, *(tmp_path / name for name in names)):
            folder.mkdir()
            (folder / "file").write_text("x")
        with scratch_folder(tmp_path):
            assert theirs.is_dir()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
        with scratch_folder(tmp_path):
            assert own.is_dir()
            assert not theirs.exists()
        theirs.mkdir()
        process.wait()
        with scratch_folder(tmp_path):
            assert not theirs.exists()
        process.stdin.close()
    assert sorted(folder.name for folder in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("left", ["prompt.safetensors", "report.json", "validation.csv"])
def test_a_training_without_its_checkpoints_is_not_done_again(tmp_path, left):
    folder = a_run(tmp_path, "training") if left == "report.json" else a_started_training(tmp_path)
    if left != "report.json":
        (folder / left).write_bytes(b"step,pck@0.1\n0,0.1\n25,0.2\n")
    with pytest.raises(InputError, match=rf"--resume .* has no checkpoints .* would replace its {left}"):
        check_resumed_folder(folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-00000001.safetensors").write_bytes(b"x")
    check_resumed_folder(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_replaces_no_link(tmp_path, kind):
    a_run(tmp_path / "archive", kind)
    a_run(tmp_path / "run", kind)
    (tmp_path / "run" / "report.json").unlink()
    (tmp_path / "run" / "report.json").symlink_to(tmp_path / "archive" / "report.json")
    with pytest.raises(InputError, match=r"report.json is a link, and would be replaced"):
        check_run_folder(tmp_path / "run", kind)


def test_maps_have_a_folder_of_their_own(tmp_path):
    check_maps_folder(tmp_path / "maps", tmp_path / "output")
    with pytest.raises(InputError, match=r"--maps .* is the folder of --output"):
        check_maps_folder(tmp_path / "output" / "." / ".." / "output", tmp_path / "output")
    for kind in KINDS:
        with pytest.raises(InputError, match=r"--maps .* holds a run"):
            check_maps_folder(a_run(tmp_path / kind, kind), tmp_path / "output")


def test_a_report_that_is_replaced_is_named_with_its_date(tmp_path):
    assert earlier_report(tmp_path) is None
    os.utime(a_run(tmp_path, "evaluation") / "report.json", (0, 86400 * 400))
    assert earlier_report(tmp_path).startswith("Replaced: the report of 1971-02-0")


def fail(folder):
    (folder / "losses.csv").write_text("step,loss\n")
    (folder / "validation.csv").write_text("step,pck@0.1\n")
    (folder / "checkpoints").mkdir()
    raise NonFiniteError("the features are not finite")


def test_a_training_that_fails_before_its_first_step_leaves_nothing(tmp_path):
    folder = tmp_path / "runs" / "new"
    with pytest.raises(NonFiniteError), held(folder), config_on_disk(load_preset("single"), folder):
        fail(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_fails_after_a_step_can_be_tried_again(tmp_path):
    def fail_later():
        (tmp_path / "losses.csv").write_text("step,loss\n1,5.0\n")
        raise NonFiniteError("the loss is not finite")

    with pytest.raises(NonFiniteError), held(tmp_path), config_on_disk(load_preset("single"), tmp_path):
        fail_later()
    assert sorted(content(tmp_path)) == ["config.yaml", "losses.csv"]
    check_is_free(tmp_path, overwrite=False, config=None)


def test_a_training_killed_before_its_first_checkpoint_may_start_again(tmp_path):
    folder = a_started_training(tmp_path)
    for name, text in (("losses.csv", "step,loss\n1,5\n"), ("validation.csv", "step,pck@0.1\n0,0.1\n")):
        (folder / name).write_text(text)
    (folder / "prompt.safetensors").write_bytes(b"x")
    check_resumed_folder(folder)
