"""Count how public docstrings are written: openings, `Args`, examples, ruff's findings, retired words in names.

Public is what `tests/public_surface.json` names, and the methods and properties that those classes define. Run
`python tools/count_docstrings.py`, with `--missing` to list what lacks `Args` or an example, with `--draw SEED` to
print twenty docstrings drawn at random, and with `--src FOLDER` for another checkout's sources.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
OPENERS = {
    "a", "about", "above", "across", "after", "against", "along", "among", "an", "around", "as", "at", "before",
    "behind", "below", "beneath", "beside", "between", "beyond", "by", "down", "during", "except", "for", "from",
    "how", "in", "inside", "into", "like", "near", "of", "off", "on", "onto", "out", "outside", "over", "past",
    "per", "since", "than", "that", "the", "through", "throughout", "till", "to", "toward", "towards", "under",
    "until", "up", "upon", "via", "what", "whatever", "when", "where", "whether", "which", "who", "whoever", "whom",
    "whose", "why", "with", "within", "without",
}  # fmt: skip
"""Articles, prepositions, and relative pronouns and adverbs, with which no docstring opens."""
RETIRED = (
    "slots", "global_slots", "token_budget", "frame_ids", "vocabulary", "deviation", "Measurement", "Rule", "Settings",
    "Latents", "laid", "placed", "place", "places", "part", "parts", "kept", "sort", "one", "Checkpoint", "Learns",
    "KnowsFloor", "HasReadings", "EncodesByWeights", "LooksAtPhotos", "FindsPlaces", "ReadsCorners", "floor",
    "readings", "excess", "Watch", "Journal", "Sums", "BatchPlan", "Ahead", "StopRequest", "_resting",
    "_sketch", "take_over",
)  # fmt: skip
"""Words that were replaced in names, where they are a whole identifier."""
RETIRED_FILES = (
    "protocols", "settings", "looking", "reading", "listed", "splice", "artifact", "reference", "fixed", "frames",
    "journal", "gradient",
)  # fmt: skip
"""Names of modules that were replaced."""

EXCEPTIONS = {
    "Checkpoint: sd4match/training/checkpoint.py": "public; a state of a training, and no known model",
    "floor: sd4match/backbones/config.py": "public field of HogConfig, in the word's usual sense",
    "kept: sd4match/evaluation/scores.py": "field of the files of scores",
    "part: sd4match/data/synthetic/anatomy.py": "of a drawn object",
    "part: sd4match/data/synthetic/scene.py": "likewise",
    "parts: sd4match/data/synthetic/anatomy.py": "likewise",
    "protocols.py: sd4match/config/protocols.py": "of evaluation protocols; the retired module was of interfaces",
    "settings.py: sd4match/reproduction/settings.py": "of ReproductionSettings, which is public",
    "sort: sd4match/cli/components.py": "argument of the command line",
    "sort: sd4match/registry.py": "public attribute of a registry",
}
"""Retired words that stay, and why."""


def public_objects() -> dict[str, object]:
    """Return every public module, function, class, method and property once, by the name it is defined under."""
    found: dict[str, object] = {}
    surface = json.loads((ROOT / "tests" / "public_surface.json").read_text())
    for module_name, names in surface.items():
        module = importlib.import_module(module_name)
        found[module_name] = module
        for name in names:
            value = getattr(module, name)
            if isinstance(value, ModuleType) or not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            if not value.__module__.startswith("sd4match"):
                continue
            found.setdefault(f"{value.__module__}.{value.__qualname__}", value)
            if inspect.isclass(value):
                for key, member in _members(value):
                    found.setdefault(f"{value.__module__}.{value.__qualname__}.{key}", member)
    return found


def _members(cls: type) -> Iterator[tuple[str, object]]:
    for key, member in vars(cls).items():
        if key.startswith("_"):
            continue
        if isinstance(member, (classmethod, staticmethod)):
            member = member.__func__
        if isinstance(member, property) or (
            inspect.isfunction(member) and member.__name__ == key and member.__module__.startswith("sd4match")
        ):
            yield key, member


def parameters(value: object) -> list[str]:
    """Return the names of a function's parameters, without `self`, `cls`, `*args` and private ones."""
    if not inspect.isfunction(value):
        return []
    return [name for name in inspect.signature(value).parameters if name not in ("self", "cls")]


