"""Adam on all learned parameters, with gradients summed over processes in one reduction per step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sd4match.config.sections import TrainingConfig
from sd4match.errors import TrainingError
from sd4match.interfaces import Learned

_ADAM = ("step", "exp_avg", "exp_avg_sq")
"""Names of the tensors of Adam's state of a parameter."""


class Optimization:
    """Adam over all learned parameters, with a learning rate that depends only on the step.

    Args:
        learned: components that learn.
        config: learning rate, schedule, number of steps.
    """

    def __init__(self, learned: Sequence[Learned], config: TrainingConfig) -> None:
        self.config = config
        groups = [group for component in learned for group in component.parameter_groups()]
        self.parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group.parameters]
        self.adam = torch.optim.Adam([{"params": group.parameters, "scale": group.scale} for group in groups])

    def zero_grad(self) -> None:
        """Discard the gradients."""
        self.adam.zero_grad(set_to_none=True)

    def learning_rate(self, step: int) -> float:
        """Return the base learning rate at a step, from 1; each group learns at its scale times this rate."""
        factor = 1.0
        if self.config.schedule == "cosine":
            factor = 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 1) / self.config.steps))
        return self.config.learning_rate * factor

    def step(self, step: int, *, divide_by: float) -> None:
        """Make one step along the gradients.

        Args:
            step: number of the step, from 1.
            divide_by: number of pairs over which the gradients are summed.

        Raises:
            TrainingError: a gradient is not finite; no parameter has changed.
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

    def state_dict(self) -> dict[str, Tensor]:
        """Return Adam's moments and step counts by "INDEX.NAME", where INDEX is that of the parameter."""
        return {
            f"{index}.{name}": value
            for index, values in self.adam.state_dict()["state"].items()
            for name, value in values.items()
        }

    def check_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Check a state for `load_state_dict`.

        Raises:
            TrainingError: it is not what `state_dict` returns for these parameters.
        """
        for key, value in state_dict.items():
            index, _, name = key.partition(".")
            known = name in _ADAM and index.isascii() and index.isdigit() and int(index) < len(self.parameters)
            if not known or value.shape != (() if name == "step" else self.parameters[int(index)].shape):
                raise TrainingError(
                    f"the optimizer's state is of other parameters than those that are learned here: {key[:80]} "
                    f"{tuple(value.shape)}"
                )
            if not value.is_floating_point() or not value.isfinite().all():
                raise TrainingError(f"the optimizer's state is not finite: {key[:80]}")
        indices = {key.partition(".")[0] for key in state_dict}
        missing = {f"{index}.{name}" for index in indices for name in _ADAM} - set(state_dict)
        if missing:
            raise TrainingError(f"the optimizer's state lacks {min(missing)}")

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Restore the state that `state_dict` returned.

        Raises:
            TrainingError: it belongs to other parameters.
        """
        self.check_state_dict(state_dict)
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in state_dict.items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        self.adam.load_state_dict({**self.adam.state_dict(), "state": state})


def sum_over_processes(
    parameters: Sequence[nn.Parameter], numbers: Sequence[float], accelerator: Accelerator
) -> list[float]:
    """Sum the gradients of all processes in place, together with some numbers, in a single reduction.

    A parameter that no process used (the prompt of a category without a pair) stays without a gradient, so that Adam
    does not move it.

    Args:
        parameters: the same on all processes.
        numbers: the same count on all processes.
        accelerator: accelerator of this process.

    Returns:
        The summed numbers.
    """
    if accelerator.num_processes == 1:
        return list(numbers)
    options = {"dtype": torch.float32, "device": accelerator.device}
    is_used = torch.tensor([float(parameter.grad is not None) for parameter in parameters], **options)
    own = [torch.zeros(parameter.shape) if parameter.grad is None else parameter.grad for parameter in parameters]
    flat = torch.cat(
        [*(gradient.flatten().to(**options) for gradient in own), is_used, torch.tensor(list(numbers), **options)]
    )
    summed: Tensor = accelerator.reduce(flat, "sum")
    sizes = [parameter.numel() for parameter in parameters]
    *gradients, uses, totals = summed.split([*sizes, len(parameters), len(numbers)])
    for parameter, gradient, used in zip(parameters, gradients, uses.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter).to(parameter) if used else None
    return [float(total) for total in totals]
