"""Pairs of every training step, a function of (seed, step) only, and their split over devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.data.checked import read_pair
from sd4match.data.collate import make_pairs
from sd4match.data.loading import Prefetcher
from sd4match.errors import ConfigError, DatasetError, PhotoError
from sd4match.interfaces import PairDataset, Prepare
from sd4match.structures.pairs import PairBatch


class MicroBatch(NamedTuple):
    """Pairs of a step that go through forward and backward pass together."""

    step: int
    indices: range
    """Indices in the global batch."""


@dataclass(frozen=True)
class BatchSplit:
    """Split of the pairs of a step: devices x pairs at once x accumulation.

    Args:
        batch_size: pairs of a step over all devices, the effective batch.
        devices: number of processes, each with one device.
        per_device: pairs that a device processes at once.

    Raises:
        InputError: a number is not a whole number of at least 1.
        ConfigError: there are more devices than pairs.

    >>> BatchSplit(9, devices=3, per_device=3).describe()
    '9 pairs a step = 3 devices x 3 at once x 1 accumulated'
    >>> BatchSplit(9, devices=2, per_device=2).describe()
    '9 pairs a step = 2 devices (5 or 4 each), at most 2 at once, accumulated 3 times'
    """

    batch_size: int
    devices: int
    per_device: int

    def __post_init__(self) -> None:
        for name in ("batch_size", "devices", "per_device"):
            check_count(name, getattr(self, name))
        if self.devices > self.batch_size:
            raise ConfigError(
                f"training.batch_size = {self.batch_size} is fewer pairs than there are processes ({self.devices}): "
                "start fewer, or make it larger"
            )

    @property
    def share(self) -> int:
        """Largest number of pairs of a step that one device has."""
        return -(-self.batch_size // self.devices)

    @property
    def accumulation(self) -> int:
        """Number of micro-batches of the device with the largest share."""
        return -(-self.share // self.per_device)

    @check_arguments
    def indices(self, device: int) -> list[range]:
        """Return the indices in the global batch that a device computes, in ranges of at most `per_device`.

        Args:
            device: index of the device, in [0, devices).

        Raises:
            InputError: there is no such device.

        >>> BatchSplit(9, devices=2, per_device=2).indices(1)
        [range(4, 6), range(6, 8), range(8, 9)]
        """
        check_count("device", device, 0, self.devices - 1)
        start, stop = (self.batch_size * number // self.devices for number in (device, device + 1))
        return [range(low, min(low + self.per_device, stop)) for low in range(start, stop, self.per_device)]

    def halved(self) -> BatchSplit:
        """Return the split with half as many pairs at once, rounded up.

        >>> BatchSplit(9, devices=3, per_device=3).halved().per_device
        2
        """
        return replace(self, per_device=-(-self.per_device // 2))

    def describe(self) -> str:
        """Return the split in words, in one line."""
        shares = sorted({sum(map(len, self.indices(device))) for device in range(self.devices)}, reverse=True)
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
    """Pairs of every step.

    Objects are stateless: step 12 is the same whether or not steps 1 to 11 were loaded.

    Args:
        data: pairs to draw from.
        prepare: preprocessing functions by view name; see `prompting.pairing.preprocessors`.
        seed: seed of the draws.
        batch_size: pairs of a step over all devices.
    """

    def __init__(self, data: PairDataset, prepare: Mapping[str, Prepare], *, seed: int, batch_size: int) -> None:
        self.data = data
        self.prepare = prepare
        self.seed = seed
        self.batch_size = batch_size
        self._prefetcher: Prefetcher[MicroBatch, PairBatch] = Prefetcher(self._load)

    def dataset_indices(self, step: int) -> list[int]:
        """Return the data-set index of each pair of a step, from 1; no pair occurs twice if there are enough."""
        rng = np.random.default_rng([self.seed, step - 1])
        too_few = len(self.data) < self.batch_size
        return [int(index) for index in rng.choice(len(self.data), size=self.batch_size, replace=too_few)]

    def load(self, micro_batch: MicroBatch, *, then: MicroBatch | None = None) -> PairBatch:
        """Return the pairs of a micro-batch with their photos.

        Args:
            micro_batch: step and indices in its batch.
            then: micro-batch that will be requested next; it is loaded in the background.

        Raises:
            DatasetError, PhotoError: a pair cannot be read; the message names file and pair.
        """
        return self._prefetcher.get(micro_batch, next_key=then)

    def _load(self, micro_batch: MicroBatch) -> PairBatch:
        dataset_indices = self.dataset_indices(micro_batch.step)
        wanted = [dataset_indices[index] for index in micro_batch.indices]
        try:
            records = [read_pair(self.data, index) for index in wanted]
            return make_pairs(records, self.data, self.prepare)
        except (DatasetError, PhotoError):
            for index in wanted:
                self._raise_with_name(index)
            raise

    def _raise_with_name(self, index: int) -> None:
        """Read one pair again; raise its error, if there is one, with the name of the pair."""
        try:
            make_pairs([read_pair(self.data, index)], self.data, {})
        except (DatasetError, PhotoError) as error:
            raise type(error)(f"pair {self.data.keys[index].pair_id}: {error}") from None
