"""A report as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MINI_NOTE = (
    "Measured on `mini`, the small model that the package carries. These are not numbers of Stable Diffusion and say "
    "nothing about it. `mini` was pre-trained on synthetic photos with part masks of other such photos, so none of its "
    "numbers is unsupervised."
)
_SKIPPED_SHOWN = 20
_COLUMNS = ("prompt", "matcher", "measurement", "data", "split")


def percent(share: float) -> str:
    """A share as percent with one decimal.

    >>> percent(0.1234)
    '12.3'
    """
    return f"{100 * share:.1f}"


def rows_of(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Results, then baselines."""
    return [*report["results"], *report["baselines"]]


def to_summary(report: Mapping[str, Any], *, title: str) -> str:
    """What fits on a screen: results, comparisons, and what the run was."""
    return _page(title, _results(report), comparisons_table(report["comparisons"]), _provenance(report))


def to_markdown(report: Mapping[str, Any], *, title: str) -> str:
    """The report as a page: results, comparisons, categories, difficulty, published numbers, and what the run was."""
    return _page(
        title,
        _results(report),
        comparisons_table(report["comparisons"]),
        _by_category(report),
        _by_difficulty(report["results"]),
        _published(report),
        _skipped(report["results"]),
        _provenance(report),
    )


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *(part for part in parts if part)]) + "\n"


def _results(report: Mapping[str, Any]) -> str:
    rows = rows_of(report)
    alphas = list(rows[0]["pck"]["image"])
    shown = "0.1" if "0.1" in alphas else alphas[-1]
    header = ["prompt", "matcher", *[f"image @{a}" for a in alphas], *[f"point @{a}" for a in alphas]]
    table = []
    for row in rows:
        cells = [row["prompt"], row["matcher"]]
        for average in ("image", "point"):
            cells += [_with_interval(row, average, alpha) for alpha in alphas]
        table.append([*cells, percent(row["pck"]["category"][shown]), str(row["pairs"])])
    remark = (
        "PCK in %, with 95 % bootstrap intervals over pairs; category: mean over categories of their means over pairs. "
        f"Measurement: {report['measurement']}."
    )
    return markdown_table([*header, f"category @{shown}", "pairs"], table) + "\n\n" + remark


def _with_interval(row: Mapping[str, Any], average: str, alpha: str) -> str:
    low, high = row["ci95"][average][alpha]
    return f"{percent(row['pck'][average][alpha])} [{percent(low)}, {percent(high)}]"


