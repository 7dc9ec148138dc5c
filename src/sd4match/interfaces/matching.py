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
    """Base class of matchers, which find the query points in the target photos from the correlation.

    A matcher is its own config: its fields are its parameters. Wherever a matcher is expected, any function
    `Correlation -> Matches` fits as well. A matcher that learns is a `torch.nn.Module` that is registered with
    `register_matcher`.

    >>> from sd4match.testing import random_correlation
    >>> matcher = matchers.build({"kind": "soft_argmax", "temperature": 0.1})
    >>> isinstance(matcher, Matcher), matcher(random_correlation()).points.shape
    (True, torch.Size([2, 3, 2]))
    """

    registry: ClassVar[Registry[Any, Any]] = matchers

    def build(self) -> Self:
        """Return the matcher itself."""
        return self

    def __call__(self, correlation: Correlation, /) -> Matches:
        """Match the query points of B pairs.

        Args:
            correlation: similarity of N query points to every cell of the target maps, (B, N, h, w).

        Returns:
            (B, N, 2) points in original pixels of the target photos, with (B, N) scores in [0, 1].
        """
        raise NotImplementedError


class PairTransform(Component):
    """Base class of transforms of the two feature maps of a pair, applied after extraction.

    A transform is its own config. Any function of two maps that returns two maps fits as well. A transform that learns
    is a `torch.nn.Module` that is registered with `register_pair_transform`.

    >>> from sd4match.testing import random_correlation
    >>> pair = random_correlation()
    >>> source, target = pair_transforms.build("co_pca")(pair.source, pair.target)
    >>> source.size == pair.source.size
    True
    """

    registry: ClassVar[Registry[Any, Any]] = pair_transforms

    def build(self) -> Self:
        """Return the transform itself."""
        return self

    def check_spec(self, spec: FeatureSpec) -> None:
        """Check that this transform fits the feature maps of a backbone, before weights load. Accepts all by default.

        Args:
            spec: shapes of the backbone.

        Raises:
            ConfigError: the transform does not fit.
        """

    def __call__(self, source: FeatureMap, target: FeatureMap, /) -> tuple[FeatureMap, FeatureMap]:
        """Transform the maps of B pairs together.

        Args:
            source: features of the source photos, (B, C, h, w).
            target: features of the target photos, (B, C, h, w).

        Returns:
            Both maps, on the same grids as before.
        """
        raise NotImplementedError


class MatchingLoss:
    """Interface of losses. All methods but the call have defaults; a loss that learns overrides some of them.

    A loss with parameters derives from `torch.nn.Module` and from this class, in that order, and defines `forward`.
    Wherever a loss is expected, any function `(Correlation, Keypoints) -> scalar` fits as well.

    >>> import torch
    >>> from sd4match.testing import random_correlation
    >>> class ScaledPeak(torch.nn.Module, MatchingLoss):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.scale = torch.nn.Parameter(torch.ones(()))
    ...     def forward(self, correlation, targets):
    ...         return -self.scale * correlation.values.mean()
    >>> [group.name for group in ScaledPeak().parameter_groups()]
    ['loss']
    """

    has_lower_bound: ClassVar[bool] = False
    """True if the loss returns a lower bound with its value, so that the excess loss can be logged."""
    takes_matches: ClassVar[bool] = False
    """True if the loss takes the `Matches` of the experiment's matcher as a third argument and sends its gradient
    through them. A matcher that learns needs such a loss."""

    def __call__(self, correlation: Correlation, targets: Keypoints, /) -> Tensor | LossValue:
        """Return the loss of B pairs.

        Args:
            correlation: similarity of the N source points to every cell of the target maps, (B, N, h, w).
            targets: true locations (B, N, 2) in original pixels of the target photos. Points that are not visible must
                not influence the result.

        Returns:
            A scalar: the mean over the pairs that have a visible point, or 0 without such a pair. A loss that has a
            lower bound returns a `LossValue` with both.
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the parameters to learn; by default all of a module, at the base learning rate, or [] without any."""
        from sd4match.interfaces.learning import all_parameters

        return all_parameters("loss", self)

    def log_values(self) -> Mapping[str, float]:
        """Return values to log after every training step, by name; {} by default. The names must never change."""
        return {}

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return the learned tensors; {} by default. `torch.nn.Module` defines its own."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> Any:
        """Load tensors that `state_dict` returned. `torch.nn.Module` defines its own.

        Args:
            state_dict: tensors by name.
        """


class LossConfig(Component):
    """Base class of configs of losses with learned parameters; `build` returns the loss.

    >>> from sd4match.registry import losses
    >>> config = losses.parse("gaussian_cross_entropy")
    >>> isinstance(config, LossConfig), isinstance(config.build(), MatchingLoss)
    (True, True)
    """

    registry: ClassVar[Registry[Any, Any]] = losses

    def build(self) -> MatchingLoss:
        """Return the loss."""
        raise NotImplementedError(f"{type(self).__name__} does not define build")


class Loss(LossConfig, MatchingLoss):
    """Base class of losses without learned parameters. Such a loss is its own config and defines `__call__`.

    >>> loss = losses.build("end_point_error")
    >>> isinstance(loss, Loss), loss.build() is loss, loss.parameter_groups()
    (True, True, [])
    """

    def build(self) -> Self:
        """Return the loss itself."""
        return self
