"""Checkpoints of a training: files, written atomically, from which it resumes bit for bit."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sd4match.arguments import check_arguments, check_fields
from sd4match.checks import check_count
from sd4match.documents import parse_json
from sd4match.errors import ConfigError, TrainingError, shown
from sd4match.hashing import digest
from sd4match.io.files import TEMPORARY_SUFFIX, read_safetensors, remove, to_safetensors, write_atomically
from sd4match.paths import as_path

FORMAT_VERSION = 2

_FREE = (
    "cache.folder", "cache.limit", "backbone.gradient_checkpointing", "matcher", "evaluation", "training.steps",
    "training.patience", "training.checkpoint_every", "training.keep_checkpoints", "training.per_device",
    "training.trackers",
)  # fmt: skip
"""Config fields that may differ on resume, because neither steps nor the choice of the best prompt depend on them."""
_BOUND = ("evaluation.protocol", "evaluation.batch_size")
"""Fields of these groups that may not differ, because validation uses them."""


class DamagedCheckpointWarning(UserWarning):
    """Warning that a checkpoint could not be read, and an older one is used."""


class ResumeWarning(UserWarning):
    """Warning that a training is resumed in another environment, so results may agree only up to rounding."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Complete state of a training after a step.

    Objects hold tensors and are compared by identity.

    Raises:
        InputError: a field is of another type, or the step is negative.

    >>> import torch
    >>> checkpoint = Checkpoint(100, {"prompt/embedding": torch.zeros(3)}, {})
    >>> checkpoint.group("prompt")
    {'embedding': tensor([0., 0., 0.])}
    """

    step: int
    tensors: Mapping[str, Tensor]
    """Tensors by "GROUP/NAME": learned values, the best ones so far, Adam's moments, random generators, history."""
    state: Mapping[str, Any]
    """JSON values: columns of the history, validations, best score, pairs at once of each process."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: config, weights and data of the training; see `check_same_training`."""
    name: str = "the checkpoint"
    """Name in messages: its file."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_count("step", self.step, 0)

    def group(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a group, by their names inside the group.

        Args:
            name: name of the group, before the "/" in the names of tensors.

        Returns:
            Tensors by their names inside the group; {} if there is no such group.
        """
        prefix = f"{name}/"
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


def _checkpoint_of(content: object, tensors: Mapping[str, Tensor], step: int, path: Path) -> Checkpoint:
    """Return the checkpoint that a file holds.

    Raises:
        TrainingError: a field is missing or of another type, or it is of another step than its name says.
    """
    fields = content if isinstance(content, dict) else {}
    for name, kind in (("step", int), ("state", dict), ("origin", dict)):
        if not isinstance(fields.get(name), kind) or isinstance(fields.get(name), bool):
            raise TrainingError(
                f"{path} is no checkpoint of a training: its field {name} is missing or of another type"
            )
    if fields["step"] != step:
        raise TrainingError(f"{path} has been renamed: its content is of step {shown(fields['step'])}")
    return Checkpoint(step, tensors, fields["state"], fields["origin"], str(path))


