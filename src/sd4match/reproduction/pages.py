"""Results of a reproduction as JSON and as a page of Markdown: our numbers, the paper's, and the claims that hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sd4match.evaluation.seeds import Estimate
from sd4match.evaluation.tables import MINI_NOTE, markdown_table, percent
from sd4match.reproduction.claims import FEWEST_PAIRS

if TYPE_CHECKING:
    from sd4match.reproduction.claims import Judged
    from sd4match.reproduction.run import Cell, Reproduction

SCHEMA_VERSION = 1
PAPER = "SD4Match (arXiv 2310.17569)"


def to_json(result: Reproduction) -> dict[str, Any]:
    """Return values that JSON can represent."""
    settings, target = result.settings, result.target
    return {
        "schema_version": SCHEMA_VERSION,
        "target": target.name,
        "paper": f"{PAPER}, {target.where}",
        "title": target.title,
        "reduced": settings.is_reduced,
        "differences_from_paper": list(result.differences_from_paper),
        "overrides": list(settings.overrides),
        "remark": target.remark,
        "model": settings.model_name,
        "backbone": dict(result.backbone),
        "seeds": list(result.seeds),
        "cells": [
            {
                "row": row,
                "column": column,
                "pairs": len(cell.scores[0]),
                "pck": {alpha: _estimate(found) for alpha, found in cell.pck.items()},
                "by_category": {name: _estimate(found) for name, found in cell.by_category.items()},
                "not_comparable_because": list(cell.not_comparable_because),
                "published": [published.to_json() for published in cell.published],
                "runs": list(cell.runs),
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
    """Return a page: differences from the paper, claims, our numbers and the paper's, categories, and provenance."""
    target = result.target
    sections = [
        f"# {target.where}: {target.title}",
        extent_line(result),
        *([MINI_NOTE] if result.settings.on == "mini" else []),
        claims_table(result.judged, result.seeds),
        *([f"![{target.title}](figure.png)", target.remark] if target.remark else [f"![{target.title}](figure.png)"]),
        _results(result),
        _by_category(result) if target.figure == "categories" else "",
        _provenance(result),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def extent_line(result: Reproduction) -> str:
    """Return a line about the differences from the paper."""
    if not result.differences_from_paper:
        return f"With the settings, the data and the extent of {PAPER}."
    form = "**Reduced form**" if result.settings.is_reduced else "**Not the paper's settings**"
    order = " Only the order of its numbers can be compared with the paper's." if result.cells else ""
    return f"{form}: {', '.join(result.differences_from_paper)}.{order}"


def claims_table(judged: Sequence[Judged], seeds: Sequence[int]) -> str:
    """Return a table of the paper's claims with our differences and whether they hold; "" if there are none.

    Args:
        judged: the claims.
        seeds: seeds of the trainings; () if there is none.
    """
    if not judged:
        return ""
    rows = []
    for claimed in judged:
        low, high = claimed.difference.ci95
        ours = f"{100 * claimed.difference.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        several = claimed.column in (claimed.claim.a[1], claimed.claim.b[1])
        theirs = "a curve" if claimed.claim.published is None else f"{claimed.claim.published:+.1f}"
        rows.append(
            [claimed.claim.text, f"**{claimed.verdict}**", ours if several else f"{ours} ({claimed.column})", theirs]
        )
    table = markdown_table(["by the paper's numbers", "here", "our difference", "the paper's"], rows)
    meanings = {
        "holds": "the interval lies on the paper's side of 0",
        "does not hold": "the interval lies on the other side, or beside 0 where the paper finds no difference",
        "not different": "the interval contains 0",
        "too few to tell": f"fewer than {FEWEST_PAIRS} pairs, or less than a tenth of the model's usual training",
    }
    found = {claimed.verdict for claimed in judged}
    legend = "; ".join(f"*{verdict}*: {meaning}" for verdict, meaning in meanings.items() if verdict in found)
    return (
        f"{table}\n\nDifferences in percentage points of PCK@0.1 per image, paired, with 95 % bootstrap intervals "
        f"{_drawn_from(seeds)}. A row compares two numbers or curves of the paper; its text does not speak of each. "
        f"{legend[0].upper()}{legend[1:]}."
    )


def _drawn_from(seeds: Sequence[int]) -> str:
    """Return the description of the samples of the intervals."""
    if len(seeds) > 1:
        return f"over {len(seeds)} seeds and all pairs"
    if seeds:
        return f"over pairs alone, because one seed ({seeds[0]}) is learned: how much seeds differ is not in them"
    return "over pairs, because nothing is learned"


def _results(result: Reproduction) -> str:
    if not result.cells:
        return ""
    several = len(result.target.columns) > 1
    header = ["prompt", *(["measured"] if several else []), *[f"ours @{alpha:g}" for alpha in result.target.alphas]]
    rows = []
    for (row, column), cell in result.cells.items():
        cells = [row, *([column] if several else []), *map(_with_seeds, cell.pck.values())]
        rows.append([*cells, _published(cell, result)])
    table = markdown_table([*header, "the paper (comparable)"], rows)
    seeds = (
        "; the seeds in parentheses"
        if any(_has_seeds(found) for cell in result.cells.values() for found in cell.pck.values())
        else ""
    )
    form = f"PCK in %, per image, with 95 % bootstrap intervals {_drawn_from(result.seeds)}{seeds}."
    return "\n\n".join(filter(None, (table, form, _not_comparable(result))))


def _not_comparable(result: Reproduction) -> str:
    """Return the rows that cannot be compared with the paper's numbers, and the reasons; "" if all can."""
    shown = {position: cell for position, cell in result.cells.items() if cell.published}
    shared = [
        reason
        for reason in dict.fromkeys(reason for cell in shown.values() for reason in cell.not_comparable_because)
        if all(reason in cell.not_comparable_because for cell in shown.values())
    ]
    lines = [f"No number of the paper can be compared with ours: {'; '.join(shared)}."] if shared else []
    own: dict[str, list[str]] = {}
    for (row, column), cell in shown.items():
        if reasons := [reason for reason in cell.not_comparable_because if reason not in shared]:
            name = f"{row}, {column}" if len(result.target.columns) > 1 else row
            own.setdefault("; ".join(reasons), []).append(name)
    also = " either" if shared else ""
    lines += [f"Not comparable{also} ({', '.join(names)}): {reasons}." for reasons, names in own.items()]
    return "\n\n".join(lines)


def _has_seeds(found: Estimate) -> bool:
    return len(found.by_seed) > 1


def _with_seeds(found: Estimate) -> str:
    low, high = found.ci95
    seeds = f" ({', '.join(map(percent, found.by_seed))})" if _has_seeds(found) else ""
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
    seeds = f"Seeds of what is learned: {', '.join(map(str, result.seeds))}. " if result.seeds else ""
    overrides = " ".join(f"--set {override}" for override in result.settings.overrides)
    changed = f"Changed by the user: `{overrides}`. " if overrides else ""
    return (
        f"Backbone: {result.backbone['name']} ({result.backbone['architecture']}). {seeds}{changed}"
        f"sd4match {result.versions['sd4match']}, torch {result.versions['torch']}, {result.wall_seconds} s. "
        f"Paper: {PAPER}. {_where(result)}"
    )


def _where(result: Reproduction) -> str:
    """Return the location of trainings and scores."""
    stored = [*(["trainings"] if result.seeds else []), *(["the counts of every pair"] if result.cells else [])]
    named = "; reproduction.json names the folder of each" if result.cells else ""
    listed = " and ".join(stored)
    return f"{listed[0].upper()}{listed[1:]} are in ../runs{named}."
