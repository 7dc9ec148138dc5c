"""Feature maps in memory up to a budget; those that do not fit are written to a store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace

import psutil
import torch
from torch import Tensor

from sd4match.checks import check_finite, check_shape
from sd4match.data.loading import Prefetcher
from sd4match.errors import InputError, SD4MatchError
from sd4match.io.cache import Store
from sd4match.io.features import grid_metadata, map_of_metadata
from sd4match.structures.tensors import FeatureMap

Side = tuple[str, str | None]
"""Id of a photo, and the category that its prompt depends on."""

_FRACTION = 0.5
_NEVER = 1 << 62


def memory_budget(device: torch.device, *, processes: int = 1) -> int:
    """Return the default budget in bytes: half of the free memory of a device, divided among the processes.

    Args:
        device: where the maps are; the main memory counts for "cpu".
        processes: number of processes that share the main memory.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _FRACTION)
    return int(psutil.virtual_memory().available * _FRACTION) // processes


class MapMemory:
    """Feature maps in the order in which they are needed, in memory within a budget.

    The order is known in advance, so the map that is needed last is evicted (Belady's rule). An evicted map is written
    to the store if it is needed again and is not there; the next map to be read is read in a thread.

    Args:
        budget: bytes of maps, the one being read included.
        store: store of the maps that do not fit.
        keys: name of each map in the store.
        channels: channels of every map; stored maps with other numbers are ignored.
        dtype: data type of stored maps, in memory and on disk.
        device: device of the maps.
    """

    def __init__(
        self,
        *,
        budget: int,
        store: Store,
        keys: Mapping[Side, str],
        channels: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.stored: set[Side] = set()
        """Maps that are in the store."""
        self._budget = budget
        self._store = store
        self._keys = keys
        self._channels = channels
        self._dtype = dtype
        self._device = device
        self._maps: dict[Side, FeatureMap] = {}
        self._bytes = 0
        self._pairs: Sequence[tuple[Side, Side]] = ()
        self._uses: dict[Side, list[int]] = {}
        self._position = -1
        self._prefetcher: Prefetcher[Side, FeatureMap | None] = Prefetcher(self._read)

    def set_order(self, pairs: Sequence[tuple[Side, Side]]) -> None:
        """Set the maps that are needed for each pair, in the order of the pairs."""
        self._pairs = pairs
        self._uses = {}
        for position, sides in enumerate(pairs):
            for side in sides:
                self._uses.setdefault(side, []).append(position)

    def move_to(self, position: int) -> None:
        """Set which pair is visited; maps that only earlier pairs need are dropped."""
        finished = self._pairs[self._position] if self._position >= 0 else ()
        for side in finished:
            if side in self._maps and self._next_use(side) == _NEVER:
                self._drop(side)
        self._position = position

    def add(self, side: Side, features: FeatureMap) -> None:
        """Keep a map in memory, or write it to the store, depending on the order of the pairs.

        Args:
            side: photo of the map.
            features: (1, C, h, w); may be a view of a larger batch.
        """
        self._insert(side, replace(features, values=features.values.to(self._device, self._dtype)))

    def write(self, side: Side, features: FeatureMap) -> None:
        """Write a map to the store."""
        values = features.values[0].to(self._dtype)
        self._store.put(self._keys[side], {"values": values}, grid_metadata(features))
        self.stored.add(side)

    def get(self, side: Side) -> FeatureMap | None:
        """Return a map, (1, C, h, w); None if it is neither in memory nor in the store."""
        if side not in self._maps:
            following = self._next_missing(side)
            features = self._prefetcher.get(side, next_key=following)
            if features is None:
                return None
            self._insert(side, features)
        features = self._maps[side]
        return replace(features, values=features.values.float()) if self._dtype != torch.float32 else features

    def bytes_of_map(self, features: FeatureMap) -> int:
        """Return the bytes of one map in the precision of this memory."""
        return features.values[0].numel() * self._dtype.itemsize

    def bytes_of_stored_map(self) -> int:
        """Return the bytes of a map of the store; 1 if there is none."""
        features = next(
            (found for side in sorted(self.stored, key=str) if (found := self._read(side)) is not None), None
        )
        return 1 if features is None else features.values.nbytes

    def _insert(self, side: Side, features: FeatureMap) -> None:
        self._maps[side] = features
        self._bytes += features.values.nbytes
        while self._bytes > self._limit(features.values):
            victim = self._victim()
            if victim is None:
                break
            self._drop(victim)
        if side in self._maps and _is_part(features.values) and self._is_tight(features.values):
            self._maps[side] = replace(features, values=features.values.clone())

    def _limit(self, values: Tensor) -> int:
        """Return the bytes of the maps in memory without the one being read."""
        return self._budget - values.nbytes if self._is_tight(values) else self._budget

    def _is_tight(self, values: Tensor) -> bool:
        """Return whether not all maps fit in memory."""
        return len(self._uses) * values.nbytes > self._budget

    def _victim(self) -> Side | None:
        """Return the map that is needed last, except those of the visited pair; None if there is no other."""
        visited = set(self._pairs[self._position]) if self._position >= 0 else set()
        return max((side for side in self._maps if side not in visited), key=self._next_use, default=None)

    def _drop(self, side: Side) -> None:
        features = self._maps.pop(side)
        self._bytes -= features.values.nbytes
        if side not in self.stored and self._next_use(side) < _NEVER:
            self.write(side, features)

    def _next_use(self, side: Side) -> int:
        """Return the position of the next pair that needs a map, the visited one excepted."""
        uses = self._uses.get(side, [])
        index = bisect_right(uses, self._position)
        return uses[index] if index < len(uses) else _NEVER

    def _next_missing(self, reading: Side) -> Side | None:
        """Return the next map that is not in memory, while another one is being read."""
        for sides in self._pairs[max(self._position, 0) :]:
            for side in sides:
                if side != reading and side not in self._maps and side in self.stored:
                    return side
        return None

    def _read(self, side: Side) -> FeatureMap | None:
        entry = self._store.get(self._keys[side])
        if entry is None:
            return None
        try:
            return self._believed(*entry)
        except (SD4MatchError, KeyError) as error:
            self._store.discard(self._keys[side], f"no map of this evaluation: {error}")
            return None

    def _believed(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> FeatureMap:
        """Rebuild a stored map, which must be one that this evaluation could have written.

        Raises:
            SD4MatchError: it has another dtype or shape, is not finite, or its metadata are damaged.
            KeyError: it has no values.
        """
        values = tensors["values"][None]
        check_shape("values", values, "1 C h w", C=self._channels)
        if values.dtype != self._dtype:
            raise InputError(f"values must be {self._dtype}, not {values.dtype}")
        check_finite("the values", values)
        return map_of_metadata(values.to(self._device), metadata)


def _is_part(values: Tensor) -> bool:
    """Return whether a tensor is a view that holds more memory than its own."""
    return values.untyped_storage().nbytes() > values.nbytes
