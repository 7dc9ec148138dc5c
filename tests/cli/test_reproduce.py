"""`sd4match reproduce`: what it lists, and one line for what it refuses."""

from __future__ import annotations

import pytest


def test_it_lists_what_can_be_reproduced(run):
    code, out, _ = run("reproduce", "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "table1", "table2", "table3", "table4", "fig3a", "fig3b", "fig4", "fig6", "image-size",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name what to reproduce: table1, "),
        (("table7",), "unknown target 'table7'; did you mean"),
        (("table1", "--on", "sd7"), "no model and no folder 'sd7'"),
        (("all", "--on", "sd2-1"), "give --dataset spair --root FOLDER"),
        (("table1", "--dataset", "spair"), "each --dataset KIND needs its --root FOLDER: there are 1 and 0"),
        (("table3", "--dataset", "spair", "--root", "x"), "table3 needs pf_pascal and pf_willow too"),
        (("table1", "--seeds", "0,a"), "--seeds are whole numbers such as 0,1,2, not '0,a'"),
        (("table1", "--set", "training.stepz=1"), "unknown field 'training.stepz'"),
    ],
)
def test_what_cannot_be_reproduced_is_one_line_and_nothing_is_written(run, tmp_path, words, message):
    code, _, error = run("reproduce", *words, "--output", tmp_path / "out")
    assert (code, error.count("\n")) == (2, 1), error
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_run_is_refused(run, tmp_path):
    (tmp_path / "report.json").write_text("{}")
    code, _, error = run("reproduce", "table1", "--output", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert "holds another kind of run: choose another folder" in error
    code, _, error = run("sweep", "nonsense", "--output", tmp_path)
    assert "a swept field is FIELD=a,b,c or FIELD=start:stop:step" in error
