"""Order in which pairs are visited when not all feature maps fit in memory."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


def visiting_order(pairs: Sequence[tuple[Item, Item]], capacity: int, *, spare: int = 0) -> list[int]:
    """Order pairs of items so that few items are loaded again when only `capacity` of them fit in memory.

    Greedy: the item that shares most pairs with those in memory is loaded next. If there is no room for it, the item
    with most pairs left makes room, so that the others are finished and free their room for good.

    Args:
        pairs: two items each.
        capacity: number of items that fit in memory; at least 2 are assumed.
        spare: number of items for which room is left free if not all items fit.

    Returns:
        Indices of the pairs; in their own order if all items fit.

    >>> visiting_order([("a", "b"), ("c", "d"), ("a", "c"), ("b", "a"), ("d", "c")], capacity=2)
    [0, 3, 2, 1, 4]
    """
    planner = _Planner(pairs)
    if len(planner.remaining) <= max(2, capacity):
        return list(range(len(pairs)))
    capacity = max(2, capacity - spare)
    while planner.remaining:
        item = planner.next_item()
        if len(planner.resident) >= capacity:
            planner.evict_for(item)
        planner.load(item)
    return planner.order


class _Planner(Generic[Item]):
    """State of `visiting_order`: which items are in memory, and which pairs are left."""

    def __init__(self, pairs: Sequence[tuple[Item, Item]]) -> None:
        self.order: list[int] = []
        self.resident: set[Item] = set()
        self.partners: dict[Item, dict[Item, list[int]]] = {}
        """Indices of the pairs that are left, by item and partner."""
        for index, (first, second) in enumerate(pairs):
            for item, partner in {(first, second), (second, first)}:
                self.partners.setdefault(item, {}).setdefault(partner, []).append(index)
        self.remaining = {item: sum(map(len, found.values())) for item, found in self.partners.items()}
        """Number of pairs left, by item that has some."""
        self._rank = {item: number for number, item in enumerate(self.partners)}
        self._items = list(self.partners)
        self._shared = dict.fromkeys(self.partners, 0)
        """Number of pairs left with the items in memory."""
        self._queue = [(0, rank) for rank in range(len(self._items))]
        """Heap of (-shared, rank) of items outside the memory; outdated entries are ignored."""

    def next_item(self) -> Item:
        """Return the item outside the memory that shares most pairs with it; of equal ones, the first."""
        while True:
            shared, rank = heapq.heappop(self._queue)
            item = self._items[rank]
            if item in self.remaining and item not in self.resident and self._shared[item] == -shared:
                return item

    def load(self, item: Item) -> None:
        """Add an item to the memory, visit its pairs with all others there, and drop the finished ones."""
        self.resident.add(item)
        self._change_shared(item, 1)
        for partner in sorted(self.partners[item].keys() & self.resident, key=self._rank.__getitem__):
            indices = self.partners[item].pop(partner)
            self.order += indices
            if partner != item:
                del self.partners[partner][item]
            for member in {item, partner}:
                self._shared[member] -= len(indices)
                self.remaining[member] -= len(indices)
                if not self.remaining[member]:
                    del self.remaining[member]
                    self.resident.remove(member)

    def evict_for(self, loaded: Item) -> None:
        """Remove the item with most pairs left from the memory, if possible one without pairs with the loaded item."""
        partners = self.partners[loaded]
        item = max(self.resident, key=lambda item: (item not in partners, self.remaining[item], self._rank[item]))
        self.resident.remove(item)
        self._change_shared(item, -1)
        heapq.heappush(self._queue, (-self._shared[item], self._rank[item]))

    def _change_shared(self, item: Item, sign: int) -> None:
        for partner, indices in self.partners[item].items():
            self._shared[partner] += sign * len(indices)
            if partner not in self.resident:
                heapq.heappush(self._queue, (-self._shared[partner], self._rank[partner]))
