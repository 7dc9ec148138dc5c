"""Training photos of `mini`: rendered on several cores into files of a thousand, and read while more are rendered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mini.captions import (
    CAPTIONS,
    MAX_LENGTH,
    MAX_PARTS,
    PLACES,
    Labels,
    build_tokenizer,
    caption_places,
    write_caption,
)
from mini.harder import HARDER
from sd4match.data.synthetic.scene import PLAIN, Scene, render

TRAINING_STREAM = 1_000
"""Seed of the training photos; `SyntheticPairs` uses other seeds."""
PHOTOS_A_FILE = 1_000
SIZE = 96
CELLS = 24
_CAPTION_STREAM = 7


@dataclass(frozen=True)
class Photos:
    """N photos with their captions."""

    pixels: Tensor
    """(N, 3, 96, 96) uint8."""
    coverage: Tensor
    """(N, 8, 24, 24) uint8: the part of a cell that a part covers, in units of 1/16."""
    tokens: Tensor
    """(N, 4, 77) int16: token ids of four captions a photo."""
    places: Tensor
    """(N, 4, 9) uint8: place of each part's word and of the category's in the caption, 0 if it is not mentioned."""


def render_files(folder: Path, count: int, *, workers: int, harder: float, distractors: float, absent: float) -> None:
    """Render photos into files, those that are there excepted.

    Args:
        folder: folder of the files.
        count: number of photos, a multiple of 1,000.
        workers: number of processes.
        harder: fraction of photos of the harder world.
        distractors: probability of a second object.
        absent: probability that a caption names parts of other categories too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (folder / f"{start // PHOTOS_A_FILE:05d}.npz", start, harder, distractors, absent)
        for start in range(0, count, PHOTOS_A_FILE)
    ]
    missing = [job for job in jobs if not job[0].exists()]
    with get_context("spawn").Pool(workers) as pool:
        for done, _ in enumerate(pool.imap_unordered(_write_file, missing), start=1):
            if done % 10 == 0 or done == len(missing):
                print(f"rendered {done * PHOTOS_A_FILE:,} of {len(missing) * PHOTOS_A_FILE:,} photos", flush=True)


def _write_file(job: tuple[Path, int, float, float, float]) -> None:
    """Render one file of photos; another process sees it when it is whole."""
    file, start, harder, distractors, absent = job
    tokenizer = build_tokenizer()
    pixels = np.empty((PHOTOS_A_FILE, SIZE, SIZE, 3), np.uint8)
    coverage = np.zeros((PHOTOS_A_FILE, MAX_PARTS, CELLS, CELLS), np.uint8)
    tokens = np.empty((PHOTOS_A_FILE, CAPTIONS, MAX_LENGTH), np.int16)
    places = np.empty((PHOTOS_A_FILE, CAPTIONS, PLACES), np.uint8)
    for row in range(PHOTOS_A_FILE):
        rng = np.random.default_rng([_CAPTION_STREAM, start + row])
        world = HARDER if rng.random() < harder else PLAIN
        scene = render(TRAINING_STREAM, start + row, distractors=distractors, world=world)
        labels = Labels.of(scene)
        captions = [write_caption(labels, rng, absent_words=absent) for _ in range(CAPTIONS)]
        ids = np.array(tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_LENGTH).input_ids)
        pixels[row], coverage[row] = scene.pixels, part_coverage(scene)
        tokens[row], places[row] = ids, caption_places(ids, labels, tokenizer)
    unfinished = file.with_suffix(".new.npz")
    np.savez(unfinished, pixels=pixels, coverage=coverage, tokens=tokens, places=places)
    unfinished.replace(file)


def part_coverage(scene: Scene) -> npt.NDArray[np.uint8]:
    """Count the pixels of each part in each cell.

    Returns:
        (8, 24, 24), in units of 1/16.
    """
    cell = SIZE // CELLS
    cells = scene.part_ids.reshape(CELLS, cell, CELLS, cell)
    counts = [(cells == part).sum(axis=(1, 3)) for part in range(1, MAX_PARTS + 1)]
    return np.stack(counts).astype(np.uint8)


def files_of(folder: Path) -> list[Path]:
    """Return the files that are whole, in order, up to the first that is missing."""
    found = []
    for number in range(len(list(folder.glob("*.npz"))) + 1):
        file = folder / f"{number:05d}.npz"
        if not file.exists():
            break
        found.append(file)
    return found


def read_files(folder: Path, first: int) -> Iterator[Photos]:
    """Yield the photos of the files from number `first` on that are there now."""
    for file in files_of(folder)[first:]:
        with np.load(file) as arrays:
            found = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        yield Photos(**(found | {"pixels": found["pixels"].permute(0, 3, 1, 2)}))


def wait_for(folder: Path, count: int) -> None:
    """Wait until the first `count` photos are rendered."""
    while len(files_of(folder)) * PHOTOS_A_FILE < count:
        time.sleep(0.5)
