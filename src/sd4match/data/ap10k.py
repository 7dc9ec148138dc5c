"""AP-10K (arXiv 2108.12617): animals with 17 named keypoints, in pairs drawn here or by GeoAware's preparation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sd4match.data.ap10k_pairs import MIN_POINTS, Animal, Task, draw_pairs
from sd4match.data.base import FilePairs, Points, as_box, find_root, read_annotation, visible_in_both, zero_invisible
from sd4match.data.config import AP10KConfig
from sd4match.errors import DatasetError
from sd4match.geometry import Size
from sd4match.io.files import write_atomically
from sd4match.structures.pairs import Box, PairKey, PairRecord

_COCO = {"train": "train", "validation": "val", "test": "test"}
_PREPARED = {"train": "trn", "validation": "val", "test": "test"}
_SUFFIXES = {"intra-species": "", "cross-species": "_cross_species", "cross-family": "_cross_family"}
_PHOTO_FOLDERS = ("data", "images", "JPEGImages")
_SIDES = ("src", "trg")


@dataclass(frozen=True, eq=False)
class _Annotation:
    """One animal in one photo."""

    size: Size
    points: Points
    box: Box


class AP10KPairs(FilePairs):
    """AP-10K: pairs of photos of one species, of two species of one family, or of two families.

    If `PairAnnotation/{trn,val,test}[_cross_species|_cross_family]` exists (GeoAware's preparation), it gives the
    pairs, and `ImageAnnotation/FAMILY/SPECIES/*.json` the points. Otherwise pairs are drawn from the COCO file
    (`annotations/ap10k-SPLIT-splitN.json` or `annotations.json`) with a seed: from photos with one annotated animal,
    pairs that share at least three visible points, at most the same number for each group (a species or a family). The
    list is written when it is first drawn and read from then on, so that others can use the same pairs.

    Convention: a pair belongs to the category of its source; a text prompt names the animal of each photo.

    Args:
        config: root, split, task and parameters of the drawing. The root is the folder ap-10k or the one that holds it.

    Raises:
        DatasetError: the folder has another layout, there are no such pairs, or the list belongs to other annotations
            or cannot be written.
    """

    name = "ap10k"

    def __init__(self, config: AP10KConfig) -> None:
        root = find_root(
            config.root,
            subfolders=("ap-10k",),
            entries=("annotations", "annotations.json", "PairAnnotation"),
            name="AP-10K",
        )
        prepared = root / "PairAnnotation" / (_PREPARED[config.split] + _SUFFIXES[config.pairs])
        self._files: list[Path] = sorted(prepared.glob("*.json"))
        self._annotations: dict[int, _Annotation] = {}
        self._drawn: list[tuple[int, int]] = []
        self.list_path: Path | None = None
        if self._files:
            keys = [_prepared_key(file) for file in self._files]
        else:
            self._photos = next((root / name for name in _PHOTO_FOLDERS if (root / name).is_dir()), root / "data")
            animals, self._annotations = _read_coco(root, config.split, config.annotation_split)
            name = f"{config.pairs}-{config.split}-split{config.annotation_split}-seed{config.seed}.json"
            self.list_path = Path(config.pair_list).expanduser() if config.pair_list else root / "sd4match-pairs" / name
            self._drawn = _read_or_draw(
                self.list_path,
                animals,
                task=config.pairs,
                pairs_per_group=config.pairs_per_group,
                seed=config.seed,
            )
            keys = [_drawn_key(*pair, animals) for pair in self._drawn]
        super().__init__(root, config.split, keys)

    def photo_path(self, image_id: str) -> Path:
        """Return the file of a photo in the folder that has the photos."""
        return (self.root / "JPEGImages" if self._files else self._photos) / image_id

    def annotation_path(self, index: int) -> Path | None:
        """Return the file of a prepared pair; None for pairs that were drawn."""
        return self._files[index] if self._files else None

    def __getitem__(self, index: int) -> PairRecord:
        key = self.keys[index]
        if self._files:
            source, target = (_prepared_annotation(_prepared_path(self._files[index], side)) for side in _SIDES)
        else:
            source, target = (self._annotations[animal_id] for animal_id in self._drawn[index])
        visible = visible_in_both(source.points, target.points, key.pair_id)
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            target_category=key.target_category, source_size=source.size, target_size=target.size,
            source_points=zero_invisible(source.points, visible), target_points=zero_invisible(target.points, visible),
            visible=visible, source_box=source.box, target_box=target.box,
        )  # fmt: skip


def _read_coco(root: Path, split: str, number: int) -> tuple[dict[int, Animal], dict[int, _Annotation]]:
    """Read the COCO file of a split.

    Returns:
        The animals that are alone in their photo, and the annotations of these, by annotation id.

    Raises:
        DatasetError: the file is missing or lacks a field.
    """
    files = (root / "annotations" / f"ap10k-{_COCO[split]}-split{number}.json", root / "annotations.json")
    file = next((file for file in files if file.is_file()), files[0])
    content = read_annotation(file)
    animals: dict[int, Animal] = {}
    annotations: dict[int, _Annotation] = {}
    try:
        images = {image["id"]: image for image in content["images"]}
        names = {category["id"]: (category["name"], category["supercategory"]) for category in content["categories"]}
        animals_of_image: dict[int, int] = {}
        for annotation in content["annotations"]:
            animals_of_image[annotation["image_id"]] = animals_of_image.get(annotation["image_id"], 0) + 1
        for annotation in content["annotations"]:
            image = images[annotation["image_id"]]
            if animals_of_image[annotation["image_id"]] > 1:
                continue
            species, family = names[annotation["category_id"]]
            parsed = _parse_annotation(image, annotation, f"{file}: annotation {annotation['id']}")
            annotations[annotation["id"]] = parsed
            visible = tuple(bool(np.isfinite(point).all()) for point in parsed.points)
            animals[int(annotation["id"])] = Animal(image["file_name"], species, family, visible)
    except (KeyError, TypeError) as error:
        raise DatasetError(f"not a readable annotation: {file} ({type(error).__name__}: {error})") from None
    return animals, annotations


def _drawn_key(source_id: int, target_id: int, animals: Mapping[int, Animal]) -> PairKey:
    source, target = animals[source_id], animals[target_id]
    return PairKey(
        pair_id=f"{source_id}-{target_id}", source_id=source.photo, target_id=target.photo, category=source.species,
        target_category=target.species,
    )  # fmt: skip


def _prepared_key(file: Path) -> PairKey:
    annotations = [Path(_path_from(_prepared_path(file, side), "ImageAnnotation")) for side in _SIDES]
    source_id, target_id = (str(path.with_suffix(".jpg")) for path in annotations)
    category, target_category = (path.parent.name for path in annotations)
    return PairKey(
        pair_id=file.stem, source_id=source_id, target_id=target_id, category=category,
        target_category=target_category,
    )  # fmt: skip


def _prepared_path(file: Path, side: str) -> Path:
    """Return the annotation of one photo of a prepared pair.

    Paths in the file of a pair are those of the machine that prepared it; only what follows ImageAnnotation is used.

    Raises:
        DatasetError: the file has no such path.
    """
    content = read_annotation(file)
    name = content.get(f"{side}_json_path")
    if not isinstance(name, str) or "ImageAnnotation" not in Path(name).parts:
        raise DatasetError(f"not a readable annotation: {file} has no {side}_json_path below ImageAnnotation")
    root = file.parents[2]
    return root / "ImageAnnotation" / _path_from(Path(name), "ImageAnnotation")


def _path_from(path: Path, folder: str) -> str:
    """Return what follows the last folder of that name in a path."""
    parts = path.parts
    return "/".join(parts[len(parts) - parts[::-1].index(folder) :])


def _prepared_annotation(file: Path) -> _Annotation:
    content = read_annotation(file)
    try:
        return _parse_annotation(content, content, str(file))
    except (KeyError, TypeError) as error:
        raise DatasetError(f"not a readable annotation: {file} ({type(error).__name__}: {error})") from None


def _parse_annotation(image: Mapping[str, Any], animal: Mapping[str, Any], where: str) -> _Annotation:
    """Convert COCO's x, y, v triples (v = 0: not annotated) and its box of left, top, width, height."""
    triples = np.asarray(animal["keypoints"], dtype=np.float64).reshape(-1, 3)
    points = np.where(triples[:, 2:] > 0, triples[:, :2], np.nan)
    left, top, width, height = animal["bbox"]
    box = as_box((left, top, left + width, top + height), f"{where}: bbox")
    return _Annotation((int(image["height"]), int(image["width"])), points, box)


def _read_or_draw(
    file: Path, animals: Mapping[int, Animal], *, task: Task, pairs_per_group: int, seed: int
) -> list[tuple[int, int]]:
    """Return the pairs of a list on disk; if it does not exist, draw the pairs and write the list.

    Raises:
        DatasetError: the list was drawn with other parameters or from other annotations, there are no pairs, or the
            list cannot be written.
    """
    recipe = {"task": task, "pairs_per_group": pairs_per_group, "seed": seed, "fewest_points": MIN_POINTS}
    if file.exists():
        content = read_annotation(file)
        if content.get("recipe") != recipe:
            raise DatasetError(
                f"{file} was drawn with other settings: {content.get('recipe')}, not {recipe}; "
                "give another data.pair_list"
            )
        pairs = [(int(source), int(target)) for source, target in content["pairs"]]
        unknown = sorted({animal_id for pair in pairs for animal_id in pair} - animals.keys())
        if unknown:
            raise DatasetError(f"{file} is of other annotations: it names animal {unknown[0]}, which is not in these")
        return pairs
    pairs = draw_pairs(animals, task=task, pairs_per_group=pairs_per_group, seed=seed)
    if not pairs:
        raise DatasetError(f"no {task} pairs: too few animals of these annotations share {MIN_POINTS} visible points")
    content = {"recipe": recipe, "pairs": pairs}
    try:
        write_atomically(
            file, (json.dumps(content) + "\n").encode(), name=f"the list of pairs {file}", error=DatasetError
        )
    except DatasetError as error:
        raise DatasetError(f"{error}; give a place that can be written: data.pair_list=FILE") from None
    return pairs
