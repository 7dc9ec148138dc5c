"""Targets, their plans and claims, with made-up scores instead of a model."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from sd4match.backbones.config import StableDiffusionConfig
from sd4match.backbones.pretrained import MINI_FOLDER
from sd4match.errors import ConfigError, InputError
from sd4match.evaluation.published import PUBLISHED, published_for
from sd4match.evaluation.scores import PairScores
from sd4match.evaluation.seeds import Estimate, by_category
from sd4match.reproduction import ReproductionSettings, reproduce, target_names
from sd4match.reproduction.claims import judge, verdict_of
from sd4match.reproduction.differences import differences_from_paper
from sd4match.reproduction.figures import _with_width, title_of
from sd4match.reproduction.pages import to_json, to_markdown
from sd4match.reproduction.run import check_output_of, chosen_targets, plan, reproduce_planned, work_of
from sd4match.reproduction.targets import BEST_OTHER, EVERY, Claim, Condition, Prompted, Target, make_target
from sd4match.training.measuring import MeasuredScores, SweepCallbacks

SMALL = ReproductionSettings(steps=20, pairs=40, seeds=(0, 1))
DEFAULT = ReproductionSettings(seeds=(0,))
REAL = {"spair": "s", "pf_pascal": "p", "pf_willow": "w"}
IDS = tuple(f"{number:02d}" for number in range(40))


def scores(hits, *, category=("cat", "dog"), pairs=40):
    """Counts of 40 pairs with ten points each, of which `hits` are found, one more in every other pair."""
    correct = np.array([hits + number % 2 for number in range(pairs)], dtype=np.int64)
    table = np.stack([np.maximum(correct - 1, 0), correct, np.minimum(correct + 1, 10)], axis=1)
    names = tuple(category[number % 2] for number in range(pairs))
    return PairScores(IDS[:pairs], names, np.full(pairs, 10), table, (0.05, 0.1, 0.15))


class MadeUp:
    """A bench whose scores follow from the name of a row."""

    def __init__(self, hits):
        self.hits, self.asked, self.callbacks = hits, [], SweepCallbacks()

    def measure(self, name, job):
        self.asked.append(name)
        row = next(row for row in self.hits if name.startswith(row))
        return MeasuredScores(scores(self.hits[row] + (1 if "seed 1" in name else 0)), 1.0)

    def pairs(self, config):
        keys = [SimpleNamespace(pair_id=each, category="cat") for each in IDS]
        return SimpleNamespace(
            keys=keys, name="synthetic", split="test", categories=("cat", "dog"), published_pairs={}, reference="box"
        )

    def backbone(self, config):
        return SimpleNamespace(spec=SimpleNamespace(architecture="made up"), fingerprint="0")


def made(name, hits, tmp_path, settings=SMALL, *, draw=True):
    target, bench = make_target(name, settings), MadeUp(hits)
    with nullcontext() if draw else patch("sd4match.reproduction.run._write"):
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
    assert len({row.job.folder for row in rows}) == 2  # the scores of both are kept
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
    assert first == (
        "**Reduced form**: 20 training steps instead of 30,000, 4 pairs a step instead of 9, 10 steps between "
        "validations instead of 1,000, 32 validation pairs instead of all, 40 test pairs instead of all, mini with the "
        "settings of its presets instead of Stable Diffusion 2.1, synthetic photos (24 of each category) instead of "
        "real ones. Only the order of its numbers can be compared with the paper's."
    )
    assert "not numbers of Stable Diffusion" in page
    assert "| Class > Single | **holds** | +20.0 [+20.0, +20.0] | +2.9 |" in page
    assert "| CPM = Class | **does not hold** | -10.0 [-10.0, -10.0] | +0.0 |" in page
    assert (
        "| Single | 50.0 [44.0, 56.0] (45.0, 55.0) | SD4Match-Single 72.6 (no: of spair, ours of synthetic) |" in page
    )
    assert "Not comparable either (Single, Class, CPM): 20 training steps instead of 30,000; " in page
    assert "bootstrap intervals over 2 seeds and all pairs; the seeds in parentheses." in page
    assert page.count("intervals over 2 seeds and all pairs") == 2
    assert "The paper's number for the text is DIFT's" in page
    assert "| by the paper's numbers | here |" in page
    assert "| cat | 20.0 | 45.0 | 65.0 | 55.0 |" in page
    assert "(paper)" not in page.split("## By category")[1]  # of other categories
    numbers = json.loads((tmp_path / "table2" / "reproduction.json").read_text())
    assert numbers["target"] == "table2"
    assert numbers["reduced"] is True
    assert numbers["seeds"] == [0, 1]
    assert numbers["overrides"] == []
    assert [len(cell["runs"]) for cell in numbers["cells"]] == [1, 2, 2, 2]
    rows = plan(result.target, SMALL, tmp_path)
    assert [folder for cell in numbers["cells"] for folder in cell["runs"]] == [
        row.job.folder.relative_to(tmp_path).as_posix() for row in rows
    ]
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
        assert "training" not in page.splitlines()[2]
        assert "seed" not in page
        assert page.count("over pairs, because nothing is learned") == 2


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


def differences(name, settings):
    target = make_target(name, settings)
    return differences_from_paper(target, settings, plan(target, settings, Path("out")))


def test_the_paper_itself_is_comparable(tmp_path, monkeypatch):
    full = ReproductionSettings(on="sd2-1", roots=REAL, seeds=(0,))
    monkeypatch.setattr(ReproductionSettings, "image_size", lambda self: 768)
    for name in target_names():
        assert differences(name, full) == (), name
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


def test_the_default_form_has_plain_folders_and_everything_else_folders_of_its_own(tmp_path):
    """No extent, model, data or override may replace what another one has trained or measured."""
    real = ReproductionSettings(on="sd2-1", roots=REAL, seeds=(0,))
    others = [
        replace(DEFAULT, steps=3), replace(DEFAULT, overrides=("training.learning_rate=0.05",)),
        replace(DEFAULT, reduced=False), replace(DEFAULT, overrides=("data.photos_per_category=2",)), real,
        replace(real, on="sd1-5"), replace(real, roots={**REAL, "spair": "t"}),
    ]  # fmt: skip
    for target in ("table2", "fig4"):
        rows = [plan(make_target(target, each), each, tmp_path) for each in (DEFAULT, *others)]
        trained = [{row.job.own_training[1] for row in found if row.job.training is not None} for found in rows]
        scored = [{row.job.folder for row in found} for found in rows]
        assert {folder.name.rpartition("-seed-")[2] for folder in trained[0]} == {"0"}
        for folders in (trained, scored):
            assert len(set.union(*folders)) == sum(map(len, folders)), target
    again = plan(make_target("table2", replace(DEFAULT, steps=40)), replace(DEFAULT, steps=40, pairs=96), tmp_path)
    assert [row.job.folder.relative_to(tmp_path).as_posix() for row in again] == [
        "runs/text", "runs/single-seed-0", "runs/class-seed-0", "runs/cpm-seed-0",
    ]  # fmt: skip
    few = replace(DEFAULT, pairs=4)
    scores_of_few = plan(make_target("table2", few), few, tmp_path)[1].job
    assert scores_of_few.own_training[1] == tmp_path / "runs" / "single-seed-0"
    assert scores_of_few.folder.parent == tmp_path / "runs" / "single-seed-0"


def test_a_training_of_another_experiment_is_never_replaced(tmp_path):
    target = make_target("fig4", DEFAULT)
    (row,) = plan(target, DEFAULT, tmp_path)
    config, folder = row.job.own_training
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text('{"config": {}, "split": "test", "fingerprint": ""}')
    (folder / "prompt.safetensors").write_bytes(b"learned")
    (folder / "config.yaml").write_text(config.to_yaml())
    check_output_of(target, [row], tmp_path)  # the same one
    other = config.model_copy(update={"training": config.training.model_copy(update={"steps": 3})})
    for text in (other.to_yaml(), "nothing: known"):
        (folder / "config.yaml").write_text(text)
        with pytest.raises(
            InputError, match="class-seed-0 holds a training of another experiment, which would be lost"
        ):
            check_output_of(target, [row], tmp_path)
    (folder / "config.yaml").unlink()
    with pytest.raises(InputError, match="training of another experiment"):
        check_output_of(target, [row], tmp_path)


@pytest.mark.parametrize(
    ("target", "fields", "expected"),
    [
        ("table2", {"on": "sd1-5"}, ("Stable Diffusion 1.5 instead of Stable Diffusion 2.1",)),
        ("table2", {"steps": 60_000}, ("60,000 training steps instead of 30,000",)),
        ("table2", {"steps": 1}, ("1 training step instead of 30,000",)),
        ("table2", {"pairs": 1}, ("1 test pair instead of all",)),
        (
            "table2",
            {"roots": {"pf_pascal": "p"}, "overrides": ("training.learning_rate=0.5",)},
            (
                "training.learning_rate = 0.5 instead of 0.01", "measured on pf_pascal instead of spair",
                "trained on pf_pascal instead of spair",
            ),
        ),
        ("table2", {"overrides": ("matcher.temperature=0.1",)}, ("matcher.temperature = 0.1 instead of 0.04",)),
        (
            "table2",
            {"overrides": ("matcher={kind: nearest_neighbor}",)},
            ("matcher.kind = 'nearest_neighbor' instead of 'pixel_nearest_neighbor'",
             "matcher.kind = 'nearest_neighbor' instead of 'kernel_soft_argmax'"),
        ),
        ("table2", {"overrides": ("cache.limit=1 GB", "evaluation.batch_size=2", "training.per_device=3")}, ()),
        ("table2", {"overrides": ("backbone.dtype=float16",)}, ("backbone.dtype = 'float16' instead of 'float32'",)),
        (
            "fig3b",
            {"reduced": True},
            ("40 training steps instead of 30,000", "20 steps between validations instead of 1,000",
             "32 validation pairs instead of all", "96 test pairs instead of all", "6 timesteps instead of 11"),
        ),
        ("image-size", {"reduced": True}, ("96 test pairs instead of all",)),
        (
            "fig4",
            {"reduced": True},
            ("40 training steps instead of 30,000", "20 steps between validations instead of 1,000",
             "32 validation pairs instead of all"),
        ),
        ("fig6", {"pairs": 5}, ()),
        ("fig6", {"overrides": ("evaluation.sampling.timestep=9",)},
         ("evaluation.sampling.timestep = 9 instead of 50",)),
    ],
)  # fmt: skip
def test_a_page_says_exactly_what_is_not_as_in_the_paper(target, fields, expected, monkeypatch):
    monkeypatch.setattr(ReproductionSettings, "image_size", lambda self: 768)
    settings = ReproductionSettings(**{"on": "sd2-1", "roots": REAL, "seeds": (0,), **fields})
    assert differences(target, settings) == expected


def test_mini_is_never_the_paper():
    settings = ReproductionSettings(
        on="mini", roots=REAL, reduced=False, steps=30_000, seeds=(0,), overrides=("training.batch_size=9",)
    )
    assert differences("table2", settings) == ("mini with the settings of its presets instead of Stable Diffusion 2.1",)


def test_a_model_in_a_folder_is_named():
    settings = ReproductionSettings(on=str(MINI_FOLDER), roots=REAL, steps=30_000, seeds=(0,))
    assert differences("table2", settings) == (
        "4 pairs a step instead of 9",
        "the model in mini_weights with the settings of its presets, which may be another than Stable Diffusion 2.1",
    )


def test_the_text_is_measured_as_the_papers_was_on_real_data(tmp_path, monkeypatch):
    """Its 52.9 of Tabs. 1 to 3 and Sec. 7 is DIFT's: t = 261, its matching, its protocol."""
    monkeypatch.setattr(ReproductionSettings, "image_size", lambda self: 768)
    full = ReproductionSettings(on="sd2-1", roots=REAL, seeds=(0,))
    places = {}
    for name in ("table1", "table2", "table3", "image-size"):
        target = make_target(name, full)
        rows = [row for row in plan(target, full, tmp_path) if row.experiment == "text"]
        for row in rows:
            assert row.job.config.evaluation.protocol.name == "dift"
            assert row.job.config.evaluation.sampling.timestep == 261
            assert row.job.config.matcher.kind == "pixel_nearest_neighbor"
            assert places.setdefault(row.job.folder, row.job.config) == row.job.config
        if name != "table1":
            assert "DIFT's matching and protocol" in target.remark
            assert all(
                row.job.config.evaluation.protocol.name == "sd4match"
                for row in plan(target, full, tmp_path)
                if row.experiment != "text"
            )
        for published in (one for found in target.published.values() for one in found if one.method == "DIFT"):
            if published.dataset == "spair":
                assert (published.pck["0.1"], published.protocol) == (52.9, "dift")
    assert len(places) == 3 + 2  # of three data sets, and two more image sizes


