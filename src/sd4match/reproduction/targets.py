"""Tables and figures of the paper: their trainings, measurements, claims and numbers.

A target is a grid of prompts (rows) and conditions of the measurement (columns). Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sd4match.errors import ConfigError, choose_from
from sd4match.evaluation.published import PUBLISHED, Published
from sd4match.reproduction.settings import ReproductionSettings

Relation = Literal[">", "="]
Figure = Literal["bars", "categories", "lines", "images", "heat maps"]
Place = tuple[str, str]
"""Row and column."""
EVERY = "every column"
"""Column of both sides of a claim about all columns; the least certain one decides."""
BEST_OTHER = "the best other column"
"""Column of the right side of a claim that a column is the best."""


@dataclass(frozen=True)
class Prompted:
    """Row of a target: an experiment, and the data that its prompt is learned on.

    Args:
        experiment: name of the packaged experiment.
        folder: folder of its trainings and scores, which all targets with the same row share.
        changes: changes `a.b=c` to its training and evaluation.
        trained_on: kind of the data set of the training; None: the main one.
        measured: changes `a.b=c` to its evaluation only.
        measured_folder: folder of the scores of such an evaluation, inside `folder`.
    """

    experiment: str
    folder: str
    changes: tuple[str, ...] = ()
    trained_on: str | None = None
    measured: tuple[str, ...] = ()
    measured_folder: str = ""

    @property
    def is_learned(self) -> bool:
        """True if the prompt is trained, once for each seed."""
        return self.experiment not in ("empty", "text")


@dataclass(frozen=True)
class Condition:
    """Column of a target: settings and data of a measurement.

    Args:
        folder: folder of the scores inside that of a row; "": the usual evaluation.
        changes: changes `a.b=c` to the evaluation only.
        data: kind of the measured data set; None: the main one.
    """

    folder: str = ""
    changes: tuple[str, ...] = ()
    data: str | None = None


@dataclass(frozen=True)
class Claim:
    """Statement about two cells of the grid that follows from the paper's numbers.

    Args:
        text: text for readers; it follows from the paper's numbers or curves, whether or not the paper's text has it.
        a: row and column.
        b: row and column that are subtracted; see `EVERY` and `BEST_OTHER` for columns that stand for several.
        published: difference of the paper's numbers in points; None where the paper shows only a curve.
        relation: ">" if `a` is better, "=" if they do not differ.
        alpha: threshold of PCK.
    """

    text: str
    a: Place
    b: Place
    published: float | None = None
    relation: Relation = ">"
    alpha: float = 0.1


@dataclass(frozen=True)
class Target:
    """Table or figure of the paper."""

    name: str
    where: str
    title: str
    figure: Figure
    rows: Mapping[str, Prompted]
    columns: Mapping[str, Condition]
    claims: tuple[Claim, ...] = ()
    published: Mapping[Place, tuple[Published, ...]] = field(default_factory=dict)
    alphas: tuple[float, ...] = (0.1,)
    remark: str = ""

    @property
    def measures(self) -> bool:
        """True if it has numbers."""
        return self.figure not in ("images", "heat maps")


_PCK = "PCK"
"""Column of targets with a single column."""
_USUAL = {_PCK: Condition()}
_BY_TEXT = "a photo of a {category}"
_DIFT_FOLDER = "dift"
_DIFT = (
    "matcher={kind: pixel_nearest_neighbor}", "evaluation.protocol=dift",
    "evaluation.sampling={timestep: 261, ensemble_size: 8, posterior: member}",
)  # fmt: skip
"""Settings of DIFT, with which the paper's numbers of texts were measured."""
_EMPTY, _TEXT = Prompted("empty", "empty"), Prompted("text", "text")
_SINGLE, _CLASS, _CPM = (Prompted(name, name) for name in ("single", "class", "cpm"))
_TABLE4, _FIGURE3, _SIZES = (
    f"SD4Match, {source}" for source in ("Tab. 4", "Fig. 3 (a)", "supplement, Sec. 7")
)  # fmt: skip


def _claim(row: str, other: str, published: float, relation: Relation = ">", text: str = "") -> Claim:
    """Return a claim about two rows in the only column."""
    return Claim(text or f"{row} {relation} {other}", (row, _PCK), (other, _PCK), published, relation)


