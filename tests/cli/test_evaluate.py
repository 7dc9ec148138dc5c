"""`evaluate`, `compare` and `data check` on data sets in their original layouts."""

from __future__ import annotations

import json

import pytest

from helpers import layouts
from helpers.command_line import sets

FEW = sets("evaluation.bootstrap_samples=50")


@pytest.fixture
def roots(tmp_path):
    """Every data set, by kind."""
    layouts.write_spair(tmp_path / "spair")
    layouts.write_pf_pascal(tmp_path / "pascal")
    layouts.write_pf_willow(tmp_path / "willow")
    layouts.write_ap10k(tmp_path / "ap10k")
    (tmp_path / "mine").mkdir()
    layouts.write_folder(tmp_path / "mine")
    names = {"spair": "spair", "PF-Pascal": "pascal", "pf-willow": "willow", "ap-10k": "ap10k", "folder": "mine"}
    return {kind: tmp_path / name for kind, name in names.items()}


def report_in(folder):
    return json.loads((folder / "report.json").read_text())


def test_baselines_need_no_model_on_any_data_set(run, roots, tmp_path):
    for kind, root in roots.items():
        code, screen, error = run(
            "evaluate", "--dataset", kind, "--root", root, "--baseline", "identity", "--baseline", "random",
            "--output", tmp_path / "out" / kind, *FEW,
        )  # fmt: skip
        assert code == 0, error
        report = report_in(tmp_path / "out" / kind)
        assert report["backbone"] is None
        assert "No model was used" in screen
        assert [row["prompt"] for row in report["results"]] == ["identity", "random"]
        for average in ("image", "point", "category"):
            assert 0 <= report["results"][0]["pck"][average]["0.1"] <= 1
        assert (
            report["results"][0]["pairs"] == report["data"]["pairs"] == len(report["results"][0]["counts"]["pair_ids"])
        )


def test_mini_on_every_data_set_by_every_protocol(run, roots, tmp_path):
    maps = tmp_path / "maps"
    for kind, root in roots.items():
        for protocol in ("sd4match", "dift", "sd-dino", "geoaware") if kind == "spair" else ("dift",):
            out = tmp_path / "out" / f"{kind}-{protocol}"
            code, _, error = run(
                "evaluate", "--dataset", kind, "--root", root, "--preset", "empty", "--protocol", protocol,
                "--maps", maps, "--limit", 3, "--output", out, *FEW,
            )  # fmt: skip
            assert code == 0, error
            report = report_in(out)
            assert report["protocol"] == protocol
            assert report["config"]["evaluation"]["protocol"]["matcher"] == report["config"]["matcher"]
            assert report["results"][0]["pairs"] <= 3
        if kind == "spair":
            assert len(list(maps.rglob("*.safetensors"))) == 3 + 3  # squashed and padded; no protocol made its own


