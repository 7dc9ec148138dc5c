"""History of a training, and the callbacks through which it is observed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from sd4match.arguments import check_arguments, check_fields
from sd4match.evaluation.scores import PairScores
from sd4match.training.batches import BatchSplit

SELECTION_ALPHA = 0.1
"""Threshold of the per-image validation PCK by which the best prompt is selected."""


@dataclass(eq=False)
class TrainingRun:
    """History of a training from its first step, including the time before it was stopped and resumed.

    Objects hold arrays and are compared by identity.

    Raises:
        InputError: a field is of another type.

    >>> run = TrainingRun(columns=("loss", "learning_rate"), rows=[(4.0, 0.01), (3.5, 0.01)])
    >>> run.step, run.losses, run.last()
    (2, [4.0, 3.5], {'loss': 3.5, 'learning_rate': 0.01})
    """

    columns: tuple[str, ...] = ("loss",)
    """Loss, excess loss if the loss has a lower bound, learning rate, and the values that prompt and loss log."""
    rows: list[tuple[float, ...]] = field(default_factory=list)
    """Row of each step, with one value per column."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(step, per-image PCK at `SELECTION_ALPHA`); step 0 is the prompt before training."""
    best_step: int = 0
    best_pck: float = -math.inf
    best_scores: PairScores | None = None
    batch_split: BatchSplit | None = None
    seconds: float = 0.0
    """Wall time of this process, without that of earlier processes."""
    stopped: bool = False
    """True if the run ended because of a stop request."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def step(self) -> int:
        """Number of steps made so far."""
        return len(self.rows)

    @property
    def losses(self) -> list[float]:
        """Loss of every step."""
        return self.column("loss")

    @check_arguments
    def column(self, name: str) -> list[float]:
        """Return one column of the rows; [] if there is none of that name.

        Args:
            name: name of a column, for example "loss".

        Returns:
            One value per step; [] if there is no such column.
        """
        if name not in self.columns:
            return []
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def last(self) -> dict[str, float]:
        """Return the last row by column name; {} before the first step."""
        return dict(zip(self.columns, self.rows[-1], strict=True)) if self.rows else {}

    def log_values(self) -> dict[str, float]:
        """Return the values that components logged after the last step, for example a learned temperature."""
        own = ("loss", "excess_loss", "learning_rate")
        return {name: value for name, value in self.last().items() if name not in own}

    @check_arguments
    def is_validated(self, step: int) -> bool:
        """Return whether the prompt was validated after that step.

        Args:
            step: number of the step; 0 is the prompt before training.
        """
        return any(validated == step for validated, _ in self.validation)

    @check_arguments
    def has_stalled(self, patience: int | None) -> bool:
        """Return whether the last `patience` validations found no better prompt.

        Args:
            patience: number of validations; None: never stalled.

        >>> run = TrainingRun(validation=[(0, 0.1), (5, 0.3), (10, 0.2), (15, 0.3)], best_step=5)
        >>> run.has_stalled(2), run.has_stalled(3), run.has_stalled(None)
        (True, False, False)
        """
        since_best = sum(step > self.best_step for step, _ in self.validation)
        return patience is not None and since_best >= patience


@dataclass
class TrainerCallbacks:
    """Functions that a training calls on the main process; the defaults do nothing.

    Args:
        on_batch_split: called with the split at the start, and again when memory runs out and micro-batches become
            smaller.
        on_step: called with the history after every step.
        on_validation_progress: called during a validation with the number of measured pairs and of all pairs.
        on_validation: called with the history after every validation.

    Raises:
        InputError: a field is not a function.

    >>> callbacks = TrainerCallbacks(on_step=lambda run: print(run.step))
    >>> callbacks.on_step(TrainingRun(rows=[(1.0,)]))
    1
    """

    on_batch_split: Callable[[BatchSplit], None] = lambda split: None
    """Called at the start, and again whenever memory runs out and a batch is split into smaller micro-batches."""
    on_step: Callable[[TrainingRun], None] = lambda run: None
    """Called after every step."""
    on_validation_progress: Callable[[int, int], None] = lambda done, total: None
    """Called during a validation with the number of measured pairs and of all pairs."""
    on_validation: Callable[[TrainingRun], None] = lambda run: None
    """Called after every validation."""

    def __post_init__(self) -> None:
        check_fields(self)
