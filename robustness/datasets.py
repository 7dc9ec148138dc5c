"""Damaged data sets of every kind: what `data check` does not report must be read as it was meant."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.layouts import (
    write_ap10k,
    write_folder,
    write_pf_pascal,
    write_pf_willow,
    write_prepared_ap10k,
    write_spair,
)
from robustness.cases import Case, CommandError, input_is_ready
from robustness.damage import binary_damages, json_text, text_damages, value_damages
from sd4match.data import check_split
from sd4match.errors import DatasetError
from sd4match.registry import datasets

GROUP = "data sets"
_ROW_DAMAGES: dict[str, Callable[[list[str]], list[str]]] = {
    "a row twice": lambda rows: [*rows, rows[1]],
    "no rows": lambda rows: rows[:1],
    "no header": lambda rows: rows[1:],
    "a column less in a row": lambda rows: [rows[0], rows[1].rpartition(",")[0], *rows[2:]],
    "a column more in a row": lambda rows: [rows[0], rows[1] + ",7", *rows[2:]],
    "a column twice in the header": lambda rows: [f"{rows[0]},{rows[0].rpartition(',')[2]}", *rows[1:]],
    "a renamed column": lambda rows: [rows[0] + "x", *rows[1:]],
    "semicolons": lambda rows: [row.replace(",", ";") for row in rows],
    "a field of 200,000 characters": lambda rows: [rows[0], "x" * 200_000 + rows[1], *rows[2:]],
    "text for the last field": lambda rows: [rows[0], rows[1].rpartition(",")[0] + ",wide", *rows[2:]],
    "NaN for the last field": lambda rows: [rows[0], rows[1].rpartition(",")[0] + ",nan", *rows[2:]],
    "infinity for the last field": lambda rows: [rows[0], rows[1].rpartition(",")[0] + ",inf", *rows[2:]],
    "a huge last field": lambda rows: [rows[0], rows[1].rpartition(",")[0] + "," + "9" * 400, *rows[2:]],
    "nothing in the first field": lambda rows: [rows[0], "," + rows[1].partition(",")[2], *rows[2:]],
    "a photo above the folder": lambda rows: [rows[0], "../../x.jpg," + rows[1].partition(",")[2], *rows[2:]],
}


def _findings(kind: str, root: Path) -> list[str]:
    """Return what the check of every split says, notes included, without the path of the folder."""
    config = datasets.parse({"kind": kind, "root": str(root)})
    problems = []
    for split in config.splits:  # type: ignore[attr-defined]
        load = datasets.parse({"kind": kind, "root": str(root), "split": split}).build
        problems += [finding.text for finding in check_split(load, split)]
    return [problem.replace(str(root), "data") for problem in problems]


def _read(kind: str, root: Path) -> list[Any]:
    """Read every pair of every split; return points, boxes, sizes and categories."""
    found: list[Any] = []
    config = datasets.parse({"kind": kind, "root": str(root)})
    for split in config.splits:  # type: ignore[attr-defined]
        try:
            dataset = datasets.parse({"kind": kind, "root": str(root), "split": split}).build()
        except DatasetError:
            continue
        for record in dataset:
            visible = record.visible
            found += [record.pair_id, record.category, record.target_category, record.source_box, record.target_box]
            found += [record.source_size, record.target_size, visible]
            found += [record.source_points[visible], record.target_points[visible]]
    return found


def cases(base: Path) -> Iterator[Case]:
    """Yield damages of the first file of each sort of every layout."""
    layouts: dict[str, tuple[str, Callable[[Path], Any], tuple[str, ...]]] = {
        "SPair-71k": ("spair", write_spair, ("*/PairAnnotation/test/*.json", "*/Layout/large/test.txt")),
        "PF-Pascal": ("pf_pascal", write_pf_pascal, ("image_pairs/*.csv", "*/Annotations/*/*.mat")),
        "PF-Willow": (
            "pf_willow", lambda root: write_pf_willow(root, listed="points"), ("test_pairs.csv", "*/*/*.mat"),
        ),
        "AP-10K": ("ap10k", write_ap10k, ("annotations/*.json",)),
        "prepared AP-10K": (
            "ap10k", write_prepared_ap10k, ("PairAnnotation/test/*.json", "ImageAnnotation/*/*/*.json"),
        ),
        "own folder": ("folder", write_folder, ("points.json",)),
        "own folder, CSV": ("folder", lambda root: write_folder(root, form="csv"), ("points.csv",)),
    }  # fmt: skip
    for name, (kind, write, patterns) in layouts.items():
        root = base / name / "data"
        write(root)
        for pattern in patterns:
            file = min(root.glob(pattern))
            for what, content in _damages(file):
                case = _case(f"{name}: {file.name}: {what}", kind, root, file.relative_to(root), content)
                yield replace(case, may_differ=_means_something_else(what, file.name))
        photo = min([*root.rglob("*.jpg"), *root.rglob("*.png")])
        for what, content in binary_damages(photo.read_bytes()):
            if what != "one byte less":
                yield _case(f"{name}: {photo.name}: {what}", kind, root, photo.relative_to(root), content)


def _damages(file: Path) -> Iterator[tuple[str, bytes]]:
    if file.suffix == ".mat":
        yield from binary_damages(file.read_bytes())
        return
    text = file.read_text()
    yield from text_damages(text)
    if file.suffix == ".json":
        for what, value in value_damages(json.loads(text), per_kind=1):
            yield what, json_text(value).encode(errors="surrogatepass")
        key = next(iter(json.loads(text)))
        yield "the first key twice", text.replace("{", f'{{"{key}": 1, ', 1).encode()
    elif file.suffix == ".csv":
        rows = text.splitlines()
        for what, change in _ROW_DAMAGES.items():
            yield what, "\n".join(change(rows)).encode()
        yield "decimal commas", text.replace(".5", ",5").replace("12", "12,5").encode()
    else:
        rows = text.splitlines()
        yield "a line twice", "\n".join([*rows, rows[0]]).encode()
        yield "a line of another pair", "\n".join([*rows, "000000-no-such:cat"]).encode()


def _means_something_else(damage: str, file: str) -> bool:
    """Return whether a damaged file is a right one of another content, such as one point less."""
    if file == "points.json":
        return damage.startswith(("drop photos.", "rename photos.", "null for photos.")) and ".jpg" in damage
    return file == "points.csv" and damage in ("truncated to a half", "one byte less")


_undamaged: dict[Path, tuple[set[str], list[Any]]] = {}


def _case(name: str, kind: str, root: Path, file: Path, content: bytes) -> Case:
    if root not in _undamaged:
        _undamaged[root] = set(_findings(kind, root)), _read(kind, root)
    known, right = _undamaged[root]

    def act(folder: Path) -> object:
        shutil.copytree(root, folder / "data")
        (folder / "data" / file).write_bytes(content)
        input_is_ready(may_change=("data/sd4match-pairs",))
        problems = [problem for problem in _findings(kind, folder / "data") if problem not in known]
        if problems:
            raise CommandError("; ".join(problems))
        return _read(kind, folder / "data")

    return Case(GROUP, name, act, (file.name, file.stem, "data", "pair "), right=right)
