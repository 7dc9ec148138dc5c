from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.prompts import FakePrompt
from sd4match.config.presets import load_preset
from sd4match.config.protocols import EvaluationProtocol, get_protocol
from sd4match.data.collate import make_images
from sd4match.data.subset import Subset, first, of_categories
from sd4match.errors import ConfigError, DatasetError, InputError, PhotoError, SD4MatchError
from sd4match.evaluation.baselines import BASELINES, identity
from sd4match.evaluation.counting import batches_of_process, count_pairs
from sd4match.evaluation.evaluator import Evaluator
from sd4match.evaluation.report import Comparison, Report, make_report, make_row, read_report, write_report
from sd4match.evaluation.run import compare_reports, evaluate_baselines
from sd4match.evaluation.scores import PairCount, PairScores, Skipped, compare, resampling
from sd4match.evaluation.tables import to_markdown
from sd4match.evaluation.visiting import visiting_order
from sd4match.io.cache import DamagedEntryWarning, Store
from sd4match.matching import (
    BilinearNearestNeighbor,
    KernelSoftArgmax,
    NearestNeighbor,
    PixelNearestNeighbor,
    SoftArgmax,
    correlate_maps,
)
from sd4match.structures.tensors import PromptEmbedding, Sampling
from sd4match.testing import FakeBackbone, FakePairs

SD4MATCH = EvaluationProtocol()
MATCHERS = {"nearest": NearestNeighbor()}


def evaluator(backbone=None, **options):
    options = {"protocol": SD4MATCH, "matchers": MATCHERS, **options}
    return Evaluator(backbone=backbone or FakeBackbone(), **{"sampling": Sampling(0), **options})


def scores_of(data, prompt=None, **options):
    return evaluator(**options).evaluate(data, prompt or FakePrompt())["nearest"]


def score(data, predict, protocol=SD4MATCH):
    """Counts of any function from a pair to points."""

    def predictions(records):
        return [{"it": torch.as_tensor(predict(record))} for record in records]

    return count_pairs(data, predictions, protocol, ["it"], batches=batches_of_process(data, 4))["it"]


