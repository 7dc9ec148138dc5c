"""What happened in a training, and what one may watch of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from sd4match.evaluation.scores import PairScores
from sd4match.training.batches import BatchPlan

SELECTION_ALPHA = 0.1
"""The prompt that is kept is the one with the best validation PCK at this alpha, per image."""


@dataclass
class TrainingRun:
    """The history of a training, from its first step on, whatever was stopped and resumed in between."""

    columns: tuple[str, ...] = ("loss",)
    """Loss; its excess over the floor, if the loss knows one; the learning rate; what the learned parts read out."""
    rows: list[tuple[float, ...]] = field(default_factory=list)
    """A row a step."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(step, per-image PCK at `SELECTION_ALPHA`); step 0 is the prompt before training."""
    best_step: int = 0
    best_pck: float = -math.inf
    best_scores: PairScores | None = None
    plan: BatchPlan | None = None
    seconds: float = 0.0
    """Of this process, without those before it."""
    stopped: bool = False
    """Whether somebody asked it to stop before its end."""

    @property
    def step(self) -> int:
        """How many steps were made."""
        return len(self.rows)

    @property
    def losses(self) -> list[float]:
        """Of every step."""
        return self.column("loss")

    def column(self, name: str) -> list[float]:
        """One column of the rows; [] if there is none of that name."""
        if name not in self.columns:
            return []
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def last(self) -> dict[str, float]:
        """The last row, by column; {} before the first step."""
        return dict(zip(self.columns, self.rows[-1], strict=True)) if self.rows else {}

    def readings(self) -> dict[str, float]:
        """What the learned parts read out after the last step, a temperature for example."""
        return {name: value for name, value in self.last().items() if name not in ("loss", "excess", "learning_rate")}

    def validated(self, step: int) -> bool:
        """Whether that step was measured."""
        return any(one == step for one, _ in self.validation)

    def has_stalled(self, patience: int | None) -> bool:
        """Whether the last `patience` validations brought no better prompt.

        >>> run = TrainingRun(validation=[(0, 0.1), (5, 0.3), (10, 0.2), (15, 0.3)], best_step=5)
        >>> run.has_stalled(2), run.has_stalled(3), run.has_stalled(None)
        (True, False, False)
        """
        since = sum(step > self.best_step for step, _ in self.validation)
        return patience is not None and since >= patience


@dataclass
class Watch:
    """What a training tells of its way; each is a function that does nothing unless given."""

    on_plan: Callable[[BatchPlan], None] = lambda plan: None
    """How batches are shared out; again if memory ran out and they are cut smaller."""
    on_step: Callable[[TrainingRun], None] = lambda run: None
    on_validating: Callable[[int, int], None] = lambda done, total: None
    """Pairs that are measured, of how many."""
    on_validation: Callable[[TrainingRun], None] = lambda run: None
