"""Everything that changes in a training, as one thing that can be written down and put back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sd4match.distributed import Processes
from sd4match.evaluation.scores import PairScores
from sd4match.interfaces import HasReadings, Learns
from sd4match.training.checkpoint import Checkpoint
from sd4match.training.history import TrainingRun
from sd4match.training.optimization import Optimisation
from sd4match.training.random_state import random_state, restore_random_state

_Tensors = dict[str, Tensor]


@dataclass
class TrainingState:
    """What is learned, how far, and the best of it so far.

    Args:
        learned: parts by name.
        optimisation: of these parts.
        run: the history.
    """

    learned: Mapping[str, Learns]
    optimisation: Optimisation
    run: TrainingRun
    best: dict[str, _Tensors] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.best = self.best or self.now()

    def now(self) -> dict[str, _Tensors]:
        """A copy of what is learned, by part."""
        return {name: copy.deepcopy(dict(part.state_dict())) for name, part in self.learned.items()}

    def readings(self) -> dict[str, float]:
        """What the learned parts show of themselves."""
        parts = (part for part in self.learned.values() if isinstance(part, HasReadings))
        return {name: value for part in parts for name, value in part.readings().items()}

    def take_best(self) -> None:
        """Leave the best in the parts."""
        for name, part in self.learned.items():
            part.load_state_dict(self.best[name])

    def capture(self, processes: Processes, *, per_device: int) -> Checkpoint:
        """All of it, with the random generators of every process; on each process."""
        run = self.run
        everyone = processes.gather([(random_state(), per_device)])
        groups: dict[str, _Tensors] = {
            **{f"now/{name}": part for name, part in self.now().items()},
            **{f"best/{name}": part for name, part in self.best.items()},
            "adam": self.optimisation.state(),
            "history": {"rows": torch.tensor(run.rows, dtype=torch.float64).reshape(run.step, len(run.columns))},
            **{f"random/{number}": state for number, (state, _) in enumerate(everyone)},
        }
        return Checkpoint(
            run.step,
            {f"{group}/{name}": value for group, tensors in groups.items() for name, value in tensors.items()},
            {
                "columns": run.columns,
                "validation": run.validation,
                "best_step": run.best_step,
                "best_pck": run.best_pck if run.validation else None,
                "best_scores": None if run.best_scores is None else run.best_scores.to_plain(),
                "per_device": [one for _, one in everyone],
            },
        )

    def restore(self, found: Checkpoint, processes: Processes) -> int | None:
        """Stand where a checkpoint was written.

        Returns:
            The pairs that this process took at once there; None if there was no such process.
        """
        state, run = found.state, self.run
        for name, part in self.learned.items():
            part.load_state_dict(found.part(f"now/{name}"))
            self.best[name] = found.part(f"best/{name}")
        self.optimisation.restore(found.part("adam"))
        run.columns = tuple(state["columns"])
        run.rows = [tuple(row) for row in found.part("history")["rows"].tolist()]
        run.validation = [(step, pck) for step, pck in state["validation"]]
        if run.validation:
            run.best_step, run.best_pck = state["best_step"], state["best_pck"]
            run.best_scores = PairScores.from_plain(state["best_scores"])
        if processes.index >= len(state["per_device"]):
            return None
        restore_random_state(found.part(f"random/{processes.index}"))
        return int(state["per_device"][processes.index])
