"""What a training writes down as it goes: two CSV files always, and the trackers that were asked for."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from sd4match.errors import ConfigError, TrainingError, choose_from
from sd4match.training.history import SELECTION_ALPHA, TrainingRun

_PROJECT = "sd4match"


class Journal:
    """`losses.csv` and `validation.csv`, a line as soon as it is known.

    What was written after the checkpoint that a training goes on from is written anew.

    Args:
        folder: for both files; None: nothing is written.
        run: the history that is written down.
        accelerator: through whose trackers the same numbers go.
        settings: what trackers are told of the experiment.
    """

    def __init__(
        self, folder: Path | None, run: TrainingRun, accelerator: Accelerator, settings: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self.run = run
        self.accelerator = accelerator
        self.writes = accelerator.is_main_process
        if accelerator.log_with:
            accelerator.init_trackers(_PROJECT, config={name: str(value) for name, value in settings.items()})

    def start(self) -> None:
        """Write down what has been so far."""
        steps = ([step, *row] for step, row in enumerate(self.run.rows, start=1))
        self._write("losses.csv", "w", [("step", *self.run.columns), *steps])
        self._write("validation.csv", "w", [("step", f"pck@{SELECTION_ALPHA:g}"), *self.run.validation])

    def step(self) -> None:
        """Write down the last step."""
        self._write("losses.csv", "a", [[self.run.step, *self.run.rows[-1]]])
        self.accelerator.log(self.run.last(), step=self.run.step)

    def validation(self) -> None:
        """Write down the last validation."""
        step, pck = self.run.validation[-1]
        self._write("validation.csv", "a", [(step, pck)])
        self.accelerator.log({f"validation_pck@{SELECTION_ALPHA:g}": pck}, step=step)

    def close(self) -> None:
        """Nothing more will come."""
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _write(self, name: str, mode: str, rows: Iterable[Sequence[object]]) -> None:
        if self.folder is None or not self.writes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / name).open(mode, newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                for row in rows:
                    writer.writerow(f"{one:.6g}" if isinstance(one, float) else one for one in row)
        except OSError as error:
            raise TrainingError(f"cannot write {self.folder / name}: {error.strerror or error}") from None


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that accelerate does not know or that are not installed.

    Raises:
        ConfigError: names the tracker and what would help.
    """
    installed = {one.value for one in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(f"training.trackers: unknown tracker; {choose_from(name, LOGGER_TYPE_TO_CLASS)}")
        if name in {one.value for one in LoggerType} - installed:
            extra = " (pip install 'sd4match[track]')" if name == "tensorboard" else ""
            raise ConfigError(f"training.trackers: {name} is not installed{extra}")
