"""Feature maps of photos under a prompt: made once, kept on disk, a bounded number of bytes in memory."""

from __future__ import annotations

import json
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sd4match.data.collate import collate
from sd4match.data.loading import Ahead, Prepared, prepare_all
from sd4match.distributed import Processes
from sd4match.errors import PhotoError, SD4MatchError
from sd4match.evaluation.counting import Progress
from sd4match.geometry import ImageFrame
from sd4match.hashing import digest
from sd4match.interfaces import Backbone, PairDataset, PromptProvider
from sd4match.io.cache import Store
from sd4match.prompting.pairing import wanted_views
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import FeatureMap, PromptEmbedding, Sampling

Side = tuple[str, str | None]
"""A photo's id, and the category that its prompt is asked for."""


@dataclass(frozen=True)
class _Kept:
    key: str
    frame: ImageFrame


class PhotoMaps:
    """The feature maps of a data set's photos under one prompt that does not depend on pairs.

    Phase one (`make_all`) makes every map once, whatever the number of processes; phase two reads them (`of`).

    Args:
        backbone: as built.
        prompt: of any scope but "pair".
        sampling: timestep, ensemble, noise.
        store: where the maps are; one that is shared by all processes.
        dataset: pairs and their photos.
        batch_size: photos that are encoded together; batches do not depend on the number of processes.
        max_bytes: of maps that are held in memory.
        device: where they are held; the CPU, if not given.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        prompt: PromptProvider,
        sampling: Sampling,
        store: Store,
        dataset: PairDataset,
        batch_size: int,
        max_bytes: int,
        device: torch.device | None = None,
    ) -> None:
        self.backbone = backbone
        self.prompt = prompt
        self.sampling = sampling
        self.store = store
        self.dataset = dataset
        self.batch_size = batch_size
        self.max_bytes = max_bytes
        self.device = device
        self._views = wanted_views(backbone, prompt)
        self.bad: dict[Side, str] = {}
        """Photos that could not be read, and why."""
        self._kept: dict[Side, _Kept] = {}
        self._memory: OrderedDict[str, FeatureMap] = OrderedDict()
        self._bytes = 0
        spec = backbone.spec
        weights = backbone.fingerprint if backbone.fingerprint != "unknown" else uuid.uuid4().hex
        self._origin = (spec.architecture, weights, spec.layer, spec.dtype)

    def side(self, photo: str, category: str | None) -> Side:
        """What a photo's map is kept under: with its category only if the prompt depends on it."""
        return photo, category if self.prompt.scope == "category" else None

    def make_all(self, *, skip_bad: bool, progress: Progress) -> None:
        """Make the maps of all photos that stand in a pair.

        Raises:
            PhotoError: a photo cannot be read, and `skip_bad` is off; names photo and pair.
        """
        processes = Processes()
        wanted: dict[Side, tuple[Side, str]] = {}
        for key in self.dataset.keys:
            for photo, category in key.sides:
                wanted.setdefault(self.side(photo, category), ((photo, category), key.pair_id))
        batches = [list(wanted)[i : i + self.batch_size] for i in range(0, len(wanted), self.batch_size)]
        failure = None
        done = 0
        try:
            own = list(processes.mine(batches))
            ahead: Ahead[list[Side], list[Prepared | PhotoError]] = Ahead(
                lambda batch: prepare_all(self.dataset, [wanted[side][0][0] for side in batch], self._views)
            )
            for batch, following in zip(own, [*own[1:], None], strict=True):
                prepared = ahead.get(batch, then=following)
                self._make({side: wanted[side] for side in batch}, prepared, skip_bad=skip_bad)
                done += len(batch)
                progress("photos", min(done * processes.count, len(wanted)), len(wanted))
        except SD4MatchError as error:
            failure = error
        processes.together(failure)
        self._kept = dict(processes.gather(list(self._kept.items())))
        self.bad = dict(processes.gather(list(self.bad.items())))

    def _make(
        self,
        batch: Mapping[Side, tuple[Side, str]],
        prepared: Sequence[Prepared | PhotoError],
        *,
        skip_bad: bool,
    ) -> None:
        photos = {}
        for (side, (_, pair)), one in zip(batch.items(), prepared, strict=True):
            if isinstance(one, Prepared):
                photos[side] = one
            elif skip_bad:
                self.bad[side] = str(one)
            else:
                raise PhotoError(f"pair {pair}: {one}")
        if not photos:
            return
        images = collate(list(photos.values()), [batch[side][0][1] for side in photos])
        prompts = self.prompt(images).values
        prompts = prompts.expand(len(photos), -1, -1)
        views = images.views["backbone"]
        kept = [
            _Kept(digest(*self._origin, self.sampling, views.views[row].digest, prompt), views.frames[row])
            for row, prompt in enumerate(prompts)
        ]
        if not all(new.key in self.store for new in kept):
            for new, features in zip(kept, self._extract(images, prompts), strict=True):
                self.store.put(new.key, {"values": features.values[0]}, _metadata(features))
        self._kept |= dict(zip(photos, kept, strict=True))

    def _extract(self, images: ImageBatch, prompts: Tensor) -> list[FeatureMap]:
        latents = self.backbone.encode(images.views["backbone"])
        maps = self.backbone.extract(latents, PromptEmbedding(prompts), self.sampling)
        return [maps[row : row + 1] for row in range(len(images))]

    def of(self, photo: str, category: str | None) -> FeatureMap:
        """The map of a photo, (1, C, h, w).

        Raises:
            PhotoError: the photo is among the bad ones.
        """
        side = self.side(photo, category)
        if side in self.bad:
            raise PhotoError(self.bad[side])
        kept = self._kept[side]
        if kept.key not in self._memory:
            entry = self.store.get(kept.key)
            if entry is None:  # damaged or deleted since phase one
                prepared = prepare_all(self.dataset, [photo], self._views)
                self._make({side: ((photo, category), "")}, prepared, skip_bad=False)
                kept = self._kept[side]
                entry = self.store.get(kept.key)
                assert entry is not None
            features = _from_entry(*entry, kept.frame, self.device)
            self._memory[kept.key] = features
            self._bytes += features.values.nbytes
        self._memory.move_to_end(kept.key)
        found = self._memory[kept.key]
        while self._bytes > self.max_bytes and len(self._memory) > 1:
            _, dropped = self._memory.popitem(last=False)
            self._bytes -= dropped.values.nbytes
        return found


def _metadata(features: FeatureMap) -> dict[str, str]:
    return {"alignment": features.alignment, "groups": json.dumps(features.groups)}


def _from_entry(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], frame: ImageFrame, device: torch.device | None
) -> FeatureMap:
    return FeatureMap(
        tensors["values"][None].to(device),
        (frame,),
        metadata["alignment"],  # type: ignore[arg-type]
        groups=tuple(json.loads(metadata["groups"])),
    )
