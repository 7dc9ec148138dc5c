"""Learned parameters of components, whether these are modules, contain a module, or learn nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from sd4match.errors import ComponentError, shown
from sd4match.interfaces.calls import call_component, describe_component
from sd4match.registry import Component
from sd4match.structures.tensors import ParameterGroup

SORTS = ("prompt", "loss", "matcher", "pair_transform")
"""Fields of an experiment whose components may learn."""


class Learned:
    """Learned state of a component: parameters, tensors and values to log; empty if the component learns nothing.

    A component that learns is a `torch.nn.Module`, or has one in an attribute `module`, as matchers that wrap another
    matcher do. Its methods `parameter_groups` and `log_values` are called where they exist. Without them all parameters
    are learned at the base rate, and nothing is logged.

    Args:
        role: field of the component in an experiment, for example "matcher".
        component: any object or plain function.

    >>> learned = Learned("matcher", nn.Linear(2, 1))
    >>> [group.name for group in learned.parameter_groups()], list(learned.state_dict())
    (['matcher'], ['weight', 'bias'])
    >>> Learned("loss", len).parameter_groups()
    []
    """

    def __init__(self, role: str, component: object) -> None:
        self.role = role
        self.component = component
        module = component if isinstance(component, nn.Module) else getattr(component, "module", None)
        self.module: nn.Module | None = module if isinstance(module, nn.Module) else None
        self._state: Any = component if hasattr(component, "load_state_dict") else self.module

    @property
    def config(self) -> Component | None:
        """Config that the component was built from, or the component if it is its own config; None if it has none."""
        config = self.component if isinstance(self.component, Component) else getattr(self.component, "config", None)
        return config if isinstance(config, Component) else None

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the learned parameters; [] if there are none."""
        own = self._method("parameter_groups")
        return all_parameters(self.role, self.module) if own is None else list(own())

    def log_values(self) -> Mapping[str, float]:
        """Return values to log after every step, by name.

        Raises:
            ComponentError: `log_values` of the component fails, or does not return numbers by name.
        """
        own = self._method("log_values")
        values = {} if own is None else call_component(self.role, self.component, own)
        is_right = isinstance(values, Mapping) and all(
            isinstance(name, str) and isinstance(value, (int, float)) for name, value in values.items()
        )
        if not is_right:
            name = describe_component(self.role, self.component)
            raise ComponentError(f"log_values of {name} must be numbers by name, not {shown(values)}")
        return dict(values)

    def _method(self, name: str) -> Callable[[], Any] | None:
        """Return a method of the component, or of the module in it; None if neither has it."""
        for owner in (self.component, self.module):
            method = getattr(owner, name, None)
            if callable(method):
                return cast(Callable[[], Any], method)
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors of the component."""
        return {} if self._state is None else dict(self._state.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load tensors that `state_dict` returned.

        Args:
            state_dict: tensors by name.
        """
        if self._state is not None:
            self._state.load_state_dict(state_dict)

    def train(self, mode: bool = True) -> bool:
        """Switch the component to training or evaluation.

        Args:
            mode: True for training.

        Returns:
            The mode before; False for a component without a module.
        """
        if self.module is None:
            return False
        before = self.module.training
        self.module.train(mode)
        return before

    def to(self, device: torch.device | str) -> None:
        """Move the component to a device.

        Args:
            device: for example "cuda".
        """
        if self.module is not None:
            self.module.to(device)


@contextmanager
def evaluation_mode(*components: object) -> Iterator[None]:
    """Switch components to evaluation inside the block, for example without dropout.

    Args:
        components: any; those without a module are left as they are.
    """
    learned = [Learned("component", component) for component in components]
    before = [component.train(False) for component in learned]
    try:
        yield
    finally:
        for component, was_training in zip(learned, before, strict=True):
            component.train(was_training)


def all_parameters(name: str, module: object) -> list[ParameterGroup]:
    """Return the parameters of a module that require a gradient, as one group.

    Args:
        name: of the group.
        module: any object.

    Returns:
        One group; [] for a module without such parameters, and for any other object.
    """
    if not isinstance(module, nn.Module):
        return []
    parameters = tuple(parameter for parameter in module.parameters() if parameter.requires_grad)
    return [ParameterGroup(name, parameters)] if parameters else []


def learns(component: object) -> bool:
    """Return whether a component has parameters to learn.

    Args:
        component: any object or plain function.

    >>> learns(nn.Linear(2, 1)), learns(len)
    (True, False)
    """
    return bool(Learned("component", component).parameter_groups())
