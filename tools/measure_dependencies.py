"""Measure what each dependency of pyproject.toml costs: files, what leaving it out would save, time of its import.

Sizes are those of the files that pip recorded, without bytecode. What leaving a package out would save also counts the
packages that nothing else needs; it is 0 if another dependency needs it. The time is the processor time of a new
process that imports what this project imports, less that of an empty process, the least of three. Run it in an
environment with the tested versions: `.venv/bin/python tools/measure_dependencies.py`.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
IMPORTS = {
    "torch": "import torch",
    "diffusers": "from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel",
    "transformers": "from transformers import CLIPTextModel, CLIPTokenizer",
    "huggingface-hub": "from huggingface_hub import snapshot_download",
    "pillow": "from PIL import Image",
    "pyyaml": "import yaml",
    "matplotlib": "from matplotlib.figure import Figure",
    "scipy": "from scipy.io import loadmat; from scipy.linalg import eigh; from scipy.ndimage import label",
}
"""What this project imports of a package, where it is not the package itself."""


def normal(name: str) -> str:
    """Return the name of a package as an index spells it.

    >>> normal("huggingface_hub")
    'huggingface-hub'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def with_dependencies(names: list[str]) -> set[str]:
    """Return packages with all that they need."""
    found: set[str] = set()
    left = [(normal(name), ("",)) for name in names]
    while left:
        name, extras = left.pop()
        if name in found:
            continue
        found.add(name)
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                left.append((normal(needed.name), ("", *needed.extras)))
    return found


def megabytes(names: set[str]) -> float:
    """Return the size of the files of packages."""
    files = [Path(str(file.locate())) for name in names for file in distribution(name).files or []]
    return sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc") / 1e6


def import_seconds(code: str) -> float:
    """Return the processor time of a new process that runs code, the least of three."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(times)


def main() -> None:
    """Print one row per dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [Requirement(text).name for text in project["dependencies"]]
    everything = with_dependencies(names)
    empty = import_seconds("pass")
    print(f"all: {megabytes(everything):.0f} MB in {len(everything)} packages\n")
    print("| package | size, MB | saved without it, MB | import, s |\n| --- | --- | --- | --- |")
    for name in map(normal, names):
        saved = everything - with_dependencies([other for other in names if normal(other) != name])
        seconds = import_seconds(IMPORTS.get(name, f"import {name.replace('-', '_')}")) - empty
        print(f"| {name} | {megabytes({name}):.1f} | {megabytes(saved):.1f} | {max(seconds, 0):.1f} |", flush=True)


if __name__ == "__main__":
    main()
