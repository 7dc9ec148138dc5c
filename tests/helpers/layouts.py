"""Writers of small data sets in the exact original layouts, with the peculiarities of the originals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

KINDS = ("RGB", "L", "CMYK", "EXIF")


def save_photo(path: Path, size: tuple[int, int], *, kind: str = "RGB", seed: int = 0) -> Path:
    """Write a photo of noise.

    Args:
        path: file to write.
        size: (H, W).
        kind: color mode, or "EXIF" for a photo whose tag says that viewers turn it.
        seed: seed of the noise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    if kind == "EXIF":
        exif[0x0112] = 6
    elif kind != "RGB":
        image = image.convert(kind)
    image.save(path, exif=exif)
    return path


# SPair-71k ------------------------------------------------------------------------------------------------------------

SPAIR_PHOTOS = {
    # landscape, portrait, grayscale, CMYK, EXIF-rotated; the last with a hyphen in its name
    "cat": [("2008_000001", (40, 60), "RGB"), ("2008_000002", (70, 30), "L"), ("2009_000003", (50, 50), "CMYK")],
    "tvmonitor": [("2010_000004", (36, 64), "EXIF"), ("img-5", (64, 36), "RGB")],
}


def spair_pair(number: int, category: str, source: int, target: int, **changes) -> tuple[str, dict]:
    photos = SPAIR_PHOTOS[category]
    (a, (ah, aw), _), (b, (bh, bw), _) = photos[source], photos[target]
    name = f"{number:06d}-{a}-{b}:{category}"
    content = {
        "pair_id": number,
        "filename": name,
        "src_imname": f"{a}.jpg",
        "trg_imname": f"{b}.jpg",
        "src_imsize": [aw, ah, 3],
        "trg_imsize": [bw, bh, 3],
        "src_bndbox": [4, 5, aw - 6, ah - 7],
        "trg_bndbox": [3, 4, bw - 5, bh - 6],
        "category": category,
        "src_pose": "Unspecified",
        "trg_pose": "Frontal",
        "src_kps": [[10, 12], [aw - 8, 20], [1, 2]],  # the last outside the box
        "trg_kps": [[8, 9], [bw - 9, 25], [bw - 1, bh - 1]],
        "kps_ids": ["0", "4", "11"],
        "mirror": 0,
        "viewpoint_variation": number % 3,
        "scale_variation": 0,
        "truncation": number % 4,
        "occlusion": 1,
        **changes,
    }
    return name, content


def write_spair(root: Path, *, listed: bool = True, newline: str = "\r\n") -> Path:
    """Write the splits trn, val and test of SPair-71k, with lists whose lines end with CRLF."""
    base = root / "SPair-71k"
    for category, photos in SPAIR_PHOTOS.items():
        for seed, (name, size, kind) in enumerate(photos):
            save_photo(base / "JPEGImages" / category / f"{name}.jpg", size, kind=kind, seed=seed)
    pairs = [("cat", 0, 1), ("cat", 1, 2), ("cat", 2, 0), ("tvmonitor", 0, 1), ("tvmonitor", 1, 0)]
    for split in ("trn", "val", "test"):
        folder = base / "PairAnnotation" / split
        folder.mkdir(parents=True)
        names = []
        for number, pair in enumerate(pairs):
            name, content = spair_pair(number, *pair)
            names.append(name)
            (folder / f"{name}.json").write_text(json.dumps(content))
        if listed:
            for layout, chosen in (("large", names), ("small", names[:2])):
                listing = base / "Layout" / layout / f"{split}.txt"
                listing.parent.mkdir(parents=True, exist_ok=True)
                listing.write_bytes((newline.join(chosen) + newline).encode())
    return base


# PF-Pascal ------------------------------------------------------------------------------------------------------------

PASCAL_POINTS = {
    "2008_000006": [[10, 10], [30, 12], [np.nan, np.nan], [25.5, 30.25]],
    "2009_000007": [[12, 11], [np.nan, np.nan], [20, 40], [22, 35]],
    "2010_000008": [[5, 50], [28, 44], [14, 13], [7, 7]],
}
PASCAL_SIZES = {"2008_000006": (40, 60), "2009_000007": (60, 40), "2010_000008": (80, 33)}


