"""Reports as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sd4match.evaluation.report import Comparison, Report, Row
from sd4match.evaluation.run_folders import kind_of_report

MINI_NOTE = (
    "Measured on `mini`, the small model that the package carries. These are not numbers of Stable Diffusion and say "
    "nothing about it. `mini` was pre-trained on synthetic photos with part masks of other such photos, so none of its "
    "numbers is unsupervised."
)
_SKIPPED_SHOWN = 20
_COLUMNS = ("prompt", "matcher", "protocol", "data", "split")


def percent(fraction: float) -> str:
    """Format a fraction as percent with one decimal.

    >>> percent(0.1234)
    '12.3'
    """
    return f"{100 * fraction:.1f}"


@dataclass(frozen=True)
class Table:
    """Table of texts: header and rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


SectionKind = Literal[
    "results", "seeds", "comparisons", "categories", "difficulty", "published", "skipped", "provenance"
]  # fmt: skip
_WITHOUT_HEADING = ("results", "comparisons", "provenance")
"""Sections without a heading in Markdown."""


@dataclass(frozen=True)
class Section:
    """Section of a page about a report.

    Args:
        kind: what it is about.
        heading: text above it.
        blocks: paragraphs, tables, and tuples of texts, which are lists.
    """

    kind: SectionKind
    heading: str
    blocks: tuple[str | Table | tuple[str, ...], ...]


def to_summary(report: Report, *, title: str) -> str:
    """Return a page that fits on a screen: results, comparisons, provenance."""
    content = [results_section(report), *_over_seeds(report), *_comparisons(report), provenance_section(report)]
    return _page(title, content)


def to_markdown(report: Report, *, title: str) -> str:
    """Return a page with results, comparisons, categories, difficulty, published results and provenance."""
    return _page(title, sections(report))


def sections(report: Report) -> list[Section]:
    """Return the sections of a page about a report, in order, without empty ones."""
    return [
        results_section(report),
        *_over_seeds(report),
        *_comparisons(report),
        *_by_category(report),
        *_by_difficulty(report.results),
        *_published(report),
        *_skipped(report),
        provenance_section(report),
    ]


def _page(title: str, content: Iterable[Section]) -> str:
    blocks = [f"# {title}"]
    for section in content:
        blocks += [f"## {section.heading}"] * (section.kind not in _WITHOUT_HEADING)
        blocks += map(_markdown, section.blocks)
    return "\n\n".join(blocks) + "\n"


def _markdown(block: str | Table | tuple[str, ...]) -> str:
    if isinstance(block, Table):
        return markdown_table(block.header, block.rows)
    return block if isinstance(block, str) else "\n".join(f"- {line}" for line in block)


def shown_alpha(report: Report) -> str:
    """Return the alpha of the sentences of a page: 0.1, or the largest one."""
    alphas = list(report.rows[0].pck["image"])
    return "0.1" if "0.1" in alphas else alphas[-1]


def results_section(report: Report) -> Section:
    """Return the table of all rows, with intervals."""
    alphas, shown = list(report.rows[0].pck["image"]), shown_alpha(report)
    header = ["prompt", "matcher", *[f"image @{alpha}" for alpha in alphas], *[f"point @{alpha}" for alpha in alphas]]
    table = []
    for row in report.rows:
        cells = [row.prompt, row.matcher]
        for average in ("image", "point"):
            cells += [_with_interval(row, average, alpha) for alpha in alphas]
        table.append((*cells, percent(row.pck["category"][shown]), str(row.pairs)))
    remark = (
        "PCK in %, with 95 % bootstrap intervals over pairs; category: mean over categories of their means over pairs. "
        f"Protocol: {report.protocol}."
    )
    coverage = [
        f"{row.prompt}, {row.matcher}: {percent(row.scores.coverage)} % of the visible points have a match; of these, "
        f"{percent(row.scores.pck_of_kept()[shown])} % are correct @{shown}. PCK counts the others as wrong."
        for row in report.rows
        if row.scores.kept is not None
    ]
    shown_table = Table((*header, f"category @{shown}", "pairs"), tuple(table))
    return Section("results", "Results", (shown_table, remark, *coverage))


def _over_seeds(report: Report) -> list[Section]:
    """Return a table of means over seeds, which a sweep over seeds and other fields has."""
    found = report.extra.get("over_seeds")
    if not isinstance(found, Mapping):
        return []
    table = []
    for name, values in found.items():
        low, high = values["ci95"]
        each = ", ".join(percent(value) for value in values["by_seed"])
        table.append((name, f"{percent(values['mean'])} [{percent(low)}, {percent(high)}]", each))
    heading = "Means over seeds, with 95 % bootstrap intervals over seeds and pairs"
    return [Section("seeds", heading, (Table(("", "image @0.1", "each seed"), tuple(table)),))]


