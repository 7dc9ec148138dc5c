"""`python -m benchmarks`: the quarter-width model, in minutes; `--full`: Stable Diffusion 2.1's architecture at 768.

Prints rows as they come, and writes them into docs/performance.json and docs/performance.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import memory, starting
from benchmarks.matching_rows import evaluation, growth, matching
from benchmarks.rows import Bench
from benchmarks.table import Row, save, to_markdown

DOCS = Path(__file__).parents[1] / "docs"


@dataclass(frozen=True)
class Size:
    """What is measured."""

    name: str
    title: str
    quarter: bool
    image_size: int
    members: int
    rounds: int
    reference: int
    at_once: tuple[int, ...] = (1, 3)
    dtype: str = "float32"


QUICK = Size("quick", "Quarter-width model at 384 x 384, ensemble 8, float32.", True, 384, 8, 3, 256)
FULL = Size("full", "Stable Diffusion 2.1's architecture at 768 x 768, ensemble 2, float32.", False, 768, 2, 3, 32)


def rows(size: Size) -> Iterator[Row]:
    """All rows of a table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench = Bench.load(
            folder, quarter=size.quarter, image_size=size.image_size, members=size.members, rounds=size.rounds,
            reference=size.reference, dtype=size.dtype,
        )  # fmt: skip
        yield from bench.rows()
        if size.quarter:
            yield from growth(bench.ours, members=1)
        del bench
        yield from memory.rows(str(folder), size.image_size, size.at_once)
    yield matching(pairs=1_000, rounds=1 if size.quarter else 3)
    yield from evaluation()
    yield from starting.rows()


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the whole architecture: half an hour on two cores")
    parser.add_argument("--members", type=int, help="of the ensemble")
    parser.add_argument("--image-size", type=int, help="side in pixels")
    parser.add_argument("--rounds", type=int, help="that count")
    parser.add_argument("--reference", type=int, help="passes whose mean few passes are compared with")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="of the UNet")
    parser.add_argument("--folder", type=Path, default=DOCS, help="where performance.md and performance.json are")
    options = parser.parse_args()
    changes = {
        name: value
        for name in ("members", "image_size", "rounds", "reference", "dtype")
        if (value := getattr(options, name)) is not None
    }
    chosen = FULL if options.full else QUICK
    size = Size(**{**vars(chosen), **changes})
    warnings.simplefilter("ignore")
    began, found = time.perf_counter(), []
    for row in rows(size):
        found.append(row)
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        verdict = {True: "", False: "  MISSED", None: ""}[row.reached]
        print(f"{row.what:64} {row.ours:>10} {row.loop:>10} {ratio:>6}  {row.must}{verdict}", flush=True)
    seconds = time.perf_counter() - began
    if changes:
        print(to_markdown(found))
    else:
        save(options.folder, size.name, size.title, found, seconds=seconds)


if __name__ == "__main__":
    main()