def write_pf_pascal(root: Path, *, form: str = "ncnet") -> Path:
    """Write PF-Pascal.

    Args:
        root: folder to write to.
        form: "ncnet": image_pairs/{train,val,test}_pairs.csv beside PF-dataset-PASCAL, points in the test list;
            "reference": {trn,val,test}_pairs.csv in PF-PASCAL, points in Annotations alone.
    """
    ncnet = form == "ncnet"
    base = root / ("PF-dataset-PASCAL" if ncnet else "PF-PASCAL")
    lists = root / "image_pairs" if ncnet else base
    lists.mkdir(parents=True, exist_ok=True)
    for seed, (name, size) in enumerate(PASCAL_SIZES.items()):
        save_photo(base / "JPEGImages" / f"{name}.jpg", size, seed=seed, kind=KINDS[seed])
        file = base / "Annotations" / "cat" / f"{name}.mat"
        file.parent.mkdir(parents=True, exist_ok=True)
        savemat(file, {"kps": np.array(PASCAL_POINTS[name]), "bbox": np.array([[2.0, 3.0, 30.0, 35.0]])})
    a, b, c = (f"{base.name}/JPEGImages/{name}.jpg" for name in PASCAL_SIZES)
    (lists / ("train_pairs.csv" if ncnet else "trn_pairs.csv")).write_text(
        f"source_image,target_image,class,flip\r\n{a},{b},8,0\r\n{a},{b},8,1\r\n{b},{c},8,0\r\n"
    )
    (lists / "val_pairs.csv").write_text(f"source_image,target_image,class,flip\n{c},{a},8,0\n")
    if ncnet:
        text = f"source_image,target_image,class,XA,YA,XB,YB\n{a},{c},8,10;30;25.5,10;12;30.25,5;28;7,50;44;7\n"
    else:
        text = f"source_image,target_image,class\n{a},{c},8\n"
    (lists / "test_pairs.csv").write_text(text)
    return root


# PF-Willow ------------------------------------------------------------------------------------------------------------

WILLOW = {"car(G)": 3, "duck(S)": 2, "winebottle(woC)": 3}


def willow_points(subclass: str, number: int) -> np.ndarray:
    """Return the points (2, 10) of a photo."""
    rng = np.random.default_rng([len(subclass), number])
    return np.round(rng.uniform(1, 28, size=(2, 10)), 2)


def write_pf_willow(root: Path, *, listed: str | None = None) -> Path:
    """Write PF-Willow.

    Args:
        root: folder to write to.
        listed: list of pairs with "points" (one column per number), with "semicolons", or with "names" alone; None: no
            list.
    """
    base = root / "PF-dataset"
    for subclass, count in WILLOW.items():
        for number in range(count):
            size = (30, 40) if number % 2 else (44, 30)
            save_photo(base / subclass / f"060_{number:04d}.png", size, seed=number)
            savemat(base / subclass / f"060_{number:04d}.mat", {"pts_coord": willow_points(subclass, number)})
    if listed:
        header = ["imageA", "imageB"]
        sides = [(axis, side) for side in "AB" for axis in "XY"]
        if listed == "points":
            header += [f"{axis}{side}{i}" for axis, side in sides for i in range(1, 11)]
        elif listed == "semicolons":
            header += [axis + side for axis, side in sides]
        row = ["PF-dataset/car(G)/060_0000.png", "PF-dataset/car(G)/060_0002.png"]
        coordinates = [axis.copy() for n in (0, 2) for axis in willow_points("car(G)", n)]
        for axis in coordinates[2:]:
            axis[9] = -1  # padding
        if listed == "points":
            row += [f"{value:g}" for axis in coordinates for value in axis]
        elif listed == "semicolons":
            row += [";".join(f"{value:g}" for value in axis) for axis in coordinates]
        (root / "test_pairs.csv").write_text(",".join(header) + "\n" + ",".join(row) + "\n")
    return root


# AP-10K ---------------------------------------------------------------------------------------------------------------

ANIMALS = [  # species, family
    ("cat", "Felidae"), ("cat", "Felidae"), ("lion", "Felidae"), ("lion", "Felidae"), ("dog", "Canidae"),
    ("dog", "Canidae"), ("dog", "Canidae"),
]  # fmt: skip