def _with_interval(row: Row, average: str, alpha: str) -> str:
    low, high = row.ci95[average][alpha]
    return f"{percent(row.pck[average][alpha])} [{percent(low)}, {percent(high)}]"


def comparisons_table(comparisons: Sequence[Comparison]) -> str:
    """Return a table of differences in percentage points with their intervals; "" if there are none."""
    return _markdown(_differences(comparisons)) if comparisons else ""


def _differences(comparisons: Sequence[Comparison]) -> Table:
    rows = []
    for comparison in comparisons:
        low, high = comparison.ci95
        interval = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        rows.append((comparison.a, comparison.b, comparison.metric, f"{100 * comparison.difference:+.1f}", interval))
    return Table(("a", "b", "metric", "a - b", "95 % interval, paired"), tuple(rows))


def _comparisons(report: Report) -> list[Section]:
    if not report.comparisons:
        return []
    return [Section("comparisons", "Comparisons", (_differences(report.comparisons),))]


def _by_category(report: Report) -> list[Section]:
    results = report.results
    if not results or len(report.data.categories) < 2 or "0.1" not in results[0].pck["image"]:
        return []
    published = [row for row in report.published if row.by_category_percent]
    header = (
        "category",
        "pairs",
        *[row.prompt for row in results],
        *[f"{row.method} (published)" for row in published],
    )
    groups = [row.scores.by_category() for row in results]
    table = []
    for name, group in groups[0].items():
        ours = [percent(by_category[name]["image"]["0.1"]) for by_category in groups]
        theirs = [str(row.by_category_percent.get(name, "")) for row in published]
        table.append((name, str(group["pairs"]), *ours, *theirs))
    return [Section("categories", "By category, per image @0.1", (Table(header, tuple(table)),))]


def _by_difficulty(results: Sequence[Row]) -> list[Section]:
    groups = [row.scores.by_difficulty() for row in results]
    if not groups or not groups[0] or "0.1" not in results[0].pck["image"]:
        return []
    table = tuple(
        (
            flag, value, str(group["pairs"]),
            *[percent(by_difficulty[flag][value]["image"]["0.1"]) for by_difficulty in groups],
        )
        for flag, values in groups[0].items()
        for value, group in values.items()
    )  # fmt: skip
    header = ("flag", "value", "pairs", *[row.prompt for row in results])
    return [Section("difficulty", "By difficulty, per image @0.1", (Table(header, table),))]


def _published(report: Report) -> list[Section]:
    if not report.published:
        return []
    reasons = report.not_comparable_because
    table = tuple(
        (
            row.method, row.trained_on or "",
            ", ".join(f"@{alpha} {value}" for alpha, value in row.pck_percent.items()), row.protocol or "not stated",
            "yes" if row.comparable else f"no{': ' if row.why_not else ''}{row.why_not or ''}",
        )
        for row in report.published
    )  # fmt: skip
    remarks = [f"None of them can be compared with ours: {'; '.join(reasons)}."] if reasons else []
    remarks += _own_reasons(report)
    header = ("method", "trained on", "published, per image", "protocol", "comparable with ours")
    return [Section("published", f"Published numbers on {report.data.name}", (*remarks, Table(header, table)))]


def _own_reasons(report: Report) -> list[str]:
    """Return a line for each reason that keeps only some of our rows from being compared."""
    rows: dict[str, list[str]] = {}
    for row in report.results:
        reasons = row.extra.get("not_comparable_because")
        for reason in reasons if isinstance(reasons, list) else ():
            rows.setdefault(str(reason), []).append(row.prompt)
    return [
        f"Not to be compared with any of them: {', '.join(names)}, because {reason}." for reason, names in rows.items()
    ]


def _skipped(report: Report) -> list[Section]:
    skipped = report.rows[0].scores.skipped
    if not skipped:
        return []
    lines = [f"{pair.pair_id}: {pair.reason}" for pair in skipped[:_SKIPPED_SHOWN]]
    more = len(skipped) - len(lines)
    lines += [f"and {more} more, in report.json"] if more else []
    return [Section("skipped", left_out(len(skipped)), (tuple(lines),))]


