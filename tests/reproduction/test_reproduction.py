"""Targets, their plans and claims, with made-up scores instead of a model."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sd4match.backbones.config import StableDiffusionConfig
from sd4match.errors import ConfigError, InputError
from sd4match.evaluation.scores import PairScores
from sd4match.evaluation.seeds import by_category
from sd4match.reproduction import ReproductionSettings, reproduce, target_names
from sd4match.reproduction.claims import judge, verdict_of
from sd4match.reproduction.pages import to_markdown
from sd4match.reproduction.run import check_output_of, chosen_targets, plan, reproduce_planned, work_of
from sd4match.reproduction.targets import BEST_OTHER, EVERY, Claim, Condition, Prompted, Target, make_target
from sd4match.training.measuring import Measurement, SweepCallbacks

SMALL = ReproductionSettings(steps=1, pairs=4, seeds=(0, 1))
IDS = tuple(f"{number:02d}" for number in range(40))


def scores(hits, *, category=("cat", "dog")):
    """Counts of 40 pairs with ten points each, of which `hits` are found, one more in every other pair."""
    correct = np.array([hits + number % 2 for number in range(40)], dtype=np.int64)
    table = np.stack([np.maximum(correct - 1, 0), correct, np.minimum(correct + 1, 10)], axis=1)
    names = tuple(category[number % 2] for number in range(40))
    return PairScores(IDS, names, np.full(40, 10), table, (0.05, 0.1, 0.15))


class MadeUp:
    """A bench whose scores follow from the name of a row."""

    def __init__(self, hits):
        self.hits, self.asked, self.callbacks = hits, [], SweepCallbacks()

    def measure(self, name, job):
        self.asked.append(name)
        row = next(row for row in self.hits if name.startswith(row))
        return Measurement(scores(self.hits[row] + (1 if "seed 1" in name else 0)), 1.0)

    def pairs(self, config):
        keys = [SimpleNamespace(pair_id=each, category="cat") for each in IDS]
        return SimpleNamespace(
            keys=keys, name="synthetic", split="test", categories=("cat", "dog"), published_pairs={}, reference="box"
        )

    def backbone(self, config):
        return SimpleNamespace(spec=SimpleNamespace(architecture="made up"), fingerprint="0")


def made(name, hits, tmp_path, settings=SMALL):
    target, bench = make_target(name, settings), MadeUp(hits)
    return reproduce_planned(target, settings, plan(target, settings, tmp_path), tmp_path, bench), bench


def test_all_targets_of_the_paper_are_planned_on_mini(tmp_path):
    assert target_names() == (
        "table1", "table2", "table3", "table4", "fig3a", "fig3b", "fig4", "fig6", "image-size",
    )  # fmt: skip
    assert chosen_targets(["fig4", "all"]) == target_names()
    assert chosen_targets(["fig4", "fig4"]) == ("fig4",)
    trained, scored = {}, {}
    for name in target_names():
        target = make_target(name, SMALL)
        for row in plan(target, SMALL, tmp_path):
            if target.measures:
                assert scored.setdefault(row.job.folder, row.job.config) == row.job.config
            config, folder = row.job.own_training
            if row.job.training is not None:
                assert trained.setdefault(folder, config) == config  # what two targets share is the same training
    names = {folder.name.rpartition("-seed-")[0] for folder in trained}
    assert names == {
        "implicit-captioner", "single", "class", "cpm", "single-on-plain", "cpm-on-plain", "single-from-empty",
        "single-from-text", "cpm-global-features", "cpm-single-image", "cpm-single-image-global-features",
        "cpm-no-global-prompt", "cpm-no-patch-mixing",
    }  # fmt: skip
    assert len(trained) == 2 * len(names)


def test_the_number_of_pairs_changes_no_training(tmp_path):
    few, many = (ReproductionSettings(steps=1, pairs=pairs, seeds=(0,)) for pairs in (3, 5))
    rows = [plan(make_target("table2", settings), settings, tmp_path)[1] for settings in (few, many)]
    assert rows[0].job.own_training == rows[1].job.own_training
    assert [row.job.config.evaluation.limit for row in rows] == [3, 5]
    assert work_of(rows[0]) == 3 * 2 + 3 * 1 * 4
    assert work_of(rows[0], done=[rows[0].job.own_training[1]]) == 3 * 2


def test_verdicts_are_plain():
    assert verdict_of((0.1, 0.2), ">") == "holds"
    assert (
        verdict_of((-0.2, -0.1), ">") == verdict_of((-0.2, -0.1), "=") == verdict_of((0.1, 0.2), "=") == "does not hold"
    )
    assert verdict_of((0.0, 0.2), ">") == verdict_of((0.0, 0.2), "=") == "not different"


def test_claims_about_several_columns_are_those_of_the_least_sure():
    row = Prompted("single", "single")
    columns = {name: Condition(name) for name in ("x", "y", "z")}
    claims = (Claim("a > b everywhere", ("a", EVERY), ("b", EVERY)), Claim("x is best", ("a", "x"), ("a", BEST_OTHER)))
    target = Target("t", "", "", "lines", {"a": row, "b": row}, columns, claims)
    hits = {"a": {"x": 6, "y": 4, "z": 5}, "b": {"x": 1, "y": 3, "z": 1}}
    cells = {(name, column): (scores(hits[name][column]),) for name in hits for column in columns}
    every, best = judge(target, cells)
    assert (every.verdict, every.column, round(every.difference.mean, 6)) == ("holds", "y", 0.1)
    assert (best.verdict, best.column, round(best.difference.mean, 6)) == ("holds", "z", 0.1)
    cells["b", "z"] = (scores(7),)
    assert judge(target, cells)[0].verdict == "does not hold"
    assert judge(target, cells)[0].column == "z"


def test_one_page_says_what_is_reduced_what_holds_and_what_the_paper_has(tmp_path):
    hits = {"a photo of a {category}": 2, "Single": 4, "Class": 6, "CPM": 5}
    result, bench = made("table2", hits, tmp_path)
    assert bench.asked == [
        "a photo of a {category}", *(f"{row}, seed {seed}" for row in ("Single", "Class", "CPM") for seed in (0, 1)),
    ]  # fmt: skip
    page = (tmp_path / "table2" / "reproduction.md").read_text()
    first = page.splitlines()[2]
    assert first.startswith("**Reduced form**: 1 training steps instead of 30,000, 4 pairs a step instead of 9, 4 test")
    assert "only the order can be compared" in first
    assert "not numbers of Stable Diffusion" in page
    assert "| Class > Single | **holds** | +20.0 [+20.0, +20.0] | +2.9 |" in page
    assert "| CPM = Class | **does not hold** | -10.0 [-10.0, -10.0] | +0.0 |" in page
    assert "| Single | 50.0 [44.0, 56.0] (45.0, 55.0) | SD4Match-Single 72.6 (no: on spair) |" in page
    assert "1 training steps instead of 30,000" in page.split("can be compared with ours")[1]
    assert "| cat | 20.0 | 45.0 | 65.0 | 55.0 |" in page
    assert "(paper)" not in page.split("## By category")[1]  # of other categories
    numbers = json.loads((tmp_path / "table2" / "reproduction.json").read_text())
    assert numbers["target"] == "table2"
    assert numbers["reduced"] is True
    assert [claim["verdict"] for claim in numbers["claims"]] == ["holds", "holds", "holds", "does not hold"]
    assert numbers["cells"][1]["pck"]["0.1"]["by_seed"] == pytest.approx([0.45, 0.55])
    assert not numbers["cells"][1]["published"][0]["comparable"]
    with Image.open(tmp_path / "table2" / "figure.png") as picture:
        assert picture.width == 1600
    assert to_markdown(result) == page
    assert by_category([scores(3)])["dog"].mean == pytest.approx(0.4)
    made("table2", hits, tmp_path)  # replaces its own


@pytest.mark.parametrize(
    ("name", "columns"), [("fig3b", 6), pytest.param("table3", 3, marks=pytest.mark.slow), ("image-size", 3)]
)
def test_targets_with_several_conditions_are_drawn(name, columns, tmp_path):
    hits = {"a photo of a {category}": 2, "Single": 4, "Class": 6, "CPM": 5}
    result, _ = made(name, hits, tmp_path)
    assert len(result.target.columns) == columns
    assert len(result.cells) == columns * len(result.target.rows)
    assert (tmp_path / name / "figure.png").exists()
    page = (tmp_path / name / "reproduction.md").read_text()
    assert ("stand for the paper's three" in page) == (name == "table3")
    if name == "image-size":
        assert list(result.target.columns) == [
            "48 px (the paper: 384)",
            "96 px (the paper: 768)",
            "192 px (the paper: 1536)",
        ]
        assert [judged.verdict for judged in result.judged] == ["not different"] * 2


def test_nothing_of_the_user_is_replaced(tmp_path):
    target = make_target("fig4", SMALL)
    rows = plan(target, SMALL, tmp_path)
    check_output_of(target, rows, tmp_path)
    (tmp_path / "fig4").mkdir()
    for name, text in (("reproduction.md", "mine"), ("figure.png", "mine")):
        file = tmp_path / "fig4" / name
        file.write_text(text)
        with pytest.raises(InputError, match=r"would be lost|is no picture of this command"):
            check_output_of(target, rows, tmp_path)
        file.unlink()
    (tmp_path / "fig4" / "reproduction.json").write_text('{"target": "table1"}')
    with pytest.raises(InputError, match=r"reproduction\.json was not made by such a run"):
        check_output_of(target, rows, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "scores.json").write_text('{"config": {}, "split": "test", "fingerprint": ""}')
    with pytest.raises(InputError, match="holds another kind of run"):
        check_output_of(target, rows, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"on": "sd9"}, "no model and no folder 'sd9'"),
        ({"roots": {"spairs": "x"}}, "unknown data set 'spairs'"),
        ({"roots": {"synthetic": "x"}}, "synthetic has no folder"),
        ({"steps": 0}, "steps"),
        ({"pairs": 0}, "pairs"),
        ({"seeds": ()}, "one or more different numbers"),
        ({"seeds": (1, 1)}, "one or more different numbers"),
        ({"seeds": (-1,)}, "a seed"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
    with pytest.raises((ConfigError, InputError), match=message):
        ReproductionSettings(**fields)


def test_real_models_need_real_data(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"on sd2-1 needs a data set to train on: give --dataset spair --root FOLDER"):
        make_target("table2", ReproductionSettings(on="sd2-1"))
    with pytest.raises(ConfigError, match="a data set to train on"):
        make_target("table2", ReproductionSettings(on="sd2-1", roots={"PF-Willow": "w"}))
    spair = ReproductionSettings(on="sd2-1", roots={"SPair-71k": "s"})
    with pytest.raises(ConfigError, match=r"table3 needs pf_pascal and pf_willow too: give --dataset pf_pascal --root"):
        make_target("table3", spair)
    with pytest.raises(ConfigError, match="unknown target 'table9'; did you mean"):
        make_target("table9", spair)
    monkeypatch.setattr(StableDiffusionConfig, "spec", lambda self: None)
    with pytest.raises(ConfigError, match="image-size needs the model"):
        make_target("image-size", spair)


def test_the_paper_itself_is_comparable(tmp_path):
    full = ReproductionSettings(on="sd2-1", roots={"spair": "s", "pf_pascal": "p", "pf_willow": "w"}, seeds=(0,))
    assert full.differences_from_paper() == []
    assert full.timesteps == tuple(range(0, 501, 50))
    rows = plan(make_target("table3", full), full, tmp_path)
    assert {row.job.config.data.kind for row in rows} == {"spair", "pf_pascal", "pf_willow"}
    assert rows[-1].job.own_training[0].data.kind == "spair"
    assert rows[-1].job.own_training[0].training.steps == 30_000
    table1 = plan(make_target("table1", full), full, tmp_path)
    assert {row.job.config.evaluation.protocol.name for row in table1} == {"dift"}
    assert table1[-1].job.own_training[0].evaluation.protocol.name == "sd4match"
    pascal = ReproductionSettings(on="sd2-1", roots={"pf_pascal": "p"})
    assert pascal.main_data() == "pf_pascal"


def test_a_wrong_name_is_refused_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="unknown target 'table9'"):
        reproduce("table9", tmp_path / "out")
    assert not (tmp_path / "out").exists()