def _number(method: str, percent: float, source: str, *, protocol: str | None = None) -> Published:
    return Published(method, "spair", {"0.1": percent}, protocol=protocol, source=source)


def _of_paper(method: str, dataset: str, trained_on: str | None) -> tuple[Published, ...]:
    """Return the numbers of a method in the tables of results."""
    return tuple(row for row in PUBLISHED if (row.method, row.dataset, row.trained_on) == (method, dataset, trained_on))


def _text(settings: ReproductionSettings) -> Prompted:
    """Return the row of the text; on real data it is measured as DIFT does, because the paper's number is DIFT's."""
    return _TEXT if settings.is_synthetic else replace(_TEXT, measured=_DIFT, measured_folder=_DIFT_FOLDER)


def _about_text(settings: ReproductionSettings) -> str:
    """Return a remark about the measurement of the text, which the differences to it depend on."""
    if settings.is_synthetic:
        return (
            "The paper's number for the text is DIFT's (t = 261, DIFT's matching and protocol). Here the text is "
            "measured as the learned prompts are, so our differences to it are those of the prompts alone."
        )
    return (
        "The text is measured as DIFT does (t = 261, DIFT's matching and protocol), as in the paper, and learned "
        "prompts by the settings of SD4Match: differences between them are those of both, here and in the paper."
    )


def _table1(settings: ReproductionSettings) -> Target:
    columns = _USUAL if settings.is_synthetic else {_PCK: Condition(_DIFT_FOLDER, _DIFT)}
    captioner = Prompted("implicit-captioner", "implicit-captioner")
    return Target(
        "table1", "Tab. 1", "Prompts that nothing of ours is learned for, and the implicit captioner", "bars",
        {"empty": _EMPTY, _BY_TEXT: _TEXT, "implicit captioner": captioner},
        columns,
        (
            _claim(_BY_TEXT, "empty", 2.2),
            _claim("implicit captioner", "empty", 2.1),
            _claim("implicit captioner", _BY_TEXT, 0.2),
        ),
        {
            (row, _PCK): tuple(published for method in methods for published in _of_paper(method, "spair", None))
            for row, methods in {
                "empty": ("DIFT, empty prompt", "SD+DINO without DINO, empty prompt"),
                _BY_TEXT: ("DIFT", "SD+DINO without DINO, text"),
                "implicit captioner": ("SD+DINO without DINO, implicit captioner",),
            }.items()
        },
        remark="The captioner of the paper is ODISE's, learned for segmentation; ours is trained with our loss, so its "
        "number says more of the training than of the captioner.",
    )  # fmt: skip


def _table2(settings: ReproductionSettings) -> Target:
    rows = {_BY_TEXT: _text(settings), "Single": _SINGLE, "Class": _CLASS, "CPM": _CPM}
    methods = {_BY_TEXT: "DIFT", **{name: f"SD4Match-{name}" for name in ("Single", "Class", "CPM")}}
    return Target(
        "table2", "Tab. 2", "Learned prompts by category", "categories", rows, _USUAL,
        (
            _claim("Single", _BY_TEXT, 19.7),
            _claim("Class", "Single", 2.9),
            _claim("CPM", "Single", 2.9),
            _claim("CPM", "Class", 0.0, "="),
        ),
        {
            (row, _PCK): _of_paper(method, "spair", None if method == "DIFT" else "spair")
            for row, method in methods.items()
        },
        remark=_about_text(settings),
    )  # fmt: skip


