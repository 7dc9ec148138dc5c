"""The page of a report: complete in itself, safe against what a report says, and with the report's numbers."""

import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sd4match.config.presets import load_preset
from sd4match.errors import InputError
from sd4match.evaluation import PairPicture, read_report, write_page, write_report
from sd4match.evaluation.markup import Html, element, escaped
from sd4match.evaluation.page import report_title
from sd4match.evaluation.plots import plot_report_bars, plot_report_categories, plot_report_difficulty
from sd4match.evaluation.published import PublishedRow
from sd4match.evaluation.report import Comparison, Report, make_report, make_row
from sd4match.evaluation.scores import PairCount, PairScores, Skipped
from sd4match.evaluation.tables import MINI_NOTE, percent, to_markdown
from sd4match.testing import FakePairs
from sd4match.viz import figure_to_image

ALPHAS = (0.05, 0.1, 0.15)
HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)> \" ' & `b` $\\frac$ \u202e"
ALONE = {"img", "meta", "source", "wbr"}


class Page(HTMLParser):
    """Parsed page: its elements, whether all are closed in order, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.rows = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes)
        if tag not in ALONE:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return "\n".join(self.texts)


def report_of(names=("text", "empty"), *, categories=("cat", "dog"), pair="pair", **changes):
    config = load_preset("mini-text", ["evaluation.bootstrap_samples=20"])
    data = FakePairs(pairs=6)
    data.categories = tuple(categories)
    rows = []
    for shift, name in enumerate(names):
        counts = [
            PairCount(f"{pair}-{i}", categories[i % len(categories)], 5, ((i + shift) % 3, 3, 4), {"occlusion": i % 2})
            for i in range(5)
        ]
        rows.append(
            make_row(name, PairScores.of([*counts, Skipped(f"{pair}-5", f"gone {pair}")], alphas=ALPHAS), config)
        )
    fields = {"backbone": {"name": "mini", "architecture": "tiny", "fingerprint": "1"}, "extra": {"prompt_file": None}}
    return make_report(config=config, data=data, results=rows, wall_seconds=1, **{**fields, **changes})


@pytest.fixture
def no_plots(monkeypatch):
    """Leave out the plots, which take longer than all the rest."""
    monkeypatch.setattr("sd4match.evaluation.page._PLOTS", {})
    for name in ("plot_report_bars", "plot_report_over_alpha"):
        monkeypatch.setattr(f"sd4match.evaluation.page.{name}", lambda report: [])


def picture(**changes):
    fields = {"pair_id": "pair-0", "category": "cat", "row": "text", "rank": "worst", "correct": 1, "visible": 5,
              "drawn_correct": 1, "picture": Image.new("RGB", (60, 20), "red")}  # fmt: skip
    return PairPicture(**{**fields, **changes})


def written(report, tmp_path, **options):
    return Page(write_page(report, tmp_path / "report.html", **options).read_text(encoding="utf-8"))


def test_a_page_is_well_formed_and_loads_nothing(tmp_path, monkeypatch):
    small = partial(figure_to_image, scale=0.25)
    monkeypatch.setattr("sd4match.evaluation.page.figure_to_image", small)
    curve = Image.new("RGB", (30, 20))
    page = written(report_of(), tmp_path, pictures=[picture(), picture(rank="best", pair_id="b")], curve=curve)
    addresses = [
        value for _, given in page.elements for name, value in given.items() if name in ("src", "srcset", "href")
    ]
    assert addresses
    assert all(address.startswith(("#", "data:image/")) for address in addresses)
    anchors = {given["id"] for given in page.named("section")}
    assert {address[1:] for address in addresses if address.startswith("#")} == anchors
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.elements}
    assert not [name for _, given in page.elements for name in given if name.startswith("on") or name == "style"]
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import", source)
    (policy,) = [given["content"] for given in page.named("meta") if given.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert all(given.get("alt") is not None for given in page.named("img"))


def test_the_numbers_of_a_page_are_those_of_the_report(tmp_path, no_plots):
    report = report_of(comparisons=[Comparison("text", "empty", "image PCK@0.1", 0.125, (-0.0625, 0.25))])
    write_report(report, tmp_path, title="t")
    content = json.loads((tmp_path / "report.json").read_text())
    page = written(read_report(tmp_path), tmp_path)
    for row in content["results"]:
        (cells,) = [cells for cells in page.rows if cells[:2] == [row["prompt"], row["matcher"]]]
        wanted = [
            f"{percent(row['pck'][average][alpha])} [{percent(low)}, {percent(high)}]"
            for average in ("image", "point")
            for alpha, (low, high) in row["ci95"][average].items()
        ]
        assert cells[2:8] == wanted
        assert cells[8:] == [percent(row["pck"]["category"]["0.1"]), "5"]
    assert ["text", "empty", "image PCK@0.1", "+12.5", "[-6.2, +25.0]"] in page.rows
    by_category = [row["by_category"]["cat"]["image"]["0.1"] for row in content["results"]]
    assert ["cat", "3", *map(percent, by_category)] in page.rows
    assert "1 pair was left out: it could not be read:" in page.text
    assert "pair-5: gone pair" in page.text
    assert "These are not numbers of Stable Diffusion" in page.text
    assert page.text.count("These are not numbers of Stable Diffusion") == 1
    assert "bootstrap_samples: 20" in page.text


def test_whatever_a_report_says_is_text(tmp_path, no_plots):
    report = report_of(
        (HOSTILE, "b"), categories=(HOSTILE, "dog"), pair=HOSTILE, extra={"prompt_file": HOSTILE, HOSTILE: HOSTILE},
        backbone={"name": HOSTILE, "architecture": HOSTILE, "fingerprint": HOSTILE},
        comparisons=[Comparison(HOSTILE, HOSTILE, HOSTILE, 0.0, (0.0, 0.0))],
    )  # fmt: skip
    published = PublishedRow(HOSTILE, HOSTILE, HOSTILE, {"0.1": 50.0}, {"dog": 40.0}, HOSTILE, False, HOSTILE)
    values = {**report.to_json(), "published": [published.to_json()], "not_comparable_because": [HOSTILE]}
    values["versions"] = {**values["versions"], HOSTILE: HOSTILE}
    values["config"] = {**values["config"], HOSTILE: HOSTILE}
    shown = picture(pair_id=HOSTILE, category=HOSTILE, row=HOSTILE)
    page = written(Report.from_json(values), tmp_path, title=HOSTILE, pictures=[shown], remark=HOSTILE)
    tags = [tag for tag, _ in page.elements]
    assert (tags.count("script"), tags.count("style")) == (1, 1)
    assert not [name for _, given in page.elements for name in given if name.startswith("on")]
    assert all(given["src"].startswith("data:") for given in page.named("img") if "src" in given)
    assert page.named("img")[-2]["alt"].startswith(f"worst: {HOSTILE[:-1]}\ufffd")
    assert page.text.count("</style><script>alert(1)</script>") > 10
    assert "\u202e" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_published_rows_say_whether_they_can_be_compared_and_only_those_are_drawn(tmp_path, no_plots):
    comparable = PublishedRow("good", "spair", "sd4match", {"0.1": 50.0}, {}, "paper", True, None)
    other = PublishedRow("bad", None, None, {"0.1": 60.0}, {}, "paper", False, "how it was counted is not stated")
    report = Report.from_json({**report_of().to_json(), "published": [comparable.to_json(), other.to_json()]})
    page = written(report, tmp_path)
    assert ["good", "spair", "@0.1 50.0", "sd4match", "yes"] in page.rows
    assert ["bad", "", "@0.1 60.0", "not stated", "no: how it was counted is not stated"] in page.rows
    (bars,) = plot_report_bars(report)
    assert [tick.get_text() for tick in bars.axes[0].get_yticklabels()] == ["text", "empty", "good (spair)"]


def test_a_page_without_pictures_says_why(tmp_path, no_plots):
    assert "No pictures of pairs were asked for." in written(report_of(), tmp_path).text
    page = written(report_of(), tmp_path, remark="The photos are not there.")
    assert "The photos are not there." in page.text
    assert not page.named("dialog")
    report = report_of(("identity",), backbone=None)
    page = written(report, tmp_path)
    assert "No model was used." in page.text
    assert MINI_NOTE[:20] not in page.text


def test_pairs_can_be_clicked_and_have_the_rule_and_the_counts(tmp_path, no_plots):
    page = written(report_of(), tmp_path, pictures=[picture(), picture(pair_id="b", rank="best", drawn_correct=3)])
    assert len(page.named("button")) == 2 + 4
    assert "Worst: the lowest PCK@0.1 of text; best: the highest." in page.text
    assert "pair-0 (cat): 1 of 5 points correct" in page.texts
    assert "b (cat): 1 of 5 points correct; 3 in this picture" in page.texts


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda file: file.write_text("<p>my page</p>"), "exists and is no page of a report of sd4match"),
        (lambda file: file.mkdir(), "is not a file"),
        (lambda file: file.symlink_to(file.parent / "other"), "link"),
    ],
)
def test_a_page_replaces_only_a_page(tmp_path, no_plots, prepare, message):
    file = tmp_path / "a.html"
    write_page(report_of(), file, title="first")
    write_page(report_of(), file, title="second")
    assert "<h1>second</h1>" in file.read_text(encoding="utf-8")
    file.unlink()
    prepare(file)
    before = file.read_text() if file.is_file() else None
    with pytest.raises(InputError, match=message):
        write_page(report_of(), file)
    assert before is None or file.read_text() == before


def test_many_rows_are_drawn_in_several_plots_and_rows_of_one_name_are_told_apart():
    many = report_of([f"row {number}" for number in range(13)])
    assert [len(figure.legends[0].get_texts()) for figure in plot_report_categories(many)] == [7, 6]
    assert len(plot_report_difficulty(many)) == 2
    assert report_title(many) == "13 prompts on fake, test split"
    (bars,) = plot_report_bars(report_of(("text", "text")))
    assert [tick.get_text() for tick in bars.axes[0].get_yticklabels()] == ["text", "text (2)"]


def test_categories_have_intervals_over_their_pairs_from_two_pairs_on():
    scores = PairScores(("a", "b", "c"), ("cat", "cat", "dog"), np.array([2, 2, 2]), np.array([[0], [2], [1]]), (0.1,))
    assert scores.category_intervals(samples=400, seed=0) == {"cat": {"0.1": (0.0, 1.0)}}


def test_elements_escape_what_is_not_an_element():
    assert (
        element("p", ["<", Html("<b></b>")], title='"', hidden=True, lang=False)
        == '<p title="&quot;" hidden>&lt;<b></b></p>'
    )
    assert escaped("a\ud800\x7f\u2066\n") == "a\ufffd\ufffd\ufffd\n"


def test_a_page_says_which_pairs_were_not_asked_for(tmp_path, no_plots):
    whole = report_of()
    assert "Nothing: every one" not in written(whole, tmp_path).text  # a pair could not be read
    config = {**whole.config, "evaluation": {**whole.config["evaluation"], "limit": 6, "categories": ["cat"]}}
    limited = replace(whole, config=config)
    page = written(limited, tmp_path)
    assert "5 of 6, a part of the split, 25 points" in page.text
    for line in ("Only the first 6 pairs of the split: evaluation.limit = 6.", "Only pairs of these categories: cat."):
        assert page.texts.count(line) == 1
        assert line in to_markdown(limited, title="t")
    config["evaluation"] |= {"limit": 7, "categories": []}
    assert "Only" not in written(replace(whole, config=config), tmp_path).text.split("What was left out")[-1]
    training = {**config["training"], "validation_pairs": 6}
    of_training = replace(whole, config={**config, "training": training}, extra={"training": {}})
    assert "Only the first 6 pairs of the split: training.validation_pairs = 6." in written(of_training, tmp_path).text


def test_names_break_between_their_words_alone(tmp_path, no_plots):
    write_page(report_of(("learning_rate=0.1, num_tokens=3", "b")), tmp_path / "report.html")
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<th scope="row">learning_<wbr>rate=<wbr>0.1, num_tokens=3</th>' in source
    assert '<th scope="col" class="number short">image @0.1</th>' in source