def test_tables_and_reports_know_the_same_protocol_of_a_published_number():
    empty = make_target("table1", DEFAULT).published["empty", "PCK"][0]
    assert (empty.method, empty.protocol, empty.pck) == ("DIFT, empty prompt", "dift", {"0.1": 50.7})
    rows = {row.method: row for row in published_for("spair", protocol="dift")}
    assert rows["DIFT, empty prompt"].comparable
    for name in target_names()[:3]:
        for published in make_target(name, DEFAULT).published.values():
            assert all(one in PUBLISHED for one in published)  # stated once


def test_a_row_that_can_be_compared_is_not_said_to_be_otherwise(tmp_path, monkeypatch):
    settings = ReproductionSettings(on="sd2-1", roots={"spair": "s"}, steps=100, seeds=(0,))
    monkeypatch.setattr("sd4match.reproduction.run.not_comparable_because", lambda config, data, model: ())
    hits = {"empty": 1, "a photo of a {category}": 2, "implicit captioner": 3}
    page = to_markdown(made("table1", hits, tmp_path, settings, draw=False)[0])
    assert "DIFT 52.9 (yes)" in page
    assert "DIFT, empty prompt 50.7 (yes)" in page
    assert "No number of the paper can be compared" not in page
    assert "Not comparable (implicit captioner): 100 training steps instead of 30,000." in page