def _table3(settings: ReproductionSettings) -> Target:
    kinds = ("pf_pascal", "pf_willow", "spair")
    settings.require(kinds, target="table3")
    names = {kind: settings.dataset_name(kind) for kind in kinds}
    on_pascal, on_spair = (f"on {names[kind]}" for kind in ("pf_pascal", "spair"))
    rows = {_BY_TEXT: _text(settings)}
    for trained_on, label in (("pf_pascal", on_pascal), ("spair", on_spair)):
        for name, prompted in (("Single", _SINGLE), ("CPM", _CPM)):
            main = trained_on == settings.main_data()
            folder = prompted.folder if main else f"{prompted.folder}-on-{names[trained_on]}"
            rows[f"{name} {label}"] = Prompted(prompted.experiment, folder, trained_on=trained_on)
    columns = {
        names[kind]: Condition("" if kind == settings.main_data() else f"on-{names[kind]}", data=kind) for kind in kinds
    }
    published = {(_BY_TEXT, names[kind]): _of_paper("DIFT", kind, None) for kind in kinds}
    for kind in kinds:
        for trained_on, label in (("pf_pascal", on_pascal), ("spair", on_spair)):
            for name in ("Single", "CPM"):
                published[f"{name} {label}", names[kind]] = _of_paper(f"SD4Match-{name}", kind, trained_on)

    def claim(row: str, other: str, tested: str, points: float) -> Claim:
        column = names[tested]
        return Claim(f"tested on {column}: {row} > {other}", (row, column), (other, column), points)

    remark = _about_text(settings)
    if settings.is_synthetic:
        remark += (
            " There is one kind of synthetic photos, so three sets of it stand for the paper's three: `plain` (no "
            "other objects, for PF-Pascal), `small` (the same in 64 x 64 pixels, never trained on, for PF-Willow) and "
            "`scenes` (with other objects, for SPair-71k). All show the same eight categories, so they differ less "
            "than the paper's, and what is learned on one of them carries over more easily."
        )
    return Target(
        "table3", "Tab. 3", "Prompts learned on one data set and measured on three", "bars", rows, columns,
        (
            claim(f"CPM {on_pascal}", f"Single {on_pascal}", "pf_pascal", 2.8),
            claim(f"CPM {on_pascal}", f"Single {on_pascal}", "pf_willow", 2.6),
            claim(f"Single {on_pascal}", f"CPM {on_pascal}", "spair", 3.5),
            claim(f"Single {on_pascal}", _BY_TEXT, "pf_willow", 9.8),
            claim(_BY_TEXT, f"Single {on_pascal}", "spair", 8.5),
            claim(f"Single {on_pascal}", f"Single {on_spair}", "pf_pascal", 6.9),
            claim(f"Single {on_spair}", f"Single {on_pascal}", "pf_willow", 3.5),
            claim(f"Single {on_spair}", f"Single {on_pascal}", "spair", 28.2),
        ),
        published,
        alphas=(0.05, 0.1, 0.15),
        remark=remark,
    )  # fmt: skip


def _table4(settings: ReproductionSettings) -> Target:
    rows = {
        "random": _SINGLE,
        "empty string": Prompted("single", "single-from-empty", ("prompt.init=empty",)),
        "a photo of an object": Prompted("single", "single-from-text", ("prompt.init=a photo of an object",)),
    }
    published = {"random": 72.6, "empty string": 73.4, "a photo of an object": 73.5}
    return Target(
        "table4", "Tab. 4", "Where the learning of Single starts", "bars", rows, _USUAL,
        (
            _claim("empty string", "random", 0.8),
            _claim("a photo of an object", "random", 0.9),
        ),
        {
            (row, _PCK): (_number(f"SD4Match-Single, {row}", percent, _TABLE4, protocol="sd4match"),)
            for row, percent in published.items()
        },
    )  # fmt: skip


def _fig3a(settings: ReproductionSettings) -> Target:
    ablations = {
        "pair, local features": ("cpm", 75.5), "pair, global descriptor": ("cpm-global-features", 73.3),
        "single image, local features": ("cpm-single-image", 70.8),
        "single image, global descriptor": ("cpm-single-image-global-features", 68.5),
        "without global prompt": ("cpm-no-global-prompt", 74.6), "without W_N": ("cpm-no-patch-mixing", 74.0),
    }  # fmt: skip
    full, *others = ablations
    return Target(
        "fig3a", "Fig. 3 (a)", "CPM and its ablations", "bars",
        {row: Prompted(name, name) for row, (name, _) in ablations.items()}, _USUAL,
        tuple(_claim(full, row, round(75.5 - ablations[row][1], 1)) for row in others),
        {
            (row, _PCK): (_number(f"SD4Match-CPM, {row}", percent, _FIGURE3, protocol="sd4match"),)
            for row, (_, percent) in ablations.items()
        },
    )  # fmt: skip


