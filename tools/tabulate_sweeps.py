"""Tabulate `sd4match sweep prompts` of several seeds: PCK@0.1 per image, with intervals over pairs and seeds.

    python tools/tabulate_sweeps.py "first edition=runs/old-0,runs/old-1" "second edition=runs/new-0,runs/new-1"

Each argument is a name and the folders of its seeds. The bootstrap draws pairs, the same for all prompts and seeds, and
seeds; differences are paired over both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sd4match.evaluation.seeds import difference_values, estimate

ALPHA = 0.1
SAMPLES = 10_000
DIFFERENCES = [
    ("single", "text"), ("class", "text"), ("cpm", "text"), ("implicit-captioner", "text"), ("class", "single"),
    ("cpm", "single"), ("cpm", "class"), ("cpm", "cpm-global-features"), ("cpm", "cpm-single-image"),
    ("cpm", "cpm-single-image-global-features"), ("cpm", "cpm-no-global-prompt"), ("cpm", "cpm-no-patch-mixing"),
]  # fmt: skip

Values = npt.NDArray[np.float64]


def read(folders: list[Path]) -> Mapping[str, Values]:
    """Return the PCK of each prompt by seed and pair, (S, P), in percent.

    Raises:
        SystemExit: the sweeps are of different pairs.
    """
    reports = [json.loads((folder / "report.json").read_text()) for folder in folders]
    if len({tuple(result["counts"]["pair_ids"]) for report in reports for result in report["results"]}) != 1:
        raise SystemExit(f"the sweeps in {', '.join(map(str, folders))} are of different pairs")
    values: dict[str, list[Values]] = {}
    for report in reports:
        for result in report["results"]:
            counts = result["counts"]
            correct = np.array(counts["correct"])[:, counts["alphas"].index(ALPHA)]
            values.setdefault(result["prompt"], []).append(100 * correct / np.array(counts["visible"]))
    return {prompt: np.stack(seeds) for prompt, seeds in values.items()}


def interval(values: Values, *, sign: str = "", seed: int = 0) -> str:
    """Return the mean and its 95 % bootstrap interval over seeds and pairs, of values (S, P); `sign` is "" or "+"."""
    found = estimate(values, samples=SAMPLES, seed=seed)
    low, high = found.ci95
    return f"{found.mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def tables(editions: Mapping[str, Mapping[str, Values]]) -> str:
    """Return the table of prompts and that of their differences, Markdown."""
    names = list(editions)
    head = f"{' | '.join(names)} |\n| --- |{' --- |' * len(names)}"
    prompts = [prompt for prompt in editions[names[0]] if all(prompt in values for values in editions.values())]
    lines = [f"| prompt | {head}"]
    for prompt in prompts:
        found = [f"{interval(values[prompt])} ({_each(values[prompt])})" for values in editions.values()]
        lines.append(f"| {prompt} | {' | '.join(found)} |")
    lines += ["", f"| difference | {head}"]
    for one, other in DIFFERENCES:
        if one in prompts and other in prompts:
            found = [interval(difference_values(values[one], values[other]), sign="+") for values in editions.values()]
            lines.append(f"| {one} - {other} | {' | '.join(found)} |")
    return "\n".join(lines)


def _each(values: Values) -> str:
    """Return the mean of each seed."""
    return ", ".join(f"{mean:.1f}" for mean in values.mean(axis=1))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+", metavar="NAME=FOLDER,FOLDER", help="folders of one sweep for each seed")
    editions = {}
    for each in parser.parse_args().sweeps:
        name, _, folders = each.partition("=")
        editions[name] = read([Path(folder) for folder in folders.split(",")])
    print(tables(editions))


if __name__ == "__main__":
    main()
