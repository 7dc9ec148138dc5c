"""Folders of trainings: which one may be written, and the config that a new training leaves there at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

    file = folder / "config.yaml"
    if not file.is_file():
        raise InputError(f"--resume {folder}: there is no training in it (no {file.name}); start one with --output")
    return file


def check_is_free(folder: Path) -> None:
    """Check that a new training overwrites no other one.

    Raises:
        InputError: the folder contains a training.
    """
    if _contains_training(folder):
        from sd4match.errors import InputError
        from sd4match.training.run import resume_command

        raise InputError(
            f"--output {folder} holds a training already: resume it with {resume_command(folder)}, "
            "choose another folder, or start again with --overwrite"
        )


@contextmanager
def config_on_disk(config: ExperimentConfig, folder: Path) -> Iterator[None]:
    """Write the config of a new training before models load, so that it can be resumed if it is killed meanwhile.

    If the training is refused before its first checkpoint, the file and the folders made for it are removed again. An
    existing file is not changed; the training replaces it when it starts.
    """
    from sd4match.errors import SD4MatchError
    from sd4match.io.files import write_atomically

    file = folder / "config.yaml"
    if file.exists() or os.environ.get("RANK", "0") != "0":
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    write_atomically(file, config.to_yaml().encode())
    try:
        yield
    except SD4MatchError:
        if not _contains_training(folder):
            with suppress(OSError):  # a folder that contains other files stays
                file.unlink()
                for path in made:
                    path.rmdir()
        raise


def _contains_training(folder: Path) -> bool:
    return (folder / "prompt.safetensors").exists() or any((folder / "checkpoints").glob("step-*.safetensors"))
