"""Walk through the documents as a newcomer: a fresh clone, then every command and program that they show, in order.

    python tools/walk.py FOLDER                # FOLDER must not exist; clones this repository into it
    python tools/walk.py FOLDER --only docs/how-to/train.md --clone .   # one document, in an environment that is there

Commands run as they are written, in a folder for each document, with the clone's `.venv/bin` on the PATH. What cannot
be had without a download gets a stand-in (`prepare`): small models with random weights under the names of the real
ones, and data sets in the real layouts. Commands that take longer than a walk should are shortened, and some are left
out; both are listed below with the reason, and printed. Exits with 1 if a command fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("make", "sd4match", "python", "accelerate", "torchrun", "ACCELERATE_USE_CPU=true")
"""First words of the lines of code blocks that are commands."""
OF_A_CLONE = ("make", "python -m robustness", "python -m benchmarks", "python tools/")
"""How commands begin that only a clone of the repository has; they run in it."""

SHORTENED = {
    "--steps 40000": ("--steps 110", "hours"),
    "train --preset cpm --track tensorboard": ("train --preset cpm --steps 3 --track tensorboard", "two minutes"),
    "train --preset class": ("train --preset class --steps 3", "two minutes"),
    "train --preset cpm --set prompt.start": ("train --preset cpm --steps 3 --set prompt.start", "two minutes"),
    "nproc_per_node 2 -m sd4match train --preset single": (
        "nproc_per_node 2 -m sd4match train --preset single --steps 3", "two minutes",
    ),
    "reproduce all": ("reproduce all --steps 1 --pairs 4 --seeds 0", "twenty minutes"),
    "reproduce table2 fig3a --seeds 0": ("reproduce table2 fig3a --seeds 0 --steps 1 --pairs 4", "ten minutes"),
    "train --dataset folder": ("train --steps 3 --dataset folder", "two minutes"),
    "sweep learning_rate": ("sweep --steps 2 --set data.pairs=20 learning_rate", "fifteen minutes"),
    "sweep evaluation.sampling.timestep=0:500:50": (
        "sweep --steps 2 --set data.pairs=20 evaluation.sampling.timestep=0:500:50", "ten minutes",
    ),
    "sweep prompts": ("sweep prompts --steps 2 --set data.pairs=20", "half an hour"),
    "make test-slow": ("make -n test-slow", "half an hour"),
    "make test-lowest": ("make -n test-lowest", "half an hour"),
    "make mutation": ("make -n mutation", "half an hour"),
    "make robustness": ("make -n robustness", "five minutes"),
    "make bench": ("make -n bench", "ten minutes"),
    "make check": ("make -n check", "the suite twice"),
}  # fmt: skip
"""What is replaced in a command, and how long it would take as written."""

LEFT_OUT = {
    "sd4match app": "serves a page until Ctrl-C; the suite's browser tests use it",
    "| jq": "needs jq",
    "--num_machines": "needs two machines",
    "reproduce table2 --on": "needs the weights and the data of the paper, and days",
    "reproduce table3 --on": "likewise",
    "--num_processes 3": "needs three devices and the weights of Stable Diffusion and DINOv2",
}
"""What a command contains that cannot run here, and why."""

FINDS = {"data check": "exits with 1 because it finds something"}
"""Commands that may exit with 1, and why."""


@dataclass
class Step:
    """A command or program of a document, and what became of it."""

    document: str
    text: str
    is_python: bool = False
    remark: str = ""
    seconds: float = 0.0
    code: int | None = None

    @property
    def first_line(self) -> str:
        """The command, or the first line of the program."""
        return self.text.strip().splitlines()[0]


def steps_of(document: str, text: str) -> Iterator[Step]:
    r"""Yield the commands and programs of a Markdown file in order.

    >>> [step.text for step in steps_of("a.md", "```\nsd4match doctor   # all\n```")]
    ['sd4match doctor']
    """
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language == "python":
            yield Step(document, block, is_python=True)
        elif language in ("", "bash", "console", "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.removeprefix("$ ")
                if line.split(" ", 1)[0] in PROGRAMS:
                    yield Step(document, re.sub(r"\s+#.*", "", line))


def shorten(step: Step) -> Step:
    """Replace what would take too long, and say so."""
    for long, (short, reason) in SHORTENED.items():
        if not step.is_python and long in step.text:
            step.text, step.remark = step.text.replace(long, short), f"shortened, takes {reason}"
    return step


def documents(clone: Path) -> list[str]:
    """Return README, then the documents in the order in which README names them, then the others."""
    readme = (clone / "README.md").read_text()
    named = [link for link in re.findall(r"\]\((docs/[\w/.-]+\.md)\)", readme) if "decisions" not in link]
    others = sorted(
        str(file.relative_to(clone)) for file in (clone / "docs").rglob("*.md") if "decisions" not in file.parts
    )
    return list(dict.fromkeys(["README.md", *named, *others, "CONTRIBUTING.md"]))


def prepare(clone: Path, folder: Path) -> None:
    """Write the stand-ins of everything that documents name, with the clone's own Python and helpers."""
    program = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, "tests")
