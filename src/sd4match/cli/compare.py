"""`sd4match compare`: two reports on the same pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    a: Annotated[Path, typer.Argument(help="A report: its folder or its report.json.")],
    b: Annotated[Path, typer.Argument(help="Another one, on the same pairs.")],
    row_a: Annotated[str | None, typer.Option(help="Which result of A, by its prompt; without: the first.")] = None,
    row_b: Annotated[str | None, typer.Option(help="Which result of B.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Compare two reports by a paired bootstrap; refuses reports on other pairs or by another protocol."""
    import json

    from sd4match.evaluation.run import compare_reports
    from sd4match.evaluation.tables import comparisons_table

    rows = compare_reports(a, b, row_a=row_a, row_b=row_b, samples=samples, seed=seed)
    typer.echo(json.dumps(rows, indent=2) if as_json else comparisons_table(rows))
