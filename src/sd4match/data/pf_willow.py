"""PF-Willow (Proposal Flow, arXiv 1511.05065) as it is unpacked, with or without a list of pairs."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import ClassVar

from sd4match.data.base import ListedPairs, Points, cleared, extent, find_root, seen_in_both
from sd4match.data.config import Split
from sd4match.data.proposal_flow import listed_points, read_list, read_mat, without_padding
from sd4match.errors import DatasetError
from sd4match.structures.pairs import PairKey, PairRecord

SUBCLASSES = (
    "car(G)", "car(M)", "car(S)", "duck(S)", "motorbike(G)", "motorbike(M)", "motorbike(S)", "winebottle(M)",
    "winebottle(wC)", "winebottle(woC)",
)  # fmt: skip
_INNER = ("PF-dataset", "PF-WILLOW", "PF-WILLOW/PF-dataset")
_LIST = "test_pairs.csv"


class PFWillowPairs(ListedPairs):
    """PF-Willow: 900 pairs of 10 sub-classes, all to test on; "car(G)" counts as category "car".

    Pairs are those of `test_pairs.csv`, if there is one below the root; else all ordered pairs of two `.mat` files
    of a sub-class, in the order of their names. Points stand in the list's row or in `PHOTO.mat` (`pts_coord`, 2 x 10).
    Photo ids are "sub-class/file name".

    Convention: there are no boxes; the extent of a photo's valid key points stands for one. Padding (-1) is not valid.

    Args:
        root: the folder of the sub-classes, or the one that holds it as `PF-dataset`.
        split: "test"; there is no other.

    Raises:
        DatasetError: another split, or a folder of another layout.
    """

    name = "pf_willow"
    published_pairs: ClassVar = {"test": 900}

    def __init__(self, *, root: str | Path, split: Split = "test") -> None:
        if split != "test":
            raise DatasetError(f"PF-Willow has a test split only, no {split} split")
        outer = Path(root).expanduser()
        base = find_root(outer, inner=_INNER, has=SUBCLASSES, name="PF-Willow")
        places = (outer, base) if base == outer else (outer, base.parent, base)
        self.list = next((place / _LIST for place in places if (place / _LIST).is_file()), None)
        if self.list is None:
            self._rows: list[list[str]] | None = None
            ids = [pair for name in SUBCLASSES for pair in permutations(_photos(base, name), 2)]
        else:
            _, self._rows = read_list(self.list)
            ids = [(_photo_id(row[0]), _photo_id(row[1])) for row in self._rows]
        if not ids:
            raise DatasetError(f"{base} has no sub-class with two annotations (PHOTO.mat)")
        super().__init__(base, split, (self._key(number, *pair) for number, pair in enumerate(ids)))

    def _key(self, number: int, source: str, target: str) -> PairKey:
        subclass = source.partition("/")[0]
        if subclass not in SUBCLASSES:
            raise DatasetError(f"{self.list} row {number + 1}: {source!r} is not in a sub-class of PF-Willow")
        return PairKey(
            pair_id=f"{number:03d}-{Path(source).stem}-{Path(target).stem}:{subclass}", source_id=source,
            target_id=target, category=subclass.partition("(")[0],
        )  # fmt: skip

    def photo_path(self, image_id: str) -> Path:
        """SUB-CLASS/FILE."""
        return self.root / image_id

    def __getitem__(self, index: int) -> PairRecord:
        key = self.keys[index]
        source, target = (self._points(index, side, one) for side, one in (("A", key.source_id), ("B", key.target_id)))
        visible = seen_in_both(source, target, key.pair_id)
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            source_size=self.photo_size(key.source_id), target_size=self.photo_size(key.target_id),
            source_points=cleared(source, visible), target_points=cleared(target, visible), visible=visible,
            source_box=extent(source, f"{key.source_id} of pair {key.pair_id}"),
            target_box=extent(target, f"{key.target_id} of pair {key.pair_id}"),
        )  # fmt: skip

    def _points(self, index: int, side: str, image_id: str) -> Points:
        """(N, 2), NaN where there is none."""
        if self._rows is not None and len(self._rows[index]) > 2:
            numbers = self._rows[index][2:]
            length = len(numbers) // 4  # XA, YA, XB, YB: one column each with ";", or a column each number
            x, y = (";".join(numbers[i * length : (i + 1) * length]) for i in ((0, 1) if side == "A" else (2, 3)))
            return listed_points(x, y, f"{self.list} row {index + 1}")
        file = self.photo_path(image_id).with_suffix(".mat")
        coordinates = read_mat(file, "pts_coord")
        if coordinates.ndim != 2 or coordinates.shape[0] != 2:
            raise DatasetError(f"{file}: pts_coord must be 2 x N, not {' x '.join(map(str, coordinates.shape))}")
        return without_padding(coordinates.T)


def _photo_id(path: str) -> str:
    """The id, "sub-class/file name", of a list's path."""
    return "/".join(Path(path).parts[-2:])


def _photos(base: Path, subclass: str) -> list[str]:
    """The photos of all annotations, as "sub-class/file name"."""
    photos = []
    for stem in sorted(file.stem for file in (base / subclass).glob("*.mat")):
        kinds = [kind for kind in (".png", ".jpg", ".jpeg") if (base / subclass / f"{stem}{kind}").is_file()]
        photos.append(f"{subclass}/{stem}{(kinds or ['.png'])[0]}")
    return photos
