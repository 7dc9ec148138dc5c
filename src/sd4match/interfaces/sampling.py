"""Interface of noise ensembles. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sd4match.registry import Component, Registry, ensembles

if TYPE_CHECKING:
    from torch import Tensor


class NoiseEnsemble(Component):
    """Base class of noise ensembles: the noises of the passes over which the features of a photo are averaged.

    An ensemble is its own config. All its fields need defaults, since samplings and configs name it by its kind alone.
    Each member must be standard normal noise, at least approximately, since the UNet was trained on it.

    >>> from typing import Literal
    >>> from sd4match.registry import ensembles, register
    >>> from sd4match.backbones import NoiseEnsemble, Sampling
    >>> with ensembles.temporarily():
    ...     @register
    ...     class Repeated(NoiseEnsemble):
    ...         kind: Literal["repeated"] = "repeated"
    ...         def noises(self, draw, size, members):
    ...             return draw(0).expand(len(members), -1, -1, -1)
    ...     Sampling(timestep=261, ensemble_size=8, ensemble="repeated").ensemble
    'repeated'
    """

    registry: ClassVar[Registry[Any, Any]] = ensembles

    def build(self) -> Self:
        """Return the ensemble itself."""
        return self

    def noises(self, draw: Callable[[int], Tensor], size: int, members: Sequence[int]) -> Tensor:
        """Return the noises of some members of one photo's ensemble.

        Args:
            draw: returns independent standard normal noise (C, h, w) for a number, the same at every call. Number i is
                the noise of member i of the published, independent ensemble.
            size: number of members of the ensemble, >= 1.
            members: M indices of the wanted members, in [0, size).

        Returns:
            (M, C, h, w), of the dtype and on the device of the draws.
        """
        raise NotImplementedError
