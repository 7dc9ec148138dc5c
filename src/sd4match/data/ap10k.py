"""AP-10K (arXiv 2108.12617): animals with 17 named key points, in pairs of our own or of GeoAware's preparation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sd4match.data.ap10k_pairs import FEWEST_POINTS, Animal, draw_pairs
from sd4match.data.base import ListedPairs, Points, as_box, cleared, find_root, read_annotation, seen_in_both
from sd4match.data.config import Split
from sd4match.errors import DatasetError
from sd4match.geometry import Size
from sd4match.io.files import write_atomically
from sd4match.structures.pairs import PairKey, PairRecord

Task = Literal["intra-species", "cross-species", "cross-family"]
_COCO = {"train": "train", "validation": "val", "test": "test"}
_PREPARED = {"train": "trn", "validation": "val", "test": "test"}
_SUFFIX = {"intra-species": "", "cross-species": "_cross_species", "cross-family": "_cross_family"}
_PHOTOS = ("data", "images", "JPEGImages")


@dataclass(frozen=True)
class _Annotation:
    """One animal in one photo."""

    image_id: str
    size: Size
    points: Points
    box: tuple[float, float, float, float]


class AP10KPairs(ListedPairs):
    """AP-10K: two photos of one species, of two species of one family, or of two families.

    Where `PairAnnotation/{trn,val,test}[_cross_species|_cross_family]` exists (GeoAware's preparation), it gives the
    pairs, and `ImageAnnotation/FAMILY/SPECIES/*.json` the points. Otherwise pairs are drawn from the COCO file
    (`annotations/ap10k-SPLIT-splitN.json`, or `annotations.json`) with `seed`: of photos with one annotated animal,
    pairs that share at least three visible points, the same number for each group (species, family, family). The list
    is written to `pair_list` when it is first drawn and read from then on, so that others can count on the same pairs.

    A pair counts to the category of its source; a text prompt names the animal of each photo.

    Args:
        root: the folder ap-10k, or the one that holds it.
        split: train, validation or test.
        pairs: which task.
        pairs_per_group: at most so many for each group.
        annotation_split: N of the COCO files, 1 to 3.
        seed: of the drawing.
        pair_list: where the list of drawn pairs is; `ROOT/sd4match-pairs/TASK-SPLIT-seedN.json`, if not given.

    Raises:
        DatasetError: a folder of another layout, no such pairs, or a list that does not belong to these annotations.
    """

    name = "ap10k"

    def __init__(
        self,
        *,
        root: str | Path,
        split: Split = "train",
        pairs: Task = "intra-species",
        pairs_per_group: int = 40,
        annotation_split: int = 1,
        seed: int = 0,
        pair_list: str | None = None,
    ) -> None:
        base = find_root(
            root, inner=("ap-10k",), has=("annotations", "annotations.json", "PairAnnotation"), name="AP-10K"
        )
        prepared = base / "PairAnnotation" / (_PREPARED[split] + _SUFFIX[pairs])
        self._files: list[Path] = sorted(prepared.glob("*.json"))
        self._animals: dict[int, _Annotation] = {}
        self._drawn: list[tuple[int, int]] = []
        self.list: Path | None = None
        if self._files:
            keys = [self._prepared_key(file) for file in self._files]
        else:
            self._photos = next((base / folder for folder in _PHOTOS if (base / folder).is_dir()), base / "data")
            animals = self._read_coco(base, split, annotation_split)
            name = f"{pairs}-{split}-split{annotation_split}-seed{seed}.json"
            self.list = Path(pair_list).expanduser() if pair_list else base / "sd4match-pairs" / name
            self._drawn = _listed_or_drawn(self.list, animals, task=pairs, per_group=pairs_per_group, seed=seed)
            keys = [self._drawn_key(number, animals) for number in range(len(self._drawn))]
        super().__init__(base, split, keys)

    def photo_path(self, image_id: str) -> Path:
        """The file of a photo, below the folder that has the photos."""
        return (self.root / "JPEGImages" if self._files else self._photos) / image_id

    def annotation_path(self, index: int) -> Path | None:
        """The pair's own file, if pairs were prepared."""
        return self._files[index] if self._files else None

    def __getitem__(self, index: int) -> PairRecord:
        key = self.keys[index]
        if self._files:
            source, target = (_prepared_annotation(self._prepared_side(self._files[index], side)) for side in _SIDES)
        else:
            source, target = (self._animals[number] for number in self._drawn[index])
        visible = seen_in_both(source.points, target.points, key.pair_id)
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            target_category=key.target_category, source_size=source.size, target_size=target.size,
            source_points=cleared(source.points, visible), target_points=cleared(target.points, visible),
            visible=visible, source_box=source.box, target_box=target.box,
        )  # fmt: skip

    def _read_coco(self, base: Path, split: str, number: int) -> dict[int, Animal]:
        """Animals that are alone in their photo, by annotation id."""
        files = (base / "annotations" / f"ap10k-{_COCO[split]}-split{number}.json", base / "annotations.json")
        file = next((one for one in files if one.is_file()), files[0])
        content = read_annotation(file)
        try:
            images = {image["id"]: image for image in content["images"]}
            species = {one["id"]: (one["name"], one["supercategory"]) for one in content["categories"]}
            count: dict[int, int] = {}
            for one in content["annotations"]:
                count[one["image_id"]] = count.get(one["image_id"], 0) + 1
            animals = {}
            for one in content["annotations"]:
                image = images[one["image_id"]]
                if count[one["image_id"]] > 1:
                    continue
                name, family = species[one["category_id"]]
                annotation = _annotation(image["file_name"], image, one, f"{file}: annotation {one['id']}")
                self._animals[one["id"]] = annotation
                visible = tuple(bool(np.isfinite(point).all()) for point in annotation.points)
                animals[int(one["id"])] = Animal(image["file_name"], name, family, visible)
        except (KeyError, TypeError) as error:
            raise DatasetError(f"not a readable annotation: {file} ({type(error).__name__}: {error})") from None
        return animals

    def _drawn_key(self, number: int, animals: Mapping[int, Animal]) -> PairKey:
        source, target = (animals[one] for one in self._drawn[number])
        return PairKey(
            pair_id=f"{self._drawn[number][0]}-{self._drawn[number][1]}", source_id=source.photo,
            target_id=target.photo, category=source.species, target_category=target.species,
        )  # fmt: skip

    def _prepared_key(self, file: Path) -> PairKey:
        ids = [_below(self._prepared_side(file, side), "ImageAnnotation") for side in _SIDES]
        photos = [str(Path(one).with_suffix(".jpg")) for one in ids]
        species = [Path(one).parent.name for one in ids]
        return PairKey(
            pair_id=file.stem, source_id=photos[0], target_id=photos[1], category=species[0],
            target_category=species[1],
        )  # fmt: skip

    @staticmethod
    def _prepared_side(file: Path, side: str) -> Path:
        """The annotation of one photo: the paths in a pair's file are of the machine that prepared it."""
        content = read_annotation(file)
        name = content.get(f"{side}_json_path")
        if not isinstance(name, str) or "ImageAnnotation" not in Path(name).parts:
            raise DatasetError(f"not a readable annotation: {file} has no {side}_json_path below ImageAnnotation")
        root = file.parents[2]
        return root / "ImageAnnotation" / _below(Path(name), "ImageAnnotation")


