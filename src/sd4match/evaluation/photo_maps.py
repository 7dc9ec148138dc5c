"""Feature maps of a data set's photos under a prompt, each extracted once by one of the processes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from sd4match.checks import check_each_finite
from sd4match.data.collate import collate
from sd4match.data.loading import Prefetcher, Prepared, prepare_all
from sd4match.distributed import Processes
from sd4match.errors import PhotoError, SD4MatchError
from sd4match.evaluation.counting import Progress, ShouldStop
from sd4match.evaluation.map_memory import MapMemory, Side
from sd4match.evaluation.visiting import visiting_order
from sd4match.hashing import arithmetic_settings, digest, weights_digest
from sd4match.interfaces import Backbone, PairDataset, Prompt
from sd4match.io.cache import Store
from sd4match.prompting.pairing import extract_maps, preprocessors, prompt_embeddings
from sd4match.structures.images import ImageBatch
from sd4match.structures.pairs import PairKey
from sd4match.structures.tensors import FeatureMap, PromptEmbedding, Sampling


class PhotoMaps:
    """Feature maps of all photos of a data set under one prompt that does not depend on pairs.

    `extract_all` extracts every map once, whatever the number of processes; `of_pair` returns the maps of a pair.

    Args:
        backbone: computes the maps of photos.
        prompt: prompt of any scope but "pair".
        sampling: timestep, ensemble, noise.
        dataset: pairs and their photos.
        batch_size: photos that are extracted together; batches do not depend on the number of processes.
        store: store that all processes share.
        keep: write every map to the store, where later runs find it; otherwise only maps that do not fit in memory
            and those that other processes need.
        budget: bytes of maps in the memory of this process.
        dtype: data type of stored maps, in memory and on disk.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        prompt: Prompt,
        sampling: Sampling,
        dataset: PairDataset,
        batch_size: int,
        store: Store,
        keep: bool,
        budget: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._backbone = backbone
        self._prompt = prompt
        self._sampling = sampling
        self._dataset = dataset
        self._batch_size = batch_size
        self._store = store
        self._keep = keep
        self._budget = budget
        self._preprocessors = preprocessors(backbone, prompt)
        self._processes = Processes()
        self._keys: dict[Side, str] = {}
        self._errors: dict[Side, str] = {}
        """Photos that cannot be read, with the reason."""
        self._memory = MapMemory(
            budget=budget, store=store, keys=self._keys, channels=backbone.spec.channels, dtype=dtype,
            device=backbone.device,
        )  # fmt: skip
        self._dtype = dtype
        self._origin = ("grid 3", backbone.spec, _weights_of(backbone, keep=keep), str(dtype))
        pairs = [self._sides(key) for key in dataset.keys]
        own, others = self._split(len(pairs))
        self.order: list[int] = own
        """Indices of the pairs of this process, in the order in which they are visited."""
        self._pairs = pairs
        self._needed_by_others = {side for index in others for side in pairs[index]}
        self._positions: dict[str, int] = {}
        """Position of each pair in the order."""

    def _split(self, pairs: int) -> tuple[list[int], list[int]]:
        """Return the pairs of this process, a contiguous part of the data set, and those of the others."""
        index, count = self._processes.index, self._processes.count
        begin, end = pairs * index // count, pairs * (index + 1) // count
        return list(range(begin, end)), [*range(begin), *range(end, pairs)]

    def _sides(self, key: PairKey) -> tuple[Side, Side]:
        """Return photo and category of the two maps of a pair; the category only if the prompt depends on it."""
        source, target = key.sides
        return (source, target) if self._prompt.scope == "category" else ((source[0], None), (target[0], None))

    def extract_all(self, *, skip_bad: bool, progress: Progress, should_stop: ShouldStop | None = None) -> bool:
        """Extract the maps of all photos of the pairs, unless they are in the store.

        Args:
            skip_bad: record photos that cannot be read instead of raising.
            progress: called after each batch.
            should_stop: asked before each batch.

        Returns:
            Whether all maps are there; False if a process was stopped.

        Raises:
            PhotoError: a photo cannot be read, and `skip_bad` is off; the message names photo and pair.
        """
        wanted: dict[Side, tuple[str, str | None, str]] = {}
        """Photo, category and the first pair of each map."""
        for key, sides in zip(self._dataset.keys, self._pairs, strict=True):
            for (photo, category), side in zip(key.sides, sides, strict=True):
                wanted.setdefault(side, (photo, category, key.pair_id))
        batches = [list(wanted)[start : start + self._batch_size] for start in range(0, len(wanted), self._batch_size)]
        failure: SD4MatchError | None = None
        stopped = False
        done = 0
        try:
            own = list(self._processes.share(batches))
            prefetcher: Prefetcher[list[Side], list[Prepared | PhotoError]] = Prefetcher(
                lambda batch: prepare_all(self._dataset, [photo for photo, _ in batch], self._preprocessors)
            )
            for batch, following in zip_longest(own, own[1:]):
                if should_stop is not None and should_stop():
                    stopped = True
                    break
                prepared = prefetcher.get(batch, next_key=following)
                self._extract_batch({side: wanted[side] for side in batch}, prepared, skip_bad=skip_bad)
                done += len(batch)
                progress("photos", min(done * self._processes.count, len(wanted)), len(wanted))
        except SD4MatchError as error:
            failure = error
        self._processes.together(failure)
        if self._processes.any(stopped):
            return False
        self._share_results()
        return True

    def _share_results(self) -> None:
        """Exchange the extracted photos of all processes."""
        self._keys.update(dict(self._processes.gather(list(self._keys.items()))))
        self._errors.update(dict(self._processes.gather(list(self._errors.items()))))
        self._memory.stored.update(self._processes.gather(list(self._memory.stored)))
        if not self._positions and self.order:  # this process has extracted nothing
            self._choose_order(self._memory.bytes_of_stored_map())

    def _extract_batch(
        self,
        batch: Mapping[Side, tuple[str, str | None, str]],
        prepared: Sequence[Prepared | PhotoError],
        *,
        skip_bad: bool,
    ) -> None:
        readable: dict[Side, Prepared] = {}
        for (side, (_, _, pair)), photo in zip(batch.items(), prepared, strict=True):
            if isinstance(photo, Prepared):
                readable[side] = photo
            elif skip_bad:
                self._errors[side] = str(photo)
            else:
                raise PhotoError(f"pair {pair}: {photo}")
        if not readable:
            return
        images = collate(list(readable.values()), [batch[side][1] for side in readable])
        prompts = prompt_embeddings(self._prompt, images).values
        views = images.views["backbone"].views
        origin = (*self._origin, *arithmetic_settings(self._backbone.device.type))
        for side, view, prompt in zip(readable, views, prompts, strict=True):
            self._keys[side] = digest(*origin, self._sampling, view.digest, prompt)
        if self._keep and all(self._keys[side] in self._store for side in readable):
            self._memory.stored.update(readable)
            return
        maps = self._extract(images, prompts)
        if not self._positions:
            self._choose_order(self._memory.bytes_of_map(maps))
        for row, side in enumerate(readable):
            features = maps[row : row + 1]
            if self._keep or side in self._needed_by_others:
                self._memory.write(side, features)
            self._memory.add(side, features)

    def _extract(self, images: ImageBatch, prompts: Tensor) -> FeatureMap:
        maps = extract_maps(self._backbone, images, PromptEmbedding(prompts), self._sampling)
        if self._dtype != maps.values.dtype:
            names = images.views["backbone"].names
            check_each_finite("the stored features", names, "", maps.values.to(self._dtype), self._dtype)
        return maps

    def _choose_order(self, map_bytes: int) -> None:
        """Choose the order in which the pairs of this process are visited, once the size of a map is known."""
        pairs = [self._pairs[index] for index in self.order]
        # One map less than fits: the next one is read while the others are in use.
        self.order = [self.order[number] for number in visiting_order(pairs, self._budget // map_bytes, spare=1)]
        self._positions = {self._dataset.keys[index].pair_id: number for number, index in enumerate(self.order)}
        self._memory.set_order([self._pairs[index] for index in self.order])

    def of_pair(self, key: PairKey) -> tuple[FeatureMap, FeatureMap]:
        """Return the maps, (1, C, h, w), of source and target.

        Raises:
            PhotoError: a photo cannot be read.
        """
        self._memory.move_to(self._positions[key.pair_id])
        source, target = self._sides(key)
        (source_photo, target_photo) = key.sides
        return self._of_photo(source, *source_photo), self._of_photo(target, *target_photo)

    def _of_photo(self, side: Side, photo: str, category: str | None) -> FeatureMap:
        if side in self._errors:
            raise PhotoError(self._errors[side])
        features = self._memory.get(side)
        if features is None:  # the entry of the store is damaged or was removed
            prepared = prepare_all(self._dataset, [photo], self._preprocessors)
            self._extract_batch({side: (photo, category, "")}, prepared, skip_bad=False)
            features = self._memory.get(side)
            assert features is not None
        return features


def _weights_of(backbone: Backbone, *, keep: bool) -> str:
    """Return the identity of the weights of a backbone.

    That is a digest of all weights where maps are kept for later runs, the fingerprint where they last as long as this
    evaluation, and a name that is never found again where the weights are not known.
    """
    if backbone.fingerprint == "unknown":
        return uuid.uuid4().hex
    return digest(backbone.fingerprint, weights_digest(backbone)) if keep else backbone.fingerprint