@pytest.mark.parametrize("scope", ["dataset", "category", "image", "pair"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_scope_and_batching_do_not_change_the_counts(scope, batch_size):
    data = FakePairs(pairs=9)
    expected = scores_of(data, batch_size=2)
    scores = scores_of(data, FakePrompt(scope), batch_size=batch_size)
    assert scores.pair_ids == expected.pair_ids
    assert (scores.correct == expected.correct).all()


def test_a_photo_is_extracted_once_unless_the_prompt_is_of_pairs():
    backbone = FakeBackbone()
    data = FakePairs(pairs=12, photos=4)
    for scope, maps in (("image", 4), ("dataset", 4), ("category", len({s for key in data.keys for s in key.sides}))):
        backbone.encoded = backbone.extracted = 0
        evaluator(backbone).evaluate(data, FakePrompt(scope))
        assert (backbone.encoded, backbone.extracted) == (maps, maps), scope
    backbone.encoded = backbone.extracted = 0
    evaluator(backbone).evaluate(data, FakePrompt("pair"))
    assert (backbone.encoded, backbone.extracted) == (24, 24)


def test_given_maps_count_as_those_that_are_made():
    data, backbone, prompt = FakePairs(pairs=9, photos=5), FakeBackbone(), FakePrompt("image")
    views = {"backbone": backbone.prepare}
    images = {str(photo): make_images([data.photo(str(photo))], [None], views) for photo in range(5)}
    maps = {
        name: backbone.extract(backbone.encode(one.views["backbone"]), prompt(one), Sampling(10))
        for name, one in images.items()
    }
    measured = evaluator(backbone)
    given = measured.count(data, lambda record: (maps[record.source_id], maps[record.target_id]))
    made = measured.evaluate(data, prompt)
    assert {name: scores.to_json() for name, scores in given.items()} == {
        name: scores.to_json() for name, scores in made.items()
    }


def test_maps_are_not_copied_for_matchers():
    """Every matcher sees the map of a photo itself: its memory is that of the extracted batch."""
    seen = []

    def record(correlation):
        seen.append((len(correlation.source), correlation.source.values.data_ptr()))
        return NearestNeighbor()(correlation)

    data = FakePairs(pairs=9, photos=4)
    evaluator(matchers={"a": record, "b": record}).evaluate(data, FakePrompt("image"))
    assert len(seen) == 18
    assert {length for length, _ in seen} == {1}
    assert len({pointer for _, pointer in seen}) == len({key.source_id for key in data.keys})


def flipped(correlation):
    return NearestNeighbor()(replace(correlation, values=correlation.values.flip(-1)))


def rolled(correlation):
    """Matcher that changes the target map and correlates anew."""
    target = replace(correlation.target, values=correlation.target.values.roll(3, -1))
    return NearestNeighbor()(correlate_maps(correlation.source, target, correlation.query_points))


def delegating(correlation):
    target = replace(correlation.target, values=correlation.target.values.flip(-1))
    return PixelNearestNeighbor()(replace(correlation, target=target))


@pytest.mark.parametrize("own", [flipped, rolled, delegating])
def test_a_matcher_that_changes_a_correlation_disturbs_no_other_and_is_not_disturbed(own):
    matchers = {
        "nearest": NearestNeighbor(), "own": own, "soft": SoftArgmax(), "kernel": KernelSoftArgmax(),
        "bilinear": BilinearNearestNeighbor(),
    }  # fmt: skip
    data = FakePairs(pairs=4, photos=3)
    alone = {
        name: evaluator(matchers={name: matcher}).evaluate(data, FakePrompt())[name].to_json()
        for name, matcher in matchers.items()
    }
    names = list(matchers)
    for start in range(len(names)):
        order = names[start:] + names[:start]
        together = evaluator(matchers={name: matchers[name] for name in order}).evaluate(data, FakePrompt())
        assert {name: together[name].to_json() for name in names} == alone
    assert alone["own"]["correct"] != alone["nearest"]["correct"]


def test_little_memory_only_costs_time():
    data = FakePairs(pairs=12, photos=4)
    assert (scores_of(data).correct == scores_of(data, memory=1).correct).all()


def test_pairs_without_points_are_counted_and_left_out():
    whole, holed = FakePairs(pairs=5), FakePairs(pairs=5, invisible_pair=2)
    scores = scores_of(holed)
    assert scores.left_out == 1
    assert "pair-2" not in scores.pair_ids
    assert len(scores) == 4
    assert len(scores_of(first(whole, 3))) == 3


def test_nothing_visible_at_all_has_no_pck():
    scores = scores_of(FakePairs(pairs=1, invisible_pair=0))
    with pytest.raises(InputError, match="no pair has a visible point"):
        scores.pck("image")


def test_truth_scores_one_and_nonsense_zero():
    data = FakePairs(pairs=6)

    def truth(record):
        return record.target_points.astype(np.float32)

    perfect = score(data, truth)
    assert (
        perfect.pck("image")
        == perfect.pck("point")
        == perfect.pck("category")
        == {"0.05": 1.0, "0.1": 1.0, "0.15": 1.0}
    )
    wrong = score(data, lambda record: truth(record) + 1000.0)
    assert set(wrong.pck("image").values()) == {0.0}


def test_baselines_know_no_model():
    data = FakePairs(pairs=40)
    floors = {name: score(data, predict) for name, predict in BASELINES.items()}
    assert 0 < floors["random"].pck("point")["0.15"] < 0.3
    assert (floors["random"].correct == score(data, BASELINES["random"]).correct).all()

    class Still(FakePairs):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            object.__setattr__(record, "target_points", record.source_points)
            return record

    assert score(Still(), identity).pck("image")["0.05"] == 1.0


def test_a_protocol_squashes_and_takes_the_longer_side():
    """A 100 x 400 photo: one pixel down is four across in the square."""
    rule = EvaluationProtocol(side=400, alphas=(0.1,))
    box = (0.0, 0.0, 200.0, 25.0)  # 200 x 100 in the square: 20 allowed
    truth = torch.tensor([[[100.0, 20.0], [100.0, 20.0]]])
    guess = torch.tensor([[[119.9, 20.0], [100.0, 25.1]]])
    correct = rule.correct(guess, truth, torch.ones(1, 2, dtype=torch.bool), photo_sizes=[(100, 400)], boxes=[box])
    assert correct[0, :, 0].tolist() == [True, False]
    outside = torch.tensor([[[450.0, 20.0]]])
    edge = torch.tensor([[[399.0, 20.0]]])
    seen = torch.ones(1, 1, dtype=torch.bool)
    assert rule.correct(edge, outside, seen, photo_sizes=[(100, 400)], boxes=[box]).all()
    with pytest.raises(DatasetError, match="box"):
        rule.correct(guess, truth, torch.ones(1, 2, dtype=torch.bool), photo_sizes=[(100, 400)], boxes=[None])
    with pytest.raises(ConfigError, match="unknown protocol 'sd4mach'; did you mean 'sd4match'"):
        get_protocol("sd4mach")


@st.composite
def pair_counts(draw):
    count = draw(st.integers(2, 12))
    visible = np.array(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)))
    share = np.array(draw(st.lists(st.floats(0, 1), min_size=count, max_size=count)))
    correct = np.floor(visible * share).astype(np.int64)[:, None]
    names = tuple(draw(st.sampled_from(["cat", "dog"])) for _ in range(count))
    return tuple(map(str, range(count))), names, visible, correct, (0.1,)