def ap10k_animal(number: int) -> dict:
    rng = np.random.default_rng(number)
    keypoints = []
    for index in range(17):
        visible = rng.random() < 0.8 or index < 4
        keypoints += [*(rng.integers(4, 40, size=2).tolist() if visible else (0, 0)), 2 if visible else 0]
    return {"bbox": [2, 3, 40, 36], "keypoints": keypoints}


def write_ap10k(root: Path, *, split: str = "test") -> Path:
    """Write AP-10K in COCO's format; the last of its photos has two animals."""
    species = sorted({name for name, _ in ANIMALS})
    families = dict(ANIMALS)
    images, annotations = [], []
    for number, (name, _) in enumerate([*ANIMALS, ("cat", "Felidae")]):
        file = f"{number:012d}.jpg"
        save_photo(root / "data" / file, (48, 52), seed=number)
        images.append({"id": number, "file_name": file, "width": 52, "height": 48, "background": 1, "license": 1})
        animal = ap10k_animal(number)
        for second in range(1 + (number == len(ANIMALS))):
            annotations.append(
                {"id": 100 + number + second, "image_id": number, "category_id": species.index(name) + 1, "area": 1}
                | {"iscrowd": 0, "num_keypoints": sum(v > 0 for v in animal["keypoints"][2::3]), **animal}
            )
    categories = [
        {"id": i + 1, "name": name, "supercategory": families[name], "keypoints": ["nose"] * 17}
        for i, name in enumerate(species)
    ]
    folder = root / "annotations"
    folder.mkdir(parents=True)
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (folder / f"ap10k-{split}-split1.json").write_text(json.dumps(content))
    return root


def write_prepared_ap10k(root: Path) -> Path:
    """Write AP-10K as GeoAware's preparation leaves it."""
    for number, (name, family) in enumerate(ANIMALS):
        stem = f"{number:012d}"
        save_photo(root / "JPEGImages" / family / name / f"{stem}.jpg", (48, 52), seed=number)
        file = root / "ImageAnnotation" / family / name / f"{stem}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {"id": number, "file_name": f"{stem}.jpg", "width": 52, "height": 48, **ap10k_animal(number)}
        file.write_text(json.dumps(content))
    pairs = {"test": [(0, 1, "cat"), (4, 6, "dog")], "test_cross_species": [(0, 3, "Felidae")]}
    for folder, rows in pairs.items():
        (root / "PairAnnotation" / folder).mkdir(parents=True)
        for number, (source, target, group) in enumerate(rows):
            paths = [
                f"data/ap-10k/ImageAnnotation/{ANIMALS[i][1]}/{ANIMALS[i][0]}/{i:012d}.json" for i in (source, target)
            ]
            content = {"src_json_path": paths[0], "trg_json_path": paths[1], "category": group}
            name = f"{number}-{source:012d}-{target:012d}:{group}.json"
            (root / "PairAnnotation" / folder / name).write_text(json.dumps(content))
    return root


# a folder of the user's photos ----------------------------------------------------------------------------------------


def write_folder(root: Path, *, form: str = "json", boxes: bool = True) -> Path:
    """Write three photos and a file of points, points.json or points.csv."""
    for number, size in enumerate([(40, 60), (60, 40), (50, 50)]):
        save_photo(root / f"my photo {number}.jpg", size, seed=number, kind="EXIF" if number == 1 else "RGB")
    points = [
        {"left ear": [10, 12], "tail": [50.5, 30], "nose": None},
        {"left ear": [11, 13], "tail": [30, 50], "nose": [20, 20]},
        {"left ear": [9, 9], "tail": None, "nose": [25, 26]},
    ]
    if form == "json":
        photos = {
            f"my photo {n}.jpg": {"category": "cat", "points": photo} | ({"box": [2, 3, 38, 37]} if boxes else {})
            for n, photo in enumerate(points)
        }
        (root / "points.json").write_text(json.dumps({"photos": photos}))
    else:
        rows = ["photo,category,point,x,y"]
        for number, photo in enumerate(points):
            for name, point in photo.items():
                x, y = point or ("", "")
                rows.append(f"my photo {number}.jpg,cat,{name},{x},{y}")
        (root / "points.csv").write_text("\n".join(rows))
    return root
