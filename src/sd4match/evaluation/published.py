"""Published results to show beside measured ones, each with its evaluation protocol.

The numbers are from the tables of SD4Match (arXiv 2310.17569) unless `source` says otherwise. The tables quote other
methods without their protocol; where it is not known, `protocol` is None and no measured number can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sd4match.errors import InputError, shown

_SPAIR_CATEGORIES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dog", "horse", "motorbike",
    "person", "pottedplant", "sheep", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """PCK in percent of one method on the test split of one data set, by alpha and averaged over images."""

    method: str
    dataset: str
    pck: Mapping[str, float]
    protocol: str | None = None
    trained_on: str | None = None
    by_category: Mapping[str, float] = field(default_factory=dict)
    """At alpha 0.1."""
    source: str = "SD4Match, Tabs. 1 to 3"


def _spair(method: str, at_05: float | None, at_1: float, *per_category: float, **fields: Any) -> Published:
    values = {"0.05": at_05, "0.1": at_1}
    known = {alpha: value for alpha, value in values.items() if value is not None}
    by_category = dict(zip(_SPAIR_CATEGORIES, per_category, strict=True)) if per_category else {}
    return Published(method, "spair", known, by_category=by_category, **fields)


def _pf(method: str, numbers: str, **fields: Any) -> list[Published]:
    """Parse "PF-Pascal @.05 .1 .15, PF-Willow @.05 .1 .15", with "-" for a number that is not published."""
    rows = []
    for dataset, values in zip(("pf_pascal", "pf_willow"), numbers.split(","), strict=True):
        by_alpha = zip(("0.05", "0.1", "0.15"), values.split(), strict=True)
        rows.append(
            Published(method, dataset, {alpha: float(value) for alpha, value in by_alpha if value != "-"}, **fields)
        )
    return rows


_OURS: dict[str, Any] = {"protocol": "sd4match"}
_LATER = "later work, for context"

PUBLISHED: tuple[Published, ...] = (
    _spair("DINO", 23.1, 35.9),
    _spair("DINOv2", 38.4, 53.9),
    _spair(
        "DIFT", 39.7, 52.9, 61.2, 53.2, 79.5, 31.2, 45.3, 39.8, 33.3, 77.8, 34.7, 70.1, 51.5, 57.2, 50.6, 41.4, 51.9,
        46.0, 67.6, 59.5, protocol="dift",
    ),
    _spair("DIFT, empty prompt", None, 50.7, protocol="dift"),
    _spair("SD+DINO", 44.1, 59.3),
    _spair("SD+DINO without DINO, empty prompt", None, 50.3),
    _spair("SD+DINO without DINO, text", None, 52.2),
    _spair("SD+DINO without DINO, implicit captioner", None, 52.4),
    _spair("NCNet", None, 20.1),
    _spair("SFNet", None, 26.3),
    _spair("PMD", None, 26.5),
    _spair("CATs", None, 49.9, trained_on="spair"),
    _spair("PMNC", None, 50.4, trained_on="spair"),
    _spair("SemiMatch", None, 50.7, trained_on="spair"),
    _spair("TransforMatcher", None, 53.7, trained_on="spair"),
    _spair("SCorrSAN", None, 55.3, trained_on="spair"),
    _spair("SimSC-iBOT", None, 63.5, trained_on="spair"),
    _spair("SD4Match-Single", 30.5, 44.4, trained_on="pf_pascal", **_OURS),
    _spair("SD4Match-CPM", 27.2, 40.9, trained_on="pf_pascal", **_OURS),
    _spair(
        "SD4Match-Single", 56.5, 72.6, 72.1, 66.5, 82.3, 62.5, 57.6, 76.0, 73.3, 81.5, 62.0, 85.0, 71.9, 76.1, 68.5,
        76.5, 68.9, 58.0, 89.3, 83.1, trained_on="spair", **_OURS,
    ),
    _spair(
        "SD4Match-Class", None, 75.5, 75.1, 66.6, 88.1, 71.4, 57.8, 86.6, 74.6, 84.2, 63.0, 83.8, 71.5, 77.6, 73.5,
        87.2, 63.3, 60.0, 92.0, 89.8, trained_on="spair", **_OURS,
    ),
    _spair(
        "SD4Match-CPM", 59.5, 75.5, 75.3, 67.4, 85.7, 64.7, 62.9, 86.6, 76.5, 82.6, 64.8, 86.7, 73.0, 78.9, 70.9, 78.3,
        66.8, 64.8, 91.5, 86.6, trained_on="spair", **_OURS,
    ),
    *_pf("DINO", "55.6 74.2 81.6, 39.7 64.8 77.0"),
    *_pf("DINOv2", "63.4 82.6 89.9, 37.3 63.4 73.1"),
    *_pf("DIFT", "69.0 82.2 88.1, 44.8 68.0 79.8"),
    *_pf("SD+DINO", "68.1 85.7 91.5, 44.8 72.0 85.0"),
    *_pf("NCNet", "54.3 78.9 86.0, 44.0 72.7 85.4", trained_on="pf_pascal"),
    *_pf("SFNet", "59.0 84.0 92.0, 46.3 74.0 84.2", trained_on="pf_pascal"),
    *_pf("PWarpC-NCNet", "64.2 84.4 90.5, 45.0 75.9 87.9", trained_on="pf_pascal"),
    *_pf("CATs", "75.4 92.6 96.4, 40.9 69.5 83.2", trained_on="pf_pascal"),
    *_pf("TransforMatcher", "80.8 91.8 -, - 65.3 -", trained_on="pf_pascal"),
    *_pf("DHPF", "77.3 91.7 95.5, 44.8 70.6 83.2", trained_on="pf_pascal"),
    *_pf("SimSC-iBOT", "88.4 95.6 97.3, 44.9 71.4 84.5", trained_on="pf_pascal"),
    *_pf("SD4Match-Single", "81.3 92.4 96.6, 50.7 77.8 89.5", trained_on="pf_pascal", **_OURS),
    *_pf("SD4Match-CPM", "84.4 95.2 97.5, 52.1 80.4 91.2", trained_on="pf_pascal", **_OURS),
    *_pf("SD4Match-Single", "71.8 85.5 90.4, 55.5 81.3 91.2", trained_on="spair", **_OURS),
    *_pf("SD4Match-CPM", "73.3 87.0 91.5, 56.7 80.9 91.6", trained_on="spair", **_OURS),
    _spair("DIY-SC", None, 71.6, source=_LATER),
    _spair("3D-SC", None, 73.0, source=_LATER),
    _spair("GeoAware", None, 85.6, trained_on="spair", protocol="geoaware", source=_LATER),
    _spair("Visual-AI DINOv2", None, 85.1, trained_on="spair", source=_LATER),
    _spair("MARCO", None, 87.3, trained_on="spair", source=_LATER),
    _spair("SemAlign3D", None, 88.9, trained_on="spair", source=_LATER),
)  # fmt: skip


@dataclass(frozen=True)
class PublishedRow:
    """Published result, with a flag that tells whether measured ones can be compared with it.

    Args:
        method: name of the method.
        trained_on: name of the data set; None if it is not trained on pairs.
        protocol: name of the evaluation protocol; None if it is not stated.
        pck_percent: PCK in percent by alpha, averaged over images.
        by_category_percent: PCK at alpha 0.1, by category.
        source: publication.
        comparable: True if the measured results can be compared with it.
        why_not: reason of this row; None if there is none or the reason holds for all rows.
    """

    method: str
    trained_on: str | None
    protocol: str | None
    pck_percent: Mapping[str, float]
    by_category_percent: Mapping[str, float]
    source: str
    comparable: bool
    why_not: str | None
    average: str = "image"

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able values; inverse of `from_json`."""
        return {
            **{own.name: getattr(self, own.name) for own in fields(self)},
            "pck_percent": dict(self.pck_percent),
            "by_category_percent": dict(self.by_category_percent),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PublishedRow:
        """Rebuild a row from `to_json`.

        Raises:
            InputError: a field is missing, unknown or malformed.
        """
        names = {own.name for own in fields(cls)}
        if set(values) != names:
            raise InputError(f"must have the fields {', '.join(sorted(names))}")
        for name, value in values.items():
            if name.endswith("_percent"):
                fits = isinstance(value, Mapping) and all(_is_percent(number) for number in value.values())
            elif name == "comparable":
                fits = isinstance(value, bool)
            else:
                fits = isinstance(value, str) or (value is None and name in ("trained_on", "protocol", "why_not"))
            if not fits:
                raise InputError(f"{name}: is of a wrong type: {shown(value)}")
        return cls(**values)


def _is_percent(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100


def published_for(dataset: str, *, protocol: str, against_all: Sequence[str] = ()) -> tuple[PublishedRow, ...]:
    """Return the published results on a data set, with the reasons why measured ones cannot be compared.

    Args:
        dataset: name of the data set.
        protocol: name of the protocol of the measured results; a star marks a changed one.
        against_all: reasons why the measured results can be compared with none.

    >>> row = published_for("pf_willow", protocol="sd4match")[-1]
    >>> row.method, row.pck_percent["0.1"], row.comparable
    ('SD4Match-CPM', 80.9, True)
    >>> published_for("pf_willow", protocol="dift")[-1].why_not
    'counted by sd4match, not by dift'
    """
    return tuple(
        beside_ours(published, protocol=protocol, against_all=against_all)
        for published in PUBLISHED
        if published.dataset == dataset
    )


def beside_ours(published: Published, *, protocol: str, against_all: Sequence[str] = ()) -> PublishedRow:
    """Return a published result with the reason why measured ones cannot be compared; see `published_for`."""
    why_not = None
    if published.protocol is None:
        why_not = "how it was counted is not stated"
    elif published.protocol != protocol:
        why_not = f"counted by {published.protocol}, not by {protocol}"
    return PublishedRow(
        method=published.method, trained_on=published.trained_on, protocol=published.protocol,
        pck_percent=dict(published.pck), by_category_percent=dict(published.by_category), source=published.source,
        comparable=why_not is None and not against_all, why_not=why_not,
    )  # fmt: skip