@given(pair_counts())
def test_averages_equal_their_definitions(counts):
    scores = PairScores(*counts)
    share = scores.correct[:, 0] / scores.visible
    assert scores.pck("image")["0.1"] == pytest.approx(share.mean())
    assert scores.pck("point")["0.1"] == pytest.approx(scores.correct.sum() / scores.visible.sum())
    by_name = [share[[n == name for n in scores.categories]].mean() for name in sorted(set(scores.categories))]
    assert scores.pck("category")["0.1"] == pytest.approx(np.mean(by_name))
    points = {n: (scores.correct[:, 0][[m == n for m in names]].sum() / scores.visible[[m == n for m in names]].sum())
              for names in [scores.categories] for n in set(names)}  # fmt: skip
    weighted = np.mean([points[name] for name in scores.categories])
    assert scores.pck("category_point")["0.1"] == pytest.approx(weighted)
    low, high = scores.intervals(samples=200, seed=0)["image"]["0.1"]
    assert share.min() - 1e-9 <= low <= high <= share.max() + 1e-9


@given(pair_counts())
def test_nothing_differs_from_itself(counts):
    scores = PairScores(*counts)
    same = compare(scores, scores, average="image", alpha=0.1, samples=100, seed=0)
    assert same.difference == 0
    assert same.ci95 == (0.0, 0.0)


def test_bootstrap_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        correct = rng.binomial(6, 0.3, size=(80, 1))
        scores = PairScores(tuple(map(str, range(80))), ("x",) * 80, np.full(80, 6), correct, (0.1,))
        low, high = scores.intervals(samples=300, seed=trial)["image"]["0.1"]
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 198


def test_comparison_refuses_other_pairs_and_unknown_alphas():
    one = PairScores(("a", "b"), ("x", "x"), np.array([1, 1]), np.array([[1], [0]]), (0.1,))
    other = PairScores(("a", "c"), ("x", "x"), np.array([1, 1]), np.array([[1], [0]]), (0.1,))
    with pytest.raises(InputError, match="same pairs"):
        compare(one, other, average="image", alpha=0.1, samples=10, seed=0)
    with pytest.raises(InputError, match=r"alpha 0\.2 was not measured"):
        compare(one, one, average="image", alpha=0.2, samples=10, seed=0)
    drawn = np.concatenate(list(resampling(5, 450, 0)))
    assert drawn.shape == (450, 5)
    assert (drawn.sum(axis=1) == 5).all()


def test_report_holds_what_repeats_the_run(tmp_path):
    config = load_preset("mini-text", ["evaluation.bootstrap_samples=50"])
    data = FakePairs(pairs=5, invisible_pair=1)
    scores = scores_of(data)
    report = make_report(
        config=config,
        data=data,
        results=[make_row("text", scores, config)],
        backbone={"name": "mini", "architecture": "tiny", "fingerprint": "unknown"},
        wall_seconds=1.5,
    )
    write_report(report, tmp_path / "out", title="Title")
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    row = content["results"][0]
    assert (row["prompt"], row["pairs"], row["pairs_without_visible_points"]) == ("text", 4, 1)
    assert set(row["pck"]) == {"image", "point", "category", "category_point"}
    assert set(row["pck"]["image"]) == {"0.05", "0.1", "0.15"}
    assert {"config", "seed", "versions", "wall_seconds", "protocol", "schema_version", "data"} <= set(content)
    assert content["data"]["pairs"] == 5
    assert PairScores.from_json(row["counts"]).pck("point") == scores.pck("point")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f"report.{s}" for s in ("json", "md", "csv", "tex")}
    assert len((tmp_path / "out" / "report.json").read_text().splitlines()) < 400
    page = to_markdown(report, title="Title")
    assert "not numbers of Stable" in page
    (tmp_path / "file").write_text("")
    with pytest.raises(SD4MatchError, match="cannot write the report"):
        write_report(report, tmp_path / "file", title="Title")


