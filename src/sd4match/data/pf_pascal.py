"""PF-Pascal (Proposal Flow, arXiv 1703.07144) with the pair lists of NCNet or of the reference implementation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from typing_extensions import override

from sd4match.data.annotations import Points, as_box, as_file_name, as_points, visible_in_both, zero_invisible
from sd4match.data.base import FilePairs, check_split_name, find_root, read_all
from sd4match.data.config import PFPascalConfig
from sd4match.data.proposal_flow import parse_points, read_list, read_mat
from sd4match.errors import DatasetError, shown
from sd4match.paths import as_path, exists, is_folder
from sd4match.structures.images import Photo
from sd4match.structures.pairs import Box, PairKey, PairRecord, Reference

CATEGORIES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Categories of Pascal VOC; lists number them from 1."""
_SUBFOLDERS = ("PF-dataset-PASCAL", "PF-PASCAL", "image_pairs")
_LISTS = {"train": ("train_pairs.csv", "trn_pairs.csv"), "validation": ("val_pairs.csv",), "test": ("test_pairs.csv",)}
_MIRRORED = "|mirrored"
_REQUIRED = ("source_image", "target_image", "class")
_COLUMNS = (*_REQUIRED, "flip", "XA", "YA", "XB", "YB")


class PFPascalPairs(FilePairs):
    r"""PF-Pascal: 2,940, 308 and 299 pairs of 20 categories.

    A row of a list gives two photos, a class (from 1) and, in the train list, `flip`; if that is 1, both photos and
    their points are mirrored. Points are in the row itself (`XA`, `YA`, `XB`, `YB`, separated by `;`: NCNet's test
    list) or in `Annotations/CLASS/PHOTO.mat` (`kps`, N x 2, NaN for points that are not annotated). Of the paths in a
    list only the file names are used. Photo ids are file names, with a suffix for mirrored photos.

    Convention: alpha is a fraction of the longer side of the photo, in the frame of the evaluation protocol, not of a
    box.

    Args:
        config: root and split. The root holds the lists and the photos (`JPEGImages`), directly or in
            `PF-dataset-PASCAL` or `image_pairs`.

    Raises:
        DatasetError: the list of the split is missing or is not a list of pairs.

    >>> import tempfile
    >>> from sd4match.testing import random_photo
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "JPEGImages").mkdir()
    ...     for name in ("a.png", "b.png"):
    ...         random_photo().to_image().save(Path(folder) / "JPEGImages" / name)
    ...     lines = "source_image,target_image,class,XA,YA,XB,YB", "a.png,b.png,8,1;2,3;4,5;6,7;8"
    ...     _ = (Path(folder) / "test_pairs.csv").write_text("\n".join(lines))
    ...     dataset = PFPascalPairs(PFPascalConfig(root=folder, split="test"))
    ...     dataset[0].category, dataset[0].source_points.tolist()
    ('cat', [[1.0, 3.0], [2.0, 4.0]])
    """

    name = "pf_pascal"
    reference: Reference = "photo"
    published_overlaps = True
    published_pairs: Mapping[str, int] = {"train": 2_940, "validation": 308, "test": 299}

    def __init__(self, config: PFPascalConfig) -> None:
        names = _LISTS[check_split_name(config.split)]
        folder = find_root(
            config.root, subfolders=_SUBFOLDERS, entries=names, name=f"PF-Pascal with its {config.split} list"
        )
        self.list_path = next(folder / name for name in names if exists(folder / name))
        root = as_path(config.root, what="the root of PF-Pascal", error=DatasetError)
        folders = [root, *(root / name for name in _SUBFOLDERS)]
        self._photos = next((folder for folder in folders if is_folder(folder / "JPEGImages")), root)
        header, rows = read_list(self.list_path, known=_COLUMNS, required=_REQUIRED)
        given = [name for name in _COLUMNS[4:] if name in header]
        if given and len(given) < 4:
            raise DatasetError(f"{self.list_path} has the columns {', '.join(given)} alone, not XA, YA, XB, YB")
        self._rows = [dict(zip(header, row, strict=True)) for row in rows]
        super().__init__(root, config.split, read_all(self._key, range(len(rows))))

    @property
    def repeats_are_published(self) -> bool:
        """Return whether this is the published train list, which has 2,452 pairs, some of them twice."""
        return self.split == "train" and len(self.keys) == self.published_pairs["train"]

    def _key(self, number: int) -> PairKey:
        row = self._rows[number]
        where = f"{self.list_path} row {number + 1}"
        category, flip = row["class"], row.get("flip", "0")
        if not re.fullmatch("[0-9]{1,2}", category) or not 1 <= int(category) <= len(CATEGORIES):
            raise DatasetError(f"{where}: class must be 1 to {len(CATEGORIES)}, not {shown(category)}")
        if flip not in ("0", "1"):
            raise DatasetError(f"{where}: flip must be 0 or 1, not {shown(flip)}")
        source, target = (as_file_name(Path(row[side]).name, f"{where}: {side}") for side in _REQUIRED[:2])
        suffix = _MIRRORED if flip == "1" else ""
        return PairKey(
            pair_id=f"{number:05d}-{Path(source).stem}-{Path(target).stem}{suffix}", source_id=source + suffix,
            target_id=target + suffix, category=CATEGORIES[int(category) - 1],
        )  # fmt: skip

    @override
    def photo_path(self, image_id: str) -> Path:
        return self._photos / "JPEGImages" / image_id.removesuffix(_MIRRORED)

    def photo(self, image_id: str) -> Photo:
        """Decode a photo, and mirror it if its id has the suffix of mirrored photos.

        Args:
            image_id: id of the photo.

        Raises:
            PhotoError: it cannot be read.
        """
        photo = super().photo(image_id)
        return Photo(np.ascontiguousarray(photo.pixels[:, ::-1]), photo.name) if _MIRRORED in image_id else photo

    @override
    def read(self, index: int) -> PairRecord:
        key = self.keys[index]
        source, source_box = self._side(index, "A", key.source_id)
        target, target_box = self._side(index, "B", key.target_id)
        visible = visible_in_both(source, target, f"{self.list_path} row {index + 1}")
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            source_size=self.photo_size(key.source_id), target_size=self.photo_size(key.target_id),
            source_points=zero_invisible(source, visible), target_points=zero_invisible(target, visible),
            visible=visible, source_box=source_box, target_box=target_box,
        )  # fmt: skip

    def _side(self, index: int, side: str, image_id: str) -> tuple[Points, Box | None]:
        """Return points and box of photo "A" or "B" of a pair, mirrored if its id says so."""
        row = self._rows[index]
        if row.get(f"X{side}"):
            where = f"{self.list_path} row {index + 1}"
            return self._mirror(image_id, parse_points(row[f"X{side}"], row.get(f"Y{side}", ""), where), None)
        return self._mirror(image_id, *self._read_annotation(image_id, str(self.keys[index].category)))

    def _read_annotation(self, image_id: str, category: str) -> tuple[Points, Box | None]:
        name = Path(image_id.removesuffix(_MIRRORED)).stem
        file = self._photos / "Annotations" / category / f"{name}.mat"
        points = as_points(read_mat(file, "kps"), f"{file}: kps")
        try:
            box = as_box(read_mat(file, "bbox").reshape(-1).tolist(), f"{file}: bbox")
        except DatasetError:  # PF-Pascal's PCK does not depend on the box
            box = None
        return points, box

    def _mirror(self, image_id: str, points: Points, box: Box | None) -> tuple[Points, Box | None]:
        if _MIRRORED not in image_id:
            return points, box
        last = self.photo_size(image_id)[1] - 1
        points = np.stack([last - points[:, 0], points[:, 1]], axis=1)
        return points, None if box is None else (last - box[2], box[1], last - box[0], box[3])