def provenance_section(report: Report) -> Section:
    """Return data, model, sampling and versions of a report."""
    data, backbone = report.data, report.backbone
    split = "the whole published split" if data.complete else "not a whole published split"
    pairs = f"{data.pairs} pairs ({split}), list {data.pair_list_digest[:12]}"
    lines = [f"Data: {data.name}, {data.split} split, {pairs}.", *limits(report)]
    if backbone is None:
        lines.append("No model was used.")
    else:
        lines.append(f"Backbone: {backbone['name']} ({backbone['architecture']}).")
        lines += _sampling(report.config) + _swept(report)
        lines += [MINI_NOTE] if is_of_mini(report) else []
    versions = report.versions
    lines.append(
        f"Wall time {report.wall_seconds} s, seed {report.seed}, sd4match {versions.get('sd4match', 'unknown')}, torch "
        f"{versions.get('torch', 'unknown')}. report.json holds the whole experiment and the counts of every pair."
    )
    return Section("provenance", "Provenance", tuple(lines))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "pair"), counted(2, "pair")
    ('1 pair', '2 pairs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def left_out(number: int) -> str:
    """Return a line about pairs that could not be read.

    >>> left_out(1)
    '1 pair was left out: it could not be read'
    """
    was, they = ("was", "it") if number == 1 else ("were", "they")
    return f"{counted(number, 'pair')} {was} left out: {they} could not be read"


def limits(report: Report) -> list[str]:
    """Return a line for each field of the config that excluded pairs of the split."""
    is_training = kind_of_report(report.extra) == "training"
    section, name = ("training", "validation_pairs") if is_training else ("evaluation", "limit")
    fields = {name: {} if not isinstance(group := report.config.get(name), Mapping) else group
              for name in ("training", "evaluation")}  # fmt: skip
    limit, lines = fields[section].get(name), []
    if isinstance(limit, int) and limit == report.data.pairs:
        lines.append(f"Only the first {counted(limit, 'pair')} of the split: {section}.{name} = {limit}.")
    categories = fields["evaluation"].get("categories")
    if isinstance(categories, list) and categories and not is_training:
        lines.append(f"Only pairs of these categories: {', '.join(map(str, categories))}.")
    return lines


def is_of_mini(report: Report) -> bool:
    """Return whether a report is of the packaged small model."""
    return report.backbone is not None and "mini" in report.backbone["name"].split(", ")


def _swept(report: Report) -> list[str]:
    """Return a line about the fields in which the rows differ; [] if the report is of no sweep over fields."""
    fields = report.extra.get("swept")
    if not isinstance(fields, Mapping):
        return []
    return [f"The rows differ in {', '.join(map(str, fields))}; the settings above are those of the first row."]


def _sampling(config: Mapping[str, Any]) -> list[str]:
    """Return a line about the noises that the features were averaged over; [] if the config has none."""
    evaluation = config.get("evaluation")
    sampling = evaluation.get("sampling") if isinstance(evaluation, Mapping) else None
    if not isinstance(sampling, Mapping):
        return []
    names = {"timestep": "timestep", "ensemble_size": "ensemble size", "ensemble": "noises", "posterior": "posterior"}
    found = ", ".join(f"{text} {sampling[name]}" for name, text in names.items() if name in sampling)
    return [f"Sampling: {found}."] if found else []


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; bars in cells are escaped.

    >>> print(markdown_table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def to_csv(report: Report) -> str:
    """Return one line per row, average and alpha."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_COLUMNS, "average", "alpha", "pck", "low95", "high95", "pairs", "points"])
    data = report.data
    for row in report.rows:
        names = [row.prompt, row.matcher, row.protocol, data.name, data.split]
        for average, values in row.pck.items():
            for alpha, value in values.items():
                fractions = [f"{fraction:.6f}" for fraction in (value, *row.ci95[average][alpha])]
                writer.writerow([*names, average, alpha, *fractions, row.pairs, row.points])
    return file.getvalue()


def to_latex(report: Report, *, title: str) -> str:
    """Return a `tabular` for a paper; needs booktabs."""
    rows = report.rows
    alphas = list(rows[0].pck["image"])
    columns = [(average, alpha) for average in ("image", "point") for alpha in alphas]
    lines = [
        f"% {title}; protocol {report.protocol}; PCK in percent",
        "\\begin{tabular}{ll" + "r" * len(columns) + "}",
        "\\toprule",
        " & ".join(["prompt", "matcher", *[f"{average} @{alpha}" for average, alpha in columns]]) + " \\\\",
        "\\midrule",
    ]
    for row in rows:
        cells = [_escaped(row.prompt), _escaped(row.matcher)]
        cells += [percent(row.pck[average][alpha]) for average, alpha in columns]
        lines.append(" & ".join(cells) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    if is_of_mini(report):
        lines.insert(1, "% Measured on mini: these are not numbers of Stable Diffusion.")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return text with the special characters of LaTeX escaped."""
    special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    return "".join(special.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
