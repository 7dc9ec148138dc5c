"""SPair-71k (arXiv 1908.10543) as it is unpacked: Layout, PairAnnotation, JPEGImages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from sd4match.data.base import (
    ListedPairs,
    as_box,
    as_points,
    as_size,
    cleared,
    find_root,
    read_annotation,
    read_lines,
    seen_in_both,
)
from sd4match.data.config import Split
from sd4match.errors import DatasetError
from sd4match.structures.pairs import PairKey, PairRecord

FOLDERS: dict[str, str] = {"train": "trn", "validation": "val", "test": "test"}
"""What SPair-71k calls its splits."""
FLAGS = ("viewpoint_variation", "scale_variation", "truncation", "occlusion")


class SPairPairs(ListedPairs):
    """SPair-71k: 53,340, 5,384 and 12,234 pairs of 18 categories, with boxes and difficulty flags.

    A pair's file holds the points that both photos show, all of them visible. Photo ids are "category/file name".

    Args:
        root: the folder SPair-71k, or the one that holds it.
        split: the list `Layout/LAYOUT/{trn,val,test}.txt` gives the pairs and their order; without it, all files of
            `PairAnnotation/{trn,val,test}`.
        layout: "large", or "small" for the benchmark's subset.

    Raises:
        DatasetError: the folder is of another layout.
    """

    name = "spair"
    published_pairs: ClassVar = {"train": 53_340, "validation": 5_384, "test": 12_234}

    def __init__(
        self, *, root: str | Path, split: Split = "train", layout: Literal["large", "small"] = "large"
    ) -> None:
        base = find_root(root, inner=("SPair-71k",), has=("PairAnnotation",), name="SPair-71k")
        self._annotations = base / "PairAnnotation" / FOLDERS[split]
        listing = base / "Layout" / layout / f"{FOLDERS[split]}.txt"
        if listing.is_file():
            names = [line.removesuffix(".json") for line in read_lines(listing)]
        else:
            names = sorted(file.stem for file in self._annotations.glob("*.json"))
        if not names:
            raise DatasetError(f"no pairs of the {split} split: neither {listing} nor {self._annotations} lists any")
        super().__init__(base, split, (_key(name, listing, base) for name in names))

    def annotation_path(self, index: int) -> Path:
        """PairAnnotation/SPLIT/NUMBER-SOURCE-TARGET:CATEGORY.json."""
        return self._annotations / f"{self.keys[index].pair_id}.json"

    def photo_path(self, image_id: str) -> Path:
        """JPEGImages/CATEGORY/FILE."""
        return self.root / "JPEGImages" / image_id

    def __getitem__(self, index: int) -> PairRecord:
        file, key = self.annotation_path(index), self.keys[index]
        content = read_annotation(file)
        for side, image_id in (("src", key.source_id), ("trg", key.target_id)):
            said = f"{key.category}/{_field(content, f'{side}_imname', file)}"
            if said != image_id:
                raise DatasetError(f"{file}: {side}_imname makes {said}, but the pair's name makes {image_id}")
        source, target = (as_points(_field(content, f"{side}_kps", file), f"{file}: {side}_kps") for side in _SIDES)
        sizes = [as_size(_field(content, f"{side}_imsize", file), f"{file}: {side}_imsize") for side in _SIDES]
        boxes = [as_box(_field(content, f"{side}_bndbox", file), f"{file}: {side}_bndbox") for side in _SIDES]
        visible = seen_in_both(source, target, str(file))
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            source_size=sizes[0], target_size=sizes[1], source_box=boxes[0], target_box=boxes[1],
            source_points=cleared(source, visible), target_points=cleared(target, visible), visible=visible,
            difficulty={flag: int(content[flag]) for flag in FLAGS if isinstance(content.get(flag), int)},
        )  # fmt: skip


_SIDES = ("src", "trg")


def _field(content: Mapping[str, Any], name: str, file: Path) -> Any:
    if name not in content:
        raise DatasetError(f"not a readable annotation: {file} has no {name}")
    return content[name]


def _key(name: str, listing: Path, root: Path) -> PairKey:
    """From "NUMBER-SOURCE-TARGET:CATEGORY". Photo names may hold hyphens: then the files decide where one ends."""
    rest, _, category = name.rpartition(":")
    parts = rest.split("-")[1:]
    if not category or len(parts) < 2:
        raise DatasetError(f"{listing}: {name!r} is not NUMBER-SOURCE-TARGET:CATEGORY")
    cuts = [("-".join(parts[:i]), "-".join(parts[i:])) for i in range(1, len(parts))]
    folder = root / "JPEGImages" / category
    there = [0 if len(cuts) == 1 else sum((folder / f"{photo}.jpg").is_file() for photo in cut) for cut in cuts]
    source, target = cuts[there.index(max(there))]
    return PairKey(
        pair_id=name, source_id=f"{category}/{source}.jpg", target_id=f"{category}/{target}.jpg", category=category
    )
