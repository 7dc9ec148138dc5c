"""Interfaces of matchers, pair transforms and losses. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sd4match.registry import Component, Registry, losses, matchers, pair_transforms

if TYPE_CHECKING:
    from torch import Tensor

    from sd4match.structures.specs import FeatureSpec
    from sd4match.structures.tensors import Correlation, FeatureMap, Keypoints, LossValue, Matches, ParameterGroup


class Matcher(Component):
    """Base class of matchers: from the correlation to the locations in the target photos.

    A matcher is its own config: its fields are its parameters. Wherever a matcher is expected, any function
    `Correlation -> Matches` fits as well. One that learns is a `torch.nn.Module` that is registered with
    `register_matcher`.
    """

    registry: ClassVar[Registry[Any, Any]] = matchers

    def build(self) -> Self:
        """Return the matcher itself."""
        return self

    def __call__(self, correlation: Correlation, /) -> Matches:
        """Match the query points of B pairs.

        Args:
            correlation: of N query points with every target cell.

        Returns:
            (B, N, 2) points in original pixels of the target photos, with scores in [0, 1].
        """
        raise NotImplementedError


class PairTransform(Component):
    """Base class of transforms of the two feature maps of a pair, applied after extraction.

    A transform is its own config. Any function of two maps that returns two maps fits as well. One that learns is a
    `torch.nn.Module` that is registered with `register_pair_transform`.
    """

    registry: ClassVar[Registry[Any, Any]] = pair_transforms

    def build(self) -> Self:
        """Return the transform itself."""
        return self

    def check_spec(self, spec: FeatureSpec) -> None:
        """Check, before any weights load, that this transform fits the maps of a backbone; any do by default.

        Raises:
            ConfigError: it does not.
        """

    def __call__(self, source: FeatureMap, target: FeatureMap, /) -> tuple[FeatureMap, FeatureMap]:
        """Transform the maps of B pairs together.

        Args:
            source: B maps.
            target: B maps.

        Returns:
            Both maps, on the same grids as before.
        """
        raise NotImplementedError


class MatchingLoss:
    """What a loss offers besides its value. All methods have defaults; a loss that learns overrides some of them.

    A loss with parameters derives from `torch.nn.Module` and from this class, in that order, and defines `forward`.
    Wherever a loss is expected, any function `(Correlation, Keypoints) -> scalar` fits as well.
    """

    has_lower_bound: ClassVar[bool] = False
    """Whether the answers carry a lower bound, so that the excess over it can be logged."""
    takes_matches: ClassVar[bool] = False
    """Whether the loss takes the `Matches` of the experiment's matcher as a third argument, through which its gradient
    goes. A matcher that learns needs such a loss."""

    def __call__(self, correlation: Correlation, targets: Keypoints, /) -> Tensor | LossValue:
        """Return the loss of B pairs.

        Args:
            correlation: of the source points with every target cell.
            targets: true locations in original pixels of the target photos. Points that are not visible must not
                influence the result.

        Returns:
            A scalar, the mean over the pairs that have a visible point, 0 if none has; or a `LossValue` that carries
            its lower bound too.
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return what is learned: by default all parameters of a module at the base learning rate; [] without any."""
        from sd4match.interfaces.learning import all_parameters

        return all_parameters("loss", self)

    def log_values(self) -> Mapping[str, float]:
        """Return values to log after every step, by name, always the same names; {} by default."""
        return {}

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return the learned tensors; {} by default. `torch.nn.Module` defines its own."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> Any:
        """Restore what `state_dict` returned. `torch.nn.Module` defines its own."""


class LossConfig(Component):
    """Base class of configs of losses that have parameters of their own."""

    registry: ClassVar[Registry[Any, Any]] = losses

    def build(self) -> MatchingLoss:
        """Return the loss."""
        raise NotImplementedError(f"{type(self).__name__} does not define build")


class Loss(LossConfig, MatchingLoss):
    """Base class of losses without parameters: such a loss is its own config and defines `__call__`."""

    def build(self) -> Self:
        """Return the loss itself."""
        return self
