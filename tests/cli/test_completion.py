"""Shell completion: what is offered, and that the shell need not wait for torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import typer

from sd4match.cli.app import app
from sd4match.cli.completion import COMPLETIONS

TREE = typer.main.get_command(app)


def offered(line):
    """Return what bash is offered at the end of a line."""
    environment = os.environ | {
        "_SD4MATCH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1),
        "PYTHONPROFILEIMPORTTIME": "1",
    }  # fmt: skip
    program = "import sys; sys.argv[0] = 'sd4match'; from sd4match.__main__ import main; main()"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split(), done.stderr, time.perf_counter() - started


def parameter(path, name):
    command = TREE
    for word in path.split():
        command = command.commands[word]
    context = typer.Context(command)
    return next(one for one in command.params if one.name == name), context


@pytest.mark.parametrize(
    ("path", "name", "begun", "expected"),
    [
        ("train", "preset", "sd2-1-cpm-s", ["sd2-1-cpm-single-image", "sd2-1-cpm-single-image-global-features"]),
        ("evaluate", "dataset", "pf", ["pf_pascal", "pf_willow"]),
        ("evaluate", "protocol", "", ["sd4match", "dift", "sd-dino", "geoaware"]),
        ("evaluate", "split", "t", ["train", "test"]),
        ("evaluate", "baseline", "i", ["identity"]),
        ("evaluate", "matcher", "mu", ["mutual"]),
        ("evaluate", "against", "t", ["text"]),
        ("match", "prompt", "", ["empty", "text"]),
        ("match", "backbone", "sd", ["sd1-5", "sd2-1"]),
        ("match", "device", "c", ["cpu", "cuda"]),
        ("match", "dtype", "f", ["float32", "float16"]),
        ("match", "fallback", "", ["text"]),
        ("models check", "name", "dinov2", ["dinov2-small", "dinov2-base", "dinov2-large"]),
        ("data check", "kind", "f", ["folder"]),
        ("components", "sort", "pair", ["pair-transform"]),
        ("sweep prompts", "model", "sd", ["sd1-5", "sd2-1"]),
        ("sweep prompts", "only", "cpm-no-g", ["cpm-no-global-prompt"]),
        ("prompts imagine", "backbone", "mi", ["mini"]),
    ],
)
def test_names_are_completed(path, name, begun, expected):
    option, context = parameter(path, name)
    assert [item.value for item in option.shell_complete(context, begun)] == expected


def test_every_candidate_belongs_to_a_parameter():
    known = set()

    def walk(command, path):
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*path, name))
        for one in command.params:
            known.update((one.name, " ".join((*path, one.name))))

    walk(TREE, ())
    assert set(COMPLETIONS) <= known


def test_a_shell_gets_its_answer_without_torch():
    found, told, seconds = offered("sd4match match --preset mini-cpm-n")
    assert found == ["mini-cpm-no-global-prompt", "mini-cpm-no-patch-mixing"]
    imported = {line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")}
    assert "sd4match.cli.app" in imported
    assert not imported & {"torch", "diffusers", "transformers", "matplotlib", "gradio", "rich.progress"}
    assert seconds < 20  # on a busy machine; an idle core takes half a second


@pytest.mark.slow
def test_commands_options_and_models_are_offered_to_bash():
    assert "match" in offered("sd4match ma")[0]
    assert offered("sd4match match --pres")[0] == ["--preset"]
    assert offered("sd4match models check sd2")[0] == ["sd2-1"]
    assert offered("sd4match match no-such-file")[0] == []  # bash goes on with names of files


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_and_installed(tmp_path, shell):
    program = "import sys; sys.argv[0] = 'sd4match'; from sd4match.__main__ import main; main()"
    environment = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-c", program]
    shown = subprocess.run(
        [*command, "--show-completion", shell], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "_SD4MATCH_COMPLETE" in shown
    (tmp_path / ".bashrc").write_text("mine\n")
    subprocess.run([*command, "--install-completion", shell], env=environment, capture_output=True, check=True)
    installed = [file for file in tmp_path.rglob("*") if file.is_file() and "sd4match" in file.name]
    assert len(installed) == 1
    assert (tmp_path / ".bashrc").read_text().startswith("mine\n")