class Checkpoints:
    """Folder of the checkpoints of a training.

    Args:
        folder: folder that holds only checkpoints.
        keep: number of most recent checkpoints to keep, besides that of the best step; at least 1.
        origin: values that every written checkpoint stores; see `Checkpoint.origin`.

    Raises:
        InputError: an argument is of another type, or `keep` is less than 1.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder, keep=2)
    ...     for step in (10, 20, 30):
    ...         checkpoints.write(Checkpoint(step, {"prompt/embedding": torch.zeros(3)}, {}), best_step=10)
    ...     checkpoints.steps(), checkpoints.latest().step
    ([30, 20, 10], 30)
    """

    @check_arguments
    def __init__(self, folder: str | Path, *, keep: int = 3, origin: Mapping[str, Any] | None = None) -> None:
        self.folder = as_path(folder, what="the folder of checkpoints")
        self.keep = check_count("keep", keep)
        self.origin = dict(origin or {})

    def path(self, step: int) -> Path:
        """Return the path of a step's checkpoint, whether or not it exists.

        Args:
            step: number of the step.
        """
        return self.folder / f"step-{step:08d}.safetensors"

    def steps(self) -> list[int]:
        """Return the steps that have a file, the latest first."""
        names = [file.stem for file in self.folder.glob("step-*.safetensors")]
        numbers = [int(found[1]) for name in names if (found := re.fullmatch(r"step-([0-9]{8,18})", name))]
        return sorted((number for number in numbers if self.path(number).stem in names), reverse=True)

    @check_arguments
    def write(self, checkpoint: Checkpoint, *, best_step: int) -> None:
        """Write a checkpoint to a temporary file, sync and rename it, and only then remove old ones.

        Args:
            checkpoint: checkpoint to write.
            best_step: step whose checkpoint is not removed.

        Raises:
            TrainingError: it cannot be written; the earlier ones remain.
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

    @check_arguments
    def read(self, step: int) -> Checkpoint:
        """Read the checkpoint of a step.

        Args:
            step: number of the step.

        Raises:
            TrainingError: it does not exist, is damaged, or has another format.
        """
        path = self.path(step)
        try:
            tensors, metadata = read_safetensors(path)
            if metadata["format_version"] != str(FORMAT_VERSION):
                raise TrainingError(f"{path} is of format version {metadata['format_version']}, not {FORMAT_VERSION}")
            if metadata["digest"] != _digest(metadata["content"], tensors):
                raise ValueError("its bytes have changed")
            content = parse_json(metadata["content"], what=f"the content of {path}", error=TrainingError)
            return _checkpoint_of(content, tensors, step, path)
        except KeyError as error:
            raise TrainingError(f"{path} is no checkpoint of a training: it has no {error}") from None
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path} is damaged ({' '.join(str(error).split())})") from None

    def latest(self) -> Checkpoint | None:
        """Read the latest checkpoint that is not damaged; return None if there is no checkpoint.

        Raises:
            TrainingError: there are checkpoints, and none can be read.

        Warns:
            DamagedCheckpointWarning: the latest one cannot be read, and an older one is used.
        """
        problem: TrainingError | None = None
        for step in self.steps():
            try:
                checkpoint = self.read(step)
            except TrainingError as error:
                problem = problem or error
                continue
            if problem is not None:
                warnings.warn(f"{problem}; going on from step {step}", DamagedCheckpointWarning, stacklevel=2)
            return checkpoint
        if problem is not None:
            raise TrainingError(f"no checkpoint in {self.folder} can be read: {problem}; start anew (--overwrite)")
        return None

    def clear(self) -> None:
        """Remove all checkpoints and the temporary files of killed processes."""
        for step in self.steps():
            remove(self.path(step), error=TrainingError)
        self.remove_temporary_files()

    def remove_temporary_files(self) -> None:
        """Remove the temporary files of killed processes."""
        for file in self.folder.glob(f".step-*{TEMPORARY_SUFFIX}"):
            remove(file, error=TrainingError)


def check_same_config(
    before: Mapping[str, Any], now: Mapping[str, Any], *, where: str, learned: Collection[str] = ()
) -> None:
    """Check that a training is resumed with the same config, except for fields that may differ.

    Args:
        before: config with which the training was started, as JSON values.
        now: config with which it is resumed.
        where: name of the training in messages.
        learned: components besides the prompt that are learned, whose fields may not differ.

    Raises:
        ConfigError: a field differs; the message has names and both values.
    """
    old, new = _flatten(before), _flatten(now)
    differing = [
        name for name in sorted({*old, *new}) if old.get(name) != new.get(name) and _matters(name, bound=learned)
    ]
    if old.get("training.steps") != new.get("training.steps") and new.get("training.schedule") != "constant":
        differing.append("training.steps")  # the schedule depends on it
    if differing:
        fields = ", ".join(f"{name} = {shown(new.get(name))} ({shown(old.get(name))} there)" for name in differing[:3])
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ConfigError(
            f"{where} was started with other settings: {fields}{more}; leave them, or start another training"
        )


def config_of(origin: Mapping[str, Any], *, where: str) -> Mapping[str, Any]:
    """Return the config with which a training was started.

    Raises:
        TrainingError: the origin of the checkpoint does not have it.
    """
    config = origin.get("config")
    if not isinstance(config, Mapping):
        raise TrainingError(f"the checkpoint of {where} does not hold the config of its training; start another one")
    return config


def learned_of(origin: Mapping[str, Any]) -> Sequence[str]:
    """Return the components besides the prompt that the training of a checkpoint learns."""
    learned = origin.get("learned", [])
    return [name for name in learned if isinstance(name, str)] if isinstance(learned, list) else []


def check_same_training(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> None:
    """Check that a training is resumed with the same config, weights and pairs.

    Args:
        before: origin of a checkpoint: `config`, `fingerprint` of the backbone, `pairs` (digest of the training
            pairs), `versions`, `processes`, `learned`.
        now: origin of the training that resumes from it.
        where: name of the training in messages.

    Raises:
        ConfigError: config, weights or pairs differ; the message names them.
        TrainingError: the origin of the checkpoint has no config.

    Warns:
        ResumeWarning: versions or the number of processes differ.
    """
    check_same_config(config_of(before, where=where), now["config"], where=where, learned=learned_of(before))
    for name, field_name, difference in (
        ("backbone", "fingerprint", "other weights"),
        ("data", "pairs", "other training pairs"),
    ):
        if before.get(field_name) != now.get(field_name):
            raise ConfigError(
                f"{where} was started with {difference}: {name} is not what it was; start another training"
            )
    for name in ("versions", "processes"):
        if before.get(name) != now.get(name):
            warnings.warn(
                f"{where} was started with {name} {shown(before.get(name))} and goes on with {shown(now.get(name))}: "
                "the same to rounding, perhaps not to the bit",
                ResumeWarning,
                stacklevel=2,
            )


def _matters(name: str, *, bound: Collection[str]) -> bool:
    def is_under(groups: Collection[str]) -> bool:
        return any(name == group or name.startswith(f"{group}.") for group in groups)

    return is_under([*_BOUND, *bound]) or not is_under(_FREE)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by their dotted path."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        nested = isinstance(value, Mapping) and value
        leaves |= _flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return leaves


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    return digest(text, *(element for item in sorted(tensors.items()) for element in item))
