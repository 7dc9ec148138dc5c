"""Which pairs a step sees, and how its batch is shared out: by (seed, step) alone, whatever the machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sd4match.data.collate import make_pairs
from sd4match.data.loading import Ahead
from sd4match.errors import ConfigError, DatasetError, PhotoError
from sd4match.interfaces import PairDataset, Prepare
from sd4match.structures.pairs import PairBatch, PairRecord

Piece = tuple[int, range]
"""A step, and places in its batch that a device takes at once."""


@dataclass(frozen=True)
class BatchPlan:
    """How the pairs of a step are shared out: devices x at once x accumulated.

    Args:
        batch_size: pairs of a step, over all devices: the effective batch.
        devices: processes, with a device each.
        per_device: pairs that a device takes at once.

    Raises:
        ConfigError: there are more devices than pairs.

    >>> BatchPlan(9, devices=3, per_device=3).describe()
    '9 pairs a step = 3 devices x 3 at once x 1 accumulated'
    >>> BatchPlan(9, devices=2, per_device=2).describe()
    '9 pairs a step = 2 devices (5 or 4 each), at most 2 at once, accumulated 3 times'
    """

    batch_size: int
    devices: int
    per_device: int

    def __post_init__(self) -> None:
        if self.devices > self.batch_size:
            raise ConfigError(
                f"training.batch_size = {self.batch_size} is fewer pairs than there are processes ({self.devices}): "
                "start fewer, or make it larger"
            )

    @property
    def share(self) -> int:
        """The most pairs of a step that one device has."""
        return -(-self.batch_size // self.devices)

    @property
    def accumulation(self) -> int:
        """How many times a device with that share goes forward and backward in a step."""
        return -(-self.share // self.per_device)

    def places(self, device: int) -> list[range]:
        """What a device takes of the batch's places, in pieces of `per_device`.

        >>> BatchPlan(9, devices=2, per_device=2).places(1)
        [range(4, 6), range(6, 8), range(8, 9)]
        """
        first, end = (self.batch_size * number // self.devices for number in (device, device + 1))
        return [range(start, min(start + self.per_device, end)) for start in range(first, end, self.per_device)]

    def smaller(self) -> BatchPlan:
        """With half as many at once, rounded up.

        >>> BatchPlan(9, devices=3, per_device=3).smaller().per_device
        2
        """
        return replace(self, per_device=-(-self.per_device // 2))

    def describe(self) -> str:
        """One line for people."""
        shares = sorted({sum(len(piece) for piece in self.places(one)) for one in range(self.devices)}, reverse=True)
        plural = "device" if self.devices == 1 else "devices"
        if self.devices * self.per_device * self.accumulation == self.batch_size:
            return (
                f"{self.batch_size} pairs a step = {self.devices} {plural} x {self.per_device} at once "
                f"x {self.accumulation} accumulated"
            )
        return (
            f"{self.batch_size} pairs a step = {self.devices} {plural} ({' or '.join(map(str, shares))} each), "
            f"at most {self.per_device} at once, accumulated {self.accumulation} times"
        )


class Batches:
    """The pairs of every step, without a state: step 12 is the same whether or not steps 1 to 11 were asked for."""

    def __init__(self, data: PairDataset, views: Mapping[str, Prepare], *, seed: int, batch_size: int) -> None:
        self.data = data
        self.views = views
        self.seed = seed
        self.batch_size = batch_size
        self._ahead = Ahead(self._load)

    def chosen(self, step: int) -> list[int]:
        """The data set's numbers of a step's pairs; a step sees a pair once, if there are enough."""
        rng = np.random.default_rng([self.seed, step - 1])
        few = len(self.data) < self.batch_size
        return [int(one) for one in rng.choice(len(self.data), size=self.batch_size, replace=few)]

    def pairs(self, piece: Piece, *, then: Piece | None = None) -> PairBatch:
        """The pairs at some places of a step's batch, with their photos.

        Args:
            piece: step and places.
            then: what will be asked for next, to be loaded meanwhile.

        Raises:
            DatasetError, PhotoError: one cannot be read; names file and pair.
        """
        return self._ahead.get(piece, then=then)

    def _load(self, piece: Piece) -> PairBatch:
        step, places = piece
        numbers = [self.chosen(step)[place] for place in places]
        try:
            return make_pairs([self.data[number] for number in numbers], self.data, self.views)
        except (DatasetError, PhotoError):
            for number in numbers:
                self._named(number)
            raise

    def _named(self, number: int) -> None:
        """Raise again what is wrong with this pair, with its name."""
        try:
            record: PairRecord = self.data[number]
            make_pairs([record], self.data, {})
        except (DatasetError, PhotoError) as error:
            raise type(error)(f"pair {self.data.keys[number].pair_id}: {error}") from None