_SIDES = ("src", "trg")


def _below(path: Path, folder: str) -> str:
    parts = path.parts
    return "/".join(parts[len(parts) - parts[::-1].index(folder) :])


def _prepared_annotation(file: Path) -> _Annotation:
    content = read_annotation(file)
    try:
        return _annotation(_below(file, "ImageAnnotation"), content, content, str(file))
    except (KeyError, TypeError) as error:
        raise DatasetError(f"not a readable annotation: {file} ({type(error).__name__}: {error})") from None


def _annotation(image_id: str, image: Mapping[str, Any], animal: Mapping[str, Any], where: str) -> _Annotation:
    """COCO's x, y, v triples (v = 0: not annotated) and left, top, width, height."""
    triples = np.asarray(animal["keypoints"], dtype=np.float64).reshape(-1, 3)
    points = np.where(triples[:, 2:] > 0, triples[:, :2], np.nan)
    left, top, width, height = animal["bbox"]
    box = as_box((left, top, left + width, top + height), f"{where}: bbox")
    return _Annotation(image_id, (int(image["height"]), int(image["width"])), points, box)


def _listed_or_drawn(
    file: Path, animals: Mapping[int, Animal], *, task: Task, per_group: int, seed: int
) -> list[tuple[int, int]]:
    """The pairs of a list on disk; if there is none yet, pairs are drawn and the list is written."""
    recipe = {"task": task, "pairs_per_group": per_group, "seed": seed, "fewest_points": FEWEST_POINTS}
    if file.exists():
        content = read_annotation(file)
        if content.get("recipe") != recipe:
            raise DatasetError(
                f"{file} was drawn with other settings: {content.get('recipe')}, not {recipe}; "
                "give another data.pair_list"
            )
        pairs = [(int(source), int(target)) for source, target in content["pairs"]]
        unknown: Sequence[int] = sorted({one for pair in pairs for one in pair} - animals.keys())
        if unknown:
            raise DatasetError(f"{file} is of other annotations: it names animal {unknown[0]}, which is not in these")
        return pairs
    pairs = draw_pairs(animals, task=task, per_group=per_group, seed=seed)
    if not pairs:
        raise DatasetError(
            f"no {task} pairs: too few animals of these annotations share {FEWEST_POINTS} visible points"
        )
    content = {"recipe": recipe, "pairs": pairs}
    try:
        write_atomically(
            file, (json.dumps(content) + "\n").encode(), name=f"the list of pairs {file}", error=DatasetError
        )
    except DatasetError as error:
        raise DatasetError(f"{error}; give a place that can be written: data.pair_list=FILE") from None
    return pairs
