"""SPair-71k (arXiv 1908.10543) in its original layout: Layout, PairAnnotation, JPEGImages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sd4match.data.base import (
    FilePairs,
    as_box,
    as_points,
    as_size,
    find_root,
    read_annotation,
    read_lines,
    visible_in_both,
    zero_invisible,
)
from sd4match.data.config import SPairConfig
from sd4match.errors import DatasetError
from sd4match.structures.pairs import PairKey, PairRecord

FOLDERS: dict[str, str] = {"train": "trn", "validation": "val", "test": "test"}
"""Names of the splits in SPair-71k's files."""
FLAGS = ("viewpoint_variation", "scale_variation", "truncation", "occlusion")
_SIDES = ("src", "trg")


class SPairPairs(FilePairs):
    """SPair-71k: 53,340, 5,384 and 12,234 pairs of 18 categories, with boxes and difficulty flags.

    The file of a pair holds the points that are visible in both photos. Photo ids are "category/file name".

    Args:
        config: root, split and layout. The root is the folder SPair-71k or the one that holds it. The list
            `Layout/LAYOUT/{trn,val,test}.txt` gives the pairs and their order; without it, the pairs are all files of
            `PairAnnotation/{trn,val,test}`, in the order of their names.

    Raises:
        DatasetError: the folder has another layout, or the split has no pairs.
    """

    name = "spair"
    published_pairs: Mapping[str, int] = {"train": 53_340, "validation": 5_384, "test": 12_234}

    def __init__(self, config: SPairConfig) -> None:
        root = find_root(config.root, subfolders=("SPair-71k",), entries=("PairAnnotation",), name="SPair-71k")
        self._annotations = root / "PairAnnotation" / FOLDERS[config.split]
        listing = root / "Layout" / config.layout / f"{FOLDERS[config.split]}.txt"
        if listing.is_file():
            names = [line.removesuffix(".json") for line in read_lines(listing)]
        else:
            names = sorted(file.stem for file in self._annotations.glob("*.json"))
        if not names:
            raise DatasetError(
                f"no pairs of the {config.split} split: neither {listing} nor {self._annotations} lists any"
            )
        super().__init__(root, config.split, (_parse_name(name, listing, root) for name in names))

    def annotation_path(self, index: int) -> Path:
        """Return the file PairAnnotation/SPLIT/NUMBER-SOURCE-TARGET:CATEGORY.json of a pair."""
        return self._annotations / f"{self.keys[index].pair_id}.json"

    def photo_path(self, image_id: str) -> Path:
        """Return the file JPEGImages/CATEGORY/FILE of a photo."""
        return self.root / "JPEGImages" / image_id

    def __getitem__(self, index: int) -> PairRecord:
        file, key = self.annotation_path(index), self.keys[index]
        content = read_annotation(file)
        for side, image_id in (("src", key.source_id), ("trg", key.target_id)):
            annotated_id = f"{key.category}/{_get(content, f'{side}_imname', file)}"
            if annotated_id != image_id:
                raise DatasetError(f"{file}: {side}_imname makes {annotated_id}, but the pair's name makes {image_id}")
        source, target = (as_points(_get(content, f"{side}_kps", file), f"{file}: {side}_kps") for side in _SIDES)
        sizes = [as_size(_get(content, f"{side}_imsize", file), f"{file}: {side}_imsize") for side in _SIDES]
        boxes = [as_box(_get(content, f"{side}_bndbox", file), f"{file}: {side}_bndbox") for side in _SIDES]
        visible = visible_in_both(source, target, str(file))
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            source_size=sizes[0], target_size=sizes[1], source_box=boxes[0], target_box=boxes[1],
            source_points=zero_invisible(source, visible), target_points=zero_invisible(target, visible),
            visible=visible,
            difficulty={flag: int(content[flag]) for flag in FLAGS if isinstance(content.get(flag), int)},
        )  # fmt: skip


def _get(content: Mapping[str, Any], field: str, file: Path) -> Any:
    """Return a field of an annotation.

    Raises:
        DatasetError: it is missing.
    """
    if field not in content:
        raise DatasetError(f"not a readable annotation: {file} has no {field}")
    return content[field]


def _parse_name(name: str, listing: Path, root: Path) -> PairKey:
    """Return the pair named "NUMBER-SOURCE-TARGET:CATEGORY".

    Names of photos may contain hyphens; then the source name ends where most photos exist.

    Raises:
        DatasetError: the name has another form.
    """
    stem, _, category = name.rpartition(":")
    pieces = stem.split("-")[1:]
    if not category or len(pieces) < 2:
        raise DatasetError(f"{listing}: {name!r} is not NUMBER-SOURCE-TARGET:CATEGORY")
    candidates = [("-".join(pieces[:i]), "-".join(pieces[i:])) for i in range(1, len(pieces))]
    folder = root / "JPEGImages" / category
    existing = [
        0 if len(candidates) == 1 else sum((folder / f"{photo}.jpg").is_file() for photo in candidate)
        for candidate in candidates
    ]
    source, target = candidates[existing.index(max(existing))]
    return PairKey(
        pair_id=name, source_id=f"{category}/{source}.jpg", target_id=f"{category}/{target}.jpg", category=category
    )