def test_verdicts_need_enough_pairs_and_steps_and_name_one_seed(tmp_path):
    hits = {"a photo of a {category}": 2, "Single": 4, "Class": 6, "CPM": 5}
    result, _ = made("table2", hits, tmp_path, ReproductionSettings(steps=9, seeds=(0,)), draw=False)
    assert {judged.verdict for judged in result.judged} == {"too few to tell"}
    result, _ = made("table2", hits, tmp_path, ReproductionSettings(steps=10, seeds=(7,)), draw=False)
    assert [judged.verdict for judged in result.judged] == ["holds", "holds", "holds", "does not hold"]
    page = to_markdown(result)
    assert "over pairs alone, because one seed (7) is learned" in page
    assert "over both" not in page
    assert "parentheses" not in page
    few = {place: (scores(place_hits, pairs=29),) for place, place_hits in zip(result.cells, (2, 4, 6, 5), strict=True)}
    assert {judged.verdict for judged in judge(result.target, few)} == {"too few to tell"}


def test_overrides_are_on_the_page(tmp_path):
    hits = {"a photo of a {category}": 2, "Single": 4, "Class": 6, "CPM": 5}
    settings = replace(SMALL, overrides=("training.learning_rate=0.5",))
    result, _ = made("table2", hits, tmp_path, settings, draw=False)
    page = to_markdown(result)
    assert "`--set training.learning_rate=0.5`" in page
    assert "training.learning_rate = 0.5 instead of 0.01" in page.splitlines()[2]
    assert to_json(result)["overrides"] == list(settings.overrides)


def test_a_picture_speaks_of_published_numbers_only_where_it_draws_them(tmp_path):
    hits = {"a photo of a {category}": 2, "Single": 4, "Class": 6, "CPM": 5, "random": 1, "empty string": 2}
    hits["a photo of an object"] = 3
    assert "published" not in title_of(made("table2", hits, tmp_path, draw=False)[0])
    assert "published: another model and other data" in title_of(made("table4", hits, tmp_path, draw=False)[0])


def test_intervals_of_no_width_are_not_drawn():
    none, some = (Estimate(0.5, ci95, (0.5,)) for ci95 in ((0.5, 0.5), (0.4, 0.6)))
    assert _with_width({"cat": none, "dog": some}) == {"dog": (0.4, 0.6)}
