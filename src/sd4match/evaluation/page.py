"""Self-contained HTML page of a report: tables, plots, pictures of pairs, provenance.

The page loads nothing: styles, script and pictures are embedded, and its content security policy allows no others. All
texts of a report are escaped.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure
from PIL import Image

from sd4match.arguments import check_arguments
from sd4match.documents import to_yaml
from sd4match.evaluation.markup import Html, element, escaped
from sd4match.evaluation.pairs import PAIRS_RULE, PairPicture
from sd4match.evaluation.plots import (
    plot_report_bars,
    plot_report_categories,
    plot_report_difficulty,
    plot_report_over_alpha,
)
from sd4match.evaluation.report import Report
from sd4match.evaluation.run_folders import PAGE_MARK, check_page_file, kind_of_report
from sd4match.evaluation.tables import (
    MINI_NOTE,
    Section,
    SectionKind,
    Table,
    counted,
    is_of_mini,
    limits,
    sections,
    shown_alpha,
)
from sd4match.io.files import write_atomically
from sd4match.paths import as_path
from sd4match.version import __version__
from sd4match.viz.figures import figure_to_image, make_narrow, png_bytes

_LINES = (
    "Solid lines between discs, blue: correct. Dashed lines between squares, vermilion: wrong. Crosses: true points."
)
_PLOT_COLORS = 128
_JPEG_QUALITY = 88
_NUMBER = re.compile(r"[-+]?[0-9][0-9.]*( \[.*\])?|\[.*\]|")
"""Cells that are aligned to the right."""
_KINDS = {"training": "training", "evaluation": "evaluation", "sweep": "sweep", "demo": "demo", None: "report"}
_REFERENCES = {"box": "the target's box", "photo": "the target photo"}
_PLOTS: dict[SectionKind, Callable[[Report], list[Figure]]] = {
    "categories": plot_report_categories,
    "difficulty": plot_report_difficulty,
}
_MOST_CHARACTERS = 20_000
_LONG_WORD, _JOINT = re.compile(r"\S{15,}"), re.compile(r"([_=/,]|\.(?=[a-z]))(?=\w)")
_SHORT = 24
"""Largest number of characters of a column name that stays on one line."""


def report_title(report: Report) -> str:
    """Return a title from the rows and the data of a report."""
    names = [row.prompt for row in report.rows]
    rows = ", ".join(names) if len(names) <= 4 else f"{len(names)} prompts"
    return f"{rows} on {report.data.name}, {report.data.split} split"


@check_arguments
def write_page(
    report: Report,
    file: str | Path,
    *,
    title: str = "",
    pictures: Sequence[PairPicture] = (),
    remark: str = "",
    curve: Image.Image | None = None,
) -> Path:
    """Write a report as one self-contained HTML page.

    Args:
        report: report, for example from `read_report`.
        file: file to write; an earlier page of a report is replaced.
        title: heading; "": rows and data of the report.
        pictures: pictures from `pair_pictures`.
        remark: text about the pictures, for example the reason why there are none.
        curve: plot of a training.

    Returns:
        The file.

    Raises:
        InputError: the file exists and is not a page of a report, or is a link or a folder.
        SD4MatchError: it cannot be written.
    """
    path = check_page_file(as_path(file, what="the file of a page"))
    page = to_page(report, title=title, pictures=pictures, remark=remark, curve=curve)
    write_atomically(path, page.encode())
    return path


def to_page(
    report: Report, *, title: str, pictures: Sequence[PairPicture], remark: str, curve: Image.Image | None
) -> str:
    """Return the HTML of the page; arguments are those of `write_page`."""
    title = title or report_title(report)
    style, script = (files("sd4match.evaluation").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    page_sections = [*_page_sections(report, pictures, remark, curve)]
    links = [element("a", heading, href=f"#{anchor}") for anchor, heading, _ in page_sections]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"{PAGE_MARK} {__version__}"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("title", title),
        element("style", Html(style)),
    )
    body = element(
        "body",
        element("header", element("h1", title), _lead(report), _facts(report), *_mini(report)),
        element("nav", links, aria_label="Sections"),
        element("p", "Wide tables scroll sideways. Tap a plot or a pair to see it large.", class_="hint"),
        element(
            "main", (element("section", element("h2", text), content, id=at) for at, text, content in page_sections)
        ),
        *_dialog(has_pictures=any("<img" in block for _, _, content in page_sections for block in content)),
        element("script", Html(script)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _policy(style: str, script: str) -> str:
    """Return a content security policy that allows only this style and this script."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _lead(report: Report) -> Html:
    reference = _REFERENCES.get(report.data.reference, report.data.reference)
    return element(
        "p",
        f"PCK@alpha is the share of the visible key points whose match lies within alpha times the size of {reference} "
        f"from the true point, counted by the protocol {report.protocol}.",
    )


