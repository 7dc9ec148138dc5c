"""Sweeps over fields: what is parsed, which rows there are, what they share, and what the report says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.loaded_once import loaded_once  # noqa: F401 - a fixture
from sd4match.cli.app import app
from sd4match.config import load_preset
from sd4match.errors import ConfigError, InputError
from sd4match.evaluation.report import make_report, make_row
from sd4match.evaluation.scores import PairCount, PairScores
from sd4match.testing import FakePairs
from sd4match.training import sweep_fields
from sd4match.training.field_sweep import SweptField, field_rows, find_field, parse_swept, plot_sweep, seed_means
from sd4match.training.measuring import Job, MeasuredScores, row_record

SMALL = [
    "data.pairs=4", "data.photos_per_category=2", "training.steps=1", "training.batch_size=2",
    "training.validate_every=1", "training.validation_pairs=2", "evaluation.bootstrap_samples=50",
]  # fmt: skip


def read(changes):
    return load_preset("single", [*SMALL, *changes])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=1,2,3", (1, 2, 3)), ("a.b = 0.5", (0.5,)), ("a=0:500:250", (0, 250, 500)), ("a=0:499:250", (0, 250)),
        ("a=3:1:-1", (3, 2, 1)), ("a=2:4", (2, 3, 4)), ("a=0:0.3:0.1", (0.0, 0.1, 0.2, 0.3)),
        ("a=[1,2],[3]", ([1, 2], [3])), ("a={kind: x, b: 1},y", ({"kind": "x", "b": 1}, "y")),
        ("a='x,y',null,true", ("x,y", None, True)), ('a="[",b', ("[", "b")), ("a=1e-3,1e-2", (1e-3, 1e-2)),
        ("a=0:1E2:5e1", (0.0, 50.0, 100.0)), ("a= 0 : +2 ", (0, 1, 2)), ("a=.5:1.:.5", (0.5, 1.0)), ("a=5:5", (5,)),
        ("a=5:1:-2", (5, 3, 1)), ("a='1:2:3:4'", ("1:2:3:4",)), ("a=x:1", ("x:1",)),
    ],
)  # fmt: skip
def test_values_are_yaml_or_a_range_with_its_stop(text, values):
    found = parse_swept(text).values
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "a swept field is FIELD=a,b,c"), ("=1", "a swept field is"), ("a=", "a swept field is"),
        ("a..b=1", "a swept field is"), ("a=1:2:0", "must not be 0"), ("a=2:1:1", "has no value"),
        ("a=0:1e9:1", "more than 1000"), ("a=1,,2", "a value in 'a=1,,2' is empty"), ("a=1,1", "a is 1 twice"),
        ("a=[1", "the value in"), ("a=100:50:100", "no value: its step leads away from its stop"),
        ("a=1:0.5", "no value: its step"), ("a=0:1e999999", "more than 1000 values"), ("a=0:1E3:1", "more than 1000"),
        ("a=0:1e9999999", "too large or too small"), ("a=1e400:1e400", "too large or too small"),
        ("a=1:2:3:4", "a range is start:stop or start:stop:step, of numbers"), ("a=1::2", "a range is start:stop"),
        ("a=1:2-3", "a range is start:stop"), ("a=0,10:20", "has a range among other values"),
        ("a=0:1:-0", "must not be 0"),
    ],
)  # fmt: skip
def test_what_is_no_swept_field_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_swept(text)


def test_the_end_of_a_path_is_enough_if_one_field_ends_like_that():
    config = read([])
    assert find_field(config, "learning_rate") == "training.learning_rate"
    assert find_field(config, "training.steps") == "training.steps"
    assert find_field(config, "preset") == "preset"
    with pytest.raises(ConfigError, match=r"end of several fields: write training\.sampling\.timestep or"):
        find_field(config, "timestep")
    with pytest.raises(ConfigError, match="no field 'learning_rat' in this experiment; did you mean"):
        find_field(config, "learning_rat")


def test_rows_are_all_combinations_and_share_the_training_that_they_have_in_common():
    swept, rows = field_rows(Path("out"), ["learning_rate=0.1,0.01", "evaluation.sampling.timestep=0,50"], read)
    assert swept == [
        SweptField("training.learning_rate", (0.1, 0.01)), SweptField("evaluation.sampling.timestep", (0, 50)),
    ]  # fmt: skip
    assert [row.name for row in rows] == [
        f"learning_rate={rate}, timestep={timestep}" for rate in (0.1, 0.01) for timestep in (0, 50)
    ]
    assert [row.job.trained_in for row in rows] == [
        Path("out") / f"training,learning_rate={rate}" for rate in (0.1, 0.1, 0.01, 0.01)
    ]
    assert rows[1].job.config.evaluation.sampling.timestep == 50
    training, _ = rows[1].job.own_training
    assert training.training.learning_rate == 0.1
    assert training.evaluation.sampling.timestep == 40
    _, alone = field_rows(Path("out"), ["learning_rate=0.1,0.01"], read)
    assert [row.job.own_training[1].name for row in alone] == ["learning_rate=0.1", "learning_rate=0.01"]
    _, odd = field_rows(Path("out"), ["prompt.init=a photo,empty"], read)
    assert odd[0].job.folder.name.startswith("init=a-photo-")
    assert odd[1].job.folder.name == "init=empty"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "a sweep needs a field"),
        (["seed=1,2", "seed=3"], "seed is swept twice"),
        (["evaluation.limit=1,2"], "limit=2 and limit=1 differ in evaluation.limit: they are not counted by one"),
        (["data.seed=1,2"], "differ in data"),
        (["seed=0:99:1", "evaluation.seed=0:99:1"], "has 10000 rows; it may have 1000"),
        (["training.stepz=1"], "unknown field 'training.stepz'"),
    ],
)
def test_rows_that_make_no_table_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        field_rows(Path("out"), fields, read)


def read_text(changes):
    return load_preset("text", [*SMALL, *changes])


@pytest.mark.parametrize(
    ("fields", "reader", "path"),
    [
        (["learning_rate=0.001,0.5"], read_text, "training.learning_rate"),
        (["training.sampling.timestep=0,50"], read_text, "training.sampling.timestep"),
        (["loss.temperature=0.1,0.2"], read_text, "loss.temperature"),
        (["seed=0,1"], read_text, "seed"),
        (["cache.folder=a,b"], read, "cache.folder"),
        (["cache.limit=1 GB,2 GB"], read, "cache.limit"),
        (["evaluation.matchers=[nearest_neighbor],[soft_argmax]"], read, "evaluation.matchers"),
        (["evaluation.memory=1 GB,2 GB"], read, "evaluation.memory"),
        (["evaluation.bootstrap_samples=10,20"], read_text, "evaluation.bootstrap_samples"),
        (["training.keep_checkpoints=1,2"], read, "training.keep_checkpoints"),
        (["matcher=nearest_neighbor,{kind: nearest_neighbor}"], read_text, "matcher"),
        (["prompt=text,single", "learning_rate=0.1,0.2"], read, "training.learning_rate"),
        (["evaluation.sampling.ensemble_size=1", "evaluation.sampling.ensemble=independent,matched"], read_text,
         "evaluation.sampling.ensemble"),
    ],
)  # fmt: skip
def test_fields_on_which_nothing_depends_are_refused(fields, reader, path):
    with pytest.raises(ConfigError, match=f"would be the same row: nothing that is measured here depends on {path}$"):
        field_rows(Path("out"), fields, reader)


def test_fields_on_which_something_depends_are_swept():
    for fields, reader in (
        (["loss.temperature=0.1,0.2"], read), (["seed=0,1"], read), (["evaluation.seed=0,1"], read_text),
        (["cache.dtype=float32,float16"], read_text), (["evaluation.sampling.ensemble=independent,matched"], read_text),
    ):  # fmt: skip
        assert len(field_rows(Path("out"), fields, reader)[1]) == 2


def test_two_fields_of_one_name_are_told_apart_everywhere():
    fields = ["training.sampling.timestep=0,40", "evaluation.sampling.timestep=0,50", "seed=0,1"]
    swept, rows = field_rows(Path("out"), fields, read)
    assert rows[1].name == "training.sampling.timestep=0, evaluation.sampling.timestep=0, seed=1"
    counts = [PairCount(f"pair-{number}", "cat", 2, (number,), {}) for number in range(3)]
    measured = {row.name: MeasuredScores(PairScores.of(counts, alphas=(0.1,)), 1.0) for row in rows}
    assert list(seed_means(swept, rows, measured)) == [
        f"training.sampling.timestep={training}, evaluation.sampling.timestep={evaluation}"
        for training in (0, 40) for evaluation in (0, 50)
    ]  # fmt: skip
    results = [
        make_row(row.name, measured[row.name].scores, read([]), extra={"swept_values": row.values})
        for row in rows if row.values["seed"] == 0
    ]  # fmt: skip
    values = {field.path: list(field.values) for field in swept[:2]}
    for row in results:
        del row.extra["swept_values"]["seed"]
    report = make_report(
        config=read([]),
        data=FakePairs(pairs=3),
        results=results,
        backbone=None,
        wall_seconds=1,
        extra={"swept": values},
    )
    axes = plot_sweep(report, title="t").axes[0]
    assert axes.get_xlabel() == "training.sampling.timestep"
    names = ["".join(text.get_text().split()) for text in axes.texts]
    assert [name[: len("evaluation.sampling.")] for name in names] == ["evaluation.sampling."] * 2


def test_a_row_says_what_it_was_measured_with(tmp_path):
    _, rows = field_rows(tmp_path, ["num_tokens=3,4", "evaluation.sampling.timestep=0,50"], read)
    first, last = rows[0].job, rows[-1].job
    assert row_record(last, first.config, tmp_path)["prompt_file"] is None
    trained = last.own_training[1] / "prompt.safetensors"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(b"")
    record = row_record(last, first.config, tmp_path)
    assert record["prompt_file"] == "training,num_tokens=4/prompt.safetensors"
    assert set(record["config"]) == {"prompt", "evaluation"}
    rebuilt = type(first.config).model_validate({**first.config.model_dump(mode="json"), **record["config"]})
    assert rebuilt == last.config
    given = Job(last.config, tmp_path / "row", prompt_file=Path("mine.safetensors"))
    assert row_record(given, first.config, tmp_path)["prompt_file"] == str(Path.cwd() / "mine.safetensors")
    fixed = Job(read_text([]), trained.parent)  # an earlier sweep has left a prompt there
    assert row_record(fixed, first.config, tmp_path)["prompt_file"] is None


def test_the_help_of_sweep_names_its_short_form():
    shown = CliRunner().invoke(app, ["sweep", "--help"]).stdout
    assert (
        "Usage: root sweep [OPTIONS] FIELD=VALUES... | COMMAND" in shown or "sweep [OPTIONS] FIELD=VALUES..." in shown
    )


def test_a_given_prompt_is_not_trained_and_its_training_cannot_be_swept(tmp_path):
    for field in ("training.steps=1,2", "seed=0,1", "prompt.num_tokens=3,4"):
        with pytest.raises(ConfigError, match="changes nothing of a prompt that is learned"):
            field_rows(tmp_path, [field], read, prompt=tmp_path / "prompt.safetensors")


@pytest.mark.slow
@pytest.mark.usefixtures("loaded_once")
def test_a_sweep_trains_once_measures_each_row_and_goes_on(tmp_path):
    sets = [part for change in SMALL for part in ("--set", change)]
    words = ["sweep", "evaluation.sampling.timestep=0,50", "--output", str(tmp_path / "s"), *sets]
    result = CliRunner().invoke(app, words)
    assert result.exception is None, result.exception
    assert "The rows differ in evaluation.sampling.timestep" in result.stdout
    report = json.loads((tmp_path / "s" / "report.json").read_text())
    assert [row["prompt"] for row in report["results"]] == ["timestep=0", "timestep=50"]
    assert [(one["a"], one["b"]) for one in report["comparisons"]] == [("timestep=50", "timestep=0")]
    learned = tmp_path / "s" / "training" / "prompt.safetensors"
    assert sorted(path.parent.name for path in (tmp_path / "s").rglob("prompt.safetensors")) == ["training"]
    before = learned.stat().st_mtime_ns
    (tmp_path / "s" / "timestep=50" / "scores.json").unlink()
    again = CliRunner().invoke(app, words)
    assert again.exception is None, again.exception
    assert "Replaced: the report of" in again.stdout
    found = json.loads((tmp_path / "s" / "report.json").read_text())
    assert [row["counts"] for row in found["results"]] == [row["counts"] for row in report["results"]]

    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "sweep.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"sweep\.png exists and is no picture of this command"):
        _raise(CliRunner().invoke(app, [*words[:2], "--output", str(tmp_path / "t"), *sets]))

    kept = sweep_fields(
        tmp_path / "given", ["evaluation.sampling.timestep=0,50"], overrides=SMALL, prompt=learned,
    )  # fmt: skip
    assert [row.scores.to_json() for row in kept.results] == [row["counts"] for row in report["results"]]
    assert not list((tmp_path / "given").rglob("prompt.safetensors"))
    assert learned.stat().st_mtime_ns == before or learned.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("loaded_once")
def test_rows_of_a_report_say_which_of_them_cannot_be_compared(tmp_path):
    fields = ["matcher=kernel_soft_argmax,nearest_neighbor", "evaluation.sampling.ensemble=independent,matched"]
    report = sweep_fields(tmp_path, fields, preset="text", overrides=SMALL)
    own = {row.prompt: row.extra.get("not_comparable_because", []) for row in report.results}
    matched, otherwise = "ours is of matched noises, not of independent ones", "ours was matched otherwise than the"
    for name, reasons in own.items():
        assert (matched in reasons) == ("ensemble=matched" in name)
        assert any(reason.startswith(otherwise) for reason in reasons) == ("nearest_neighbor" in name)
    assert "ours is of mini, not of Stable Diffusion" in report.not_comparable_because
    assert plot_sweep(report, title="two fields").axes
    seeds = sweep_fields(tmp_path / "seeds", ["seed=0,1", "num_tokens=2,3"], overrides=SMALL)
    assert list(seeds.extra["over_seeds"]) == ["num_tokens=2", "num_tokens=3"]
    assert len(seeds.extra["over_seeds"]["num_tokens=2"]["by_seed"]) == 2


def _raise(result):
    if result.exception is not None:
        raise result.exception
