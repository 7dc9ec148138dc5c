"""Command `sd4match compare`, which compares two reports on the same pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sd4match.cli.answer import Document


def command(
    a: Annotated[Path, typer.Argument(help="Report: its folder or its report.json.")],
    b: Annotated[Path, typer.Argument(help="Report on the same pairs.")],
    row_a: Annotated[str | None, typer.Option(help="Prompt whose result in A is compared; default: the first.")] = None,
    row_b: Annotated[str | None, typer.Option(help="Prompt whose result in B is compared.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Bootstrap samples.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> Document:
    """Compare two reports by a paired bootstrap. Refuses reports on other pairs or by another protocol."""
    from sd4match.evaluation.run import compare_reports
    from sd4match.evaluation.tables import comparisons_table

    comparisons = compare_reports(a, b, row_a=row_a, row_b=row_b, samples=samples, seed=seed)
    typer.echo(comparisons_table(comparisons))
    return [comparison.to_json() for comparison in comparisons]
