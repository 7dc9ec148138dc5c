"""Results of a reproduction as JSON and as a page of Markdown: ours beside the paper's, and which claims hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sd4match.evaluation.seeds import Estimate
from sd4match.evaluation.tables import MINI_NOTE, markdown_table, percent

if TYPE_CHECKING:
    from sd4match.reproduction.claims import Judged
    from sd4match.reproduction.run import Cell, Reproduction

SCHEMA_VERSION = 1
PAPER = "SD4Match (arXiv 2310.17569)"


def to_json(result: Reproduction) -> dict[str, Any]:
    """Return JSON-able values."""
    settings, target = result.settings, result.target
    return {
        "schema_version": SCHEMA_VERSION,
        "target": target.name,
        "paper": f"{PAPER}, {target.where}",
        "title": target.title,
        "reduced": settings.is_reduced,
        "differences_from_paper": settings.differences_from_paper(),
        "remark": target.remark,
        "model": settings.model_name,
        "backbone": dict(result.backbone),
        "seeds": list(settings.seeds),
        "cells": [
            {
                "row": row,
                "column": column,
                "pairs": len(cell.scores[0]),
                "pck": {alpha: _estimate(found) for alpha, found in cell.pck.items()},
                "by_category": {name: _estimate(found) for name, found in cell.by_category.items()},
                "not_comparable_because": list(cell.not_comparable_because),
                "published": [published.to_json() for published in cell.published],
            }
            for (row, column), cell in result.cells.items()
        ],
        "claims": [
            {
                "claim": judged.claim.text,
                "relation": judged.claim.relation,
                "verdict": judged.verdict,
                "compared_with_column": judged.column,
                "difference": _estimate(judged.difference),
                "published_difference_in_points": judged.claim.published,
            }
            for judged in result.judged
        ],
        "versions": dict(result.versions),
        "wall_seconds": result.wall_seconds,
    }


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"mean": found.mean, "ci95": list(found.ci95), "by_seed": list(found.by_seed)}


def to_markdown(result: Reproduction) -> str:
    """Return a page: what is reduced, the claims, ours beside the paper's, categories, and where it comes from."""
    target = result.target
    sections = [
        f"# {target.where}: {target.title}",
        extent_line(result),
        *([MINI_NOTE] if result.settings.on == "mini" else []),
        claims_table(result.judged),
        *([f"![{target.title}](figure.png)", target.remark] if target.remark else [f"![{target.title}](figure.png)"]),
        _results(result),
        _by_category(result) if target.figure == "categories" else "",
        _provenance(result),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def extent_line(result: Reproduction) -> str:
    """Return a line that says what is less than in the paper."""
    differences = result.settings.differences_from_paper()
    if not differences:
        return f"With the settings, the data and the extent of {PAPER}."
    form = "**Reduced form**" if result.settings.is_reduced else "**Not the paper's settings**"
    return (
        f"{form}: {', '.join(differences)}. The paper's numbers are of another model, other data or a longer training: "
        "only the order can be compared."
    )


def claims_table(judged: Sequence[Judged]) -> str:
    """Return a table of the paper's claims with our differences and whether they hold; "" if there are none."""
    if not judged:
        return ""
    rows = []
    for one in judged:
        low, high = one.difference.ci95
        ours = f"{100 * one.difference.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        several = one.column in (one.claim.a[1], one.claim.b[1])
        theirs = "a curve" if one.claim.published is None else f"{one.claim.published:+.1f}"
        rows.append([one.claim.text, f"**{one.verdict}**", ours if several else f"{ours} ({one.column})", theirs])
    table = markdown_table(["the paper says", "here", "our difference", "the paper's"], rows)
    return (
        f"{table}\n\nDifferences in percentage points of PCK@0.1 per image, paired over pairs and seeds, with 95 % "
        "bootstrap intervals over both. *holds*: the interval lies on the paper's side of 0; *does not hold*: on the "
        "other side, or beside 0 where the paper finds no difference; *not different*: it contains 0."
    )


def _results(result: Reproduction) -> str:
    if not result.cells:
        return ""
    several = len(result.target.columns) > 1
    header = ["prompt", *(["measured"] if several else []), *[f"ours @{alpha:g}" for alpha in result.target.alphas]]
    rows = []
    for (row, column), cell in result.cells.items():
        cells = [row, *([column] if several else []), *map(_with_seeds, cell.pck.values())]
        rows.append([*cells, _published(cell, result)])
    reasons = {reason: None for cell in result.cells.values() for reason in cell.not_comparable_because}
    remark = f"\n\nNo number of the paper can be compared with ours: {'; '.join(reasons)}." if reasons else ""
    table = markdown_table([*header, "the paper (comparable)"], rows)
    return f"{table}\n\nPCK in %, per image, with 95 % bootstrap intervals; of each seed in parentheses.{remark}"


def _with_seeds(found: Estimate) -> str:
    low, high = found.ci95
    seeds = f" ({', '.join(map(percent, found.by_seed))})" if len(found.by_seed) > 1 else ""
    return f"{percent(found.mean)} [{percent(low)}, {percent(high)}]{seeds}"


def _published(cell: Cell, result: Reproduction) -> str:
    shown = []
    for row in cell.published:
        numbers = " / ".join(
            f"{row.pck_percent[f'{alpha:g}']:.1f}" for alpha in result.target.alphas if f"{alpha:g}" in row.pck_percent
        )
        why = row.why_not or ("" if row.comparable else "see below")
        shown.append(f"{row.method} {numbers} ({'yes' if row.comparable else f'no: {why}'})")
    return "; ".join(shown)


def _by_category(result: Reproduction) -> str:
    groups = {row: cell.by_category for (row, _), cell in result.cells.items()}
    published = {
        row: cell.published[0].by_category_percent
        for (row, _), cell in result.cells.items()
        if not result.settings.is_synthetic and cell.published and cell.published[0].by_category_percent
    }
    names = list(next(iter(groups.values())))
    shared = [row for row in published if set(names) & set(published[row])]
    header = ["category", *groups, *(f"{row} (paper)" for row in shared)]
    table = [
        [name, *(percent(group[name].mean) for group in groups.values()),
         *(str(published[row].get(name, "")) for row in shared)]
        for name in names
    ]  # fmt: skip
    return "## By category, PCK@0.1 per image\n\n" + markdown_table(header, table)


def _provenance(result: Reproduction) -> str:
    seeds = ", ".join(map(str, result.settings.seeds))
    return (
        f"Backbone: {result.backbone['name']} ({result.backbone['architecture']}). Seeds of what is learned: {seeds}. "
        f"sd4match {result.versions['sd4match']}, torch {result.versions['torch']}, {result.wall_seconds} s. "
        f"Paper: {PAPER}. Trainings and the counts of every pair are in ../runs."
    )