# several matchers, maps that are kept, damage


def test_several_matchers_on_the_same_features():
    backbone, data = FakeBackbone(), FakePairs(pairs=6, photos=4)
    matchers = {"nearest": NearestNeighbor(), "kernel": KernelSoftArgmax(), "soft": SoftArgmax()}
    for protocol in (SD4MATCH, get_protocol("dift")):
        backbone.extracted = 0
        together = evaluator(backbone, protocol=protocol, matchers=matchers).evaluate(data, FakePrompt())
        assert backbone.extracted == 4
        assert list(together) == list(matchers)
        for name, matcher in matchers.items():
            alone = evaluator(protocol=protocol, matchers={name: matcher}).evaluate(data, FakePrompt())[name]
            assert alone.pair_ids == together[name].pair_ids
            assert (alone.correct == together[name].correct).all()
    assert together["nearest"].alphas == (0.01, 0.05, 0.1, 0.15)


class Fingerprinted(FakeBackbone):
    def __init__(self):
        super().__init__()
        self.fingerprint = "0.5 0.25"


def test_kept_maps_serve_another_protocol_and_survive_damage(tmp_path):
    data, maps = FakePairs(pairs=8, photos=4), tmp_path / "maps"
    first_run = evaluator(Fingerprinted(), maps=maps).evaluate(data, FakePrompt())["nearest"]
    files = sorted(maps.rglob("*.safetensors"))
    assert len(files) == 4
    backbone = Fingerprinted()
    other = evaluator(backbone, maps=maps, protocol=get_protocol("dift"))
    other.evaluate(data, FakePrompt())
    assert backbone.extracted == 0
    backbone = Fingerprinted()
    with pytest.warns(DamagedEntryWarning, match="it is computed again"):
        evaluator(backbone, maps=maps).evaluate(data, FakePrompt(), progress=lambda *a: damage(files[0], a))
    assert backbone.extracted == 1  # the damaged one
    again = evaluator(Fingerprinted(), maps=maps).evaluate(data, FakePrompt())["nearest"]
    assert (again.correct == first_run.correct).all()
    backbone = FakeBackbone()  # whose weights have no name: its maps are nobody else's
    evaluator(backbone, maps=maps).evaluate(data, FakePrompt())
    assert backbone.extracted == 4


def damage(file, told):
    if told[0] == "photos":
        file.write_bytes(file.read_bytes()[:100])


def test_other_samplings_layers_and_prompts_have_maps_of_their_own(tmp_path):
    data, maps = FakePairs(pairs=4, photos=2), tmp_path / "maps"
    backbone = Fingerprinted()

    class Other(FakePrompt):
        def forward(self, images, partners=None):
            return PromptEmbedding(torch.ones(len(images), 16, 8))

    for prompt, sampling in (
        (FakePrompt(), Sampling(0)),
        (Other(), Sampling(0)),
        (FakePrompt(), Sampling(0, ensemble_size=2)),
    ):
        evaluator(backbone, sampling=sampling, maps=maps).evaluate(data, prompt)
    assert backbone.extracted == 6
    assert len(list(maps.rglob("*.safetensors"))) == 6


def test_other_options_of_a_backbone_have_maps_of_their_own(tmp_path):
    """Two backbones of the same weights and layer whose features differ share no maps."""
    data, maps = FakePairs(pairs=4, photos=2), tmp_path / "maps"
    for changes in ({}, {"options": "clean"}, {"stride": 8}, {}):
        backbone = Fingerprinted()
        backbone.spec = replace(backbone.spec, **changes)
        evaluator(backbone, maps=maps).evaluate(data, FakePrompt())
    assert len(list(maps.rglob("*.safetensors"))) == 6
    assert backbone.extracted == 0


def test_temporary_maps_are_removed_also_after_an_error(tmp_path):
    evaluator(scratch=tmp_path).evaluate(FakePairs(), FakePrompt())
    assert not list(tmp_path.iterdir())
    with pytest.raises(PhotoError):
        evaluator(scratch=tmp_path).evaluate(Damaged(photo="1"), FakePrompt())
    assert not list(tmp_path.iterdir())
    with pytest.raises(SD4MatchError, match=r"cannot make a folder for feature maps in .*none: No such file"):
        evaluator(scratch=tmp_path / "none").evaluate(FakePairs(), FakePrompt())