from helpers.layouts import write_folder, write_pf_willow
from helpers.model_folders import write_random_model
from helpers.small_presets import write_small_models
from sd4match.data import SyntheticConfig
folder = Path(sys.argv[1])
write_small_models(folder / "models")
files = folder / "files"
write_random_model(files / "path" / "to" / "stable-diffusion-2-1")
write_pf_willow(files)
write_folder(files / "photos")
published = files / "Single_spair_sd2-1_TokenEmbeds75"
published.mkdir()
torch.save({"spair": torch.randn(1, 77, 1024)}, published / "caption.pt")
data = SyntheticConfig(split="test").build()
for number, names in enumerate((("A.jpg", "a.png"), ("B.jpg", "b.png"))):
    for name in names:
        data.photo(f"fish-{number}").to_image().resize((320, 240)).save(files / name)
"""
    run = [clone / ".venv/bin/python", "-c", program, str(folder)]
    subprocess.run(run, cwd=clone, check=True, env=environment(clone, folder))
    files = folder / "files"
    make = [clone / ".venv/bin/sd4match", "data", "make-synthetic", "--pairs", "12", "--photos", "4", "--size", "128"]
    subprocess.run([*make, str(files / "SPair-71k")], check=True, env=environment(clone, folder), capture_output=True)
    (files / "path/to/SPair-71k").symlink_to(files / "SPair-71k")


def environment(clone: Path, folder: Path) -> dict[str, str]:
    """Return the variables of a newcomer's shell: the clone's programs first, no hub, no terminal."""
    return {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
        "PATH": f"{clone / '.venv/bin'}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1",
        "SD4MATCH_MODELS": str(folder / "models"), "SD4MATCH_CACHE": str(folder / "cache"), "MPLBACKEND": "agg",
    }  # fmt: skip


def work_folder(folder: Path, document: str, text: str) -> Path:
    """Return a document's folder with the stand-ins, and README's training if the document takes it for granted."""
    place = folder / "work" / document.removesuffix(".md").replace("/", "-")
    if not place.exists():
        shutil.copytree(folder / "files", place, symlinks=True)
        trained = folder / "work" / "README" / "runs" / "single"
        if "--output runs/single " not in text and trained.is_dir():
            shutil.copytree(trained, place / "runs" / "single")
    return place


def run(step: Step, clone: Path, folder: Path, log: Path, *, timeout: float) -> None:
    """Run a step where a newcomer would, and keep what it prints."""
    reason = next((why for part, why in LEFT_OUT.items() if part in step.text), None)
    if reason:
        step.remark = f"left out: {reason}"
        return
    text = (clone / step.document).read_text()
    place = clone if step.text.startswith(OF_A_CLONE) else work_folder(folder, step.document, text)
    command: list[str | Path] = ["bash", "-c", shorten(step).text]
    if step.is_python:
        program = place / f"program-{abs(hash(step.text)) % 10**8}.py"
        program.write_text(step.text)
        command = [clone / ".venv/bin/python", program]
    started = time.perf_counter()
    with log.open("a") as output:
        output.write(f"\n$ {step.text}\n")
        output.flush()
        try:
            step.code = subprocess.run(
                command, cwd=place, env=environment(clone, folder), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, timeout=timeout, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            step.code, step.remark = 124, f"took longer than {timeout:.0f} s"
    step.seconds = time.perf_counter() - started
    for command, reason in FINDS.items():
        if step.code == 1 and command in step.text:
            step.code, step.remark = 0, reason


def main() -> None:
    """Clone, set up, walk, and print what became of every step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to work; must not exist")
    parser.add_argument("--clone", type=Path, help="a clone with its .venv, instead of a fresh one: no demo, no suite")
    parser.add_argument("--only", action="append", help="only this document; may be repeated")
    parser.add_argument("--timeout", type=float, default=900, help="seconds that a step may take")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if folder.exists():
        raise SystemExit(f"{folder} exists: give a folder that does not")
    folder.mkdir(parents=True)
    clone = arguments.clone.resolve() if arguments.clone else folder / "sd4match"
    log = folder / "walk.log"
    if not arguments.clone:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        step = Step("README.md", "make demo")
        run(step, clone, folder, log, timeout=3600)
        show(step)
        if step.code:
            raise SystemExit(f"make demo failed: see {log}")
    prepare(clone, folder)
    steps = [
        step
        for document in arguments.only or documents(clone)
        for step in steps_of(document, (clone / document).read_text())
        if step.text != "make demo" and not (arguments.clone and step.text == "make test")
    ]
    for step in steps:
        run(step, clone, folder, log, timeout=arguments.timeout)
        show(step)
    failed = [step for step in steps if step.code]
    print(
        f"{len(steps)} steps: {sum(step.code == 0 for step in steps)} ran, {len(failed)} failed, "
        f"{sum(step.code is None for step in steps)} left out, {sum('shortened' in step.remark for step in steps)} "
        f"shortened; what they printed: {log}"
    )
    sys.exit(1 if failed else 0)


def show(step: Step) -> None:
    """Print a step's result as one line."""
    state = "left out" if step.code is None else "ran" if step.code == 0 else f"FAILED with {step.code}"
    remark = f"  ({step.remark.removeprefix('left out: ')})" if step.remark else ""
    kind = "python: " if step.is_python else ""
    print(f"{state:<9} {step.seconds:6.1f} s  {step.document}: {kind}{step.first_line}{remark}", flush=True)


if __name__ == "__main__":
    main()
