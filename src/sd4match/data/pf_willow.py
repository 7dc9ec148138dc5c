"""PF-Willow (Proposal Flow, arXiv 1511.05065) in its original layout, with or without a list of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

from typing_extensions import override

from sd4match.data.annotations import Points, as_file_name, as_points, extent, visible_in_both, zero_invisible
from sd4match.data.base import FilePairs, check_split_name, find_root, folder_of, read_all
from sd4match.data.config import PFWillowConfig
from sd4match.data.proposal_flow import mask_padding, parse_points, read_list, read_mat
from sd4match.errors import DatasetError, shown
from sd4match.paths import exists, is_file
from sd4match.structures.pairs import PairKey, PairRecord

SUBCLASSES = (
    "car(G)", "car(M)", "car(S)", "duck(S)", "motorbike(G)", "motorbike(M)", "motorbike(S)", "winebottle(M)",
    "winebottle(wC)", "winebottle(woC)",
)  # fmt: skip
_SUBFOLDERS = ("PF-dataset", "PF-WILLOW", "PF-WILLOW/PF-dataset")
_LIST = "test_pairs.csv"


class PFWillowPairs(FilePairs):
    r"""PF-Willow: 900 test pairs of 10 subclasses; the category of "car(G)" is "car".

    The pairs are those of `test_pairs.csv` if it exists; otherwise all ordered pairs of two `.mat` files of a subclass,
    in the order of their names. Points are in the row of the list or in `PHOTO.mat` (`pts_coord`, 2 x 10). Photo ids
    are "subclass/file name".

    Convention: the data set has no boxes; the extent of a photo's valid points serves as its box. Padding (-1) is not
    valid.

    Args:
        config: root and split. The root is the folder of the subclasses, or the one that holds it as `PF-dataset`.

    Raises:
        DatasetError: the split is not "test", or the folder has another layout.

    >>> import tempfile
    >>> from sd4match.testing import random_photo
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "car(G)").mkdir()
    ...     for name in ("a.png", "b.png"):
    ...         random_photo().to_image().save(Path(folder) / "car(G)" / name)
    ...     lines = "source,target,XA,YA,XB,YB", "car(G)/a.png,car(G)/b.png,1;2,3;4,5;6,7;8"
    ...     _ = (Path(folder) / "test_pairs.csv").write_text("\n".join(lines))
    ...     dataset = PFWillowPairs(PFWillowConfig(root=folder))
    ...     dataset[0].category, dataset[0].source_points.tolist()
    ('car', [[1.0, 3.0], [2.0, 4.0]])
    """

    name = "pf_willow"
    published_pairs: Mapping[str, int] = {"test": 900}

    def __init__(self, config: PFWillowConfig) -> None:
        if check_split_name(config.split) != "test":
            raise DatasetError(f"PF-Willow has a test split only, no {config.split} split")
        outer = folder_of(config.root, "PF-Willow")
        root = find_root(outer, subfolders=_SUBFOLDERS, entries=SUBCLASSES, name="PF-Willow")
        folders = (outer, root) if root == outer else (outer, root.parent, root)
        self.list_path = next((folder / _LIST for folder in folders if exists(folder / _LIST)), None)
        if self.list_path is None:
            self._rows: list[list[str]] | None = None
            ids = [pair for name in SUBCLASSES for pair in permutations(_photo_ids(root, name), 2)]
        else:
            header, self._rows = read_list(self.list_path, known=())
            if len(header) % 4 != 2:
                raise DatasetError(
                    f"{self.list_path} has {len(header)} columns; it must have two photos, and four a point or in all"
                )
            ids = [(_photo_id(row[0]), _photo_id(row[1])) for row in self._rows]
        if not ids:
            raise DatasetError(f"{root} has no sub-class with two annotations (PHOTO.mat)")
        super().__init__(root, config.split, read_all(lambda row: self._key(*row), [*enumerate(ids)]))

    def _key(self, number: int, photos: tuple[str, str]) -> PairKey:
        source, target = photos
        for name in photos:
            where = f"{self.list_path} row {number + 1}"
            if as_file_name(name, f"{where}: a photo").partition("/")[0] not in SUBCLASSES:
                raise DatasetError(f"{where}: {shown(name)} is not in a sub-class of PF-Willow")
        subclass, category = source.partition("/")[0], source.partition("(")[0]
        if target.partition("(")[0] != category:
            raise DatasetError(f"{where}: {source} and {target} are not of one category")
        return PairKey(
            pair_id=f"{number:03d}-{Path(source).stem}-{Path(target).stem}:{subclass}", source_id=source,
            target_id=target, category=category,
        )  # fmt: skip

    @override
    def photo_path(self, image_id: str) -> Path:
        return self.root / image_id

    @override
    def read(self, index: int) -> PairRecord:
        key = self.keys[index]
        source, target = self._points(index, "A", key.source_id), self._points(index, "B", key.target_id)
        visible = visible_in_both(source, target, key.pair_id)
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            source_size=self.photo_size(key.source_id), target_size=self.photo_size(key.target_id),
            source_points=zero_invisible(source, visible), target_points=zero_invisible(target, visible),
            visible=visible, source_box=extent(source, f"{key.source_id} of pair {key.pair_id}"),
            target_box=extent(target, f"{key.target_id} of pair {key.pair_id}"),
        )  # fmt: skip

    def _points(self, index: int, side: str, image_id: str) -> Points:
        """Return the points (N, 2) of photo "A" or "B" of a pair, NaN for padding."""
        if self._rows is not None and len(self._rows[index]) > 2:
            numbers = self._rows[index][2:]
            length = len(numbers) // 4  # XA, YA, XB, YB: one column each with ";", or one column per number
            x, y = (";".join(numbers[i * length : (i + 1) * length]) for i in ((0, 1) if side == "A" else (2, 3)))
            return parse_points(x, y, f"{self.list_path} row {index + 1}")
        file = self.photo_path(image_id).with_suffix(".mat")
        coordinates = read_mat(file, "pts_coord")
        if coordinates.ndim != 2 or coordinates.shape[0] != 2:
            raise DatasetError(f"{file}: pts_coord must be 2 x N, not {' x '.join(map(str, coordinates.shape))}")
        return mask_padding(as_points(coordinates.T, f"{file}: pts_coord"))


def _photo_id(path: str) -> str:
    """Return the id "subclass/file name" of a path in a list."""
    return "/".join(Path(path).parts[-2:])


def _photo_ids(root: Path, subclass: str) -> list[str]:
    """Return the ids of all annotated photos of a subclass."""
    ids = []
    for stem in sorted(file.stem for file in (root / subclass).glob("*.mat")):
        suffixes = [suffix for suffix in (".png", ".jpg", ".jpeg") if is_file(root / subclass / f"{stem}{suffix}")]
        ids.append(f"{subclass}/{stem}{(suffixes or ['.png'])[0]}")
    return ids
