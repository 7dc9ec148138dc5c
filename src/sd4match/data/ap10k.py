"""AP-10K (arXiv 2108.12617): animals with 17 named keypoints, in pairs drawn here or by GeoAware's preparation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from sd4match.data.annotations import (
    Points,
    as_box,
    as_file_name,
    as_numbers,
    as_whole,
    as_word,
    field_of,
    read_annotation,
    visible_in_both,
    zero_invisible,
)
from sd4match.data.ap10k_pairs import MIN_POINTS, Animal, Task, draw_pairs
from sd4match.data.base import FilePairs, check_split_name, find_root, read_all
from sd4match.data.config import AP10KConfig
from sd4match.errors import DatasetError, shown
from sd4match.geometry import Size
from sd4match.io.files import write_atomically
from sd4match.paths import as_path, exists, is_folder
from sd4match.structures.images import LONGEST_SIDE_OF_PHOTOS
from sd4match.structures.pairs import Box, PairKey, PairRecord

_COCO = {"train": "train", "validation": "val", "test": "test"}
_PREPARED = {"train": "trn", "validation": "val", "test": "test"}
_SUFFIXES = {"intra-species": "", "cross-species": "_cross_species", "cross-family": "_cross_family"}
_PHOTO_FOLDERS = ("data", "images", "JPEGImages")
_SIDES = ("src", "trg")
_POINTS = 17
"""Number of keypoints of every animal."""


@dataclass(frozen=True, eq=False)
class _Annotation:
    """Annotation of one animal in one photo."""

    size: Size
    points: Points
    box: Box


class AP10KPairs(FilePairs):
    """AP-10K: pairs of photos of one species, of two species of one family, or of two families.

    If `PairAnnotation/{trn,val,test}[_cross_species|_cross_family]` exists (GeoAware's preparation), it gives the
    pairs, and `ImageAnnotation/FAMILY/SPECIES/*.json` the points. Otherwise pairs are drawn from the COCO file
    (`annotations/ap10k-SPLIT-splitN.json` or `annotations.json`) with a seed: from photos with one annotated animal,
    pairs that share at least three visible points, at most the same number for each group (a species or a family). The
    list is written when it is first drawn and read from then on, so that others can use the same pairs. An animal whose
    annotation is damaged is drawn as if all its points were visible; its pairs cannot be read.

    Convention: a pair belongs to the category of its source; a text prompt names the animal of each photo.

    Args:
        config: root, split, task and parameters of the drawing. The root is the folder ap-10k or the one that holds it.

    Raises:
        DatasetError: the folder has another layout, there are no such pairs, or the list belongs to other annotations
            or cannot be written.

    >>> import tempfile
    >>> names = {1: "a.jpg", 2: "b.jpg"}
    >>> content = {
    ...     "images": [{"id": n, "file_name": name, "width": 64, "height": 48} for n, name in names.items()],
    ...     "categories": [{"id": 1, "name": "dog", "supercategory": "Canidae"}],
    ...     "annotations": [
    ...         {"id": n, "image_id": n, "category_id": 1, "keypoints": [8, 9, 2] * 17, "bbox": [4, 4, 40, 30]}
    ...         for n in names
    ...     ],
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "annotations.json").write_text(json.dumps(content))
    ...     dataset = AP10KPairs(AP10KConfig(root=folder, split="test"))
    ...     len(dataset), dataset[0].category, dataset[0].target_box
    (2, 'dog', (4.0, 4.0, 44.0, 34.0))
    """

    name = "ap10k"

    def __init__(self, config: AP10KConfig) -> None:
        split = check_split_name(config.split)
        root = find_root(
            config.root,
            subfolders=("ap-10k",),
            entries=("annotations", "annotations.json", "PairAnnotation"),
            name="AP-10K",
        )
        prepared = root / "PairAnnotation" / (_PREPARED[split] + _SUFFIXES[config.pairs])
        self._files: list[Path] = sorted(prepared.glob("*.json"))
        self._annotations: dict[int, _Annotation | str] = {}
        notes: list[str] = []
        self._drawn: list[tuple[int, int]] = []
        self.list_path: Path | None = None
        if self._files:
            keys = read_all(_prepared_key, self._files)
        else:
            self._photos = next((root / name for name in _PHOTO_FOLDERS if is_folder(root / name)), root / "data")
            animals, self._annotations, notes = _read_coco(root, split, config.annotation_split)
            name = f"{config.pairs}-{split}-split{config.annotation_split}-seed{config.seed}.json"
            self.list_path = root / "sd4match-pairs" / name
            if config.pair_list is not None:
                self.list_path = as_path(config.pair_list, what="data.pair_list", error=DatasetError)
            self._drawn = _read_or_draw(
                self.list_path,
                animals,
                task=config.pairs,
                pairs_per_group=config.pairs_per_group,
                seed=config.seed,
            )
            keys = [_drawn_key(*pair, animals) for pair in self._drawn]
        problems = [found for found in self._annotations.values() if isinstance(found, str)]
        super().__init__(root, split, keys, problems=problems, notes=notes)

    @override
    def photo_path(self, image_id: str) -> Path:
        return (self.root / "JPEGImages" if self._files else self._photos) / image_id

    def annotation_path(self, index: int) -> Path | None:
        """Return the file of a prepared pair.

        Args:
            index: index of the pair, from 0 to len(self) - 1.

        Returns:
            The path; None for pairs that were drawn.
        """
        return self._files[index] if self._files else None

    @override
    def read(self, index: int) -> PairRecord:
        key = self.keys[index]
        if self._files:
            source, target = (_prepared_annotation(_prepared_path(self._files[index], side)) for side in _SIDES)
        else:
            source, target = (_whole(self._annotations[animal_id]) for animal_id in self._drawn[index])
        visible = visible_in_both(source.points, target.points, key.pair_id)
        return PairRecord(
            pair_id=key.pair_id, source_id=key.source_id, target_id=key.target_id, category=key.category,
            target_category=key.target_category, source_size=source.size, target_size=target.size,
            source_points=zero_invisible(source.points, visible), target_points=zero_invisible(target.points, visible),
            visible=visible, source_box=source.box, target_box=target.box,
        )  # fmt: skip


def _read_coco(
    root: Path, split: str, number: int
) -> tuple[dict[int, Animal], dict[int, _Annotation | str], list[str]]:
    """Read the COCO file of a split.

    Returns:
        The animals that are alone in their photo, the annotations of all animals or what is wrong with them, by
        annotation id, and notes about what may not be meant.

    Raises:
        DatasetError: the file is missing, or its lists of images, categories and annotations do not fit together.
    """
    files = (root / "annotations" / f"ap10k-{_COCO[split]}-split{number}.json", root / "annotations.json")
    file = next((file for file in files if exists(file)), files[0])
    content = read_annotation(file)
    images = _by_id(content, "images", file)
    species = _by_id(content, "categories", file)
    found = _by_id(content, "annotations", file)
    names = dict(zip(species, read_all(lambda item: _species(*item, file), species.items()), strict=True))
    photos = dict(zip(images, read_all(lambda item: _photo_name(*item, file), images.items()), strict=True))

    def references(item: tuple[int, Mapping[str, Any]]) -> tuple[int, int]:
        where = f"{file}: annotation {item[0]}"
        image, kind = (field_of(item[1], field, where) for field in ("image_id", "category_id"))
        for field, value, known in (("image_id", image, images), ("category_id", kind, species)):
            if isinstance(value, bool) or not isinstance(value, int) or value not in known:
                raise DatasetError(f"{where}: its {field} {shown(value)} is not in the file")
        return image, kind

    referenced = dict(zip(found, read_all(references, found.items()), strict=True))
    count = Counter(image for image, _ in referenced.values())
    animals: dict[int, Animal] = {}
    annotations: dict[int, _Annotation | str] = {}
    for animal_id, (image, kind) in referenced.items():
        visible = (True,) * _POINTS
        try:
            parsed = _parse_annotation(images[image], found[animal_id], f"{file}: annotation {animal_id}")
        except DatasetError as error:
            annotations[animal_id] = str(error)
        else:
            annotations[animal_id] = parsed
            visible = tuple(bool(np.isfinite(point).all()) for point in parsed.points)
        if count[image] == 1:
            animals[animal_id] = Animal(photos[image], *names[kind], visible)
    return animals, annotations, _notes(found, annotations, file)


def _notes(
    found: Mapping[int, Mapping[str, Any]], annotations: Mapping[int, _Annotation | str], file: Path
) -> list[str]:
    """Return contradictions between COCO fields and key points, and annotations that are not of one animal."""
    crowds = [animal_id for animal_id, content in found.items() if content.get("iscrowd", 0) != 0]
    miscounted = [
        animal_id
        for animal_id, annotation in annotations.items()
        if not isinstance(annotation, str)
        and "num_keypoints" in found[animal_id]
        and found[animal_id]["num_keypoints"] != int(np.isfinite(annotation.points).all(axis=1).sum())
    ]
    return [
        f"{file}: {len(those)} of {len(found)} annotations {what}, first {those[0]}: {effect}"
        for those, what, effect in (
            (crowds, "are of a crowd (iscrowd)", "they are used like those of one animal"),
            (miscounted, "have a num_keypoints that is not the number of their key points", "it is not used"),
        )
        if those
    ]


def _by_id(content: Mapping[str, Any], field: str, file: Path) -> dict[int, Mapping[str, Any]]:
    """Return the objects of a list of a COCO file by their ids.

    Raises:
        DatasetError: there is no such list, or an object has no whole number as its id or that of another one.
    """
    entries = field_of(content, field, f"not a readable annotation: {file}")
    if not isinstance(entries, list):
        raise DatasetError(f"not a readable annotation: {file}: {field} must be a list, not {shown(entries)}")
    seen: set[int] = set()

    def identify(item: tuple[int, Any]) -> int:
        where = f"{file}: {field}, entry {item[0]}"
        number = as_whole(field_of(item[1], "id", where), f"{where}: id", low=0)
        if number in seen:
            raise DatasetError(f"{where}: the id {number} appears twice")
        seen.add(number)
        return number

    return dict(zip(read_all(identify, enumerate(entries)), entries, strict=True))


def _species(number: int, category: Mapping[str, Any], file: Path) -> tuple[str, str]:
    where = f"{file}: category {number}"
    species, family = (
        as_word(field_of(category, field, where), f"{where}: {field}") for field in ("name", "supercategory")
    )
    return species, family


def _photo_name(number: int, image: Mapping[str, Any], file: Path) -> str:
    where = f"{file}: image {number}"
    return as_file_name(field_of(image, "file_name", where), f"{where}: file_name")


def _whole(annotation: _Annotation | str) -> _Annotation:
    """Return an annotation.

    Raises:
        DatasetError: it is damaged.
    """
    if isinstance(annotation, str):
        raise DatasetError(annotation)
    return annotation


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
    inner = ""
    if isinstance(name, str) and "ImageAnnotation" in Path(name).parts:
        inner = _path_from(Path(name), "ImageAnnotation")
    if inner.count("/") < 1:
        raise DatasetError(f"not a readable annotation: {file} has no {side}_json_path below ImageAnnotation")
    return file.parents[2] / "ImageAnnotation" / as_file_name(inner, f"{file}: {side}_json_path")


def _path_from(path: Path, folder: str) -> str:
    """Return what follows the last folder of that name in a path."""
    names = path.parts
    return "/".join(names[len(names) - names[::-1].index(folder) :])


def _prepared_annotation(file: Path) -> _Annotation:
    content = read_annotation(file)
    return _parse_annotation(content, content, f"not a readable annotation: {file}")


def _parse_annotation(image: Mapping[str, Any], animal: Mapping[str, Any], where: str) -> _Annotation:
    """Convert COCO's x, y, v triples (v = 0: not annotated) and its box of left, top, width, height.

    Raises:
        DatasetError: a field is missing, or holds something else.
    """
    width, height = (
        as_whole(field_of(image, side, where), f"{where}: {side}", low=1, high=LONGEST_SIDE_OF_PHOTOS)
        for side in ("width", "height")
    )
    numbers = field_of(animal, "keypoints", where)
    if not isinstance(numbers, list) or len(numbers) != 3 * _POINTS:
        count = f"{len(numbers)} values" if isinstance(numbers, list) else shown(numbers)
        raise DatasetError(f"{where}: keypoints must be {_POINTS} times x, y, visibility, not {count}")
    triples = np.array(as_numbers(numbers, f"{where}: keypoints")).reshape(-1, 3)
    if not np.isin(triples[:, 2], (0, 1, 2)).all():
        raise DatasetError(f"{where}: keypoints: a visibility must be 0, 1 or 2")
    points = np.where(triples[:, 2:] > 0, triples[:, :2], np.nan)
    box = field_of(animal, "bbox", where)
    if not isinstance(box, list) or len(box) != 4:
        raise DatasetError(f"{where}: bbox must be left, top, width, height; it is {shown(box)}")
    left, top, across, down = as_numbers(box, f"{where}: bbox")
    return _Annotation((height, width), points, as_box((left, top, left + across, top + down), f"{where}: bbox"))


def _read_or_draw(
    file: Path, animals: Mapping[int, Animal], *, task: Task, pairs_per_group: int, seed: int
) -> list[tuple[int, int]]:
    """Return the pairs of a list on disk; if it does not exist, draw the pairs and write the list.

    Raises:
        DatasetError: the list was drawn with other parameters or from other annotations, there are no pairs, or the
            list cannot be written.
    """
    recipe = {"task": task, "pairs_per_group": pairs_per_group, "seed": seed, "fewest_points": MIN_POINTS}
    if exists(file):
        content = read_annotation(file)
        if content.get("recipe") != recipe:
            raise DatasetError(
                f"{file} was drawn with other settings: {shown(content.get('recipe'))}, not {recipe}; "
                "give another data.pair_list"
            )
        return _read_pairs(file, content, animals)
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


def _read_pairs(file: Path, content: Mapping[str, Any], animals: Mapping[int, Animal]) -> list[tuple[int, int]]:
    """Return the pairs of a list on disk.

    Raises:
        DatasetError: it lists none, or something else than two ids of these animals.
    """
    entries = field_of(content, "pairs", str(file))
    if not isinstance(entries, list) or not entries:
        raise DatasetError(f"{file} lists no pair: its pairs must be a list of two ids each, not {shown(entries)}")

    def pair(item: tuple[int, Any]) -> tuple[int, int]:
        number, value = item
        if not isinstance(value, list) or len(value) != 2:
            raise DatasetError(f"{file}: pair {number} must be two ids, not {shown(value)}")
        source, target = (as_whole(animal_id, f"{file}: pair {number}: an id", low=0) for animal_id in value)
        unknown = [animal_id for animal_id in (source, target) if animal_id not in animals]
        if unknown:
            raise DatasetError(f"{file} is of other annotations: it names animal {unknown[0]}, which is not in these")
        return source, target

    return read_all(pair, enumerate(entries))
