"""One row for each claim, and how a table of them is written down."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

ENOUGH = 0.92
"""Of the limit: what a ratio must reach where no figure is set for a size."""


@dataclass(frozen=True)
class Row:
    """What was compared, and what came of it."""

    what: str
    ours: str
    """Of a round: a time, a size."""
    loop: str
    """The same of the loop; "" where there is none."""
    ratio: float | None
    """How many times as fast as the loop, or as much as is allowed."""
    limit: float | None
    """What the arithmetic allows."""
    must: str
    reached: bool | None
    """None where nothing is asked."""
    note: str
    """What the loop does, and how far its result is from ours."""


def speed_row(
    what: str, *, ours: float, loop: float, ratio: float, limit: float, must: float | None = None, note: str
) -> Row:
    """Return a row that says how many times as fast ours is.

    Args:
        what: is compared.
        ours: seconds.
        loop: seconds.
        ratio: of the loop's time to ours.
        limit: of that, by what must be computed.
        must: the least ratio; `ENOUGH` of the limit, if not given.
        note: about the loop.
    """
    least = ENOUGH * limit if must is None else must
    return Row(what, duration(ours), duration(loop), ratio, limit, f">= {least:.2f} x", ratio >= least, note)


def duration(seconds: float) -> str:
    """With a unit that suits.

    >>> duration(0.00312), duration(2.5)
    ('3.1 ms', '2.50 s')
    """
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the table, and below it what each loop does."""
    lines = ["| what | ours | loop | ratio | limit | must | reached |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for number, row in enumerate(rows, 1):
        ratio, limit = (f"{value:.2f}" if value is not None else "" for value in (row.ratio, row.limit))
        reached = {True: "yes", False: "**no**", None: ""}[row.reached]
        lines.append(f"| {number}. {row.what} | {row.ours} | {row.loop} | {ratio} | {limit} | {row.must} | {reached} |")
    notes = [f"{number}. {row.note}" for number, row in enumerate(rows, 1) if row.note]
    return "\n".join([*lines, "", *notes])


def machine() -> dict[str, str]:
    """Return what the numbers depend on besides the code."""
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        names = [
            line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else model
    return {"device": device, "threads": str(torch.get_num_threads()), "torch": torch.__version__}


def save(folder: Path, name: str, title: str, rows: Sequence[Row], *, seconds: float) -> None:
    """Into `performance.json`, and between the marks of that name in `performance.md`."""
    stored = folder / "performance.json"
    tables = json.loads(stored.read_text()) if stored.is_file() else {}
    tables[name] = {"machine": machine(), "seconds": round(seconds), "rows": [asdict(row) for row in rows]}
    stored.write_text(json.dumps(tables, indent=1) + "\n")
    document = folder / "performance.md"
    text = document.read_text()
    begin, end = (f"<!-- {name}: {which} -->" for which in ("begin", "end"))
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    about = ", ".join(f"{value} {unit}" for unit, value in machine().items() if unit != "device")
    header = f"{title} {machine()['device']}, {about}; {seconds / 60:.0f} minutes in all."
    document.write_text(f"{before}{begin}\n{header}\n\n{to_markdown(rows)}\n{end}{after}")