def _facts(report: Report) -> Html:
    backbone = "none" if report.backbone is None else report.backbone["name"]
    first = report.rows[0]
    facts = {
        "Kind of run": _KINDS[kind_of_report(report.extra)],
        "Data": f"{report.data.name}, {report.data.split} split",
        "Pairs": f"{first.pairs} of {report.data.pairs}{', a part of the split' if limits(report) else ''}, "
        f"{counted(first.points, 'point')}",
        "Model": backbone,
        "Protocol": report.protocol,
        "Seed": str(report.seed),
    }
    return element("dl", (element("div", element("dt", name), element("dd", text)) for name, text in facts.items()),
                   class_="facts")  # fmt: skip


def _mini(report: Report) -> list[Html]:
    return [_paragraph(MINI_NOTE, class_="note")] if is_of_mini(report) else []


def _page_sections(
    report: Report, pictures: Sequence[PairPicture], remark: str, curve: Image.Image | None
) -> Iterator[tuple[str, str, list[Html]]]:
    """Iterate over anchor, heading and content of the sections of a page."""
    found = {section.kind: section for section in sections(report)}
    for kind, section in found.items():
        if kind in ("skipped", "provenance"):
            continue
        blocks = list(map(_block, section.blocks))
        if kind == "results":
            plots = (
                plot_report_bars(report) if len(report.rows) > 1 or any(p.comparable for p in report.published) else []
            )
            plots += plot_report_over_alpha(report) if len(report.rows[0].scores.alphas) > 1 else []
            blocks += map(_plot, plots)
        else:
            blocks[:0] = map(_plot, _PLOTS[kind](report) if kind in _PLOTS else [])
        yield kind, section.heading, blocks
    if curve is not None:
        yield "training", "Training", [_figure(png_bytes(curve.convert("RGB")), "Loss and validation over the steps")]
    yield "pairs", "Worst and best pairs", _pairs(report, pictures, remark)
    yield "left-out", "What was left out", _left_out(report, found.get("skipped"))
    yield "provenance", "Provenance", [*map(_block, _provenance(report, found)), *_origin(report)]


def _provenance(report: Report, found: Mapping[SectionKind, Section]) -> list[str | Table | tuple[str, ...]]:
    """Return the blocks about data and model, without content of other sections."""
    elsewhere = (MINI_NOTE, *limits(report))
    return [block for block in found["provenance"].blocks[:-1] if block not in elsewhere]


def _block(block: str | Table | tuple[str, ...]) -> Html:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, str):
        return _paragraph(block)
    return element("ul", (element("li", line) for line in block))


def _paragraph(text: str, **attributes: str) -> Html:
    """Return a paragraph in which text in backticks is code."""
    inner = re.sub(r"`([^`]*)`", r"<code>\1</code>", escaped(text))
    return element("p", Html(inner), **attributes)


def _table(table: Table) -> Html:
    numeric = [
        all(_NUMBER.fullmatch(row[column]) for row in table.rows) and column > 0 for column in range(len(table.header))
    ]
    head = (
        element("th", _breakable(text), scope="col", class_=_class_of(text, is_number=is_number))
        for text, is_number in zip(table.header, numeric, strict=True)
    )
    rows = (
        element(
            "tr",
            element("th", _breakable(row[0]), scope="row"),
            (_cell(text, is_number=is_number) for text, is_number in zip(row[1:], numeric[1:], strict=True)),
        )
        for row in table.rows
    )
    label = f"Table: {', '.join(table.header[:3])} and more" if len(table.header) > 3 else "Table"
    whole = element("table", element("thead", element("tr", head)), element("tbody", rows))
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=label)


def _class_of(text: str, *, is_number: bool) -> str | Literal[False]:
    """Return the classes of a column's name: short names stay on one line."""
    return " ".join(["number"] * is_number + ["short"] * (len(text) <= _SHORT)) or False


def _breakable(text: str) -> Html:
    """Return a name with break opportunities in long words, after `_`, `=` and the like."""
    return Html(_LONG_WORD.sub(lambda word: _JOINT.sub(r"\1<wbr>", word[0]), escaped(text)))


