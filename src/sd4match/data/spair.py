"""SPair-71k (arXiv 1908.10543) in its original layout: Layout, PairAnnotation, JPEGImages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from sd4match.data.annotations import (
    as_box,
    as_file_name,
    as_points,
    as_size,
    as_whole,
    field_of,
    read_annotation,
    read_lines,
    visible_in_both,
    zero_invisible,
)
from sd4match.data.base import FilePairs, check_split_name, find_root, read_all
from sd4match.data.config import SPairConfig
from sd4match.errors import DatasetError, shown
from sd4match.paths import exists, is_file
from sd4match.structures.pairs import PairKey, PairRecord

FOLDERS: dict[str, str] = {"train": "trn", "validation": "val", "test": "test"}
"""Names of the splits in SPair-71k's files."""
FLAGS = {"viewpoint_variation": 2, "scale_variation": 2, "truncation": 3, "occlusion": 3}
"""Difficulty flags with their largest values."""
_SIDES = ("src", "trg")


class SPairPairs(FilePairs):
    """SPair-71k: 53,340, 5,384 and 12,234 pairs of 18 categories, with boxes and difficulty flags.

    The file of a pair holds the points that are visible in both photos. Photo ids are "category/file name".

    Args:
        config: root, split and layout. The root is the folder SPair-71k or the one that holds it. The list
            `Layout/LAYOUT/{trn,val,test}.txt` gives the pairs and their order; without it, the pairs are all files of
            `PairAnnotation/{trn,val,test}`, in the order of their names. Names whose ":" became "_", as on file systems
            that do not allow it, are read too.

    Raises:
        DatasetError: the folder has another layout, the split has no pairs, or its list has other lines than names.

    >>> import tempfile
    >>> from sd4match.data import SyntheticConfig
    >>> from sd4match.data.spair_layout import write_spair_layout
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_spair_layout(SyntheticConfig(split="test", pairs=2).build(), Path(folder))
    ...     dataset = SPairPairs(SPairConfig(root=folder, split="test"))
    ...     len(dataset), dataset[0].source_size
    (2, (96, 96))
    """

    name = "spair"
    published_pairs: Mapping[str, int] = {"train": 53_340, "validation": 5_384, "test": 12_234}

    def __init__(self, config: SPairConfig) -> None:
        folder = FOLDERS[check_split_name(config.split)]
        root = find_root(config.root, subfolders=("SPair-71k",), entries=("PairAnnotation",), name="SPair-71k")
        self._annotations = root / "PairAnnotation" / folder
        listing = root / "Layout" / config.layout / f"{folder}.txt"
        if exists(listing):
            names = [line.removesuffix(".json") for line in read_lines(listing)]
        else:
            names = sorted(file.stem for file in self._annotations.glob("*.json"))
        if not names:
            raise DatasetError(
                f"no pairs of the {config.split} split: neither {listing} nor {self._annotations} lists any"
            )
        categories = sorted(path.name for path in (root / "JPEGImages").glob("*"))
        where = listing if exists(listing) else self._annotations
        super().__init__(root, config.split, read_all(lambda name: _parse_name(name, where, root, categories), names))

    def annotation_path(self, index: int) -> Path:
        """Return the file of a pair: PairAnnotation/SPLIT/NUMBER-SOURCE-TARGET:CATEGORY.json, or with "_" for ":".

        Args:
            index: index of the pair, from 0 to len(self) - 1.
        """
        name = f"{self.keys[index].pair_id}.json"
        renamed = self._annotations / name.replace(":", "_")
        return renamed if is_file(renamed) and not is_file(self._annotations / name) else self._annotations / name

    @override
    def photo_path(self, image_id: str) -> Path:
        return self.root / "JPEGImages" / image_id

    @override
    def read(self, index: int) -> PairRecord:
        file, key = self.annotation_path(index), self.keys[index]
        content = read_annotation(file)
        if content.get("category", key.category) != key.category:
            raise DatasetError(
                f"{file}: its category is {shown(content['category'])}, but the pair's is {key.category}"
            )
        for side, image_id in (("src", key.source_id), ("trg", key.target_id)):
            annotated = as_file_name(_get(content, f"{side}_imname", file), f"{file}: {side}_imname")
            if f"{key.category}/{annotated}" != image_id:
                raise DatasetError(
                    f"{file}: {side}_imname makes {key.category}/{annotated}, but the pair's name makes {image_id}"
                )
        source, target = (as_points(_get(content, f"{side}_kps", file), f"{file}: {side}_kps") for side in _SIDES)
        sizes = [as_size(_get(content, f"{side}_imsize", file), f"{file}: {side}_imsize") for side in _SIDES]
        boxes = [as_box(_get(content, f"{side}_bndbox", file), f"{file}: {side}_bndbox") for side in _SIDES]
        visible = visible_in_both(source, target, str(file))
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            source_size=sizes[0], target_size=sizes[1], source_box=boxes[0], target_box=boxes[1],
            source_points=zero_invisible(source, visible), target_points=zero_invisible(target, visible),
            visible=visible,
            difficulty={
                flag: as_whole(content[flag], f"{file}: {flag}", low=0, high=high)
                for flag, high in FLAGS.items()
                if content.get(flag) is not None
            },
        )  # fmt: skip


def _get(content: Mapping[str, Any], field: str, file: Path) -> Any:
    return field_of(content, field, f"not a readable annotation: {file}")


def _parse_name(name: str, where: Path, root: Path, categories: Sequence[str]) -> PairKey:
    """Return the pair named "NUMBER-SOURCE-TARGET:CATEGORY".

    Names of photos may contain hyphens; then the source name ends where most photos exist.

    Args:
        name: of the pair; "_" may stand for ":" before a known category.
        where: list or folder of the name, for messages.
        root: folder of the data set.
        categories: names of the folders of photos.

    Raises:
        DatasetError: the name has another form.
    """
    stem, colon, category = name.rpartition(":")
    if not colon:
        ends = [known for known in categories if name.endswith(f"_{known}")]
        category = max(ends, key=len, default="")
        stem = name.removesuffix(f"_{category}")
    pieces = stem.split("-")[1:]
    photos_are_named = len(pieces) >= 2 and "/" not in name and "\0" not in name and category not in (".", "..")
    if not category.strip() or not photos_are_named:
        hint = '; the ":" of its name was replaced' if ":" not in name and len(name.split("-")) > 2 else ""
        raise DatasetError(f"{where}: {shown(name)} is not NUMBER-SOURCE-TARGET:CATEGORY{hint}")
    candidates = [("-".join(pieces[:i]), "-".join(pieces[i:])) for i in range(1, len(pieces))]
    folder = root / "JPEGImages" / category
    existing = [
        0 if len(candidates) == 1 else sum(is_file(folder / f"{photo}.jpg") for photo in candidate)
        for candidate in candidates
    ]
    source, target = candidates[existing.index(max(existing))]
    return PairKey(
        pair_id=f"{stem}:{category}", source_id=f"{category}/{source}.jpg", target_id=f"{category}/{target}.jpg",
        category=category,
    )  # fmt: skip
