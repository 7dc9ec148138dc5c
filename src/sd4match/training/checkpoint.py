"""Checkpoints of a training: one file each, whole or not there, from which it goes on bit for bit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sd4match.errors import ConfigError, TrainingError
from sd4match.hashing import digest
from sd4match.io.files import PART, read_safetensors, remove, to_safetensors, write_atomically

FORMAT_VERSION = 1

_FREE = (
    "cache.folder", "cache.limit", "backbone.gradient_checkpointing", "matcher", "evaluation", "training.steps",
    "training.patience", "training.checkpoint_every", "training.keep_checkpoints", "training.per_device",
    "training.trackers",
)  # fmt: skip
"""Fields of a config that a training may go on without: they change neither a step nor which prompt is the best."""
_BOUND = ("evaluation.measurement", "evaluation.batch_size")
"""Of these groups, the fields that matter all the same."""


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint could not be read; an older one was taken."""


class ResumeWarning(UserWarning):
    """A training goes on under other circumstances: the same to rounding, perhaps not to the bit."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a training is at one step."""

    step: int
    tensors: Mapping[str, Tensor]
    """Learned parts, the best of them so far, Adam's moments, random generators, the history."""
    state: Mapping[str, Any]
    """JSON-able: validations, best score, pieces of a batch."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: what it is a training of; see `check_same_training`."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix, without it."""
        return {
            name.removeprefix(f"{prefix}/"): one for name, one in self.tensors.items() if name.startswith(f"{prefix}/")
        }


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        folder: of their own.
        keep: the last so many stay, and the one of the best step.
        origin: what every one written here says of where it comes from.
    """

    def __init__(self, folder: Path, *, keep: int = 3, origin: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.keep = keep
        self.origin = dict(origin or {})

    def path(self, step: int) -> Path:
        """Where a step's checkpoint is, or would be."""
        return self.folder / f"step-{step:08d}.safetensors"

    def steps(self) -> list[int]:
        """Steps of which there is a file, the last one first."""
        found = (file.stem.removeprefix("step-") for file in self.folder.glob("step-*.safetensors"))
        return sorted((int(one) for one in found if one.isdigit()), reverse=True)

    def write(self, checkpoint: Checkpoint, *, best_step: int) -> None:
        """Write one: temporary name, synced to disk, renamed; only then are old ones removed.

        Raises:
            TrainingError: it cannot be written; those before it stay.
        """
        text = json.dumps({"step": checkpoint.step, "state": dict(checkpoint.state), "origin": self.origin})
        metadata = {
            "format": "sd4match-checkpoint",
            "format_version": str(FORMAT_VERSION),
            "content": text,
            "digest": _digest(text, checkpoint.tensors),
        }
        older = self.steps()
        try:
            content = to_safetensors(checkpoint.tensors, metadata)
            write_atomically(self.path(checkpoint.step), content, error=TrainingError, durable=True)
        except TrainingError as error:
            last = f"; the last good one is {self.path(older[0])}" if older else ""
            raise TrainingError(f"{error}{last}") from None
        for step in self.steps()[self.keep :]:
            if step not in (best_step, checkpoint.step):
                remove(self.path(step), error=TrainingError)

    def read(self, step: int) -> Checkpoint:
        """One of them.

        Raises:
            TrainingError: it is not there, damaged, or of another format.
        """
        path = self.path(step)
        try:
            tensors, metadata = read_safetensors(path)
            if metadata["format_version"] != str(FORMAT_VERSION):
                raise TrainingError(f"{path} is of format version {metadata['format_version']}, not {FORMAT_VERSION}")
            if metadata["digest"] != _digest(metadata["content"], tensors):
                raise ValueError("its bytes have changed")
            content = json.loads(metadata["content"])
            return Checkpoint(content["step"], tensors, content["state"], content["origin"])
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"{path} is damaged ({' '.join(str(error).split())})") from None

    def latest(self) -> Checkpoint | None:
        """The last one that can be read; None if there is none.

        Raises:
            TrainingError: there are some, and none can be read.

        Warns:
            DamagedCheckpointWarning: the last one cannot be read, and an older one is taken.
        """
        problem: TrainingError | None = None
        for step in self.steps():
            try:
                found = self.read(step)
            except TrainingError as error:
                problem = problem or error
                continue
            if problem is not None:
                warnings.warn(f"{problem}; going on from step {step}", DamagedCheckpointWarning, stacklevel=2)
            return found
        if problem is not None:
            raise TrainingError(f"no checkpoint in {self.folder} can be read: {problem}; start anew (--overwrite)")
        return None

    def clear(self) -> None:
        """Remove all of them, and what a killed process left half written."""
        for step in self.steps():
            remove(self.path(step), error=TrainingError)
        self.tidy()

    def tidy(self) -> None:
        """Remove what a killed process left half written."""
        for file in self.folder.glob(f".*{PART}"):
            remove(file, error=TrainingError)


def check_same_settings(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> None:
    """Refuse to go on with other settings than a training was started with, where they matter.

    Args:
        before: its config, as plain values.
        now: the one to go on with.
        where: what a message calls the training.

    Raises:
        ConfigError: names the fields, and both values.
    """
    old, new = _flat(before), _flat(now)
    differing = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name) and _matters(name)]
    if old.get("training.steps") != new.get("training.steps") and new.get("training.schedule") != "constant":
        differing.append("training.steps")  # of which the schedule is made
    if differing:
        said = ", ".join(f"{name} = {new.get(name)!r} ({old.get(name)!r} there)" for name in differing[:3])
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ConfigError(
            f"{where} was started with other settings: {said}{more}; leave them, or start another training"
        )


def check_same_training(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> None:
    """As `check_same_settings`, and refuse other weights and other pairs.

    Args:
        before: a checkpoint's origin: `config`, `fingerprint`, `pairs` (digest of the training pairs), `versions`,
            `processes`.
        now: likewise.
        where: what a message calls the training.

    Raises:
        ConfigError: names what differs.

    Warns:
        ResumeWarning: other versions, or another number of processes.
    """
    check_same_settings(before["config"], now["config"], where=where)
    for name, of_what, what in (
        ("backbone", "fingerprint", "other weights"),
        ("data", "pairs", "other training pairs"),
    ):
        if before.get(of_what) != now.get(of_what):
            raise ConfigError(f"{where} was started with {what}: {name} is not what it was; start another training")
    for name in ("versions", "processes"):
        if before.get(name) != now.get(name):
            warnings.warn(
                f"{where} was started with {name} {before.get(name)} and goes on with {now.get(name)}: "
                "the same to rounding, perhaps not to the bit",
                ResumeWarning,
                stacklevel=2,
            )


def _matters(name: str) -> bool:
    def under(groups: tuple[str, ...]) -> bool:
        return any(name == group or name.startswith(f"{group}.") for group in groups)

    return under(_BOUND) or not under(_FREE)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by their dotted path."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        below = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {prefix + name: value}
        leaves |= below
    return leaves


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    return digest(text, *(part for item in sorted(tensors.items()) for part in item))
