"""State of a training, which can be written to a checkpoint and restored."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sd4match.distributed import Processes
from sd4match.errors import ComponentError, InputError, TrainingError, shown
from sd4match.evaluation.scores import PairScores
from sd4match.interfaces import Learned
from sd4match.interfaces.calls import describe_component
from sd4match.training.checkpoint import Checkpoint
from sd4match.training.history import TrainingRun
from sd4match.training.optimization import Optimization
from sd4match.training.random_state import random_state, restore_random_state

_Tensors = dict[str, Tensor]
RESERVED_COLUMNS = ("step", "loss", "excess_loss", "learning_rate")
"""Columns of every training."""


class TrainingState:
    """Learned values, the best ones so far, the optimizer and the history.

    Args:
        learned: components that learn.
        optimization: optimizer of their parameters.
        history: history of the training.
    """

    def __init__(self, learned: Sequence[Learned], optimization: Optimization, history: TrainingRun) -> None:
        self.learned = {component.role: component for component in learned}
        self.optimization = optimization
        self.history = history
        self.best = self._copy_learned()

    def _copy_learned(self) -> dict[str, _Tensors]:
        return {name: copy.deepcopy(component.state_dict()) for name, component in self.learned.items()}

    def log_values(self) -> dict[str, float]:
        """Return the logged values of all components that learn.

        Raises:
            ComponentError: two have the same name, or one has that of a column of the training.
        """
        values: dict[str, float] = {}
        for component in self.learned.values():
            own = component.log_values()
            taken = [name for name in own if name in values or name in RESERVED_COLUMNS]
            if taken:
                owner = describe_component(component.role, component.component)
                raise ComponentError(
                    f"{owner} logs {shown(taken[0])}, which is a column of this training already: give it another name"
                )
            values |= own
        return values

    def save_best(self) -> None:
        """Store the current values as the best ones."""
        self.best = self._copy_learned()

    def load_best(self) -> None:
        """Set the learned values to the best ones."""
        for name, component in self.learned.items():
            component.load_state_dict(self.best[name])

    def capture(self, processes: Processes, *, per_device: int) -> Checkpoint:
        """Return a checkpoint of this state and of the random generators of every process; call it on all processes.

        Args:
            processes: processes of this run.
            per_device: pairs that this process takes at once.
        """
        history = self.history
        everyone = processes.gather([(random_state(), per_device)])
        groups: dict[str, _Tensors] = {
            **{f"now/{name}": tensors for name, tensors in self._copy_learned().items()},
            **{f"best/{name}": tensors for name, tensors in self.best.items()},
            "adam": self.optimization.state_dict(),
            "history": {
                "rows": torch.tensor(history.rows, dtype=torch.float64).reshape(history.step, len(history.columns))
            },
            **{f"random/{number}": state for number, (state, _) in enumerate(everyone)},
        }
        return Checkpoint(
            history.step,
            {f"{group}/{name}": value for group, tensors in groups.items() for name, value in tensors.items()},
            {
                "columns": history.columns,
                "validation": history.validation,
                "best_step": history.best_step,
                "best_pck": history.best_pck if history.validation else None,
                "best_scores": None if history.best_scores is None else history.best_scores.to_json(),
                "per_device": [size for _, size in everyone],
            },
        )

    def restore(self, checkpoint: Checkpoint, processes: Processes) -> int | None:
        """Restore the state in which a checkpoint was captured; nothing is changed if it does not fit.

        Returns:
            Number of pairs that this process took at once; None if the checkpoint has no process of this index.

        Raises:
            TrainingError: the checkpoint is not of this training, or its content is not what a training writes.
        """
        found = _read_history(checkpoint, self.history.columns)
        learned = {
            name: [_learned(component.state_dict(), checkpoint, f"{group}/{name}") for group in ("now", "best")]
            for name, component in self.learned.items()
        }
        adam = checkpoint.group("adam")
        self.optimization.check_state_dict(adam)
        per_device = checkpoint.state.get("per_device")
        if not isinstance(per_device, list) or not all(type(size) is int and size > 0 for size in per_device):
            raise TrainingError(f"per_device must be numbers of pairs, not {shown(per_device)}")
        if processes.index < len(per_device):
            restore_random_state(checkpoint.group(f"random/{processes.index}"))
        for name, component in self.learned.items():
            now, self.best[name] = learned[name]
            component.load_state_dict(now)
        self.optimization.load_state_dict(adam)
        for name in ("rows", "validation", "best_step", "best_pck", "best_scores"):
            setattr(self.history, name, getattr(found, name))
        return per_device[processes.index] if processes.index < len(per_device) else None


def _learned(expected: Mapping[str, Tensor], checkpoint: Checkpoint, group: str) -> _Tensors:
    """Return the learned tensors of a group.

    Raises:
        TrainingError: they have other names or shapes, or are not finite.
    """
    tensors = checkpoint.group(group)
    if set(tensors) != set(expected):
        raise TrainingError(f"{group} has the tensors {shown(sorted(tensors))}, not {shown(sorted(expected))}")
    for name, tensor in tensors.items():
        if (tensor.shape, tensor.dtype) != (expected[name].shape, expected[name].dtype):
            raise TrainingError(
                f"{group}/{name} is {tensor.dtype} {tuple(tensor.shape)}, not {expected[name].dtype} "
                f"{tuple(expected[name].shape)}"
            )
        if not tensor.isfinite().all():
            raise TrainingError(f"{group}/{name} is not finite")
    return tensors


def _read_history(checkpoint: Checkpoint, columns: tuple[str, ...]) -> TrainingRun:
    """Return the history that a checkpoint holds.

    Raises:
        TrainingError: it is not that of a training of so many steps with such columns.
    """
    state, rows = checkpoint.state, checkpoint.group("history").get("rows")
    if state.get("columns") != list(columns):
        raise TrainingError(f"its history has the columns {shown(state.get('columns'))}, not {shown(list(columns))}")
    shape = (checkpoint.step, len(columns))
    if rows is None or rows.shape != shape or not rows.is_floating_point() or not rows.isfinite().all():
        raise TrainingError(f"its history must hold finite rows {shape}")
    validation = state.get("validation")
    if not isinstance(validation, list) or not all(_is_validation(entry, checkpoint.step) for entry in validation):
        raise TrainingError(f"its validations must be steps with a PCK each, not {shown(validation)}")
    run = TrainingRun(columns=columns, rows=[tuple(row) for row in rows.tolist()])
    run.validation = [(step, float(pck)) for step, pck in validation]
    if not run.validation:
        return run
    run.best_step, run.best_pck = state.get("best_step", -1), state.get("best_pck", -1.0)
    if (run.best_step, run.best_pck) not in run.validation:
        raise TrainingError(f"its best validation, at step {shown(run.best_step)}, is none of its validations")
    try:
        scores = state.get("best_scores")
        run.best_scores = PairScores.from_json(scores if isinstance(scores, dict) else {})
    except InputError as error:
        raise TrainingError(f"best_scores: {error}") from None
    return run


def _is_validation(entry: object, last_step: int) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    step, pck = entry
    return type(step) is int and 0 <= step <= last_step and type(pck) in (int, float) and 0 <= pck <= 1