def comparisons_table(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Differences in points of percent with their intervals; "" for none."""
    rows = []
    for one in comparisons:
        low, high = one["ci95"]
        interval = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        rows.append([one["a"], one["b"], one["metric"], f"{100 * one['difference']:+.1f}", interval])
    return markdown_table(["a", "b", "metric", "a - b", "95 % interval, paired"], rows) if rows else ""


def _by_category(report: Mapping[str, Any]) -> str:
    results = report["results"]
    if len(report["data"]["categories"]) < 2 or "0.1" not in results[0]["pck"]["image"]:
        return ""
    others = [one for one in report["published"] if one["by_category_percent"]]
    header = [
        "category",
        "pairs",
        *[row["prompt"] for row in results],
        *[f"{one['method']} (published)" for one in others],
    ]
    table = []
    for name, group in results[0]["by_category"].items():
        ours = [percent(row["by_category"][name]["image"]["0.1"]) for row in results]
        theirs = [str(one["by_category_percent"].get(name, "")) for one in others]
        table.append([name, str(group["pairs"]), *ours, *theirs])
    return "## By category, per image @0.1\n\n" + markdown_table(header, table)


def _by_difficulty(results: Sequence[Mapping[str, Any]]) -> str:
    if not results[0]["by_difficulty"] or "0.1" not in results[0]["pck"]["image"]:
        return ""
    table = [
        [flag, value, str(group["pairs"])]
        + [percent(row["by_difficulty"][flag][value]["image"]["0.1"]) for row in results]
        for flag, values in results[0]["by_difficulty"].items()
        for value, group in values.items()
    ]
    header = ["flag", "value", "pairs", *[row["prompt"] for row in results]]
    return "## By difficulty, per image @0.1\n\n" + markdown_table(header, table)


def _published(report: Mapping[str, Any]) -> str:
    if not report["published"]:
        return ""
    reasons = report["not_comparable_because"]
    table = [
        [
            one["method"], one["trained_on"] or "", ", ".join(f"@{a} {v}" for a, v in one["pck_percent"].items()),
            one["measurement"] or "not stated",
            "yes" if one["comparable"] else f"no{': ' if one['why_not'] else ''}{one['why_not'] or ''}",
        ]
        for one in report["published"]
    ]  # fmt: skip
    remark = f"None of them can be compared with ours: {'; '.join(reasons)}.\n\n" if reasons else ""
    header = ["method", "trained on", "published, per image", "measurement", "comparable with ours"]
    return f"## Published numbers on {report['data']['name']}\n\n" + remark + markdown_table(header, table)


def _skipped(results: Sequence[Mapping[str, Any]]) -> str:
    skipped = results[0]["counts"]["skipped"]
    if not skipped:
        return ""
    lines = [f"- {pair}: {reason}" for pair, reason in skipped[:_SKIPPED_SHOWN]]
    more = len(skipped) - len(lines)
    lines += [f"- and {more} more, in report.json"] if more else []
    return f"## {len(skipped)} pairs were left out: they could not be read\n\n" + "\n".join(lines)


def _provenance(report: Mapping[str, Any]) -> str:
    data, backbone = report["data"], report["backbone"]
    whole = "the whole published split" if data["complete"] else "not a whole published split"
    pairs = f"{data['pairs']} pairs ({whole}), list {data['pair_list_digest'][:12]}"
    lines = [f"Data: {data['name']}, {data['split']} split, {pairs}."]
    if backbone is None:
        lines.append("No model was used.")
    else:
        lines.append(f"Backbone: {backbone['name']} ({backbone['architecture']}).")
        lines += [MINI_NOTE] if backbone["name"] == "mini" else []
    versions = report["versions"]
    lines.append(
        f"Wall time {report['wall_seconds']} s, seed {report['seed']}, sd4match {versions['sd4match']}, torch "
        f"{versions['torch']}. report.json holds the whole experiment and the counts of every pair."
    )
    return "\n\n".join(lines)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars in cells are escaped.

    >>> print(markdown_table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def to_csv(report: Mapping[str, Any]) -> str:
    """A line for each result, average and alpha."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_COLUMNS, "average", "alpha", "pck", "low95", "high95", "pairs", "points"])
    data = report["data"]
    for row in rows_of(report):
        names = [row["prompt"], row["matcher"], row["measurement"], data["name"], data["split"]]
        for average, values in row["pck"].items():
            for alpha, value in values.items():
                shares = [f"{share:.6f}" for share in (value, *row["ci95"][average][alpha])]
                writer.writerow([*names, average, alpha, *shares, row["pairs"], row["points"]])
    return file.getvalue()


def to_latex(report: Mapping[str, Any], *, title: str) -> str:
    """A `tabular` for a paper; needs booktabs."""
    rows = rows_of(report)
    alphas = list(rows[0]["pck"]["image"])
    columns = [(average, alpha) for average in ("image", "point") for alpha in alphas]
    lines = [
        f"% {title}; measurement {report['measurement']}; PCK in percent",
        "\\begin{tabular}{ll" + "r" * len(columns) + "}",
        "\\toprule",
        " & ".join(["prompt", "matcher", *[f"{average} @{alpha}" for average, alpha in columns]]) + " \\\\",
        "\\midrule",
    ]
    for row in rows:
        cells = [_escaped(row["prompt"]), _escaped(row["matcher"])]
        cells += [percent(row["pck"][average][alpha]) for average, alpha in columns]
        lines.append(" & ".join(cells) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    if report["backbone"] is not None and report["backbone"]["name"] == "mini":
        lines.insert(1, "% Measured on mini: these are not numbers of Stable Diffusion.")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """For LaTeX."""
    special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    return "".join(special.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