def test_a_protocol_of_other_photos_is_refused():
    with pytest.raises(ConfigError, match=r"'geoaware' needs photos in the layout .* frame = 'squash'"):
        evaluator(protocol=get_protocol("geoaware"))


# bad data in the middle of a run


class Damaged(FakePairs):
    """One photo, or one annotation, or one photo's size is not what it should be."""

    def __init__(self, *, photo=None, annotation=None, size=None, **options):
        self.bad = (None, None, None)
        super().__init__(**options)
        self.bad = (photo, annotation, size)

    def __getitem__(self, index):
        if index == self.bad[1]:
            raise DatasetError("not a readable annotation: pair-file.json")
        record = super().__getitem__(index)
        if index == self.bad[2]:
            object.__setattr__(record, "target_size", (24, 33))
        return record

    def photo(self, image_id):
        if image_id == self.bad[0]:
            raise PhotoError(f"not a readable image: {image_id}.jpg")
        return super().photo(image_id)


@pytest.mark.parametrize("scope", ["image", "pair"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"photo": "2"}, r"pair pair-\d: not a readable image: 2\.jpg"),
        ({"annotation": 3}, r"pair pair-3: not a readable annotation: pair-file\.json"),
        ({"size": 4}, r"pair pair-4: \d is 32 x 24 pixels, but its annotation says 33 x 24"),
    ],
)
def test_bad_data_stops_the_run_or_is_left_out(scope, bad, message):
    data = Damaged(pairs=10, photos=4, **bad)
    with pytest.raises((PhotoError, DatasetError), match=message):
        evaluator(batch_size=4).evaluate(data, FakePrompt(scope))
    scores = scores_of(data, FakePrompt(scope), batch_size=4, skip_bad=True)
    used = [
        key.pair_id
        for place, key in enumerate(data.keys)
        if place not in bad.values() and bad.get("photo") not in (key.source_id, key.target_id)
    ]
    assert list(scores.pair_ids) == used
    assert len(scores.skipped) == 10 - len(used) > 0
    whole = scores_of(FakePairs(pairs=10, photos=4), FakePrompt(scope), batch_size=4)
    rows = [whole.pair_ids.index(name) for name in used]
    assert (scores.correct == whole.correct[rows]).all()


def test_what_was_left_out_stands_in_the_report(tmp_path):
    config = load_preset("mini-text", ["evaluation.bootstrap_samples=20", "evaluation.skip_bad=true"])
    data = Damaged(pairs=10, photos=4, annotation=3)
    scores = scores_of(data, skip_bad=True)
    report = make_report(
        config=config, data=data, results=[make_row("text", scores, config)], backbone=None, wall_seconds=1
    )
    write_report(report, tmp_path, title="t")
    row = json.loads((tmp_path / "report.json").read_text())["results"][0]
    assert row["pairs_skipped"] == read_report(tmp_path).results[0].pairs_skipped == 1
    assert row["counts"]["skipped"] == [["pair-3", "not a readable annotation: pair-file.json"]]
    assert "## 1 pair was left out: it could not be read" in (tmp_path / "report.md").read_text()


# scores


def test_groups_and_json_form():
    counts = [
        PairCount("a", "cat", 2, (1, 2), {"viewpoint": 0}), PairCount("b", "cat", 4, (0, 4), {"viewpoint": 2}),
        PairCount("c", "dog", 1, (1, 1), {"viewpoint": 0}), PairCount("d", "dog", 0, (0, 0), {"viewpoint": 1}),
        Skipped("e", "gone"),
    ]  # fmt: skip
    scores = PairScores.of(counts, alphas=(0.05, 0.1))
    assert (len(scores), scores.left_out, len(scores.skipped)) == (3, 1, 1)
    assert scores.by_category()["cat"] == {
        "pairs": 2,
        "image": {"0.05": 0.25, "0.1": 1.0},
        "point": {"0.05": 1 / 6, "0.1": 1.0},
    }
    assert scores.by_difficulty()["viewpoint"]["0"]["image"] == {"0.05": 0.75, "0.1": 1.0}
    assert set(scores.by_difficulty()["viewpoint"]) == {"0", "2"}
    back = PairScores.from_json(json.loads(json.dumps(scores.to_json())))
    assert back.to_json() == scores.to_json()
    for broken in ({}, {**scores.to_json(), "visible": [1]}, {**scores.to_json(), "correct": [[1]]}):
        with pytest.raises(InputError, match="counts of pairs are damaged"):
            PairScores.from_json(broken)


