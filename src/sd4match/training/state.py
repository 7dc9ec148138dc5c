"""Everything that changes during a training, as one value that can be written to a checkpoint and restored."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from sd4match.distributed import Processes
from sd4match.evaluation.scores import PairScores
from sd4match.interfaces import MatchingLoss, Prompt
from sd4match.training.checkpoint import Checkpoint
from sd4match.training.history import TrainingRun
from sd4match.training.optimization import Optimization
from sd4match.training.random_state import random_state, restore_random_state

_Tensors = dict[str, Tensor]


class TrainingState:
    """What is learned, its best value so far, the optimizer and the history.

    Args:
        learned: prompt and loss, by name.
        optimization: over their parameters.
        history: of the training.
    """

    def __init__(
        self, learned: Mapping[str, Prompt | MatchingLoss], optimization: Optimization, history: TrainingRun
    ) -> None:
        self.learned = learned
        self.optimization = optimization
        self.history = history
        self.best = self._copy_learned()

    def _copy_learned(self) -> dict[str, _Tensors]:
        return {name: copy.deepcopy(dict(component.state_dict())) for name, component in self.learned.items()}

    def log_values(self) -> dict[str, float]:
        """Return the logged values of prompt and loss."""
        return {name: value for component in self.learned.values() for name, value in component.log_values().items()}

    def save_best(self) -> None:
        """Remember the current values as the best ones."""
        self.best = self._copy_learned()

    def load_best(self) -> None:
        """Set prompt and loss to the best values."""
        for name, component in self.learned.items():
            component.load_state_dict(self.best[name])

    def capture(self, processes: Processes, *, per_device: int) -> Checkpoint:
        """Return a checkpoint of this state and of the random generators of every process; call it on all processes.

        Args:
            processes: of this run.
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
        """Restore the state in which a checkpoint was captured.

        Returns:
            Number of pairs that this process took at once; None if the checkpoint has no process of this index.
        """
        state, history = checkpoint.state, self.history
        for name, component in self.learned.items():
            component.load_state_dict(checkpoint.group(f"now/{name}"))
            self.best[name] = checkpoint.group(f"best/{name}")
        self.optimization.load_state_dict(checkpoint.group("adam"))
        history.columns = tuple(state["columns"])
        history.rows = [tuple(row) for row in checkpoint.group("history")["rows"].tolist()]
        history.validation = [(step, pck) for step, pck in state["validation"]]
        if history.validation:
            history.best_step, history.best_pck = state["best_step"], state["best_pck"]
            history.best_scores = PairScores.from_json(state["best_scores"])
        if processes.index >= len(state["per_device"]):
            return None
        restore_random_state(checkpoint.group(f"random/{processes.index}"))
        return int(state["per_device"][processes.index])
