"""Damaged reports, given to `compare`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from helpers.command_line import sets
from robustness.cases import Case, input_is_ready, run_command
from robustness.damage import json_text, text_damages, value_damages
from sd4match.evaluation import compare_reports

_SMALL = ["data.photos_per_category=3", "evaluation.bootstrap_samples=20"]
_DESCRIPTIVE = ("created", "library", "machine", "versions", "name", "note", "title", "seconds", "date", "prompt")


def cases(base: Path) -> Iterator[Case]:
    """Yield damages of the text and of every value of a report."""
    run_command("evaluate", "--preset", "mini-empty", "--limit", 3, "--output", base / "good", *sets(*_SMALL))
    text = (base / "good" / "report.json").read_text()

    def compared(path: Path) -> list[object]:
        comparisons = compare_reports(path, base / "good", row_a=None, row_b=None, samples=1, seed=0)
        entries = [comparison.to_json() for comparison in comparisons]
        return [[entry[name] for name in ("metric", "difference", "ci95")] for entry in entries]

    right = compared(base / "good")

    def case(name: str, content: bytes, *, differ: bool = False) -> Case:
        def act(folder: Path) -> list[object]:
            (folder / "report.json").write_bytes(content)
            input_is_ready()
            return compared(folder / "report.json")

        return Case("reports", name, act, ("report.json",), right=right, may_differ=differ)

    for name, damaged in text_damages(text):
        yield case(name, damaged)
    for name, value in value_damages(json.loads(text), per_kind=1):
        # words that only describe the run are shown as they are written
        differ = any(word in name for word in _DESCRIPTIVE)
        yield case(name, json_text(value).encode(errors="surrogatepass"), differ=differ)