@given(pair_counts(), st.integers(1, 9))
def test_image_equals_point_at_equal_numbers_of_points(counts, number):
    ids, names, _, correct, alphas = counts
    visible = np.full(len(ids), 9 + number)
    scores = PairScores(ids, names, visible, correct, alphas)
    assert scores.pck("image")["0.1"] == pytest.approx(scores.pck("point")["0.1"])


# two reports


def a_report(folder, *, protocol="sd4match", pairs=6, shift=0):
    config = load_preset("mini-text", ["evaluation.bootstrap_samples=20", f"evaluation.protocol={protocol}"])
    rng = np.random.default_rng(shift)
    alphas = config.evaluation.protocol.alphas
    counts = [
        PairCount(f"pair-{i}", "cat", 5, tuple(sorted(rng.integers(0, 6, len(alphas)).tolist()))) for i in range(pairs)
    ]
    rows = [make_row(name, PairScores.of(counts, alphas=alphas), config) for name in ("text", "other")]
    report = make_report(config=config, data=FakePairs(pairs=pairs), results=rows, backbone=None, wall_seconds=1)
    write_report(report, folder, title="t")
    return folder


def test_two_reports_are_compared_pair_by_pair(tmp_path):
    one, other = a_report(tmp_path / "a"), a_report(tmp_path / "b", shift=1)
    rows = compare_reports(one, other, samples=50)
    a, b = (read_report(folder).results[0].scores for folder in (one, other))
    by_metric = {row.metric: row for row in rows}
    assert by_metric["image PCK@0.1"].difference == pytest.approx(a.pck("image")["0.1"] - b.pck("image")["0.1"])
    direct = compare(a, b, average="image", alpha=0.1, samples=50, seed=0)
    assert by_metric["image PCK@0.1"].ci95 == direct.ci95
    assert {row.difference for row in compare_reports(one, one / "report.json", row_b="other")} == {0.0}


def test_reports_that_cannot_be_compared_are_refused(tmp_path):
    one = a_report(tmp_path / "a")
    for other, message in (
        (
            a_report(tmp_path / "b", pairs=5),
            "not of the same pairs: 6 and 5, 1 of them only in one, for example pair-5",
        ),
        (a_report(tmp_path / "c", protocol="dift"), "counted by sd4match, .* by dift"),
        (tmp_path / "none", "no such report"),
    ):
        with pytest.raises(InputError, match=message):
            compare_reports(one, other)
    with pytest.raises(InputError, match="has no row 'txet'; it has text, other"):
        compare_reports(one, one, row_a="txet")
    (tmp_path / "old.json").write_text('{"schema_version": 1}')
    with pytest.raises(InputError, match="not a report of schema version 3"):
        read_report(tmp_path / "old.json")


def test_published_numbers_say_whether_they_can_be_compared(tmp_path):
    from sd4match.data.spair import SPairPairs

    published_noises = ["evaluation.sampling={timestep: 50, ensemble_size: 8}"]
    config = load_preset("mini-text", ["evaluation.bootstrap_samples=20", *published_noises])

    class Whole(FakePairs):
        name = "spair"
        published_pairs = SPairPairs.published_pairs | {"test": 6}

    scores = scores_of(Whole(pairs=6))
    fields = {"config": config, "results": [make_row("text", scores, config)], "wall_seconds": 1}
    foreign = {"name": "stable-diffusion-2-1", "architecture": "UNet", "fingerprint": "1"}
    report = make_report(data=Whole(pairs=6), backbone=foreign, **fields)
    comparable = {(row.method, row.trained_on) for row in report.published if row.comparable}
    assert comparable == {
        ("SD4Match-Single", "spair"), ("SD4Match-Class", "spair"), ("SD4Match-CPM", "spair"),
        ("SD4Match-Single", "pf_pascal"), ("SD4Match-CPM", "pf_pascal"),
    }  # fmt: skip
    dift = next(row for row in report.published if row.method == "DIFT")
    assert dift.why_not == "counted by dift, not by sd4match"
    for changes, reason in (
        ({"backbone": {**foreign, "name": "mini"}}, "of mini"),
        ({"data": Subset(Whole(pairs=6), range(6))}, "not of the whole published test split"),
        ({"config": load_preset("mini-text", ["matcher=nearest_neighbor", *published_noises])}, "matched otherwise"),
        ({"config": load_preset("mini-text")}, "ours is of matched noises, not of independent ones"),
    ):
        report = make_report(**{"data": Whole(pairs=6), "backbone": foreign, **fields, **changes})
        assert not any(row.comparable for row in report.published)
        assert reason in report.not_comparable_because[0]
        text = to_markdown(report, title="t")
        assert "None of them can be compared with ours" in text
    assert "Sampling: timestep 40, ensemble size 2, noises matched, posterior image." in text
    assert of_categories(Whole(pairs=6), []).published_pairs["test"] == 6


