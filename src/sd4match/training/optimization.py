"""Adam on everything that is learned, with gradients summed over processes in one go a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sd4match.config.sections import TrainingSettings
from sd4match.errors import TrainingError
from sd4match.interfaces import Learns


class Optimisation:
    """The optimiser of some learned parts, by its step.

    Args:
        learned: parts by name.
        settings: learning rate, schedule, steps.
    """

    def __init__(self, learned: Mapping[str, Learns], settings: TrainingSettings) -> None:
        self.settings = settings
        groups = [group for part in learned.values() for group in part.parameter_groups()]
        self.parameters: list[nn.Parameter] = [one for group in groups for one in group.parameters]
        self.adam = torch.optim.Adam([{"params": group.parameters, "scale": group.scale} for group in groups])

    def clear(self) -> None:
        """Forget the gradients."""
        self.adam.zero_grad(set_to_none=True)

    def learning_rate(self, step: int) -> float:
        """The base rate at a step, from 1; groups learn at their scale of it."""
        share = 1.0
        if self.settings.schedule == "cosine":
            share = 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 1) / self.settings.steps))
        return self.settings.learning_rate * share

    def step(self, step: int, *, divide_by: float) -> None:
        """One step along the gradients, divided by what they were summed over.

        Raises:
            TrainingError: a gradient is not finite; nothing has moved.
        """
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= divide_by
                if not parameter.grad.isfinite().all():
                    raise TrainingError(
                        f"a gradient is not finite at step {step}; a lower training.learning_rate may help"
                    )
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate(step) * group["scale"]
        self.adam.step()

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and counts, as flat tensors."""
        return {
            f"{number}.{name}": value
            for number, values in self.adam.state_dict()["state"].items()
            for name, value in values.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state()`.

        Raises:
            TrainingError: it is of other parameters.
        """
        nested: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            number, _, name = key.partition(".")
            nested.setdefault(int(number), {})[name] = value
        for place, values in nested.items():
            if place >= len(self.parameters) or values["exp_avg"].shape != self.parameters[place].shape:
                raise TrainingError("the optimiser's state is of other parameters than those that are learned here")
        self.adam.load_state_dict({**self.adam.state_dict(), "state": nested})


def sum_over_processes(
    parameters: Sequence[nn.Parameter], numbers: Sequence[float], accelerator: Accelerator
) -> list[float]:
    """Sum the gradients of all processes, in place, and some numbers with them, in a single reduction.

    A parameter that no process used (a category of no pair) stays without a gradient, so that it is not moved.

    Returns:
        The numbers, summed.
    """
    if accelerator.num_processes == 1:
        return list(numbers)
    kind = {"dtype": torch.float32, "device": accelerator.device}
    used = torch.tensor([float(one.grad is not None) for one in parameters], **kind)
    own = [torch.zeros(one.shape) if one.grad is None else one.grad for one in parameters]
    flat = torch.cat([*(one.flatten().to(**kind) for one in own), used, torch.tensor(list(numbers), **kind)])
    summed: Tensor = accelerator.reduce(flat, "sum")
    *gradients, used, rest = summed.split([*(one.numel() for one in parameters), len(parameters), len(numbers)])
    for parameter, gradient, processes in zip(parameters, gradients, used.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter).to(parameter) if processes else None
    return [float(one) for one in rest]
