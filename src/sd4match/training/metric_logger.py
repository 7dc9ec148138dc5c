"""Metrics of a training: two CSV files, and the trackers of accelerate that the config names."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from sd4match.errors import ConfigError, TrainingError, choose_from, shown
from sd4match.training.history import SELECTION_ALPHA, TrainingRun

_PROJECT = "sd4match"


class MetricLogger:
    """Writer of `losses.csv` and `validation.csv`, line by line.

    A resumed training writes the lines after its checkpoint again.

    Args:
        folder: for both files; None writes no file.
        history: what is written.
        accelerator: whose trackers receive the same numbers.
        config: what trackers are told about the experiment.
    """

    def __init__(
        self, folder: Path | None, history: TrainingRun, accelerator: Accelerator, config: Mapping[str, Any]
    ) -> None:
        self.folder = folder if accelerator.is_main_process else None
        self.history = history
        self.accelerator = accelerator
        if accelerator.log_with:
            with _naming_trackers(accelerator):
                accelerator.init_trackers(_PROJECT, config={name: str(value) for name, value in config.items()})

    def start(self) -> None:
        """Write the header and everything that is in the history."""
        steps = ([step, *row] for step, row in enumerate(self.history.rows, start=1))
        self._write("losses.csv", "w", [("step", *self.history.columns), *steps])
        self._write("validation.csv", "w", [("step", f"pck@{SELECTION_ALPHA:g}"), *self.history.validation])

    def log_step(self) -> None:
        """Write the last step."""
        self._write("losses.csv", "a", [[self.history.step, *self.history.rows[-1]]])
        with _naming_trackers(self.accelerator):
            self.accelerator.log(self.history.last(), step=self.history.step)

    def log_validation(self) -> None:
        """Write the last validation."""
        step, pck = self.history.validation[-1]
        self._write("validation.csv", "a", [(step, pck)])
        with _naming_trackers(self.accelerator):
            self.accelerator.log({f"validation_pck@{SELECTION_ALPHA:g}": pck}, step=step)

    def close(self) -> None:
        """Finish the trackers."""
        with _naming_trackers(self.accelerator):
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def _write(self, name: str, mode: str, rows: Iterable[Sequence[object]]) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / name).open(mode, newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                for row in rows:
                    writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in row)
        except OSError as error:
            raise TrainingError(f"cannot write {self.folder / name}: {error.strerror or error}") from None


@contextmanager
def _naming_trackers(accelerator: Accelerator) -> Iterator[None]:
    """Convert every error of a tracker to one that names the trackers.

    Raises:
        TrainingError: a tracker failed.
    """
    try:
        yield
    except Exception as error:  # trackers raise errors of any class
        names = ", ".join(str(getattr(tracker, "value", tracker)) for tracker in accelerator.log_with)
        raise TrainingError(f"training.trackers: {names} failed: {type(error).__name__}: {error}") from error


def check_trackers(names: Sequence[str]) -> None:
    """Check that accelerate knows trackers and that they are installed.

    Raises:
        ConfigError: names the tracker and what would help.
    """
    installed = {str(tracker.value) for tracker in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(
                f"training.trackers: unknown tracker {shown(name)}; {choose_from(name[:80], LOGGER_TYPE_TO_CLASS)}"
            )
        if name in {tracker.value for tracker in LoggerType} - installed:
            extra = " (pip install 'sd4match[track]')" if name == "tensorboard" else ""
            raise ConfigError(f"training.trackers: {name} is not installed{extra}")
