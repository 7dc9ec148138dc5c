"""PF-Pascal (Proposal Flow, arXiv 1703.07144) with the pair lists of NCNet or of the reference implementation."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from sd4match.data.base import ListedPairs, Points, as_box, as_points, cleared, find_root, seen_in_both
from sd4match.data.config import Split
from sd4match.data.proposal_flow import listed_points, read_list, read_mat
from sd4match.errors import DatasetError
from sd4match.structures.images import Photo
from sd4match.structures.pairs import Box, PairKey, PairRecord

CATEGORIES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Those of Pascal VOC; lists number them from 1."""
_INNER = ("PF-dataset-PASCAL", "PF-PASCAL", "image_pairs")
_LISTS = {"train": ("train_pairs.csv", "trn_pairs.csv"), "validation": ("val_pairs.csv",), "test": ("test_pairs.csv",)}
_MIRRORED = "|mirrored"


class PFPascalPairs(ListedPairs):
    """PF-Pascal: 2,940, 308 and 299 pairs of 20 categories.

    A list's row gives two photos, a class (from 1) and, in the train list, `flip`: then both photos and their points
    are mirrored. Points stand in the row itself (`XA`, `YA`, `XB`, `YB`, `;` between numbers: NCNet's test list), or in
    `Annotations/CLASS/PHOTO.mat` (`kps`, N x 2, NaN where a point is not annotated). Only file names of the list's
    paths are looked at. Photo ids are file names, mirrored ones marked.

    Convention: alpha is a share of the photo's side, in the frame of the measurement, not of a box.

    Args:
        root: the folder that holds the lists and the photos (`JPEGImages`), directly or in `PF-dataset-PASCAL` or
            `image_pairs` below it.
        split: train, validation or test.

    Raises:
        DatasetError: no list of the split, or not one of pairs.
    """

    name = "pf_pascal"
    published_pairs: ClassVar = {"train": 2_940, "validation": 308, "test": 299}

    def __init__(self, *, root: str | Path, split: Split = "train") -> None:
        lists = find_root(root, inner=_INNER, has=_LISTS[split], name=f"PF-Pascal with its {split} list")
        self.list = next(lists / name for name in _LISTS[split] if (lists / name).exists())
        base = Path(root).expanduser()
        folders = [base, *(base / name for name in _INNER)]
        self._photos = next((folder for folder in folders if (folder / "JPEGImages").is_dir()), base)
        header, rows = read_list(self.list)
        self._rows = [dict(zip(header, row, strict=True)) for row in rows]
        missing = {"source_image", "target_image", "class"} - set(header)
        if missing:
            raise DatasetError(f"{self.list} is not a list of PF-Pascal: it has no column {', '.join(sorted(missing))}")
        super().__init__(base, split, (self._key(number) for number in range(len(self._rows))), reference="photo")

    def _key(self, number: int) -> PairKey:
        row = self._rows[number]
        where = f"{self.list} row {number + 1}"
        chosen, flip = row["class"], row.get("flip", "0")
        if not chosen.isdigit() or not 1 <= int(chosen) <= len(CATEGORIES):
            raise DatasetError(f"{where}: class must be 1 to {len(CATEGORIES)}, not {chosen!r}")
        if flip not in ("0", "1"):
            raise DatasetError(f"{where}: flip must be 0 or 1, not {flip!r}")
        source, target = (Path(row[side]).name for side in ("source_image", "target_image"))
        suffix = _MIRRORED if flip == "1" else ""
        return PairKey(
            pair_id=f"{number:05d}-{Path(source).stem}-{Path(target).stem}{suffix}", source_id=source + suffix,
            target_id=target + suffix, category=CATEGORIES[int(chosen) - 1],
        )  # fmt: skip

    def photo_path(self, image_id: str) -> Path:
        """JPEGImages/FILE."""
        return self._photos / "JPEGImages" / image_id.removesuffix(_MIRRORED)

    def photo(self, image_id: str) -> Photo:
        """The photo, mirrored if its id says so."""
        photo = super().photo(image_id)
        return Photo(np.ascontiguousarray(photo.pixels[:, ::-1]), photo.name) if _MIRRORED in image_id else photo

    def __getitem__(self, index: int) -> PairRecord:
        key, row = self.keys[index], self._rows[index]
        where = f"{self.list} row {index + 1}"
        sides = []
        for side, image_id in (("A", key.source_id), ("B", key.target_id)):
            if row.get(f"X{side}"):
                found: tuple[Points, Box | None] = listed_points(row[f"X{side}"], row.get(f"Y{side}", ""), where), None
            else:
                found = self._annotated(image_id, str(key.category))
            sides.append(self._mirrored(image_id, *found))
        (source, source_box), (target, target_box) = sides
        visible = seen_in_both(source, target, where)
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            source_size=self.photo_size(key.source_id), target_size=self.photo_size(key.target_id),
            source_points=cleared(source, visible), target_points=cleared(target, visible), visible=visible,
            source_box=source_box, target_box=target_box,
        )  # fmt: skip

    def _annotated(self, image_id: str, category: str) -> tuple[Points, Box | None]:
        name = Path(image_id.removesuffix(_MIRRORED)).stem
        file = self._photos / "Annotations" / category / f"{name}.mat"
        points = as_points(read_mat(file, "kps"), f"{file}: kps")
        try:
            box = as_box(read_mat(file, "bbox").reshape(-1), f"{file}: bbox")
        except DatasetError:  # not what this benchmark counts with
            box = None
        return points, box

    def _mirrored(self, image_id: str, points: Points, box: Box | None) -> tuple[Points, Box | None]:
        if _MIRRORED not in image_id:
            return points, box
        last = self.photo_size(image_id)[1] - 1
        points = np.stack([last - points[:, 0], points[:, 1]], axis=1)
        return points, None if box is None else (last - box[2], box[1], last - box[0], box[3])