def test_a_report_comes_back_from_json_and_a_malformed_one_names_the_field(tmp_path):
    report = read_report(a_report(tmp_path / "a"))
    values = json.loads(json.dumps(report.to_json()))
    assert Report.from_json(values).to_json() == values
    comparison = Comparison("a", "b", "image PCK@0.1", 0.5, (0.25, 0.75))
    assert Comparison.from_json(json.loads(json.dumps(comparison.to_json()))) == comparison
    first_row = values["results"][0]
    for changes, message in (
        ({"results": 3}, "results: must be of type list"),
        ({"results": [], "baselines": []}, "at least one row"),
        ({"data": {}}, "data: name: is missing"),
        ({"results": [{**first_row, "pck": {}}]}, r"results\[0\]: pck: image: is missing"),
        ({"results": [{**first_row, "counts": {}}]}, r"results\[0\]: counts of pairs are damaged"),
        ({"comparisons": [{"a": "x"}]}, r"comparisons\[0\]: b: is missing"),
        ({"wall_seconds": "long"}, "wall_seconds: must be a number"),
    ):
        with pytest.raises(InputError, match=message):
            Report.from_json({**values, **changes})


# memory


def written(monkeypatch):
    """Return a list that every key is added to when its map is written."""
    keys = []
    put = Store.put
    monkeypatch.setattr(Store, "put", lambda self, key, *rest: (keys.append(key), put(self, key, *rest)))
    return keys


@pytest.mark.parametrize("scope", ["image", "category"])
def test_only_maps_that_do_not_fit_are_written_and_every_map_is_extracted_once(monkeypatch, scope):
    data, keys = FakePairs(pairs=24, photos=12), written(monkeypatch)
    expected = scores_of(data, FakePrompt(scope)).to_json()
    assert keys == []
    for fitting in (12, 6, 3, 0):
        keys.clear()
        backbone = FakeBackbone()
        map_bytes = 48 * 8 * 8 * 4
        scores = scores_of(data, FakePrompt(scope), backbone=backbone, memory=fitting * map_bytes)
        assert scores.to_json() == expected
        sides = {(name, category if scope == "category" else None) for key in data.keys for name, category in key.sides}
        assert backbone.extracted == len(sides)
        if scope == "image":  # the maps of a photo under two categories have one key here
            assert len(keys) == len(set(keys)) <= len(sides)
            assert (not keys) == (fitting == 12)


def test_half_precision_maps_do_not_depend_on_the_memory():
    data = FakePairs(pairs=20, photos=6)
    for dtype in (torch.float16, torch.bfloat16):
        large, small = (scores_of(data, map_dtype=dtype, memory=memory).to_json() for memory in (1 << 30, 1))
        assert large == small


@pytest.mark.parametrize("scope", ["image", "pair"])
def test_an_evaluation_stops_between_batches(scope, tmp_path):
    answers = iter([False, True])
    stopped = evaluator(batch_size=2, scratch=tmp_path).evaluate(
        FakePairs(pairs=10), FakePrompt(scope), should_stop=lambda: next(answers)
    )
    assert stopped is None
    assert next(answers, None) is None
    assert not list(tmp_path.iterdir())


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=40), st.integers(0, 10))
def test_every_pair_is_visited_once(pairs, capacity):
    assert sorted(visiting_order(pairs, capacity)) == list(range(len(pairs)))
    assert visiting_order(pairs, 9) == list(range(len(pairs)))


def test_an_unknown_baseline_is_named():
    with pytest.raises(ConfigError, match="unknown baseline 'idenity'; did you mean 'identity'"):
        evaluate_baselines(load_preset("text"), FakePairs(), ["idenity"])
