"""Facts in aligned columns."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable

import typer

Fact = tuple[str, str]
"""Label and text."""


def print_facts(facts: Iterable[Fact], *, indent: int = 0, labels: int = 0) -> None:
    """Print a line for each fact, with all texts in one column; on a terminal, long ones are folded within it.

    Args:
        facts: labels and texts; a label may be empty.
        indent: number of spaces before each label.
        labels: width of the labels, if other facts are to be in the same columns.
    """
    rows = list(facts)
    start = indent + max((len(label) for label, _ in rows), default=0)
    start = max(start, labels) + 2
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for label, text in rows:
        typer.echo(_folded(f"{' ' * indent}{label}".ljust(start) + text, start, width).rstrip())


def _folded(line: str, start: int, width: int | None) -> str:
    if width is None or len(line) <= width:
        return line
    return textwrap.fill(
        line, max(width, start + 20), subsequent_indent=" " * start, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False, expand_tabs=False,
    )  # fmt: skip
