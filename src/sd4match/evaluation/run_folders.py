"""Folders of runs: which kind of run a folder holds, and which files a run may replace.

A run replaces only files of an earlier run of its own kind, and a training only where that is asked for. Everything
else in a folder belongs to the user or to another run. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sd4match.config.experiment import load_config
from sd4match.documents import LARGEST_YAML, read_json
from sd4match.errors import InputError, SD4MatchError
from sd4match.io.files import check_no_link, check_output_file
from sd4match.paths import exists, is_file, is_folder, read_text, resolved

RunKind = Literal["training", "evaluation", "sweep", "demo"]

CONFIG_FILE, PROMPT_FILE, SCORES_FILE, CHECKPOINTS = "config.yaml", "prompt.safetensors", "scores.json", "checkpoints"
REPORT_FILES = ("report.json", "report.md", "report.csv", "report.tex")
PAGE_FILE, PAGE_MARK = "report.html", "sd4match report"
"""Page of a report, and the text that identifies such a page."""
DRAWING_FILES = {"alpha": "report-alpha.png", "categories": "report-categories.png", "pairs": "report-pairs.png"}
"""Files of the pictures of an evaluation, by kind."""
DEMO_PROMPT_FILE, DEMO_PICTURE = "single.safetensors", "pair.png"
DEMO_PHOTOS = ("source.png", "target.png")

CURVE_FILE, LOG_FILES = "loss.png", ("losses.csv", "validation.csv")

_HEAD_OF_PAGE = 1000
"""Number of first bytes of a page that contain its mark."""

_TRAINING_FILES = (CONFIG_FILE, CHECKPOINTS, *LOG_FILES, CURVE_FILE, *REPORT_FILES)
_FILES: Mapping[RunKind, tuple[str, ...]] = {
    "training": (PROMPT_FILE, *_TRAINING_FILES),
    "evaluation": (*REPORT_FILES, *DRAWING_FILES.values()),
    "sweep": REPORT_FILES,
    "demo": (DEMO_PROMPT_FILE, DEMO_PICTURE, *DEMO_PHOTOS, *_TRAINING_FILES),
}
"""Names of the files that a run writes."""
_REPORT_FIELDS: Mapping[str, RunKind] = {
    "training": "training", "seconds": "sweep", "best_step": "demo", "prompt_file": "evaluation",
}  # fmt: skip
"""Fields of a report that one kind of run writes."""
_NAMES = {
    "training": "a training", "evaluation": "an evaluation", "sweep": "a sweep", "demo": "a demo",
    "report": "a report", "unknown": "a report.json that is of no run",
}  # fmt: skip


def kind_of_report(fields: Mapping[str, Any]) -> RunKind | None:
    """Return the kind of run that a report is of, from its fields; None for a report that no command has made.

    >>> kind_of_report({"schema_version": 3, "prompt_file": None})
    'evaluation'
    """
    return next((kind for name, kind in _REPORT_FIELDS.items() if name in fields), None)


def kind_of_run(folder: Path) -> RunKind | Literal["unknown"] | None:
    """Return the kind of run that a folder holds; None if it holds none, "unknown" for a report of no command.

    >>> kind_of_run(Path("no-such-folder")) is None
    True
    """
    if _is_scores_file(folder / SCORES_FILE):
        return "sweep"
    if exists(folder / "report.json"):
        kind = kind_of_report(_report_fields(folder / "report.json") or {})
        return "demo" if kind == "training" and _is_of_demo(folder) else kind or "unknown"
    if holds_checkpoints(folder) or is_written_config(folder / CONFIG_FILE):
        return "demo" if _is_of_demo(folder) else "training"
    return None


def _is_of_demo(folder: Path) -> bool:
    """Return whether a training in a folder is that of a demo, which calls its prompt by another name."""
    return exists(folder / DEMO_PROMPT_FILE) and not exists(folder / PROMPT_FILE)


def check_run_folder(folder: Path, kind: RunKind, *, option: str = "--output") -> None:
    """Check, before any work is done, that a run replaces no other files in a folder.

    Args:
        folder: where the run writes; it need not exist.
        kind: kind of the run.
        option: name of the folder's option in messages.

    Raises:
        InputError: it holds another kind of run, or a file or folder of the run's names that no run has made.
    """
    found = kind_of_run(folder)
    is_new = found == "training" and not has_learned(folder)  # only a config, of a training or a demo
    if found not in (None, kind) and not (is_new and kind == "demo"):
        raise InputError(f"{option} {folder} holds {_NAMES[found]}, whose files would be lost: choose another folder")
    _check_nothing_in_the_way(folder, kind, option=option)
    if found is None:
        check_new(folder, _FILES[kind], option=option)


def check_maps_folder(maps: Path, output: Path) -> None:
    """Check that feature maps have a folder of their own.

    Raises:
        InputError: it is the folder of the report, or holds a run.
    """
    if exists(maps) and kind_of_run(maps) is not None:
        raise InputError(f"--maps {maps} holds a run: give a folder of its own for feature maps")
    if resolved(maps) == resolved(output):
        raise InputError(f"--maps {maps} is the folder of --output: give a folder of its own for feature maps")


def earlier_report(folder: Path) -> str | None:
    """Return a line that names the report that a command replaces; None if there is none."""
    file = folder / "report.json"
    if not is_file(file):
        return None
    written = datetime.fromtimestamp(file.stat().st_mtime)
    return f"Replaced: the report of {written:%Y-%m-%d %H:%M} in {folder}"


def check_resumed_folder(folder: Path, *, option: str = "--resume") -> None:
    """Check that a training can be resumed in a folder, even if its user has changed the config there.

    Raises:
        InputError: it holds another kind of run, results of a training without its checkpoints, or a file or folder is
            in the way.
    """
    found = kind_of_run(folder)
    if found not in (None, "training", "sweep"):
        raise InputError(f"{option} {folder} holds {_NAMES[found]}, not a training: its files would be lost")
    if not holds_checkpoints(folder) and (lost := _learned_file(folder)):
        raise InputError(
            f"{option} {folder} has no checkpoints to go on from, and a training from the start would replace its "
            f"{lost}: put {CHECKPOINTS}/ back, or train into another folder with --config {folder / CONFIG_FILE}"
        )
    _check_nothing_in_the_way(folder, "training", option=option)


def _check_nothing_in_the_way(folder: Path, kind: RunKind, *, option: str) -> None:
    for name in _FILES[kind]:
        path = folder / name
        if name != CHECKPOINTS:
            check_no_link(path, option=option)
        if exists(path) and not (is_folder(path) if name == CHECKPOINTS else is_file(path)):
            raise InputError(f"{option} {folder}: {name} in it is in the way: choose another folder, or move it away")


def check_sweep_folder(folder: Path, *, can_resume: Callable[[], bool]) -> None:
    """Check that the folder of one prompt of a sweep holds nothing else; see `check_run_folder`.

    Args:
        folder: folder of the prompt.
        can_resume: returns whether it holds the training of the sweep; called if its scores are damaged.

    Raises:
        InputError: it holds a run that is not of a sweep, or a file that no run has made.
    """
    if kind_of_run(folder) == "sweep":
        _check_nothing_in_the_way(folder, "training", option="--output")
    elif not exists(folder / SCORES_FILE):
        check_run_folder(folder, "sweep")
        check_new(folder, _FILES["training"])
    elif not can_resume():
        raise InputError(f"{folder / SCORES_FILE} is damaged, or of no sweep: move it away, or choose another --output")


def check_new(folder: Path, names: Iterable[str], *, option: str = "--output") -> None:
    """Check that a folder has no file of some names.

    Raises:
        InputError: it has one.
    """
    for name in names:
        if exists(folder / name) and name != CHECKPOINTS:
            raise InputError(
                f"{option} {folder}: {name} in it was not made by such a run, and would be lost: choose another "
                "folder, or move it away"
            )


def check_report_folder(folder: Path, fields: Mapping[str, Any]) -> None:
    """Check that a report replaces only reports of its own kind of run.

    Args:
        folder: where the report is written.
        fields: fields of the report.

    Raises:
        InputError: the folder holds another kind of report, or a file of these names that is none.
    """
    if not exists(folder / "report.json"):
        if kind_of_report(fields) not in ("training", "demo"):  # these have checked more before
            check_new(folder, REPORT_FILES, option="the report's folder")
        return
    values, kind = _report_fields(folder / "report.json"), kind_of_report(fields)
    found = "unknown" if values is None else kind_of_report(values) or "report"
    if kind == "demo" and found == "training" and _is_of_demo(folder):
        return  # the report of the training in this demo
    if values is None or found != (kind or "report"):
        raise InputError(f"{folder} holds {_NAMES[found]}, whose report would be lost: choose another folder")


def check_page_file(file: Path, *, option: str = "the page", inputs: Iterable[Path] = ()) -> Path:
    """Check that a page of a report replaces nothing but an earlier page of a report.

    Args:
        file: file of the page.
        option: name of its option in messages.
        inputs: files that are read; the page must be none of them.

    Raises:
        InputError: it is a link, a folder, an input, or an existing file that is no page of a report.
    """
    return check_output_file(file, option=option, inputs=inputs, is_own=_is_page, what="page of a report")


def _is_page(file: Path) -> bool:
    with file.open("rb") as content:
        return f'name="generator" content="{PAGE_MARK} '.encode() in content.read(_HEAD_OF_PAGE)


def holds_checkpoints(folder: Path) -> bool:
    """Return whether a folder holds checkpoints of a training."""
    return is_folder(folder / CHECKPOINTS) and any((folder / CHECKPOINTS).glob("step-*.safetensors"))


def has_learned(folder: Path) -> bool:
    """Return whether a folder holds results of a training: checkpoints, a prompt or a report."""
    return holds_checkpoints(folder) or any(exists(folder / name) for name in (PROMPT_FILE, "report.json"))


def has_steps(folder: Path) -> bool:
    """Return whether a training has logged a step in a folder."""
    return _lines(folder / LOG_FILES[0]) > 1  # below its header


def _learned_file(folder: Path) -> str | None:
    """Return the name of a file with what was learned: of a training that ended, or that validated after a step.

    A training that was killed before its first checkpoint has validated its initial prompt alone.
    """
    if exists(folder / "report.json"):
        return "report.json"
    if exists(folder / PROMPT_FILE) and (_lines(folder / LOG_FILES[1]) > 2 or not exists(folder / LOG_FILES[0])):
        return PROMPT_FILE
    return LOG_FILES[1] if _lines(folder / LOG_FILES[1]) > 2 else None


def _lines(file: Path) -> int:
    try:
        return read_text(file, what="log").count("\n")
    except SD4MatchError:
        return 0


def is_written_config(file: Path) -> bool:
    """Return whether a config file is as a training writes it, to the byte; one that a user has written is not."""
    try:
        text = read_text(file, what="config file", largest=LARGEST_YAML)
        return load_config(file).to_yaml() == text
    except SD4MatchError:
        return False


def _is_scores_file(file: Path) -> bool:
    try:
        content = read_json(file, what="scores")
    except InputError:
        return False
    return isinstance(content, dict) and {"config", "split", "fingerprint"} <= set(content)


def _report_fields(file: Path) -> dict[str, Any] | None:
    """Return the fields of a report; None if the file holds none."""
    try:
        content = read_json(file, what="report")
    except InputError:
        return None
    return content if isinstance(content, dict) and {"schema_version", "results"} <= set(content) else None