def _fig3b(settings: ReproductionSettings) -> Target:
    rows = {_BY_TEXT: _TEXT, "Single": _SINGLE, "Class": _CLASS, "CPM": _CPM}
    columns = {
        f"t = {timestep}": Condition(f"timestep-{timestep}", (f"evaluation.sampling.timestep={timestep}",))
        for timestep in settings.timesteps
    }
    learned = [row for row, prompted in rows.items() if prompted.is_learned]
    claims = [Claim(f"{row} > a text at every t", (row, EVERY), (_BY_TEXT, EVERY)) for row in learned]
    claims += [Claim(f"{row}: t = 50 > every other t", (row, "t = 50"), (row, BEST_OTHER)) for row in learned]
    training = settings.experiment("single", data=settings.main_data()).training.sampling.timestep
    return Target(
        "fig3b", "Fig. 3 (b)", "Timesteps of the evaluation", "lines", rows, columns, tuple(claims),
        remark=f"Learned at t = {training}, and at 261 in the paper, which finds the best accuracy at t = 50. The "
        "text is measured as the learned prompts are, in all but its prompt; the paper's curve of the text is DIFT's.",
    )  # fmt: skip


def _image_size(settings: ReproductionSettings) -> Target:
    native = settings.image_size()
    papers = (384, 768, 1536)
    sizes = {
        f"{size} px" if size == paper else f"{size} px (the paper: {paper})": size
        for size, paper in zip((native // 2, native, 2 * native), papers, strict=True)
    }
    half, own, double = sizes
    columns = {
        label: Condition(
            "" if size == native else f"image-size-{size}",
            () if size == native else (f"backbone.image_size={size}",),
        )
        for label, size in sizes.items()
    }
    return Target(
        "image-size", "Supplement, Sec. 7", "Image sizes, with a text prompt", "bars", {_BY_TEXT: _text(settings)},
        columns,
        (
            Claim("the model's own size > half of it", (_BY_TEXT, own), (_BY_TEXT, half), 18.3),
            Claim("the model's own size > twice of it", (_BY_TEXT, own), (_BY_TEXT, double), 5.0),
        ),
        {
            (_BY_TEXT, label): (_number(f"SD 2.1 at {size}", percent, _SIZES, protocol="dift"),)
            for label, size, percent in zip(sizes, papers, (34.6, 52.9, 47.9), strict=True)
        },
        remark="The paper's numbers go with DIFT's 52.9 (t = 261, DIFT's matching and protocol)"
        + (", which is not how it is measured here." if settings.is_synthetic else ", and so is it measured here."),
    )  # fmt: skip


def _fig4(settings: ReproductionSettings) -> Target:
    return Target(
        "fig4", "Fig. 4", "Images that the model draws from the prompts of Class", "images", {"Class": _CLASS}, {},
        remark="Shown are the first six categories in alphabetical order. On `mini` the model draws colored parts and "
        "no objects, whatever the prompt: its UNet is too small to compose one."
        if settings.is_synthetic
        else "Shown are the first six categories in alphabetical order.",
    )  # fmt: skip


def _fig6(settings: ReproductionSettings) -> Target:
    rows = {
        "empty": _EMPTY, _BY_TEXT: _TEXT, "Single": _SINGLE, "Class": _CLASS, "CPM": _CPM,
    }  # fmt: skip
    return Target(
        "fig6", "Fig. 6", "Similarity of one point to the other photo under each prompt", "heat maps", rows, {},
        remark="Shown are the first test pairs of the first three categories, each with its first visible point. A "
        "ring marks the most similar cell, a cross the true point.",
    )  # fmt: skip


_TARGETS: Mapping[str, Callable[[ReproductionSettings], Target]] = {
    "table1": _table1, "table2": _table2, "table3": _table3, "table4": _table4, "fig3a": _fig3a, "fig3b": _fig3b,
    "fig4": _fig4, "fig6": _fig6, "image-size": _image_size,
}  # fmt: skip


def target_names() -> tuple[str, ...]:
    """Return the names of the tables and figures that can be reproduced.

    >>> target_names()[0]
    'table1'
    """
    return tuple(_TARGETS)


def make_target(name: str, settings: ReproductionSettings) -> Target:
    """Return a target with the rows and columns that fit the model and the data.

    Raises:
        ConfigError: there is no such target, or a data set that it needs is not given.

    >>> list(make_target("table2", ReproductionSettings()).rows)
    ['a photo of a {category}', 'Single', 'Class', 'CPM']
    """
    if name not in _TARGETS:
        raise ConfigError(f"unknown target {name!r}; {choose_from(name[:80], [*_TARGETS, 'all'])}")
    settings.main_data()
    return _TARGETS[name](settings)