def opening(docstring: str) -> str:
    """Return the first word of a docstring in small letters."""
    found = re.match(r"[A-Za-z]+", docstring.strip())
    return found.group().lower() if found else ""


def identifiers(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield every name that the sources define: classes, functions, arguments, variables, attributes."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                yield node.name, file
            elif isinstance(node, ast.arg):
                yield node.arg, file
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id, file
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield node.attr, file


def ruff_findings(folder: Path) -> dict[str, int]:
    """Return how often ruff finds D401 and D417, with google's convention and nothing ignored in the files."""
    found = {}
    for rule in ("D401", "D417"):
        command = [
            str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--no-cache", "--output-format=json",
            "--select", rule,
            "--config", "lint.pydocstyle.convention='google'", "--ignore-noqa", str(folder),
        ]  # fmt: skip
        found[rule] = len(json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout))
    return found


def retired_names(folder: Path) -> list[str]:
    """Return the retired words that are identifiers or names of modules, with their files."""
    files = sorted(folder.rglob("*.py"))
    found = {f"{name}: {file.relative_to(folder)}" for name, file in identifiers(folder) if name in RETIRED}
    return sorted(found | {f"{file.name}: {file.relative_to(folder)}" for file in files if file.stem in RETIRED_FILES})


def share(part: int, whole: int) -> str:
    """Return a count, what it is of, and the percentage."""
    return f"{part} of {whole} ({100 * part / max(whole, 1):.0f} %)"


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--src", type=Path, default=ROOT / "src", help="sources to count; default: this checkout's")
    parser.add_argument("--missing", action="store_true", help="list what has no Args and what has no example")
    parser.add_argument("--draw", type=int, metavar="SEED", help="print twenty docstrings drawn at random")
    options = parser.parse_args()
    sys.path.insert(0, str(options.src))
    objects = public_objects()
    docstrings = {name: inspect.getdoc(value) or "" for name, value in objects.items()}  # of its base, for an override
    if options.draw is not None:
        for name in random.Random(options.draw).sample(sorted(docstrings), 20):
            print(f"### {name}\n\n```\n{docstrings[name]}\n```\n")
        return
    classes = [name for name, value in objects.items() if inspect.isclass(value)]
    callables = [name for name, value in objects.items() if inspect.isfunction(value)]
    functions = [name for name in callables if "." not in objects[name].__qualname__]
    with_parameters = [name for name in callables if parameters(objects[name])]
    found = {
        "odd opening": [name for name, text in docstrings.items() if opening(text) in OPENERS],
        "no Args": [name for name in with_parameters if "Args:" not in docstrings[name]],
        "function without an example": [name for name in functions if ">>>" not in docstrings[name]],
        "class without an example": [name for name in classes if ">>>" not in docstrings[name]],
    }
    print(f"public docstrings: {len(docstrings)}; without one: {sum(not text for text in docstrings.values())}")
    odd = share(len(found["odd opening"]), len(docstrings))
    print(f"open with an article, a preposition or a relative pronoun: {odd}")
    for title, key, names in (
        ("functions and methods with parameters that have Args", "no Args", with_parameters),
        ("functions with an example", "function without an example", functions),
        ("classes with an example", "class without an example", classes),
    ):
        print(f"{title}: {share(len(names) - len(found[key]), len(names))}")
    for rule, count in ruff_findings(options.src).items():
        print(f"{rule}: {count}")
    retired = retired_names(options.src)
    print(f"retired words in identifiers: {sum(name not in EXCEPTIONS for name in retired)}")
    print(*(f"  {name} ({EXCEPTIONS.get(name, 'to be renamed')})" for name in retired), sep="\n")
    if options.missing:
        for title, names in found.items():
            print(f"\n{title}:", *sorted(names), sep="\n  ")


if __name__ == "__main__":
    main()