def test_categories_matchers_against_and_comparison(run, roots, tmp_path):
    code, screen, error = run(
        "evaluate", "--dataset", "spair", "--root", roots["spair"], "--category", "cat", "--preset", "text",
        "--against", "empty", "--matcher", "nearest_neighbor", "--output", tmp_path / "a", *FEW,
    )  # fmt: skip
    assert code == 0, error
    report = report_in(tmp_path / "a")
    assert [row["prompt"] for row in report["results"]] == [
        "text", "text + nearest_neighbor", "empty", "empty + nearest_neighbor",
    ]  # fmt: skip
    assert {row["pairs"] for row in report["results"]} == {3}
    assert list(report["results"][0]["by_category"]) == ["cat"]
    assert set(report["results"][0]["by_difficulty"]) == {
        "viewpoint_variation", "scale_variation", "truncation", "occlusion",
    }  # fmt: skip
    assert len(report["comparisons"]) == 3
    assert "Published numbers on spair" in (tmp_path / "a" / "report.md").read_text()
    assert "\\begin{tabular}" in (tmp_path / "a" / "report.tex").read_text()
    lines = (tmp_path / "a" / "report.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 4 * 3
    code, screen, _ = run("compare", tmp_path / "a", tmp_path / "a", "--row-b", "empty", "--samples", 50)
    assert code == 0
    assert "image PCK@0.1" in screen
    code, screen, _ = run("compare", tmp_path / "a", tmp_path / "a", "--json", "--samples", 50)
    assert {row["difference"] for row in json.loads(screen)} == {0.0}


def test_bad_data_stops_with_one_line_or_is_left_out(run, roots, tmp_path):
    photo = roots["spair"] / "SPair-71k/JPEGImages/cat/2008_000002.jpg"
    photo.write_bytes(photo.read_bytes()[:200])
    command = [
        "evaluate",
        "--dataset",
        "spair",
        "--root",
        roots["spair"],
        "--preset",
        "empty",
        "--output",
        tmp_path / "a",
    ]
    code, _, error = run(*command, *FEW)
    assert code == 2
    line = error.strip().splitlines()[-1]
    assert line.startswith("sd4match: error: pair 000000-2008_000001-2008_000002:cat: not a readable image")
    assert "2008_000002.jpg" in line
    assert not (tmp_path / "a" / "report.json").exists()
    code, _, error = run(*command, "--skip-bad", *FEW)
    assert code == 0
    assert "2 pairs were left out" in error
    assert report_in(tmp_path / "a")["results"][0]["pairs_skipped"] == 2


def test_mistakes_are_one_line_exit_2_and_nothing_written(run, roots, tmp_path):
    out, spair = tmp_path / "out", ["--dataset", "spair", "--root", roots["spair"]]
    (tmp_path / "file").write_text("")
    mistakes = {
        ("--dataset", "spare", "--root", tmp_path): "did you mean 'spair'",
        ("--dataset", "spair"): "--dataset spair needs --root FOLDER",
        ("--root", tmp_path): "--root goes with --dataset",
        ("--dataset", "spair", "--root", tmp_path / "none"): "no such folder",
        ("--dataset", "pf-willow", "--root", roots["spair"]): "not the root of PF-Willow",
        ("--dataset", "pf-willow", "--root", roots["pf-willow"], "--split", "train"): "a test split only",
        (*spair, "--category", "dgo"): "no category 'dgo'",
        (*spair, "--protocol", "dfit"): "did you mean 'dift'",
        (*spair, "--baseline", "zero"): "unknown baseline 'zero'",
        (*spair, "--matcher", "nearest"): "did you mean 'nearest_neighbor'",
        (*spair, "--protocol", "geoaware", *sets("backbone.frame=squash")): "set backbone.frame=pad",
        (*spair, *sets("evaluation.protocol.alphas=[]")): "alphas",
    }
    for arguments, message in mistakes.items():
        code, _, error = run("evaluate", *arguments, "--output", out)
        assert code == 2, arguments
        assert message in error, (arguments, error)
        assert error.count("\n") == 1, error
        assert not out.exists(), arguments
    code, _, error = run("evaluate", *spair, "--output", tmp_path / "file" / "below")
    assert (code, "cannot be made" in error) == (2, True)
    code, _, error = run("compare", tmp_path / "nothing", tmp_path / "nothing")
    assert (code, "no such report: " in error) == (2, True)
    assert not (tmp_path / "ap10k" / "sd4match-pairs").exists()


# data check


def test_check_tells_every_problem_in_a_line(run, roots):
    base = roots["spair"] / "SPair-71k"
    (base / "JPEGImages/cat/2008_000001.jpg").write_bytes(b"no picture")
    (base / "JPEGImages/tvmonitor/img-5.jpg").unlink()
    name, content = layouts.spair_pair(1, "cat", 1, 2, src_kps=[[5, 5], [400, 2], [1, 1]], trg_imsize=[9, 9, 3])
    (base / "PairAnnotation/test" / f"{name}.json").write_text(json.dumps(content))
    (base / "PairAnnotation/test" / f"{layouts.spair_pair(2, 'cat', 2, 0)[0]}.json").write_text("{")
    code, screen, error = run("data", "check", "spair", roots["spair"], "--split", "test")
    assert code == 1
    lines = screen.splitlines()
    for part in (
        "test: 5 pairs; 12234 were published",
        "not a readable image: ",
        "no such photo: ",
        "point 400,2 is outside cat/2008_000002.jpg, which is 30 x 70",
        "cat/2009_000003.jpg is 50 x 50 pixels, its annotation says 9 x 9",
        "not a readable annotation: ",
    ):
        assert len([line for line in lines if part in line]) == 1, (part, lines)
    assert "problems in test" in error


def test_check_of_each_kind(run, roots):
    for kind, root in roots.items():
        code, screen, _ = run("data", "check", kind, root)
        if kind == "folder":
            assert (code, screen) == (0, "")
        else:
            assert code == 1
    code, screen, _ = run("data", "check", "pf-pascal", roots["PF-Pascal"])
    notes = [line for line in screen.splitlines() if "NaN" in line]
    assert notes
    assert all(line.startswith("note: ") for line in notes)
    assert "train: 3 pairs; 2940 were published" in screen
    code, screen, _ = run("data", "check", "pf-willow", roots["pf-willow"])
    assert screen.splitlines() == ["test: 14 pairs; 900 were published"]
    code, _, error = run("data", "check", "spair", roots["spair"] / "none")
    assert code == 1
    code, _, error = run("data", "check", "sparrow", roots["spair"])
    assert (code, "did you mean" in error) == (2, True)
    code, _, error = run("data", "check", "spair", roots["spair"], "--split", "exam")
    assert (code, "train, validation or test" in error) == (2, True)
