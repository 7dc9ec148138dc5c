"""Folders of runs on the command line: one run at a time, and each loses nothing of the others."""

from __future__ import annotations

import pytest

from helpers.direct import no_type_checker  # noqa: F401 - a fixture of all tests here
from helpers.processes import hold_folder
from sd4match.config.presets import load_preset
from sd4match.errors import InputError
from sd4match.io.locks import LOCK_FILE
from sd4match.training.run import train_in_folder


@pytest.fixture
def held(tmp_path):
    """Provide a folder in which another run writes."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(load_preset("single").to_yaml())
    process = hold_folder(folder)
    yield folder
    process.kill()
    process.communicate()


def test_a_second_run_is_refused(run, held):
    for command in (
        ("train", "--output"), ("train", "--overwrite", "--output"), ("train", "--resume"), ("demo", "--output"),
        ("sweep", "prompts", "--output"), ("evaluate", "--baseline", "identity", "--output"),
    ):  # fmt: skip
        code, _, error = run(*command, held)
        assert code == 2, command
        assert "another run is writing into" in error, command
        assert error.count("\n") == 1, error
    with pytest.raises(InputError, match="another run is writing into"):
        train_in_folder(load_preset("single"), None, held)
    assert {path.name for path in held.iterdir()} == {"config.yaml", LOCK_FILE}


def test_an_evaluation_says_what_it_replaces_and_keeps_maps_elsewhere(run, tmp_path):
    options = ("--baseline", "identity", "--limit", 2, "--set", "evaluation.bootstrap_samples=50")
    out = tmp_path / "out"
    code, screen, error = run("evaluate", *options, "--output", out)
    assert (code, "Replaced" in screen) == (0, False), error
    code, screen, error = run("evaluate", *options, "--output", out)
    assert (code, f"in {out}" in screen.partition("Replaced: the report of 20")[2]) == (0, True), error
    assert LOCK_FILE not in {path.name for path in out.iterdir()}
    for maps, part in ((out, "holds a run"), (tmp_path / "new", "is the folder of --output")):
        code, _, error = run("evaluate", *options, "--maps", maps, "--output", tmp_path / "new")
        assert (code, part in error) == (2, True), error
    assert not (tmp_path / "new").exists()
