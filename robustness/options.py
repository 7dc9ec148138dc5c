"""Hostile values for every option and argument of every command."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from helpers.command_line import sets
from helpers.layouts import write_folder
from robustness.cases import Case, input_is_ready, run_command
from sd4match.cli.app import app
from sd4match.testing import random_photo

GROUP = "options"
_SMALL = ["data.photos_per_category=3", "evaluation.bootstrap_samples=20"]
_NUMBERS = ("-1", "1e3", "abc", "9" * 30, "", "nan", "inf", "0.5", "10000000000")
_TEXTS = ("", " ", "~no-such-user/x", "x" * 300, "\udcff", "/dev/zero", "FIFO", "FOLDER", "none-such", "LOOP")
_MEANINGFUL = {
    # text that may be anything, and paths that may be written or need not exist
    ("--output", "none-such"),
    ("--output", "FOLDER"), ("--maps", "none-such"), ("--maps", "FOLDER"), ("folder", "none-such"),
    ("--folder", "FOLDER"),
    ("--folder", "none-such"), ("--device", "none-such"), ("folder", "FOLDER"), ("--limit", "10000000000"),
    ("--seed", "10000000000"), ("--timesteps", "0.5"),
}  # fmt: skip


def _lines(base: Path) -> dict[str, list[Any]]:
    """Return a right command line for every command."""
    a, b = base / "a.png", base / "b.png"
    for number, path in enumerate((a, b)):
        random_photo((40, 50), seed=number).to_image().save(path)
    write_folder(base / "own")
    run_command("evaluate", "--preset", "mini-empty", "--limit", 2, "--output", base / "report", *sets(*_SMALL))
    run_command(
        "train", "--preset", "mini-single", "--output", base / "run",
        *sets(*_SMALL, "data.pairs=4", "training.batch_size=1", "training.steps=1", "training.validation_pairs=1"),
    )  # fmt: skip
    prompt = base / "run" / "prompt.safetensors"
    return {
        "match": [a, b, "--output", "out"],
        "extract": [a, "--output", "out"],
        "train": ["--preset", "mini-single", "--output", "out", "--steps", 1, *sets(*_SMALL, "data.pairs=2")],
        "evaluate": ["--preset", "mini-empty", "--limit", 1, "--output", "out", *sets(*_SMALL)],
        "compare": [base / "report", base / "report"],
        "demo": ["--output", "out"],
        "prompts inspect": [prompt],
        "prompts export": [prompt, "--output", "out.safetensors"],
        "prompts imagine": [prompt, "--steps", 1, "--images", 1, "--output", "out.png"],
        "prompts convert": ["none.pt", "--output", "out.safetensors"],
        "prompts push": [prompt, "user/name"],
        "prompts pull": ["user/name"],
        "data check": ["folder", base / "own"],
        "data make-synthetic": ["out", "--pairs", 1, "--photos", 2],
        "models list": [],
        "models check": ["mini"],
        "cache info": [],
        "cache clear": [],
        "doctor": [],
    }


def cases(base: Path) -> Iterator[Case]:
    """Yield every option of every command with hostile values."""
    lines = _lines(base)
    for name, command in _commands(typer.main.get_command(app)):
        if name not in lines:
            continue
        line = [str(part) for part in lines[name]]
        positions = 0
        for parameter in command.params:
            if getattr(parameter, "is_flag", False) or parameter.name in ("help", "version"):
                continue
            is_number = parameter.type_descriptor.annotation in (int, float)
            option = parameter.opts[-1] if parameter.param_type_name == "option" else parameter.name or ""
            for value in _NUMBERS if is_number else _TEXTS:
                if name == "demo" and ((option, value) in _MEANINGFUL or value == "\udcff"):
                    continue  # it would learn for minutes
                if parameter.param_type_name == "option":
                    own = _without(line, option)
                    arguments = [*own, option, value]
                elif positions < len(line) and not line[positions].startswith("--"):
                    arguments = [*line[:positions], value, *line[positions + 1 :]]
                else:
                    continue
                yield _case(name, option, value, arguments)
            positions += parameter.param_type_name == "argument"


def _without(line: list[str], option: str) -> list[str]:
    """Return a command line without an option that it gives once."""
    if option not in line or option == "--set":
        return line
    place = line.index(option)
    return [*line[:place], *line[place + 2 :]]


def _commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for inner, below in command.commands.items():
            yield from _commands(below, f"{name} {inner}".strip())
    else:
        yield name, command


def _case(command: str, option: str, value: str, arguments: list[str]) -> Case:
    def act(folder: Path) -> object:
        os.mkfifo(folder / "fifo")
        (folder / "folder").mkdir()
        (folder / "loop").symlink_to(folder / "loop")
        special = {"FIFO": str(folder / "fifo"), "FOLDER": str(folder / "folder"), "LOOP": str(folder / "loop")}
        input_is_ready()
        try:
            return run_command(*command.split(), *(special.get(part, part) for part in arguments))
        finally:
            shutil.rmtree(folder / "none-such", ignore_errors=True)

    word = option.lstrip("-")
    names = (
        option, word, word.replace("-", "_"), word.upper(), *([value[:20]] if value.strip() else []), "fifo", "folder",
        "loop", "udcff", "new word", "no row", "FIELD=VALUE", "--token",
        "categories", "weights",
    )  # fmt: skip
    differ = (option, value) in _MEANINGFUL or option in ("--token", "--category")
    return Case(GROUP, f"{command} {option} {value[:24]!r}", act, names, may_differ=differ)