def _cell(text: str, *, is_number: bool) -> Html:
    """Return a cell; the interval after a number gets its own line."""
    if not is_number:
        return element("td", text)
    number, bracket, rest = text.partition(" [")
    interval = [" ", element("span", f"[{rest}", class_="interval")] if bracket else []
    return element("td", number, interval, class_="number")


def _plot(figure: Figure) -> Html:
    text = f"{figure.get_suptitle()}. The numbers are in the tables and in report.json."
    wide = _plot_address(figure)
    make_narrow(figure)
    narrow = element("source", media="(max-width: 40rem)", srcset=_plot_address(figure))
    return element("figure", _button(wide, text, narrow), class_="plot")


def _plot_address(figure: Figure) -> str:
    picture = figure_to_image(figure).quantize(_PLOT_COLORS, dither=Image.Dither.NONE)
    return _data_address(png_bytes(picture), "png")


def _figure(png: bytes, text: str) -> Html:
    return element("figure", _button(_data_address(png, "png"), text), class_="plot")


def _button(address: str, text: str, *sources: Html) -> Html:
    """Return a picture that a click enlarges, with its sources for other widths."""
    image = element("img", src=address, alt=text)
    return element("button", element("picture", sources, image), class_="picture", type="button")


def _data_address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _pairs(report: Report, pictures: Sequence[PairPicture], remark: str) -> list[Html]:
    blocks = [_paragraph(remark, class_="note")] if remark else []
    if not pictures:
        return blocks or [_paragraph("No pictures of pairs were asked for.")]
    rule = PAIRS_RULE.format(alpha=shown_alpha(report), row=pictures[0].row)
    blocks.append(_paragraph(f"{rule} Click a pair to see it large."))
    blocks.append(_paragraph(_LINES))
    for rank, heading in (("worst", "Worst"), ("best", "Best")):
        shown = [picture for picture in pictures if picture.rank == rank]
        if shown:
            blocks += [element("h3", heading), element("div", map(_pair, shown), class_="pairs")]
    return blocks


def _pair(pair: PairPicture) -> Html:
    content = io.BytesIO()
    pair.picture.convert("RGB").save(content, format="jpeg", quality=_JPEG_QUALITY, subsampling=0)
    text = f"{pair.rank}: {pair.caption}"
    image = _button(_data_address(content.getvalue(), "jpeg"), text)
    return element("figure", image, element("figcaption", pair.caption), class_="pair")


def _dialog(*, has_pictures: bool) -> list[Html]:
    if not has_pictures:
        return []
    buttons = [element("button", text, type="button") for text in ("Zoom", "Previous", "Next", "Close")]
    bar = element("div", element("span", aria_live="polite"), buttons, class_="bar")
    large = element("div", element("img", alt=""), class_="large", tabindex="0", role="group", aria_label="Picture")
    return [element("dialog", bar, element("figure", large, element("figcaption")), aria_label="Picture")]


def _left_out(report: Report, skipped: Section | None) -> list[Html]:
    hidden = report.rows[0].scores.left_out
    are = "has" if hidden == 1 else "have"
    blocks = list(map(_paragraph, limits(report)))
    blocks += [_paragraph(f"Not counted: {counted(hidden, 'pair')} that {are} no visible point.")] if hidden else []
    if skipped is not None:
        blocks += [_paragraph(f"{skipped.heading}:"), *map(_block, skipped.blocks)]
    return blocks or [_paragraph(f"Nothing: every one of the {counted(report.data.pairs, 'pair')} was counted.")]


def _origin(report: Report) -> list[Html]:
    model = {} if report.backbone is None else {f"model: {name}": text for name, text in report.backbone.items()}
    rows = tuple(sorted({**report.versions, "platform": report.platform, **model}.items()))
    blocks = [
        _paragraph(f"Wall time {report.wall_seconds} s. Page written by sd4match {__version__}."),
        element("details", element("summary", "Experiment"), element("pre", to_yaml(dict(report.config)))),
        element("details", element("summary", "Versions and model"), _table(Table(("name", "value"), rows))),
    ]
    if report.extra:
        text = json.dumps(dict(report.extra), indent=2, ensure_ascii=False, default=str)
        blocks.append(
            element("details", element("summary", "Further fields of the report"), element("pre", _cut(text)))
        )
    return blocks


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}\n... more in report.json"
