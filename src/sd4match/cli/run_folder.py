"""Run folders of trainings: checks, locks, and the config that a new training writes first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sd4match.config.experiment import ExperimentConfig


def find_config(folder: Path) -> Path:
    """Return the config file of the training in a folder.

    Raises:
        InputError: there is no training.
    """
    from sd4match.errors import InputError
    from sd4match.paths import is_file

    file = folder / "config.yaml"
    if not is_file(file):
        raise InputError(f"--resume {folder}: there is no training in it (no {file.name}); start one with --output")
    return file


def check_is_free(folder: Path, *, overwrite: bool, config: Path | None) -> None:
    """Check that a new training overwrites no files of the user or of another run.

    Args:
        folder: run folder.
        overwrite: whether the training may replace another one.
        config: config file of the experiment, if any.

    Raises:
        InputError: the folder contains another run, a training that may not be replaced, or other files.
    """
    from sd4match.errors import InputError
    from sd4match.evaluation.run_folders import CONFIG_FILE, check_run_folder, has_learned, is_written_config
    from sd4match.paths import is_file
    from sd4match.training.run import resume_command

    own = folder / CONFIG_FILE
    if config is not None and is_file(own) and is_file(config) and own.samefile(config) and not is_written_config(own):
        raise InputError(
            f"--config {config} lies in --output, where the training writes its own {CONFIG_FILE}: choose another "
            "folder, or move the file away"
        )
    check_run_folder(folder, "training")
    if has_learned(folder) and not overwrite:
        raise InputError(
            f"--output {folder} holds a training already: resume it with {resume_command(folder)}, "
            "choose another folder, or start again with --overwrite"
        )


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock the folder of a run, in its main process, so that no second run writes into it.

    Raises:
        InputError: another run has locked it.
    """
    from sd4match.io.locks import locked_folder

    with locked_folder(folder) if _is_main() else nullcontext():
        yield


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def config_on_disk(config: ExperimentConfig, folder: Path) -> Iterator[None]:
    """Write the config of a new training before models load, so that it can be resumed if it is killed meanwhile.

    If the training fails before its first step, the files that it has written are removed again. An existing config is
    not changed; the training replaces it when it starts.
    """
    from sd4match.errors import SD4MatchError
    from sd4match.evaluation.run_folders import CHECKPOINTS, CONFIG_FILE, LOG_FILES, has_learned, has_steps
    from sd4match.io.files import write_atomically
    from sd4match.paths import exists

    file = folder / CONFIG_FILE
    if exists(file) or not _is_main():
        yield
        return
    write_atomically(file, config.to_yaml().encode())
    try:
        yield
    except SD4MatchError:
        if not has_learned(folder) and not has_steps(folder):
            with suppress(OSError):
                for name in (CONFIG_FILE, *LOG_FILES):
                    (folder / name).unlink(missing_ok=True)
                (folder / CHECKPOINTS).rmdir()
        raise
