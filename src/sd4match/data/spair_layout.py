"""Writer of synthetic pairs in SPair-71k's layout, so that the same loader reads both."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image

from sd4match.data.spair import FOLDERS
from sd4match.data.synthetic.anatomy import point_names
from sd4match.data.synthetic.dataset import SyntheticPairs
from sd4match.errors import DatasetError, SD4MatchError
from sd4match.io.files import TEMPORARY_SUFFIX
from sd4match.paths import exists, is_folder
from sd4match.structures.pairs import PairRecord


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Let a block write into a temporary folder, and move its content to the final one when the block succeeds.

    Args:
        folder: final folder; must be empty or not exist.

    Yields:
        The folder to write into.

    Raises:
        DatasetError: the folder is not empty, or cannot be written; nothing is left in it.
    """
    scratch = folder / f".{os.getpid()}{TEMPORARY_SUFFIX}"
    made: list[Path] = []
    try:
        if exists(folder) and (not is_folder(folder) or any(folder.iterdir())):
            raise DatasetError(f"{folder} is not an empty folder; give one that is empty or does not exist")
        for path in [*reversed(scratch.parents), scratch]:
            if not exists(path):
                path.mkdir()
                made.append(path)
        yield scratch
        for path in sorted(scratch.iterdir()):
            path.replace(folder / path.name)
        scratch.rmdir()
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        for path in reversed(made):
            with suppress(OSError):  # it is already gone
                path.rmdir()
        if isinstance(error, DatasetError):
            raise DatasetError(str(error).replace(str(scratch), str(folder))) from None
        if isinstance(error, (OSError, ValueError)) and not isinstance(error, SD4MatchError):
            raise DatasetError(f"cannot write the data set to {folder}: {getattr(error, 'strerror', error)}") from None
        raise


def write_spair_layout(
    dataset: SyntheticPairs, root: Path, *, layout: str = "large", progress: Callable[[], None] = lambda: None
) -> int:
    """Write one split: JPEGImages, ImageAnnotation, PairAnnotation, Segmentation and the list of pairs.

    Files are those of SPair-71k: `CATEGORY/NAME.jpg` photos, a JSON file for each photo with all keypoints by number
    (null if not visible), a JSON file for each pair with the keypoints visible in both photos, a PNG file of part ids,
    and a list of pair names.

    Args:
        dataset: the split to write.
        root: folder of the data set; other splits in it are not changed.
        layout: name of the folder of the list.
        progress: called after each pair.

    Returns:
        The number of pairs that were written.

    Raises:
        DatasetError: a file cannot be written.
    """
    split = FOLDERS[dataset.split]
    names = []
    try:
        for number, record in enumerate(dataset):
            for image_id in (record.source_id, record.target_id):
                _write_photo(dataset, image_id, root, split)
            names.append(_write_pair(dataset, record, root, split, number))
            progress()
        listing = root / "Layout" / layout / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(names) + "\n")
    except OSError as error:
        raise DatasetError(f"cannot write the data set to {root}: {error.strerror or error}") from None
    return len(names)


def _photo_name(image_id: str, split: str) -> str:
    """Return a file name that contains the split, because splits share folders in SPair-71k."""
    return f"{split}_{image_id.partition('-')[2]}"


def _write_photo(dataset: SyntheticPairs, image_id: str, root: Path, split: str) -> None:
    scene = dataset.scene(image_id)
    name = _photo_name(image_id, split)
    annotation = root / "ImageAnnotation" / scene.category / f"{name}.json"
    if annotation.exists():
        return
    for folder in ("JPEGImages", "ImageAnnotation", "Segmentation"):
        (root / folder / scene.category).mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.pixels).save(root / "JPEGImages" / scene.category / f"{name}.jpg", quality=95, subsampling=0)
    Image.fromarray(scene.part_ids).save(root / "Segmentation" / scene.category / f"{name}.png")
    size = dataset.config.size
    content = {
        "filename": f"{name}.jpg",
        "src_database": "sd4match synthetic",
        "category": scene.category,
        "image_width": size,
        "image_height": size,
        "image_depth": 3,
        "bndbox": [round(side) for side in scene.box],
        "kps": {
            str(i): [round(float(x)), round(float(y))] if visible else None
            for i, ((x, y), visible) in enumerate(zip(scene.points, scene.visible, strict=True))
        },
        "kps_names": list(point_names(scene.category)),
        "parts": list(scene.part_words),
        "truncated": int(scene.truncated),
        "occluded": int(scene.occluded),
    }
    annotation.write_text(json.dumps(content, indent=1))


def _write_pair(dataset: SyntheticPairs, record: PairRecord, root: Path, split: str, number: int) -> str:
    source, target = (_photo_name(image_id, split) for image_id in (record.source_id, record.target_id))
    name = f"{number:06d}-{source}-{target}:{record.category}"
    size = dataset.config.size
    shared = [i for i, visible in enumerate(record.visible) if visible]
    assert record.source_box is not None
    assert record.target_box is not None
    content = {
        "pair_id": number,
        "filename": name,
        "src_imname": f"{source}.jpg",
        "trg_imname": f"{target}.jpg",
        "src_imsize": [size, size, 3],
        "trg_imsize": [size, size, 3],
        "src_bndbox": [round(side) for side in record.source_box],
        "trg_bndbox": [round(side) for side in record.target_box],
        "category": record.category,
        "src_kps": [[round(float(v)) for v in record.source_points[i]] for i in shared],
        "trg_kps": [[round(float(v)) for v in record.target_points[i]] for i in shared],
        "kps_ids": [str(i) for i in shared],
        "mirror": 0,
        **record.difficulty,
    }
    folder = root / "PairAnnotation" / split
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1))
    return name
